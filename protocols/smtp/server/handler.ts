/**
 * What an SMTP or LMTP session asks of the node, and what it tells it. The session owns the wire: grammar, order of commands,
 * limits, timeouts, replies. Policy (who may send what to whom, where a message goes) is behind `SmtpHandler`.
 */
import type { Duplex } from 'node:stream';
import type { Logger } from '../../../ops/telemetry/index.js';
import type { Principal, SaslBackend } from '../../sasl/contract.js';
import type { MailParameters, RecipientParameters } from '../grammar/parameters.js';
import type { Reply } from '../grammar/reply.js';

export type { MailParameters, RecipientParameters } from '../grammar/parameters.js';
export type { Reply } from '../grammar/reply.js';

/** `mx`: mail from other servers. `submission`: mail from users, who must authenticate. `lmtp`: one final reply per recipient. */
export type SmtpMode = 'mx' | 'submission' | 'lmtp';

/** What is known of a TLS connection. */
export interface TlsInfo {
  /** Such as `TLSv1.3`. */
  protocol: string;
  cipher: string;
  /** The name that the client asked for (SNI). */
  serverName?: string;
}

/** A connection as the listeners hand it over. Create the socket with `allowHalfOpen: true`, or replies to half-closed clients may be cut. */
export interface SmtpConnection {
  /** Carries bytes both ways; the session owns it from here on, and the buffers that it emits may be modified in place. */
  socket: Duplex;
  /** The client's real address (after the PROXY protocol), textual, IPv4-mapped addresses unwrapped. */
  remoteAddress: string;
  remotePort: number;
  localAddress?: string;
  localPort: number;
  /** True on implicit-TLS listeners. */
  secure: boolean;
  /** Present when `secure`. */
  tls?: TlsInfo;
  /**
   * Upgrades to TLS. Absent where STARTTLS is not offered. Called after the 220 was written, with `socket` paused and none of the session's
   * data listeners left on it (its `error` and `close` listeners stay); resolves after the handshake. On rejection, or when it takes longer
   * than `tlsHandshakeTimeoutMs`, the session closes the connection.
   */
  startTls?(): Promise<{ socket: Duplex; tls: TlsInfo }>;
}

/** A session as the handler sees it. Live: fields change as the session goes on. */
export interface SessionInfo {
  /** Random, for logs. */
  readonly id: string;
  readonly mode: SmtpMode;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string | undefined;
  readonly localPort: number;
  readonly secure: boolean;
  readonly tls: TlsInfo | undefined;
  /** The argument of EHLO, HELO or LHLO; empty before it. */
  readonly greetingName: string;
  /** True after EHLO or LHLO, false after HELO. */
  readonly extended: boolean;
  readonly principal: Principal | undefined;
  /** Messages acknowledged in this session. */
  readonly messageCount: number;
  readonly startedAtMs: number;
  readonly logger: Logger;
  /** Free for the handler: whatever it keeps per session. */
  local: unknown;
}

/** The reverse-path of a transaction. */
export interface MailCommand {
  /** `local@domain`, local part unquoted only where that loses nothing; empty for the null reverse-path `<>`. */
  address: string;
  parameters: MailParameters;
}

/** One forward-path of a transaction. */
export interface RecipientCommand {
  /** `local@domain`, or `postmaster` for `<Postmaster>` without a domain. */
  address: string;
  parameters: RecipientParameters;
}

/** A transaction whose body is about to arrive. */
export interface Envelope {
  mail: MailCommand;
  /** Accepted recipients in the order of their RCPT commands. At least one. */
  recipients: readonly RecipientCommand[];
}

/** What the session knows about a body once it is complete. */
export interface BodyFacts {
  /** Octets handed to `write`. */
  sizeBytes: number;
  /** Bare CR or LF were turned into CRLF (only where limits say `normalise`). */
  normalised: boolean;
}

/** Takes one message's content: unstuffed, without the final dot, exactly the octets the client sent. */
export interface MessageSink {
  /** `chunk` is the sink's to keep. With a promise the session reads no further until it resolves; a rejection fails the message with 451. */
  write(chunk: Buffer): MaybePromise<void>;
  /**
   * The body is complete. Resolves when it is durable (or refused): only then is the client answered. LMTP: one reply per accepted
   * recipient, in order (a single reply stands for all of them).
   */
  finish(facts: BodyFacts): Reply | Reply[] | Promise<Reply | Reply[]>;
  /**
   * The message will not be finished: client gone, too large, malformed, or `write` failed. Called at most once, never after `finish`,
   * possibly while a `write` is still pending; nothing is written afterwards.
   */
  abort(reason: string): MaybePromise<void>;
}

export type MaybePromise<T> = T | Promise<T>;

/** A reply of the handler's own, or nothing: the default one. */
// biome-ignore lint/suspicious/noConfusingVoidType: whoever agrees returns nothing, by `return` or by falling off the end
export type Verdict = Reply | void;

/**
 * The node's side of a session. Every method may answer at once or with a promise; at once is faster. What throws or rejects is
 * logged and answered with `451 4.3.0`. `void` means the default reply (250). A reply with `close` ends the session after it.
 * At most one call per session is running at any time, except `closed`.
 */
export interface SmtpHandler {
  /** Before the greeting. A reply of 4xx or 5xx refuses the connection with it; a 220 replaces the default greeting's text. */
  greet?(session: SessionInfo): MaybePromise<Verdict>;
  /** After EHLO, HELO or LHLO. Only a 4xx or 5xx is used: a 2xx can't replace the capability list. */
  ehlo?(session: SessionInfo, name: string): MaybePromise<Verdict>;
  /** `void` = `250 2.1.0`. */
  mailFrom(session: SessionInfo, mail: MailCommand): MaybePromise<Verdict>;
  /** `void` = `250 2.1.5`. A 4xx or 5xx leaves this recipient out; the others stay. */
  rcptTo(session: SessionInfo, mail: MailCommand, recipient: RecipientCommand): MaybePromise<Verdict>;
  /** `void` or absent = `252 2.0.0`. */
  vrfy?(session: SessionInfo, argument: string): MaybePromise<Verdict>;
  /** At DATA, or at the first BDAT. A `Reply` refuses the message before its body is sent (with BDAT: the chunk is discarded). */
  data(session: SessionInfo, envelope: Envelope): MaybePromise<MessageSink | Reply>;
  /** A login succeeded; a 4xx or 5xx refuses it nevertheless. */
  authenticated?(session: SessionInfo, principal: Principal): MaybePromise<Verdict>;
  /** A transaction ended without `finish`: RSET, EHLO, STARTTLS, refusal. Not called when the connection is lost: see `closed`. */
  reset?(session: SessionInfo): void;
  /** The connection is gone. Called exactly once. */
  closed?(session: SessionInfo): void;
  /** Where logins are checked; without it AUTH is not offered. */
  authBackend?: SaslBackend;
}
