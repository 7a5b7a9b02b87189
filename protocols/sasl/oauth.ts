/**
 * OAUTHBEARER (RFC 7628) and XOAUTH2 (its forerunner): an OAuth 2 access token instead of a password. A refused token is answered with a JSON challenge that says why, which the
 * client acknowledges; then the exchange fails.
 */
import type { AuthFailure, OAuthRefusal, SaslBackend, SaslContext, SaslExchange, SaslStep } from './contract.js';
import { decodeUtf8, prepareCredential } from './prepare.js';
import { decodeSaslName } from './scram-formulas.js';

interface TokenClaim {
  /** Undefined: whoever the token is for. */
  login: string | undefined;
  /** Empty: the client asks what it would need (RFC 7628 4.3). */
  token: string;
}

/** RFC 6750 2.1: b64token. */
const bearer = /^bearer +([A-Za-z0-9\-._~+/]+=*) *$/i;

/** RFC 7628 3.1: `key=value` pairs, each ended by ^A, and one more ^A. Undefined when they are malformed, or a key comes twice. */
function keyValues(text: string): Map<string, string> | undefined {
  if (!/^(?:[A-Za-z]+=[^\x01\0]*\x01)*\x01$/.test(text)) return undefined;
  const pairs = text.slice(0, -1).split('\x01').slice(0, -1);
  const found = new Map(
    pairs.map((pair) => [pair.slice(0, pair.indexOf('=')).toLowerCase(), pair.slice(pair.indexOf('=') + 1)] as const),
  );
  return found.size === pairs.length ? found : undefined;
}

function tokenOf(auth: string | undefined): string | undefined {
  if (auth === undefined) return undefined;
  return auth === '' ? '' : bearer.exec(auth)?.[1];
}

/** RFC 7628 3.1: gs2-header, ^A, pairs. A string says what is wrong. */
export function parseOAuthBearer(text: string): TokenClaim | string {
  const header = /^[ny],(?:a=([^,\0\x01]+))?,\x01/.exec(text);
  if (!header) return 'The header is malformed, or asks for channel binding';
  const token = tokenOf(keyValues(text.slice(header[0].length))?.get('auth'));
  if (token === undefined) return 'The message has no bearer token';
  const login = header[1] === undefined ? undefined : decodeSaslName(header[1]);
  return header[1] !== undefined && login === undefined ? 'The login is malformed' : { login, token };
}

/** `user=` login ^A `auth=Bearer ` token ^A ^A. A string says what is wrong. */
export function parseXOAuth2(text: string): TokenClaim | string {
  const pairs = keyValues(text);
  const token = tokenOf(pairs?.get('auth'));
  if (token === undefined) return 'The message has no bearer token';
  const login = prepareCredential(pairs!.get('user') ?? '');
  return login === undefined ? 'The login is malformed' : { login, token };
}

export class OAuthExchange implements SaslExchange {
  #expects: 'token' | 'acknowledgement' | 'nothing' = 'token';
  #failure: AuthFailure = 'invalid';

  constructor(
    readonly mechanism: 'OAUTHBEARER' | 'XOAUTH2',
    private readonly backend: SaslBackend,
    private readonly context: SaslContext,
    private readonly onBackendError: (error: unknown) => void,
  ) {}

  step(response: Buffer | undefined): SaslStep | Promise<SaslStep> {
    if (response === undefined) return { kind: 'challenge', bytes: Buffer.alloc(0) };
    const expects = this.#expects;
    this.#expects = 'nothing';
    // RFC 7628 3.2.3: a lone ^A (XOAUTH2: nothing). Whatever it is, the exchange has failed.
    if (expects === 'acknowledgement') return { kind: 'done', result: { ok: false, reason: this.#failure } };
    if (expects === 'nothing') return { kind: 'malformed', text: 'The exchange is over' };
    const text = decodeUtf8(response);
    if (text === undefined) return { kind: 'malformed', text: 'The message is not UTF-8' };
    const claim = this.mechanism === 'OAUTHBEARER' ? parseOAuthBearer(text) : parseXOAuth2(text);
    return typeof claim === 'string' ? { kind: 'malformed', text: claim } : this.#check(claim);
  }

  async #check({ token, login }: TokenClaim): Promise<SaslStep> {
    try {
      const result = await this.backend.verifyToken!(token, login, this.context);
      if (result.ok || !('oauth' in result) || !result.oauth) return { kind: 'done', result };
      this.#failure = result.reason;
      this.#expects = 'acknowledgement';
      return { kind: 'challenge', bytes: Buffer.from(JSON.stringify(this.#refusal(result.oauth))) };
    } catch (error) {
      this.onBackendError(error);
      return { kind: 'done', result: { ok: false, reason: 'unavailable' } };
    }
  }

  /** RFC 7628 3.2.2; clients of XOAUTH2 know a number and the scheme instead. */
  #refusal({ status, scope, openidConfiguration }: OAuthRefusal): Record<string, string | undefined> {
    const scopes = scope === undefined ? {} : { scope };
    if (this.mechanism === 'XOAUTH2') return { status: status === 'invalid_token' ? '401' : '403', schemes: 'bearer', ...scopes };
    return { status, ...scopes, ...(openidConfiguration === undefined ? {} : { 'openid-configuration': openidConfiguration }) };
  }
}
