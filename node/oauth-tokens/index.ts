/** Access tokens of the issuers that settings name: signed ones (RFC 9068) are checked here, others by asking their issuer (RFC 7662). */
import { decodeJwt, errors, type JWTPayload, jwtVerify } from 'jose';
import { type Clock, counter, type Logger } from '../../ops/telemetry/index.js';
import type { ClusterSettings } from '../settings/index.js';
import { hasAudience, type IssuerSettings, judgeClaims } from './claims.js';
import type { TokenVerdict, TokenVerifier } from './contract.js';
import { IssuerError } from './fetch-json.js';
import { Introspection } from './introspection.js';
import { discoveryUrl, IssuerKeys, type KeyPlace } from './issuer-keys.js';

export type { TokenVerdict, TokenVerifier } from './contract.js';

const checked = counter('starling_access_tokens_total', 'Access tokens checked: good, forged, stale, scope, unavailable', [
  'result',
]);

const maxTokenCharacters = 8_192;

type LoginSettings = ClusterSettings['login'];

export interface TokenVerifierOptions {
  /** The section as it is now, secrets in plain text. The same object as long as nothing has changed. */
  settings(): LoginSettings;
  clock: Clock;
  logger: Logger;
}

export function createTokenVerifier(options: TokenVerifierOptions): TokenVerifier {
  return new Verifier(options);
}

const forged = (detail: string): TokenVerdict => ({ isGood: false, reason: 'forged', detail });
const stale = (detail: string): TokenVerdict => ({ isGood: false, reason: 'stale', detail });

class Verifier implements TokenVerifier {
  readonly #settings: () => LoginSettings;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #introspection: Introspection;
  /** By issuer and place, so that a changed setting begins anew. */
  readonly #keys = new Map<string, IssuerKeys>();
  #keysOf: LoginSettings | undefined;

  constructor({ settings, clock, logger }: TokenVerifierOptions) {
    this.#settings = settings;
    this.#clock = clock;
    this.#logger = logger;
    this.#introspection = new Introspection(clock);
  }

  get isUsable(): boolean {
    return Object.keys(this.#settings().issuers).length > 0;
  }

  async verify(token: string): Promise<TokenVerdict> {
    const settings = this.#settings();
    let verdict: TokenVerdict;
    try {
      verdict = token.length > maxTokenCharacters ? forged('the token is too long') : await this.#judge(token, settings);
    } catch (error) {
      if (!(error instanceof IssuerError)) this.#logger.error({ err: error }, 'checking an access token failed');
      verdict = { isGood: false, reason: 'unavailable', detail: (error as Error).message };
    }
    checked.inc({ result: verdict.isGood ? 'good' : verdict.reason });
    return verdict.isGood ? verdict : { ...hint(settings), ...verdict };
  }

  async #judge(token: string, settings: LoginSettings): Promise<TokenVerdict> {
    const claims = unverifiedClaims(token);
    if (!claims) return this.#askAll(token, settings);
    const issuer = Object.values(settings.issuers).find(({ issuer: name }) => name === claims.iss);
    if (!issuer) return forged('the token is of an issuer that is not set');
    const verdict = await this.#verifySigned(token, issuer, settings);
    if (!verdict.isGood || issuer.introspection?.asksAbout !== 'all') return verdict;
    const answer = await this.#introspection.ask(introspectionPlace(issuer.introspection, settings), token);
    return answer ? verdict : stale(`${issuer.issuer} has revoked the token`);
  }

  async #verifySigned(token: string, issuer: IssuerSettings, settings: LoginSettings): Promise<TokenVerdict> {
    const place = { ...issuer, timeoutMs: settings.timeoutSeconds * 1_000, keepMs: settings.keysSeconds * 1_000 };
    const keys = this.#keysFor(place, settings);
    for (let attempt = 0; ; attempt++) {
      try {
        const claims = await this.#payload(token, issuer, await keys.current(place));
        return judgeClaims(claims, issuer, issuer.addressClaim);
      } catch (error) {
        if (!(error instanceof errors.JOSEError)) throw error;
        const isUnknownKey = error instanceof errors.JWKSNoMatchingKey;
        if (isUnknownKey && attempt === 0 && (await keys.lookAgain(place))) continue;
        const detail = `${issuer.issuer}: ${error.code}`;
        const isReal = error instanceof errors.JWTExpired || error instanceof errors.JWTClaimValidationFailed;
        return isReal ? stale(detail) : forged(detail);
      }
    }
  }

  /** Throws jose's errors. */
  async #payload(token: string, issuer: IssuerSettings, keys: Awaited<ReturnType<IssuerKeys['current']>>): Promise<JWTPayload> {
    const rules = {
      issuer: issuer.issuer,
      audience: [...issuer.audiences],
      algorithms: [...issuer.algorithms],
      clockTolerance: issuer.clockToleranceSeconds,
      requiredClaims: ['exp'],
      currentDate: new Date(this.#clock.nowMs()),
    };
    try {
      return (await jwtVerify(token, keys, rules)).payload;
    } catch (error) {
      if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error;
      // Without a key id several may fit: each is tried.
      for await (const key of error) {
        try {
          return (await jwtVerify(token, key, rules)).payload;
        } catch (attempt) {
          if (!(attempt instanceof errors.JWSSignatureVerificationFailed)) throw attempt;
        }
      }
      throw new errors.JWSSignatureVerificationFailed();
    }
  }

  /** A token that is no JWT tells nothing of its issuer: each that can be asked is. */
  async #askAll(token: string, settings: LoginSettings): Promise<TokenVerdict> {
    let unavailable: unknown;
    let isAsked = false;
    for (const issuer of Object.values(settings.issuers)) {
      if (!issuer.introspection) continue;
      isAsked = true;
      try {
        const answer = await this.#introspection.ask(introspectionPlace(issuer.introspection, settings), token);
        if (answer) return this.#judgeAnswer(answer, issuer);
      } catch (error) {
        unavailable ??= error;
      }
    }
    if (unavailable) throw unavailable;
    return forged(isAsked ? 'no issuer knows the token' : 'the token is no JWT');
  }

  #judgeAnswer(answer: Readonly<Record<string, unknown>>, issuer: IssuerSettings): TokenVerdict {
    const { exp, nbf, iss } = answer;
    const nowSeconds = this.#clock.nowMs() / 1_000;
    const tolerance = issuer.clockToleranceSeconds;
    if (iss !== undefined && iss !== issuer.issuer) return stale(`${issuer.issuer} names another issuer`);
    // RFC 7662 2.2: all but `active` is optional. A token that names no audience is for the client that had it made.
    if (!hasAudience({ aud: answer['aud'] ?? answer['client_id'] }, issuer.audiences))
      return stale(`the token of ${issuer.issuer} is for somebody else`);
    if (typeof exp === 'number' && exp <= nowSeconds - tolerance) return stale(`the token of ${issuer.issuer} has expired`);
    if (typeof nbf === 'number' && nbf > nowSeconds + tolerance) return stale(`the token of ${issuer.issuer} does not hold yet`);
    return judgeClaims(answer, issuer, issuer.introspection!.addressClaim);
  }

  #keysFor(place: KeyPlace, settings: LoginSettings): IssuerKeys {
    const name = (issuer: Pick<KeyPlace, 'issuer' | 'jwksUrl'>) => `${issuer.issuer} ${issuer.jwksUrl ?? ''}`;
    if (settings !== this.#keysOf) {
      const wanted = new Set(Object.values(settings.issuers).map(name));
      for (const known of this.#keys.keys()) if (!wanted.has(known)) this.#keys.delete(known);
      this.#keysOf = settings;
    }
    const found = this.#keys.get(name(place)) ?? new IssuerKeys(this.#clock);
    this.#keys.set(name(place), found);
    return found;
  }
}

function introspectionPlace(introspection: NonNullable<IssuerSettings['introspection']>, settings: LoginSettings) {
  const { url, clientId, clientSecret } = introspection;
  const { timeoutSeconds, answerSeconds } = settings;
  return { url, clientId, clientSecret, timeoutMs: timeoutSeconds * 1_000, keepMs: answerSeconds * 1_000 };
}

/** The claims of what looks like a JWT, whoever has signed it; undefined for other tokens. */
function unverifiedClaims(token: string): JWTPayload | undefined {
  if (!/^[\w-]+\.[\w-]+\.[\w-]*$/.test(token)) return undefined;
  try {
    return decodeJwt(token);
  } catch {
    return undefined;
  }
}

/** What a refused client may want to know; with several issuers there is no one answer. */
function hint({ issuers }: LoginSettings): { openidConfiguration?: string; scope?: string } {
  const all = Object.values(issuers);
  const [only] = all;
  if (!only || all.length > 1) return {};
  const scope = only.requiredScopes.join(' ');
  return { openidConfiguration: discoveryUrl(only.issuer), ...(scope !== '' && { scope }) };
}
