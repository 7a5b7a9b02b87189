/** PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login): the password in clear, so only ever offered under TLS. */
import type { SaslBackend, SaslContext, SaslExchange, SaslStep } from './contract.js';
import { decodeUtf8, prepareCredential } from './prepare.js';

/** Asks the backend, and turns what it throws into `unavailable`. */
async function verify(
  backend: SaslBackend,
  login: string,
  password: string,
  context: SaslContext,
  onBackendError: (error: unknown) => void,
): Promise<SaslStep> {
  try {
    return { kind: 'done', result: await backend.verifyPassword(login, password, context) };
  } catch (error) {
    onBackendError(error);
    return { kind: 'done', result: { ok: false, reason: 'unavailable' } };
  }
}

const malformed = (text: string): SaslStep => ({ kind: 'malformed', text });

export class PlainExchange implements SaslExchange {
  readonly mechanism = 'PLAIN';

  constructor(
    private readonly backend: SaslBackend,
    private readonly context: SaslContext,
    private readonly onBackendError: (error: unknown) => void,
  ) {}

  step(response: Buffer | undefined): SaslStep | Promise<SaslStep> {
    if (response === undefined) return { kind: 'challenge', bytes: Buffer.alloc(0) };
    const text = decodeUtf8(response);
    if (text === undefined) return malformed('The credentials are not UTF-8');
    // RFC 4616 2: [authzid] NUL authcid NUL passwd
    const parts = text.split('\0');
    if (parts.length !== 3) return malformed('PLAIN takes identity, login and password, separated by NUL');
    const authzid = parts[0] === '' ? undefined : prepareCredential(parts[0]!);
    const login = prepareCredential(parts[1]!);
    const password = prepareCredential(parts[2]!);
    if (login === undefined || password === undefined)
      return malformed('Login or password is empty, too long or has control characters');
    // Acting for somebody else is not offered.
    if (parts[0] !== '' && authzid !== login) return malformed('The authorization identity must be empty or equal the login');
    return verify(this.backend, login, password, this.context, this.onBackendError);
  }
}

export class LoginExchange implements SaslExchange {
  readonly mechanism = 'LOGIN';
  #login: string | undefined;

  constructor(
    private readonly backend: SaslBackend,
    private readonly context: SaslContext,
    private readonly onBackendError: (error: unknown) => void,
  ) {}

  step(response: Buffer | undefined): SaslStep | Promise<SaslStep> {
    if (response === undefined) return { kind: 'challenge', bytes: Buffer.from('Username:') };
    const text = decodeUtf8(response);
    const value = text === undefined ? undefined : prepareCredential(text);
    if (value === undefined) return malformed('Login or password is empty, too long, not UTF-8 or has control characters');
    if (this.#login === undefined) {
      this.#login = value;
      return { kind: 'challenge', bytes: Buffer.from('Password:') };
    }
    return verify(this.backend, this.#login, value, this.context, this.onBackendError);
  }
}
