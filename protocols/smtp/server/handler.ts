/**
 * What an SMTP or LMTP session asks of the node, and what it tells it. The session owns the wire: grammar, order of commands,
 * limits, timeouts, replies. Policy (who may send what to whom, where a message goes) is behind `SmtpHandler`.
 */
import type { Duplex } from 'node:stream';
import type { Logger } from '../../../ops/telemetry/index.js';
import type { ChannelBindingSource, Principal, SaslBackend } from '../../sasl/contract.js';
import type { SmtpExtension } from '../grammar/extensions.js';
import type { MailParameters, RecipientParameters } from '../grammar/parameters.js';
import type { Reply } from '../grammar/reply.js';
import type { SmtpLimits } from './limits.js';

export type { SmtpExtension } from '../grammar/extensions.js';
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
  /** What ties a login to this connection (SCRAM-SHA-256-PLUS); without it, no -PLUS. */
  channelBinding?: ChannelBindingSource | undefined;
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

/** What the node decides about one session beyond its options. Absent fields: the options' own. */
export interface SessionPolicy {
  /** Over the session's own; fields that are undefined change nothing. */
  limits?: Partial<SmtpLimits>;
  /**
   * False leaves an extension out of the EHLO answer, and its commands and parameters are refused. True changes nothing: what a session
   * can't do, it does not offer (REQUIRETLS without TLS, BINARYMIME without CHUNKING, SMTPUTF8 without 8BITMIME). Without PIPELINING a
   * client that sends ahead is sent away.
   */
  extensions?: Partial<Record<SmtpExtension, boolean>>;
  /** Without TLS nothing but EHLO, LHLO, NOOP, QUIT, STARTTLS and a trusted peer's XCLIENT is taken (530 5.7.0). */
  requiresTls?: boolean;
  /** Logging in is offered, under TLS. Default: where `authBackend` is and the mode is submission. MAIL on submission needs a login in any case. */
  offersAuth?: boolean;
  /** In this order; those the backend can't do are left out. Default: all. */
  authMechanisms?: readonly string[];
  /** XCLIENT and XFORWARD are offered: the peer is a proxy or filter of ours. Decide it by `remoteAddress`, or the client behind the proxy has it too. */
  isTrustedPeer?: boolean;
  /** Wait before the reply to what is refused (tarpit), milliseconds; at most `maxTarpitMs`. Nothing else is answered meanwhile. */
  tarpitMs?: number;
}

/** What a trusted peer said of the client behind it (XFORWARD); for logs and Received, never for rights. */
export interface ForwardedClient {
  name?: string;
  address?: string;
  port?: number;
  protocol?: string;
  helo?: string;
  identity?: string;
  source?: string;
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
  /** Name of the listener that the client came to; '' where it is not known. */
  readonly listener?: string;
  /** The connection's own other end; differs from `remoteAddress` once a trusted peer has said XCLIENT. */
  readonly peerAddress?: string;
  /** The client's host name as a trusted peer has looked it up (XCLIENT NAME). */
  readonly remoteName?: string | undefined;
  /** Of XFORWARD, for the next message. */
  readonly forwarded?: ForwardedClient | undefined;
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
  /**
   * Asked before the greeting, after STARTTLS, AUTH and XCLIENT, and with every EHLO, HELO or LHLO that `ehlo` took (its name is in the
   * session then). What it answers holds until the next time; what was answered before does not add up. When it throws, the step that it
   * was asked for fails with a 4xx.
   */
  policy?(session: SessionInfo): MaybePromise<SessionPolicy | undefined>;
  /**
   * Before the greeting. A reply of 4xx or 5xx refuses the connection with it; a 220 replaces the default greeting's text. Asked again after
   * XCLIENT, when the session starts over with another `remoteAddress`; `local` is then as it was left.
   */
  greet?(session: SessionInfo): MaybePromise<Verdict>;
  /** After EHLO, HELO or LHLO. Only a 4xx or 5xx is used: a 2xx can't replace the capability list. */
  ehlo?(session: SessionInfo, name: string): MaybePromise<Verdict>;
  /**
   * `void` = `250 2.1.0`, or `250 2.3.6` where the `parameters.mtPriority` that was asked for was changed (RFC 6710: whom nobody trusts gets 0 or less: setting it
   * there is the handler's).
   */
  mailFrom(session: SessionInfo, mail: MailCommand): MaybePromise<Verdict>;
  /** `void` = `250 2.1.5`. A 4xx or 5xx leaves this recipient out; the others stay. */
  rcptTo(session: SessionInfo, mail: MailCommand, recipient: RecipientCommand): MaybePromise<Verdict>;
  /** `void` or absent = `252 2.0.0`. Only asked for those who have logged in. Text outside ASCII goes to clients that said SMTPUTF8. */
  vrfy?(session: SessionInfo, argument: string): MaybePromise<Verdict>;
  /** Members of a list or group, as a reply of several lines. `void` = `252 2.0.0`; absent: not offered. Only asked for those who have logged in. */
  expn?(session: SessionInfo, argument: string): MaybePromise<Verdict>;
  /** At DATA, or at the first BDAT. A `Reply` refuses the message before its body is sent (with BDAT: the chunk is discarded); one below 400 becomes a 451. */
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
