/**
 * One SMTP or LMTP session (RFC 5321, 2033): reads commands and content from a socket, keeps the state that decides which command may
 * come next, batches replies (RFC 2920), watches the clock. What the commands do is in `verbs/`; whether a message is wanted is the
 * handler's to say.
 */
import { type Clock, type Logger, type Random, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import type { Principal } from '../../sasl/contract.js';
import type { ScramSettings } from '../../sasl/index.js';
import { decodeLine, splitCommand } from '../grammar/command.js';
import { formatReply, type Reply, reply } from '../grammar/reply.js';
import { Channel } from './channel.js';
import { type ContentConsumer, localError, type RejectStage, type RunOptions, type SessionCore, type Transfer } from './core.js';
import { Deadlines } from './deadlines.js';
import type { MailCommand, RecipientCommand, SmtpConnection, SmtpHandler, SmtpMode, TlsInfo } from './handler.js';
import { defaultSmtpLimits, type SmtpLimits } from './limits.js';
import { messagesTotal, rejectsTotal, sessionsTotal } from './metrics.js';
import { verbs } from './verbs/index.js';

export interface SmtpSessionOptions {
  connection: SmtpConnection;
  mode: SmtpMode;
  handler: SmtpHandler;
  /** Our name in greeting and EHLO. */
  hostname: string;
  /** The product in the greeting. */
  serverName?: string;
  logger: Logger;
  limits?: Partial<SmtpLimits>;
  clock?: Clock;
  random?: Random;
  /** Makes SCRAM-SHA-256 available where AUTH is. */
  scram?: ScramSettings;
}

const CR = 13;
const LF = 10;
/** First octet of a TLS record that carries a ClientHello. */
const TLS_HANDSHAKE = 0x16;

const draining = reply(421, '4.3.2', 'This server is going down for a moment, please try again');

export class SmtpSession implements SessionCore {
  // The connection.
  readonly id: string;
  readonly mode: SmtpMode;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string | undefined;
  readonly localPort: number;
  readonly connection: SmtpConnection;
  secure: boolean;
  tls: TlsInfo | undefined;

  // The session.
  readonly handler: SmtpHandler;
  readonly limits: SmtpLimits;
  readonly clock: Clock;
  readonly random: Random;
  readonly hostname: string;
  readonly scram: ScramSettings | undefined;
  readonly startedAtMs: number;
  greetingName = '';
  extended = false;
  principal: Principal | undefined;
  messageCount = 0;
  transactionCount = 0;
  authFailureCount = 0;
  local: unknown = undefined;

  // The transaction.
  mail: MailCommand | undefined;
  recipients: RecipientCommand[] = [];
  recipientAttempts = 0;
  transfer: Transfer | undefined;

  content: ContentConsumer | undefined;
  lineTaker: ((line: Buffer) => void) | undefined;

  readonly #channel: Channel;
  #deadlines: Deadlines | undefined;
  readonly #rootLogger: Logger;
  readonly #serverName: string;
  #logger: Logger | undefined;
  /** A handler, a sink or a handshake is at work: no input is taken. */
  #busy = false;
  #pumping = false;
  #overlong = false;
  #greeted = false;
  #drainWanted = false;
  #errorCount = 0;
  readonly #whenClosed: (() => void)[] = [];

  constructor(options: SmtpSessionOptions) {
    const { connection } = options;
    this.connection = connection;
    this.mode = options.mode;
    this.handler = options.handler;
    this.hostname = options.hostname;
    this.scram = options.scram;
    this.clock = options.clock ?? systemClock;
    this.random = options.random ?? systemRandom;
    this.limits = { ...defaultSmtpLimits, ...options.limits };
    this.remoteAddress = connection.remoteAddress;
    this.remotePort = connection.remotePort;
    this.localAddress = connection.localAddress;
    this.localPort = connection.localPort;
    this.secure = connection.secure;
    this.tls = connection.tls;
    this.id = this.random.bytes(8).toString('hex');
    this.startedAtMs = this.clock.nowMs();
    this.#serverName = options.serverName ?? 'Starling';
    this.#rootLogger = options.logger;
    this.#channel = new Channel(connection.socket, this.clock, this.limits, {
      onProgress: (received) => this.#onProgress(received),
      onError: (error) => this.logger.debug({ err: error }, 'the SMTP connection broke'),
      onClosed: () => this.#onClosed(),
    });
  }

  /** Made when first needed: most sessions log nothing themselves. */
  get logger(): Logger {
    this.#logger ??= this.#rootLogger.child({ room: 'smtp', session: this.id, remote: this.remoteAddress });
    return this.#logger;
  }

  /** True once the socket is gone or only waits for its last reply to leave. */
  get isClosing(): boolean {
    return this.#channel.closing || this.#channel.closed;
  }

  /** Begins the session: listens and greets. Call once. */
  start() {
    sessionsTotal.inc({ mode: this.mode });
    const waitingFor = () => (this.#busy ? 'us' : this.content ? 'content' : 'command');
    this.#deadlines = new Deadlines(this.clock, this.limits, waitingFor, () => this.#onExpired());
    this.#channel.start();
    const { greetingDelayMs } = this.limits;
    if (greetingDelayMs > 0) this.clock.setTimer(greetingDelayMs, () => this.#greet(), { background: true });
    else this.#greet();
  }

  /** Lets a message that is on its way in finish, answers 421 4.3.2 then (or at once when there is none) and closes. Resolves when closed. */
  drain(): Promise<void> {
    this.#drainWanted = true;
    this.#maybeDrain();
    return this.closed();
  }

  /** Resolves when the connection is gone. */
  closed(): Promise<void> {
    return this.#channel.closed ? Promise.resolve() : new Promise((resolve) => this.#whenClosed.push(resolve));
  }

  /** Ends the session now with a 421, whatever is running; a running message is not acknowledged. */
  stop() {
    if (this.#channel.closed) return;
    this.replyAndClose(draining);
    // Closes when the reply has left, or the client has had its time to take it.
    this.#channel.flush();
  }

  // ---- replies ----

  send(answer: Reply) {
    if (this.isClosing) return;
    this.#channel.queue(formatReply(answer));
    if (answer.code === 421 || answer.close) this.#beginClosing();
  }

  protocolError(stage: RejectStage, answer: Reply) {
    this.refuse(stage, answer);
    if (++this.#errorCount >= this.limits.maxErrors) this.replyAndClose(reply(421, '4.7.0', 'Too many errors'));
  }

  refuse(stage: RejectStage, answer: Reply) {
    rejectsTotal.inc({ mode: this.mode, stage, code: String(answer.code) });
    this.send(answer);
  }

  replyAndClose(answer: Reply) {
    this.send(answer);
    if (!this.isClosing) this.#beginClosing();
  }

  #beginClosing() {
    this.#deadlines?.stop();
    this.#loseTransfer();
    this.#channel.beginClosing();
  }

  // ---- work that may wait ----

  run<T>(what: string, call: () => T | PromiseLike<T>, done: (value: T) => void, options: RunOptions<T> = {}): void {
    let value: T | PromiseLike<T>;
    try {
      value = call();
    } catch (error) {
      this.#callFailed(what, error, options.failed);
      return;
    }
    if (!isPromise(value)) {
      done(value);
      return;
    }
    this.#busy = true;
    value.then(
      (settled) => this.#settled(() => (this.#channel.closed ? options.orphaned?.(settled) : done(settled))),
      (error: unknown) => this.#settled(() => this.#callFailed(what, error, options.failed)),
    );
  }

  /** Our own work is done: the session goes on. */
  #settled(next: () => void) {
    this.#busy = false;
    this.#deadlines?.touch();
    this.#guarded(next);
    this.#maybeDrain();
    this.#pump();
  }

  #callFailed(what: string, error: unknown, failed: (() => void) | undefined) {
    this.logger.error({ err: error, call: what }, 'an SMTP handler failed');
    if (this.#channel.closed) return;
    if (failed) failed();
    else this.refuse('command', localError);
  }

  /** Errors of our own must end this session only, never the process. */
  #guarded(work: () => void) {
    try {
      work();
    } catch (error) {
      this.logger.error({ err: error }, 'an SMTP session failed');
      this.#busy = false;
      this.replyAndClose(reply(421, '4.3.0', 'A local error, closing'));
    }
  }

  // ---- the transaction ----

  endTransaction(finished: boolean) {
    const open = this.mail !== undefined;
    this.transfer?.abandon('the transaction was reset');
    this.transfer = undefined;
    this.#deadlines?.messageEnds();
    this.mail = undefined;
    if (this.recipients.length > 0) this.recipients = [];
    this.recipientAttempts = 0;
    if (open && !finished) this.#guarded(() => this.handler.reset?.(this));
  }

  markBodyStart() {
    this.#deadlines?.messageBegins();
  }

  afterTransaction() {
    this.#maybeDrain();
  }

  /**
   * With a drain wanted: the moment no message is on its way in and no answer is owed, it is over. An envelope without its message is not waited for:
   * its DATA would be refused, and a client that sleeps there would use up the drain's time.
   */
  #maybeDrain() {
    if (!this.#drainWanted || this.#busy || this.isClosing || !this.#greeted) return;
    if (this.transfer === undefined && this.content === undefined) this.send(draining);
  }

  /** A body that will not come to its end frees its sink now. */
  #loseTransfer() {
    if (this.transfer?.abandon('the connection was lost')) messagesTotal.inc({ mode: this.mode, result: 'lost' });
    this.transfer = undefined;
  }

  // ---- STARTTLS ----

  upgrade(startTls: NonNullable<SmtpConnection['startTls']>) {
    this.#busy = true;
    this.#channel
      // The implementation may throw synchronously: hence the async function.
      .replaceSocket(async () => startTls.call(this.connection), this.limits.tlsHandshakeTimeoutMs)
      .then(
        ({ tls }) => {
          this.secure = true;
          this.tls = tls;
          this.#settled(() => undefined);
        },
        (error: unknown) => {
          this.logger.info({ err: error }, 'TLS handshake failed');
          rejectsTotal.inc({ mode: this.mode, stage: 'starttls', code: '0' });
        },
      );
  }

  // ---- what the channel tells ----

  #onProgress(received: Buffer | undefined) {
    if (received && !this.#greeted && !this.isClosing) return this.#onEarlyTalk(received);
    if (received && this.content) this.#deadlines?.touch();
    this.#pump();
  }

  #onClosed() {
    this.#deadlines?.stop();
    this.#loseTransfer();
    try {
      this.handler.closed?.(this);
    } catch (error) {
      this.logger.error({ err: error }, 'an SMTP handler failed');
    }
    for (const resolve of this.#whenClosed.splice(0)) resolve();
  }

  #onExpired() {
    if (this.isClosing) return;
    const what = this.content ? 'The message did not arrive in time' : 'No command arrived in time';
    this.refuse(this.content ? 'data' : 'command', reply(421, '4.4.2', what));
  }

  // ---- greeting ----

  #greet() {
    if (this.isClosing) return;
    this.run(
      'greet',
      () => this.handler.greet?.(this),
      (answer) => {
        if (this.isClosing) return;
        this.#greeted = true;
        if (answer && answer.code >= 400) this.refuse('connect', { ...answer, close: true });
        else if (this.#drainWanted) this.send(draining);
        else {
          const protocol = this.mode === 'lmtp' ? 'LMTP' : 'ESMTP';
          this.send({ code: 220, text: answer ? answer.text : `${this.hostname} ${protocol} ${this.#serverName}` });
        }
        this.#pump();
      },
      {
        failed: () => {
          this.#greeted = true;
          this.refuse('connect', reply(421, '4.3.0', 'A local error, please try again later'));
        },
      },
    );
  }

  /** RFC 5321 3.1: the client waits for the greeting. Who does not is a bot, or speaks TLS or HTTP. */
  #onEarlyTalk(chunk: Buffer) {
    this.#greeted = true;
    if (chunk[0] === TLS_HANDSHAKE && !this.secure) this.#refuseTls();
    else this.refuse('connect', reply(554, '5.5.1', 'You spoke before the greeting', true));
  }

  #refuseTls() {
    this.refuse(
      'connect',
      reply(500, '5.5.2', 'This port begins in plain text: use STARTTLS, or the port for implicit TLS', true),
    );
  }

  // ---- input ----

  /** Works off input as long as there is some and nobody has to be waited for; then writes the replies of all of it at once. */
  #pump() {
    if (this.#pumping || !this.#greeted) return;
    const channel = this.#channel;
    this.#pumping = true;
    this.#guarded(() => {
      while (channel.hasInput && !this.#busy && !channel.blocked && !channel.closing && !channel.closed) {
        if (this.content) channel.at = this.content.consume(channel.input, channel.at);
        else if (!this.#takeLine()) break;
      }
    });
    this.#pumping = false;
    if (this.#busy && !channel.closing) {
      channel.flushSoon();
      return;
    }
    channel.flush();
    if (channel.closed) return;
    channel.resume();
    channel.endIfDone();
  }

  /** One line, if there is a whole one. */
  #takeLine(): boolean {
    const channel = this.#channel;
    const { input, at: start } = channel;
    if (input[start] === TLS_HANDSHAKE && !this.secure && !this.lineTaker) {
      this.#refuseTls();
      return false;
    }
    const lf = input.indexOf(LF, start);
    if (lf < 0) {
      if (input.length - start > this.limits.maxAuthLineBytes) {
        this.#overlong = true;
        channel.dropInput();
      }
      return false;
    }
    channel.at = lf + 1;
    this.#deadlines?.touch();
    const problem = this.#lineProblem(input, start, lf);
    if (problem) {
      this.lineTaker = undefined;
      this.protocolError('command', reply(500, '5.5.2', problem));
      return true;
    }
    const line = input.subarray(start, lf > start && input[lf - 1] === CR ? lf - 1 : lf);
    if (this.lineTaker) this.lineTaker(line);
    else this.#command(line);
    this.#maybeDrain();
    return true;
  }

  /** What is wrong with the line in [start, lf]; undefined when nothing is. */
  #lineProblem(input: Buffer, start: number, lf: number): string | undefined {
    const { maxAuthLineBytes, maxCommandBytes, bareLineEnds } = this.limits;
    const maxBytes = this.lineTaker || isAuthLine(input, start) ? maxAuthLineBytes : maxCommandBytes;
    if (this.#overlong || lf + 1 - start > maxBytes) {
      this.#overlong = false;
      return 'The line is too long';
    }
    const bare = lf === start || input[lf - 1] !== CR;
    return bare && bareLineEnds === 'refuse' ? 'Lines end with CR LF' : undefined;
  }

  #command(line: Buffer) {
    const text = decodeLine(line);
    if (text === undefined) {
      this.protocolError('command', reply(500, '5.5.2', 'The line is not UTF-8, or has control characters in it'));
      return;
    }
    const { verb, argument } = splitCommand(text);
    const run = verbs.get(verb);
    if (run) run(this, argument, verb);
    else if (isHttp(text)) this.refuse('command', reply(554, '5.5.1', 'This is a mail server', true));
    else this.protocolError('command', reply(500, '5.5.1', 'Command not recognised'));
  }
}

function isPromise<T>(value: T | PromiseLike<T>): value is PromiseLike<T> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}

function isAuthLine(input: Buffer, start: number): boolean {
  const first = input[start];
  return (first === 0x41 || first === 0x61) && input.toString('latin1', start, start + 5).toUpperCase() === 'AUTH ';
}

/** A browser made to post to a mail port must not get a second line in. */
function isHttp(line: string): boolean {
  return /^(?:(?:GET|POST|PUT|HEAD|OPTIONS|CONNECT|PATCH|DELETE) \S+ HTTP\/|Host:)/i.test(line);
}
