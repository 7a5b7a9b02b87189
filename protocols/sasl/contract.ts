/**
 * What the SASL mechanisms ask of whoever knows the accounts, and what they answer to the protocol that carries them (SMTP, IMAP,
 * POP3, ManageSieve). The mechanisms themselves do no I/O: everything that may wait is behind `SaslBackend`.
 */

/** Who has proved to be whom. */
export interface Principal {
  /** The account's id in the directory. */
  accountId: string;
  /** The login name as the directory spells it. */
  login: string;
  /** Display name; may be empty. */
  name: string;
}

/** Why an authentication did not succeed. The protocols turn each into their own reply. */
export type AuthFailure =
  /** Unknown login or wrong secret: one and the same answer for both. */
  | 'invalid'
  /** The secret was right, the account may not log in. */
  | 'disabled'
  /** The directory can't answer now; the client may try again. */
  | 'unavailable'
  /** Too many failures from this address or for this login. */
  | 'too-many';

export type AuthResult = { ok: true; principal: Principal } | { ok: false; reason: AuthFailure };

/** Where an attempt comes from; for rate limits, bans and logs. */
export interface SaslContext {
  remoteAddress: string;
  /** `smtp`, `imap`, `pop3`, `managesieve`, … */
  protocol: string;
}

/** What a server keeps of a SCRAM password (RFC 5802 section 3). */
export interface ScramCredentials {
  /** Handed back unread in `scramDone`. */
  accountRef: unknown;
  salt: Buffer;
  /** At least 4096 (RFC 7677 section 4). */
  iterations: number;
  /** H(ClientKey), 32 bytes. */
  storedKey: Buffer;
  /** HMAC(SaltedPassword, "Server Key"), 32 bytes. */
  serverKey: Buffer;
}

/** What a server keeps of a password for CRAM-MD5 and DIGEST-MD5. Each is as good as the password for its mechanism. */
export interface LegacySecret {
  /** Handed back unread in `scramDone`. */
  accountRef: unknown;
  /** HMAC-MD5 under the password, after the blocks of its key: inner and outer state, 16 bytes each (RFC 2104). */
  hmacMd5State: Buffer;
  /** H(login ":" realm ":" password) of RFC 2831, 16 bytes, for `digestRealm` and the login as the directory spells it. */
  digestHa1: Buffer;
}

/** The attempt ends here, before anything was compared: too many failures, say. */
export interface RefusedAttempt {
  refused: AuthFailure;
}

/** The outcome of a SCRAM, CRAM-MD5 or DIGEST-MD5 exchange, told to the backend so that it can count failures and admit or refuse. */
export interface ScramOutcome {
  /** The login as the client gave it, prepared (NFKC). */
  login: string;
  /** From `ScramCredentials` or `LegacySecret`; undefined when the login is unknown. */
  accountRef: unknown;
  /** True when the client has proved that it knows the password. Never true for an unknown login. */
  proved: boolean;
  mechanism: SaslMechanismName;
}

/** What came of an access token. Of a refused one, `oauth` is what the client is told in the challenge of RFC 7628 3.2.2. */
export type TokenResult = AuthResult | { ok: false; reason: AuthFailure; oauth?: OAuthRefusal };

export interface OAuthRefusal {
  /** RFC 6750 3.1: the client may get a new token, or one with more scope. */
  status: 'invalid_token' | 'insufficient_scope';
  /** Space-separated scopes that are required. */
  scope?: string;
  /** URL of the issuer's discovery document. */
  openidConfiguration?: string;
}

/**
 * The directory as the mechanisms see it. Any method may throw: the attempt then ends as `unavailable` (and is logged by the session).
 * A method that is absent takes its mechanisms out of the offer.
 */
export interface SaslBackend {
  /** Mechanisms that settings allow now. Absent: all that the methods below make possible. */
  allowedMechanisms?(): readonly SaslMechanismName[];
  /** Checks a password that came in clear (under TLS). Counts failures itself. */
  verifyPassword(login: string, password: string, context: SaslContext): Promise<AuthResult>;
  /** The SCRAM-SHA-256 credentials of a login; undefined when there are none: a fake challenge is then sent and the attempt fails. */
  scramCredentials(login: string, context: SaslContext): Promise<ScramCredentials | RefusedAttempt | undefined>;
  /**
   * Called exactly once per SCRAM, CRAM-MD5 or DIGEST-MD5 exchange that reached the client's proof. With `proved: false` the answer must not
   * be `ok`.
   */
  scramDone(outcome: ScramOutcome, context: SaslContext): Promise<AuthResult>;
  /** For CRAM-MD5 and DIGEST-MD5; undefined when the login is unknown or keeps no such secret, which the client can't tell apart. */
  legacySecret?(login: string, context: SaslContext): Promise<LegacySecret | RefusedAttempt | undefined>;
  /** Checks an OAuth 2 access token. `login` is what the client says it is; undefined when it leaves that to the token. Counts failures itself. */
  verifyToken?(token: string, login: string | undefined, context: SaslContext): Promise<TokenResult>;
}

/**
 * The bytes that tie an exchange to its TLS connection: `tls-exporter` (RFC 9266, with TLS 1.3) or `tls-server-end-point` (RFC 5929). Undefined where
 * the connection has none of that type.
 */
export type ChannelBindingSource = (type: ChannelBindingType) => Buffer | undefined;
export type ChannelBindingType = 'tls-exporter' | 'tls-server-end-point';

/** What a mechanism wants next. */
export type SaslStep =
  /** Send these bytes (base64 on the wire) and call `step` with the client's answer. */
  | { kind: 'challenge'; bytes: Buffer }
  /** The exchange is over. */
  | { kind: 'done'; result: AuthResult }
  /** The client broke the mechanism's syntax; nothing was counted by the backend. `text` is a sentence for the reply. */
  | { kind: 'malformed'; text: string };

/** One running exchange. Not to be used after `done` or `malformed`. */
export interface SaslExchange {
  readonly mechanism: SaslMechanismName;
  /**
   * The client's next message, decoded from base64; undefined for the very first step when the client sent no initial response.
   * Never throws: a failing backend becomes `{ok: false, reason: 'unavailable'}` after `onBackendError` was called.
   */
  step(response: Buffer | undefined): SaslStep | Promise<SaslStep>;
}

export type SaslMechanismName =
  | 'SCRAM-SHA-256-PLUS'
  | 'SCRAM-SHA-256'
  | 'OAUTHBEARER'
  | 'XOAUTH2'
  | 'PLAIN'
  | 'LOGIN'
  | 'DIGEST-MD5'
  | 'CRAM-MD5';
