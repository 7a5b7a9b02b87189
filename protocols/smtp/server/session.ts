/**
 * One SMTP or LMTP session (RFC 5321, 2033): reads commands and content from a socket, keeps the state that decides which command may
 * come next, batches replies (RFC 2920), watches the clock. What the commands do is in `verbs/`; whether a message is wanted is the
 * handler's to say.
 */
import type { Duplex } from 'node:stream';
import { type Clock, type Logger, type Random, systemClock, systemRandom, type Timer } from '../../../ops/telemetry/index.js';
import type { Principal } from '../../sasl/contract.js';
import type { ScramSettings } from '../../sasl/index.js';
import { decodeLine, splitCommand } from '../grammar/command.js';
import { formatReply, type Reply, reply } from '../grammar/reply.js';
import { type ContentConsumer, localError, type RejectStage, type RunOptions, type SessionCore, type Transfer } from './core.js';
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
const nothing: Buffer = Buffer.alloc(0);

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

  #socket: Duplex;
  readonly #rootLogger: Logger;
  readonly #serverName: string;
  #logger: Logger | undefined;
  #input: Buffer = nothing;
  #at = 0;
  #inputEnded = false;
  #paused = false;
  #overlong = false;
  #out = '';
  #unread = false;
  #flushScheduled = false;
  #busy = false;
  #pumping = false;
  #greeted = false;
  #closing = false;
  #closed = false;
  #drainWanted = false;
  #errorCount = 0;
  #timer: Timer | undefined;
  #idleSinceMs: number;
  #messageSinceMs: number | undefined;
  readonly #startedMonotonicMs: number;
  #whenClosed: (() => void)[] = [];

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
    this.#startedMonotonicMs = this.#idleSinceMs = this.clock.monotonicMs();
    this.#serverName = options.serverName ?? 'Starling';
    this.#rootLogger = options.logger;
    this.#socket = connection.socket;
  }

  /** Made when first needed: most sessions log nothing themselves. */
  get logger(): Logger {
    this.#logger ??= this.#rootLogger.child({ room: 'smtp', session: this.id, remote: this.remoteAddress });
    return this.#logger;
  }

  /** True once the socket is gone or only waits for its last reply to leave. */
  get isClosing(): boolean {
    return this.#closing || this.#closed;
  }

  /** Begins the session: listens and greets. Call once. */
  start() {
    sessionsTotal.inc({ mode: this.mode });
    this.#attach(this.#socket);
    this.#armTimer();
    if (this.limits.greetingDelayMs > 0)
      this.clock.setTimer(this.limits.greetingDelayMs, () => this.#greet(), { background: true });
    else this.#greet();
  }

  /** Lets a running transaction finish, answers 421 4.3.2 then (or at once when there is none) and closes. Resolves when closed. */
  drain(): Promise<void> {
    this.#drainWanted = true;
    this.#maybeDrain();
    if (!this.#busy || this.#closing) this.flush();
    return this.closed();
  }

  /** Resolves when the connection is gone. */
  closed(): Promise<void> {
    return this.#closed ? Promise.resolve() : new Promise((resolve) => this.#whenClosed.push(resolve));
  }

  /** Ends the session now with a 421, whatever is running; a running message is not acknowledged. */
  stop() {
    if (this.#closed) return;
    if (!this.#closing) this.replyAndClose(draining);
    this.flush();
    this.#socket.destroy();
  }

  // ---- replies ----

  send(answer: Reply) {
    if (this.#closing || this.#closed) return;
    this.#out += formatReply(answer);
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
    if (!this.#closing) this.#beginClosing();
  }

  /** Writes what is queued, in one piece. */
  flush() {
    if (this.#out === '' || this.#closed || this.#socket.destroyed || this.#socket.writableEnded) return;
    const out = this.#out;
    this.#out = '';
    this.#socket.write(out);
    if (this.#closing) this.#socket.end();
    else if (this.#socket.writableLength > this.limits.maxUnreadReplyBytes) this.#waitForReader();
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
      (settled) => {
        this.#busy = false;
        this.#idleSinceMs = this.clock.monotonicMs();
        if (this.#closed) return options.orphaned?.(settled);
        this.#guarded(() => done(settled));
        this.#maybeDrain();
        this.#pump();
      },
      (error: unknown) => {
        this.#busy = false;
        this.#idleSinceMs = this.clock.monotonicMs();
        this.#callFailed(what, error, options.failed);
        this.#pump();
      },
    );
  }

  #callFailed(what: string, error: unknown, failed: (() => void) | undefined) {
    this.logger.error({ err: error, call: what }, 'an SMTP handler failed');
    if (this.#closed) return;
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
    this.#messageSinceMs = undefined;
    this.mail = undefined;
    if (this.recipients.length > 0) this.recipients = [];
    this.recipientAttempts = 0;
    if (open && !finished) this.#guarded(() => this.handler.reset?.(this));
  }

  markBodyStart() {
    this.#messageSinceMs ??= this.clock.monotonicMs();
  }

  // ---- STARTTLS ----

  upgrade(startTls: NonNullable<SmtpConnection['startTls']>) {
    this.flush();
    this.#busy = true;
    const plain = this.#socket;
    this.#detach(plain);
    this.#input = nothing;
    this.#at = 0;
    const timer = this.clock.setTimer(this.limits.tlsHandshakeTimeoutMs, () => plain.destroy(), { background: true });
    const lost = () => this.#onClose();
    plain.once('close', lost);
    // The implementation may throw synchronously.
    new Promise<{ socket: Duplex; tls: TlsInfo }>((resolve) => resolve(startTls.call(this.connection))).then(
      (secured) => {
        timer.cancel();
        plain.removeListener('close', lost);
        if (this.#closed) return void secured.socket.destroy();
        this.#busy = false;
        this.secure = true;
        this.tls = secured.tls;
        this.#socket = secured.socket;
        this.#idleSinceMs = this.clock.monotonicMs();
        this.#attach(secured.socket);
        if (secured.socket.destroyed) this.#onClose();
        else this.#maybeDrain();
      },
      (error: unknown) => {
        timer.cancel();
        this.logger.info({ err: error }, 'TLS handshake failed');
        rejectsTotal.inc({ mode: this.mode, stage: 'starttls', code: '0' });
        plain.destroy();
        this.#onClose();
      },
    );
  }

  // ---- the socket ----

  readonly #onData = (chunk: Buffer) => {
    if (this.#closing || this.#closed) return;
    if (!this.#greeted) return this.#onEarlyTalk(chunk);
    if (this.#at < this.#input.length) this.#input = Buffer.concat([this.#input.subarray(this.#at), chunk]);
    else this.#input = chunk;
    this.#at = 0;
    if (this.content) this.#idleSinceMs = this.clock.monotonicMs();
    this.#pump();
    if (!this.#paused && this.#input.length - this.#at > this.limits.maxPendingInputBytes) {
      this.#paused = true;
      this.#socket.pause();
    }
  };

  readonly #onEnd = () => {
    this.#inputEnded = true;
    this.#pump();
  };

  readonly #onError = (error: Error) => {
    this.logger.debug({ err: error }, 'the SMTP connection broke');
  };

  readonly #onClose = () => {
    if (this.#closed) return;
    this.#closed = true;
    this.#timer?.cancel();
    this.#loseTransfer();
    this.#input = nothing;
    this.#at = 0;
    this.#out = '';
    try {
      this.handler.closed?.(this);
    } catch (error) {
      this.logger.error({ err: error }, 'an SMTP handler failed');
    }
    for (const resolve of this.#whenClosed.splice(0)) resolve();
  };

  /** A body that will not come to its end frees its sink now. */
  #loseTransfer() {
    if (this.transfer?.abandon('the connection was lost')) messagesTotal.inc({ mode: this.mode, result: 'lost' });
    this.transfer = undefined;
  }

  #attach(socket: Duplex) {
    socket.on('error', this.#onError);
    socket.on('close', this.#onClose);
    socket.on('end', this.#onEnd);
    socket.on('data', this.#onData);
  }

  #detach(socket: Duplex) {
    socket.pause();
    socket.removeListener('data', this.#onData);
    socket.removeListener('end', this.#onEnd);
    // The error listener stays: an error nobody hears ends the process.
    socket.removeListener('close', this.#onClose);
  }

  #waitForReader() {
    if (this.#unread) return;
    this.#unread = true;
    this.#socket.once('drain', () => {
      this.#unread = false;
      this.#pump();
    });
  }

  #beginClosing() {
    this.#closing = true;
    this.#loseTransfer();
    this.#input = nothing;
    this.#at = 0;
    this.#timer?.cancel();
    this.#timer = this.clock.setTimer(this.limits.lingerMs, () => this.#socket.destroy(), { background: true });
    // What still comes is read and dropped: unread input would turn our close into a reset that may overtake the last reply.
    if (this.#paused) {
      this.#paused = false;
      this.#socket.resume();
    }
    if (!this.#pumping && !this.#busy) queueMicrotask(() => this.flush());
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
          this.flush();
        },
      },
    );
  }

  /** RFC 5321 3.1: the client waits for the greeting. Who does not is a bot, or speaks TLS or HTTP. */
  #onEarlyTalk(chunk: Buffer) {
    this.#greeted = true;
    if (chunk[0] === TLS_HANDSHAKE && !this.secure) this.#refuseTls();
    else this.refuse('connect', reply(554, '5.5.1', 'You spoke before the greeting', true));
    this.flush();
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
    this.#pumping = true;
    this.#guarded(() => {
      while (!this.#busy && !this.#closing && !this.#closed && !this.#unread && this.#at < this.#input.length) {
        if (this.content) this.#at = this.content.consume(this.#input, this.#at);
        else if (!this.#takeLine()) break;
        if (this.#out.length > 16_384) this.flush();
      }
    });
    this.#pumping = false;
    if (this.#busy && !this.#closing) {
      this.#flushSoon();
      return;
    }
    this.flush();
    if (this.#closed) return;
    if (this.#paused && !this.#unread && this.#input.length - this.#at <= this.limits.maxPendingInputBytes) {
      this.#paused = false;
      this.#socket.resume();
    }
    // A half-closed client has got all its replies; what it left unfinished will not come.
    if (this.#inputEnded && !this.#unread && !this.#socket.writableEnded) this.#socket.end(() => this.#socket.destroy());
  }

  /** Replies of a group wait for each other, but not for slow work: a client that was not told would send its message again. */
  #flushSoon() {
    if (this.#out === '' || this.#flushScheduled) return;
    this.#flushScheduled = true;
    setImmediate(() => {
      this.#flushScheduled = false;
      this.flush();
    });
  }

  /** One line, if there is a whole one. */
  #takeLine(): boolean {
    const input = this.#input;
    const start = this.#at;
    if (input[start] === TLS_HANDSHAKE && !this.secure && !this.lineTaker) {
      this.#refuseTls();
      return false;
    }
    const lf = input.indexOf(LF, start);
    if (lf < 0) {
      if (input.length - start > this.limits.maxAuthLineBytes) {
        this.#overlong = true;
        this.#at = input.length;
      }
      return false;
    }
    this.#at = lf + 1;
    this.#idleSinceMs = this.clock.monotonicMs();
    const maxBytes = this.lineTaker || isAuthLine(input, start) ? this.limits.maxAuthLineBytes : this.limits.maxCommandBytes;
    if (this.#overlong || lf + 1 - start > maxBytes) {
      this.#overlong = false;
      this.lineTaker = undefined;
      this.protocolError('command', reply(500, '5.5.2', 'The line is too long'));
      return true;
    }
    let end = lf;
    if (lf > start && input[lf - 1] === CR) end--;
    else if (this.limits.bareLineEnds === 'refuse') {
      this.lineTaker = undefined;
      this.protocolError('command', reply(500, '5.5.2', 'Lines end with CR LF'));
      return true;
    }
    const line = input.subarray(start, end);
    if (this.lineTaker) this.lineTaker(line);
    else this.#command(line);
    this.#maybeDrain();
    return true;
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

  /** With a drain wanted: the moment no transaction is open and no answer is owed, it is over. */
  #maybeDrain() {
    if (!this.#drainWanted || this.#busy || this.#closing || this.#closed || !this.#greeted) return;
    if (this.mail === undefined && this.content === undefined) this.send(draining);
  }

  afterTransaction() {
    this.#maybeDrain();
  }

  // ---- time ----

  #armTimer() {
    const { commandTimeoutMs, dataTimeoutMs } = this.limits;
    const longest = Math.min(commandTimeoutMs, dataTimeoutMs);
    const arm = (delayMs: number) => {
      this.#timer = this.clock.setTimer(Math.max(1, Math.min(delayMs, longest)), check, { background: true });
    };
    const check = () => {
      if (this.isClosing) return;
      const remainingMs = this.#remainingMs();
      if (remainingMs > 0) return arm(remainingMs);
      const what = this.content ? 'The message did not arrive in time' : 'No command arrived in time';
      this.refuse(this.content ? 'data' : 'command', reply(421, '4.4.2', what));
      this.flush();
    };
    arm(longest);
  }

  /** Until the client's time is up. While the client waits for us, it has all the time of the world. */
  #remainingMs(): number {
    const nowMs = this.clock.monotonicMs();
    const { limits } = this;
    if (this.#busy) return limits.dataTimeoutMs;
    const idleMs = this.content ? limits.dataTimeoutMs : limits.commandTimeoutMs;
    let remainingMs = this.#idleSinceMs + idleMs - nowMs;
    if (this.#messageSinceMs !== undefined)
      remainingMs = Math.min(remainingMs, this.#messageSinceMs + limits.messageTimeoutMs - nowMs);
    return Math.min(remainingMs, this.#startedMonotonicMs + limits.sessionTimeoutMs - nowMs);
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
