/**
 * One SMTP or LMTP session (RFC 5321, 2033): reads commands and content from a socket, keeps the state that decides which command may
 * come next, batches replies (RFC 2920), watches the clock. What the commands do is in `verbs/`; whether a message is wanted is the
 * handler's to say.
 */
import { type Clock, type Logger, type Random, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import type { Principal } from '../../sasl/contract.js';
import type { ScramSettings } from '../../sasl/index.js';
import { type Reply, reply } from '../grammar/reply.js';
import { Channel } from './channel.js';
import { CommandReader, refuseEarlyTalk } from './command-reader.js';
import {
  type ContentConsumer,
  draining,
  type GivenHello,
  localError,
  type RejectStage,
  type RunOptions,
  type SessionCore,
  type Transfer,
} from './core.js';
import { Deadlines, type WaitingFor } from './deadlines.js';
import { Greeting } from './greeting.js';
import type {
  ForwardedClient,
  MailCommand,
  RecipientCommand,
  SessionPolicy,
  SmtpConnection,
  SmtpHandler,
  SmtpMode,
  TlsInfo,
} from './handler.js';
import { completeLimits, type SmtpLimits, withLimits } from './limits.js';
import { messagesTotal, rejectsTotal, sessionsTotal } from './metrics.js';
import { Replies } from './replies.js';

export interface SmtpSessionOptions {
  connection: SmtpConnection;
  mode: SmtpMode;
  handler: SmtpHandler;
  /** Our name in greeting and EHLO. */
  hostname: string;
  /** Name of the listener that the client came to. */
  listener?: string;
  /** The product in the greeting. */
  serverName?: string;
  logger: Logger;
  /** Over the defaults. Not to be changed afterwards: sessions share it. */
  limits?: Partial<SmtpLimits>;
  clock?: Clock;
  random?: Random;
  /** Makes SCRAM-SHA-256 available where AUTH is. */
  scram?: ScramSettings;
}

/** Commands, or pieces of content, that are worked off before other sessions have their turn: a millisecond or so. */
const workPerTurn = 500;

const noPolicy = reply(421, '4.3.0', 'A local error, please try again later');

export class SmtpSession implements SessionCore {
  // The connection.
  readonly id: string;
  readonly mode: SmtpMode;
  readonly listener: string;
  readonly connection: SmtpConnection;
  secure: boolean;
  tls: TlsInfo | undefined;

  // The client.
  remoteAddress: string;
  remotePort: number;
  localAddress: string | undefined;
  localPort: number;
  remoteName: string | undefined;
  forwarded: ForwardedClient | undefined;

  // The session.
  readonly handler: SmtpHandler;
  limits: SmtpLimits;
  policy: SessionPolicy | undefined;
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
  refusedRecipientCount = 0;
  recipientDomains: Set<string> | undefined;
  local: unknown = undefined;

  // The transaction.
  mail: MailCommand | undefined;
  recipients: RecipientCommand[] = [];
  recipientAttempts = 0;
  transfer: Transfer | undefined;

  content: ContentConsumer | undefined;
  lineTaker: ((line: Buffer) => void) | undefined;

  readonly #channel: Channel;
  readonly #greeting: Greeting;
  readonly #commands: CommandReader;
  readonly #replies: Replies;
  #deadlines: Deadlines | undefined;
  readonly #rootLogger: Logger;
  readonly #ownLimits: SmtpLimits;
  #logger: Logger | undefined;
  /** A handler, a sink or a handshake is at work: no input is taken. */
  #busy = false;
  #pumping = false;
  /** Enough was done in this turn of the event loop. */
  #resting = false;
  #drainWanted = false;
  #errorCount = 0;
  #whenClosed: (() => void)[] | undefined;

  constructor(options: SmtpSessionOptions) {
    const { connection } = options;
    this.connection = connection;
    this.mode = options.mode;
    this.listener = options.listener ?? '';
    this.handler = options.handler;
    this.hostname = options.hostname;
    this.scram = options.scram;
    this.clock = options.clock ?? systemClock;
    this.random = options.random ?? systemRandom;
    this.#ownLimits = this.limits = completeLimits(options.limits);
    this.remoteAddress = connection.remoteAddress;
    this.remotePort = connection.remotePort;
    this.localAddress = connection.localAddress;
    this.localPort = connection.localPort;
    this.secure = connection.secure;
    this.tls = connection.tls;
    this.id = this.random.bytes(8).toString('hex');
    this.startedAtMs = this.clock.nowMs();
    this.#rootLogger = options.logger;
    this.#channel = new Channel(connection.socket, this, {
      onProgress: (received) => this.#onProgress(received),
      onError: (error) => this.logger.debug({ err: error }, 'the SMTP connection broke'),
      onClosed: () => this.#onClosed(),
    });
    this.#greeting = new Greeting(this, options.serverName ?? 'Starling', () => this.#pump());
    this.#commands = new CommandReader(this, this.#channel);
    this.#replies = new Replies(this, this.#channel, () => this.#beginClosing());
  }

  /** Made when first needed: most sessions log nothing themselves. */
  get logger(): Logger {
    this.#logger ??= this.#rootLogger.child({ room: 'smtp', session: this.id, remote: this.remoteAddress });
    return this.#logger;
  }

  get peerAddress(): string {
    return this.connection.remoteAddress;
  }

  /** True once the socket is gone or only waits for its last reply to leave. */
  get isClosing(): boolean {
    return this.#channel.closing || this.#channel.closed;
  }

  /** No new message is taken any more. */
  get isDraining(): boolean {
    return this.#drainWanted;
  }

  /** Octets that the session keeps for its client: commands not taken yet, replies not read yet. */
  get bufferedBytes(): number {
    return this.#channel.bufferedBytes;
  }

  /** No input is taken: it is our turn. */
  get #waiting(): boolean {
    return this.#busy || this.#replies.areHeld;
  }

  /** Begins the session: listens and greets. Call once. */
  start() {
    sessionsTotal.inc({ mode: this.mode });
    this.#deadlines = new Deadlines(
      this,
      () => this.#waitingFor(),
      () => this.#onExpired(),
    );
    this.#channel.start();
    this.#greeting.begin(undefined, () => this.limits.greetingDelayMs);
  }

  #waitingFor(): WaitingFor {
    if (this.#busy) return 'us';
    if (this.#replies.areHeld) return 'tarpit';
    return this.content ? 'content' : 'command';
  }

  /** Lets a message that is on its way in finish, answers 421 4.3.2 then (or at once when there is none) and closes. Resolves when closed. */
  drain(): Promise<void> {
    this.#drainWanted = true;
    this.#leaveTarpit();
    return this.closed();
  }

  /** Resolves when the connection is gone. */
  closed(): Promise<void> {
    if (this.#channel.closed) return Promise.resolve();
    this.#whenClosed ??= [];
    const waiting = this.#whenClosed;
    return new Promise((resolve) => waiting.push(resolve));
  }

  /** Ends the session now with a 421, whatever is running; a running message is not acknowledged. */
  stop() {
    if (this.#channel.closed) return;
    this.#replies.sendHeld();
    this.replyAndClose(draining);
    // Closes when the reply has left, or the client has had its time to take it.
    this.#channel.flush();
  }

  // ---- replies ----

  send(answer: Reply) {
    this.#replies.send(answer);
  }

  protocolError(stage: RejectStage, answer: Reply) {
    this.refuse(stage, answer);
    if (++this.#errorCount >= this.limits.maxErrors) this.replyAndClose(reply(421, '4.7.0', 'Too many errors'));
  }

  refuse(stage: RejectStage, answer: Reply) {
    rejectsTotal.inc({ mode: this.mode, stage, code: String(answer.code) });
    // A node that drains has no time to tarpit.
    if (!this.#drainWanted) this.#replies.hold(() => this.#leaveTarpit());
    this.send(answer);
  }

  replyAndClose(answer: Reply) {
    this.send({ ...answer, close: true });
  }

  /** The refusals have waited long enough. */
  #leaveTarpit() {
    this.#replies.sendHeld();
    this.#deadlines?.touch();
    this.#maybeDrain();
    this.#pump();
  }

  #beginClosing() {
    this.#deadlines?.stop();
    this.#greeting.stop();
    this.#loseTransfer();
    this.#channel.beginClosing();
  }

  // ---- policy ----

  askPolicy(done: () => void, failed: () => void) {
    const { handler } = this;
    if (!handler.policy) return done();
    this.run(
      'policy',
      () => handler.policy!(this),
      (policy) => {
        this.#apply(policy);
        done();
      },
      { failed },
    );
  }

  #apply(policy: SessionPolicy | undefined) {
    if (this.isClosing) return;
    const before = this.limits;
    this.policy = policy;
    this.limits = withLimits(this.#ownLimits, policy?.limits);
    if (this.limits !== before) this.#deadlines?.limitsChanged();
  }

  login(principal: Principal, answer: Reply) {
    this.principal = principal;
    this.askPolicy(
      () => this.send(answer),
      () => {
        this.principal = undefined;
        this.refuse('auth', reply(454, '4.7.0', 'Logins cannot be checked at the moment'));
      },
    );
  }

  restart(hello: GivenHello | undefined) {
    this.endTransaction(false);
    this.principal = undefined;
    this.refusedRecipientCount = 0;
    this.greetingName = '';
    this.extended = false;
    this.#logger = undefined;
    this.#greeting.begin(hello, () => 0);
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
    // XFORWARD is said before each message anew.
    this.forwarded = undefined;
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
    if (!this.#drainWanted || this.#waiting || this.isClosing || !this.#greeting.done) return;
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
    // RFC 3207 4.2: what came along with STARTTLS could be anybody's.
    if (this.#channel.hasInput) this.logger.info('plain text that came along with STARTTLS was dropped');
    this.#channel
      // The implementation may throw synchronously: hence the async function.
      .replaceSocket(async () => startTls.call(this.connection), this.limits.tlsHandshakeTimeoutMs)
      .then(
        ({ tls }) => {
          this.secure = true;
          this.tls = tls;
          this.#settled(() =>
            this.askPolicy(
              () => undefined,
              () => this.refuse('starttls', noPolicy),
            ),
          );
        },
        (error: unknown) => {
          this.logger.info({ err: error }, 'TLS handshake failed');
          rejectsTotal.inc({ mode: this.mode, stage: 'starttls', code: '0' });
        },
      );
  }

  // ---- what the channel tells ----

  #onProgress(received: Buffer | undefined) {
    if (received && !this.#greeting.done && !this.isClosing) {
      this.#greeting.done = true;
      refuseEarlyTalk(this, received);
    }
    if (received && this.content) this.#deadlines?.touch();
    this.#pump();
  }

  #onClosed() {
    this.#deadlines?.stop();
    this.#greeting.stop();
    this.#replies.drop();
    this.#loseTransfer();
    try {
      this.handler.closed?.(this);
    } catch (error) {
      this.logger.error({ err: error }, 'an SMTP handler failed');
    }
    const waiting = this.#whenClosed ?? [];
    this.#whenClosed = undefined;
    for (const resolve of waiting) resolve();
  }

  #onExpired() {
    if (this.isClosing) return;
    this.#replies.sendHeld();
    const what = this.content ? 'The message did not arrive in time' : 'No command arrived in time';
    rejectsTotal.inc({ mode: this.mode, stage: this.content ? 'data' : 'command', code: '421' });
    this.replyAndClose(reply(421, '4.4.2', what));
    this.#channel.flush();
  }

  // ---- input ----

  /** Works off input as long as there is some and nobody has to be waited for; then writes the replies of all of it at once. */
  #pump() {
    if (this.#pumping || this.#resting || !this.#greeting.done) return;
    const channel = this.#channel;
    this.#pumping = true;
    const onLine = () => this.#deadlines?.touch();
    let work = 0;
    this.#guarded(() => {
      while (channel.hasInput && !this.#waiting && !channel.blocked && !channel.closing && !channel.closed) {
        if (++work > workPerTurn) {
          this.#rest();
          break;
        }
        if (this.content) channel.at = this.content.consume(channel.input, channel.at);
        else if (this.#commands.take(onLine)) this.#maybeDrain();
        else break;
      }
    });
    this.#pumping = false;
    if (this.#waiting && !channel.closing) {
      channel.flushSoon();
      return;
    }
    channel.flush();
    if (channel.closed || this.#resting) return;
    channel.resume();
    channel.endIfDone();
  }

  /** One client that sends without end must not keep the others waiting: goes on when they have had their turn. */
  #rest() {
    this.#resting = true;
    setImmediate(() => {
      this.#resting = false;
      this.#pump();
    });
  }
}

function isPromise<T>(value: T | PromiseLike<T>): value is PromiseLike<T> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}
