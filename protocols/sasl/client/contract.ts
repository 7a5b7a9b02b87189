/**
 * The client's side of SASL: how a node proves to a relay who it is. State machines without I/O: the decoded challenge in, the response's octets out. The
 * protocol (SMTP AUTH) does the base64, and sends `initial` with its command or as the answer to the first empty challenge.
 *
 * The way through it: `chooseMechanism(offered, credentials, security)` → `createSaslClient(mechanism, credentials, options)` → `AUTH mechanism [initial]` →
 * for each 334: `step(challenge)` → the server's 235 counts only when `isComplete`.
 */

/** In the order in which they are preferred (tokens first, where there is one). */
export type ClientMechanismName =
  | 'OAUTHBEARER'
  | 'XOAUTH2'
  | 'SCRAM-SHA-256-PLUS'
  | 'SCRAM-SHA-256'
  | 'DIGEST-MD5'
  | 'CRAM-MD5'
  | 'PLAIN'
  | 'LOGIN';

/** With a password, or with an OAuth 2 access token (OAUTHBEARER, XOAUTH2). Never both. */
export type SaslCredentials =
  | { login: string; password: string; accessToken?: undefined }
  | { login: string; accessToken: string; password?: undefined };

/** What ties an exchange to its TLS connection (RFC 5056); both types are the octets themselves, not base64. */
export interface ClientChannelBinding {
  /** `tls-exporter` (RFC 9266) with TLS 1.3, else `tls-server-end-point` (RFC 5929). `tlsClientChannelBinding` finds it. */
  type: 'tls-exporter' | 'tls-server-end-point';
  bytes: Buffer;
}

export interface SaslClientOptions {
  /** Of the TLS connection: needed for -PLUS. Without -PLUS it makes SCRAM say `y`, so that a server that does offer -PLUS notices a downgrade. */
  channelBinding?: ClientChannelBinding;
  /** The server's name as we looked for it; part of DIGEST-MD5's digest-uri and of OAUTHBEARER. */
  host: string;
  /** Port, for OAUTHBEARER. */
  port?: number;
  /** GSSAPI service name: `smtp`. */
  service: string;
  /** The names that the server has offered. When -PLUS is among them, plain SCRAM says `n` instead of `y`. */
  offered?: readonly string[];
}

/** One exchange. Not to be used after `step` has thrown. */
export interface SaslClient {
  readonly mechanism: ClientMechanismName;
  /** The client's first message, where the client speaks first; send it with the command (empty: as `=`), or answer the first, empty challenge with it. */
  readonly initial?: Buffer;
  /**
   * True once a success of the server may be believed: everything was said, and where the mechanism has one, the server's own proof was right. A
   * server may send its last challenge and success in one go only where the protocol has room for it (SMTP has not).
   */
  readonly isComplete: boolean;
  /**
   * The server's challenge (decoded from base64) → our response (may be empty). A promise only where a password has to be stretched (SCRAM), off the event
   * loop: `await` it in any case.
   * @throws SaslClientError (or rejects with it): the server breaks the mechanism or failed to prove itself. Answer `*`, then hang up.
   */
  step(challenge: Buffer): Buffer | Promise<Buffer>;
}

export class SaslClientError extends Error {
  override readonly name = 'SaslClientError';
  constructor(
    /**
     * `protocol`: the server's message is malformed. `server-proof`: the server does not know our password: perhaps somebody else. `refused`: the server said in
     * its challenge that it won't have us (OAuth); `detail` is what it said.
     */
    readonly code: 'protocol' | 'server-proof' | 'refused',
    message: string,
    readonly detail?: string,
  ) {
    super(message);
  }
}

/** Under what an exchange would happen. */
export interface ClientSecurity {
  /** TLS is on. Without it only mechanisms are chosen that do not show the password or token: SCRAM, DIGEST-MD5, CRAM-MD5. */
  isSecure: boolean;
  /** Of the TLS connection, where there is one: else no -PLUS. */
  channelBinding?: ClientChannelBinding;
}

/*
 * `index.ts` of this folder has:
 *   createSaslClient(mechanism: ClientMechanismName, credentials: SaslCredentials, options: SaslClientOptions, random?: Random): SaslClient
 *     Throws SaslClientError('protocol') when the credentials don't fit the mechanism or -PLUS has no channel binding.
 *   chooseMechanism(offered: readonly string[], credentials: SaslCredentials, security: ClientSecurity): ClientMechanismName | undefined
 *     `offered`: the words behind EHLO's AUTH, in any case. Undefined: there is none that we may use.
 *   tlsClientChannelBinding(socket: TLSSocket): ClientChannelBinding | undefined
 */
