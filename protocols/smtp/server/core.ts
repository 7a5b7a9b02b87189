/**
 * The session as its own commands see it: state they read and set, and what they may ask of it. `SmtpSession` is the one
 * implementation; this file stands between it and `verbs/` so that neither imports the other.
 */
import type { Clock, Random } from '../../../ops/telemetry/index.js';
import type { Principal } from '../../sasl/contract.js';
import type { ScramSettings } from '../../sasl/index.js';
import type { ChunkDecoder } from '../grammar/content-decoder.js';
import { type Reply, reply } from '../grammar/reply.js';
import type {
  ForwardedClient,
  MailCommand,
  MaybePromise,
  RecipientCommand,
  SessionInfo,
  SessionPolicy,
  SmtpConnection,
  SmtpHandler,
  TlsInfo,
} from './handler.js';
import type { SmtpLimits } from './limits.js';

/** Takes input other than commands. Returns the index after what it took; may make the session busy. */
export interface ContentConsumer {
  consume(input: Buffer, from: number): number;
}

/** A message body on its way to its sink. */
export interface Transfer {
  /** Octets handed to the sink so far. */
  readonly sizeBytes: number;
  normalised: boolean;
  /** Set once the message can't succeed any more: its final reply. */
  readonly failure: Reply | undefined;
  /** With BDAT: the decoder of all its chunks, because a CR LF may be cut by the end of one. */
  chunkDecoder: ChunkDecoder | undefined;
  /** With a promise, the sink wants a pause. Never throws or rejects: trouble becomes `failure`. */
  write(content: Buffer): MaybePromise<void>;
  /** The message will be refused with `answer`; its sink is freed at once. */
  fail(answer: Reply): void;
  /** Gives the sink up. True when there was one left to give up. */
  abandon(reason: string): boolean;
  /** All content is there: finishes the message, answers, ends the transaction. */
  complete(): void;
}

/** What a trusted peer says that its client has said already. */
export interface GivenHello {
  name: string;
  /** By EHLO. */
  extended: boolean;
}

export type RejectStage = 'connect' | 'command' | 'ehlo' | 'starttls' | 'auth' | 'mail' | 'rcpt' | 'data';

export interface RunOptions<T> {
  /** Instead of the reply `451 4.3.0`, when the call throws or rejects. */
  failed?: () => void;
  /** Gets the value when the connection was lost meanwhile. */
  orphaned?: (value: T) => void;
}

export interface SessionCore extends SessionInfo {
  readonly connection: SmtpConnection;
  readonly handler: SmtpHandler;
  /** With what policy has changed of them. */
  readonly limits: SmtpLimits;
  /** What the handler has decided about the session last. */
  readonly policy: SessionPolicy | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly hostname: string;
  readonly scram: ScramSettings | undefined;

  // The client, which XCLIENT may change.
  remoteAddress: string;
  remotePort: number;
  localAddress: string | undefined;
  localPort: number;
  remoteName: string | undefined;
  forwarded: ForwardedClient | undefined;

  // The session.
  secure: boolean;
  tls: TlsInfo | undefined;
  greetingName: string;
  extended: boolean;
  principal: Principal | undefined;
  messageCount: number;
  transactionCount: number;
  authFailureCount: number;
  /** Recipients that the handler has refused for good, in all transactions. */
  refusedRecipientCount: number;
  /** Domains of accepted recipients, where they are limited. */
  recipientDomains: Set<string> | undefined;

  // The transaction.
  mail: MailCommand | undefined;
  recipients: RecipientCommand[];
  /** RCPT commands of this transaction, accepted or not. */
  recipientAttempts: number;
  /** During DATA, and from the first BDAT to the last. */
  transfer: Transfer | undefined;

  /** Set while something other than lines is expected. */
  content: ContentConsumer | undefined;
  /** Set while the next line belongs to an AUTH exchange. */
  lineTaker: ((line: Buffer) => void) | undefined;

  /** Queues a reply. 421, or `close`, ends the session when the queue has left. */
  send(answer: Reply): void;
  replyAndClose(answer: Reply): void;
  /** A refusal by the session itself: counted, and after too many the session ends. */
  protocolError(stage: RejectStage, answer: Reply): void;
  /** A refusal that policy decided: counted in metrics only. With a tarpit it waits, and so does all that is said after it. */
  refuse(stage: RejectStage, answer: Reply): void;
  /**
   * Calls the handler. Answered at once, `done` runs at once; answered by a promise, no input is taken until it settles. A failure is
   * logged.
   */
  run<T>(what: string, call: () => T | PromiseLike<T>, done: (value: T) => void, options?: RunOptions<T>): void;
  /** Asks the handler what holds for the session from here on; then `done`, or `failed` when it threw. */
  askPolicy(done: () => void, failed: () => void): void;
  /** A login has succeeded and was admitted: the session is the principal's, and `answer` tells so. */
  login(principal: Principal, answer: Reply): void;
  /** XCLIENT: starts over with a greeting, for a client that may have said `hello` already. TLS stays. */
  restart(hello: GivenHello | undefined): void;
  /** Forgets the transaction. `handler.reset` hears of it unless the message was finished. */
  endTransaction(finished: boolean): void;
  /** To be called after the last reply of a transaction: a drain waits for it. */
  afterTransaction(): void;
  /** The body begins: its own clock runs from here. */
  markBodyStart(): void;
  /** After the 220: drops all plain-text input, and goes on over TLS. */
  upgrade(startTls: NonNullable<SmtpConnection['startTls']>): void;
}

export const localError: Reply = reply(451, '4.3.0', 'A local error, please try again later');
export const draining: Reply = reply(421, '4.3.2', 'This server is going down for a moment, please try again');
