/**
 * What a caller hands to the SMTP client and what it gets back: per-recipient results, and a clear word on whether the peer may
 * have taken responsibility for the message.
 */
import type { PeerCertificate } from 'node:tls';
import type { Clock, Logger } from '../../../ops/telemetry/index.js';
import type { SaslCredentials } from '../../sasl/client/contract.js';
import type { BodyType, RecipientParameters } from '../grammar/parameters.js';

/** `none`: never. `opportunistic`: if offered and it works. `required`: without it nothing is sent. `implicit`: TLS from the first byte. */
export type TlsMode = 'none' | 'opportunistic' | 'required' | 'implicit';

/** What the caller's policy says of the certificate that the peer showed. */
export type CertificateVerdict = { ok: true } | { ok: false; reason: string };

/** The facts a certificate policy can judge by (WebPKI, MTA-STS, DANE). */
export interface ShownCertificate {
  /** Node's own judgement: chain to a trusted root and the name fits `serverName`. */
  authorized: boolean;
  /** Node's reason when not, such as `SELF_SIGNED_CERT_IN_CHAIN` or `ERR_TLS_CERT_ALTNAME_INVALID`. */
  authorizationError: string | undefined;
  /** With `raw` (DER) and `issuerCertificate` filled in. */
  certificate: PeerCertificate;
  serverName: string | undefined;
}

export interface ClientTls {
  mode: TlsMode;
  /** SNI, and the name that the certificate is checked against. Left out: the peer's host name. */
  serverName?: string;
  /** PEM; trusted roots instead of Node's own. */
  ca?: string | Buffer;
  minVersion?: 'TLSv1.2' | 'TLSv1.3';
  /** With `none`: why TLS is not even tried, for `TlsOutcome.problem`. */
  plainBecause?: string;
  /** Judges the certificate. Left out: `required` and `implicit` demand `authorized`, `opportunistic` takes anything. */
  verify?(shown: ShownCertificate): CertificateVerdict;
}

/** How a connection is (or was) protected; for TLS-RPT, logs and Received. */
export interface TlsOutcome {
  mode: TlsMode;
  used: boolean;
  protocol?: string;
  cipher?: string;
  /** The chain and name were good by Node's own judgement. */
  authorized?: boolean;
  /** Why TLS is not used although the mode wished it, or why the certificate is not authorized. */
  problem?: string;
  /** STARTTLS was taken up and the handshake failed; the connection is a second, plain one. Worth remembering for this host. */
  isHandshakeBroken?: boolean;
}

/** RFC 5321 4.5.3.2, milliseconds. */
export interface ClientTimeouts {
  /** TCP (and implicit TLS) connection. */
  connectMs: number;
  greetingMs: number;
  /** EHLO, HELO, STARTTLS, AUTH, RSET, NOOP. */
  commandMs: number;
  tlsHandshakeMs: number;
  mailMs: number;
  rcptMs: number;
  dataInitiationMs: number;
  /** A block of content that the peer does not take. */
  dataBlockMs: number;
  /** From the end of the content to the reply. */
  dataTerminationMs: number;
  quitMs: number;
}

/** A login with a password or a token, by the best mechanism that both sides have. */
export type ClientAuth = SaslCredentials & {
  /** Only these mechanisms; left out, any that fits. */
  mechanisms?: readonly string[];
};

/** RFC 9422: what the peer takes, as far as it says so in EHLO. */
export interface PeerLimits {
  /** Messages in one connection. */
  maxMessages?: number;
  /** Recipients of one message. */
  maxRecipients?: number;
  /** Domains of all recipients in one connection. */
  maxRecipientDomains?: number;
}

export interface ConnectOptions {
  /** An IP address (IPv4 or IPv6); the client resolves no names. */
  address: string;
  port: number;
  /** The peer's host name, for TLS and results; left out, the address. */
  hostname?: string;
  /** Local address to send from. */
  localAddress?: string;
  /** Our name for EHLO. */
  heloName: string;
  protocol?: 'smtp' | 'lmtp';
  tls: ClientTls;
  /** For relays. Only ever sent under TLS unless `authWithoutTls`. */
  auth?: ClientAuth;
  authWithoutTls?: boolean;
  timeouts?: Partial<ClientTimeouts>;
  clock?: Clock;
  logger?: Logger;
  signal?: AbortSignal;
}

/** Content up to this may be handed over as a whole: less than what a kernel keeps for a socket, and little enough for many at a time. */
export const maxWholeBytes = 65_536;

/** A message's content, possibly opened more than once. */
export interface MessageBody {
  sizeBytes: number;
  /** Contains octets above 127. */
  eightBit: boolean;
  /** Headers hold raw UTF-8 (RFC 6532): needs SMTPUTF8. Addresses are looked at by the client itself. */
  utf8: boolean;
  /** Contains NUL, or lines that are not lines: needs BINARYMIME and BDAT. */
  binary?: boolean;
  open(): AsyncIterable<Buffer>;
  /** All of it at once: there where it is small (`maxWholeBytes`), and then used instead of `open`. */
  read?(): Promise<Buffer>;
  /** Asked just before the octets that complete the content are written: whether it may still be sent. With no, the peer gets an incomplete one. */
  mayComplete?(): boolean;
}

export interface OutgoingRecipient extends RecipientParameters {
  address: string;
}

export interface OutgoingMessage {
  /** Empty for the null reverse-path. */
  from: string;
  recipients: readonly OutgoingRecipient[];
  /** DSN parameters of MAIL, passed on if the peer offers DSN. */
  ret?: 'FULL' | 'HDRS';
  envelopeId?: string;
  /** Overrides what is derived from `body`. */
  bodyType?: BodyType;
  /**
   * Octets above 127 for a peer without 8BITMIME: `send` sends them as they are (nearly every server takes them), `return` refuses with 5.6.3. RFC 6152 3 knows
   * only conversion and return. Default: `return`.
   */
  eightBit?: 'send' | 'return';
  /** RFC 8689: goes only to a peer that offers REQUIRETLS, under TLS whose certificate the caller had verified when it connected. */
  requireTls?: boolean;
  /** RFC 2852: what is left of the time goes on to a peer that offers DELIVERBY; with `return` no other peer gets the message. */
  deliverBy?: { untilMs: number; mode: 'return' | 'notify'; isTraced: boolean };
  /** RFC 6710, -9 to 9; told to peers that offer MT-PRIORITY, unless 0. */
  priority?: number;
  body: MessageBody;
}

/** Where in the conversation something happened. */
export type ClientStage =
  | 'connect'
  | 'greeting'
  | 'ehlo'
  | 'starttls'
  | 'auth'
  | 'mail'
  | 'rcpt'
  | 'data'
  | 'end-of-data'
  | 'rset';

/**
 * `delivered`: the peer answered 2xx at the end. `permanent`: 5xx. `temporary`: 4xx, or lost before the end of the content was sent: it
 * surely has not been taken. `unknown`: lost after that and before the reply: the peer may have taken it.
 */
export type RecipientOutcome = 'delivered' | 'temporary' | 'permanent' | 'unknown';

export interface RecipientResult {
  address: string;
  outcome: RecipientOutcome;
  /** The peer's code, or 0 where the client itself decided or the connection broke. */
  code: number;
  /** The peer's enhanced code, or the client's own. */
  enhanced: string;
  /** The peer's sentence, or the client's own. */
  text: string;
  stage: ClientStage;
  /** True when this result stands for the whole connection or transaction, not for this recipient: another host may do better. */
  wide: boolean;
}

export interface SendResult {
  /** One per recipient, in order. */
  recipients: RecipientResult[];
  /** DSN parameters went to a peer that offers DSN: it reports on. Otherwise the caller must send `relayed` reports itself. */
  dsnPassedOn: boolean;
  /** BY went to a peer that offers DELIVERBY: it watches the time from here on. */
  deliverByPassedOn?: boolean;
  /** The connection can take another message. */
  reusable: boolean;
}

/** A connection that could not be brought to the point where a message can be sent. */
export class SmtpConnectError extends Error {
  override name = 'SmtpConnectError';
  constructor(
    readonly stage: ClientStage,
    /** `permanent` only when the peer said 5xx. Whatever the outcome, another host of the destination may do better. */
    readonly outcome: 'temporary' | 'permanent',
    /** The peer's code, or 0. */
    readonly code: number,
    readonly enhanced: string,
    message: string,
    readonly tls?: TlsOutcome,
    /** The system's word for it, where there is one: `ECONNREFUSED`, `EADDRNOTAVAIL` (the local address is not ours), … */
    readonly systemCode?: string,
  ) {
    super(message);
  }
}
