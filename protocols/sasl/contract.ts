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

/** The outcome of a SCRAM exchange, told to the backend so that it can count failures and admit or refuse. */
export interface ScramOutcome {
  /** The login as the client gave it, prepared (NFKC). */
  login: string;
  /** From `ScramCredentials`; undefined when the login is unknown. */
  accountRef: unknown;
  /** True when the client has proved that it knows the password. Never true for an unknown login. */
  proved: boolean;
}

/**
 * The directory as the mechanisms see it. Any method may throw: the attempt then ends as `unavailable` (and is logged by the session).
 */
export interface SaslBackend {
  /** Checks a password that came in clear (under TLS). Counts failures itself. */
  verifyPassword(login: string, password: string, context: SaslContext): Promise<AuthResult>;
  /** The SCRAM-SHA-256 credentials of a login; undefined when there are none: a fake challenge is then sent and the attempt fails. */
  scramCredentials(login: string, context: SaslContext): Promise<ScramCredentials | undefined>;
  /** Called exactly once per exchange that reached the client's proof. With `proved: false` the answer must not be `ok`. */
  scramDone(outcome: ScramOutcome, context: SaslContext): Promise<AuthResult>;
}

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

export type SaslMechanismName = 'PLAIN' | 'LOGIN' | 'SCRAM-SHA-256';
