/**
 * An issuer's public keys: found by discovery, kept for a while, looked for again when a token names one that is not known (at most so often), and used on when
 * the issuer can't be reached.
 */
import { createLocalJWKSet, type JSONWebKeySet } from 'jose';
import type { Clock } from '../../ops/telemetry/index.js';
import { fetchJson, IssuerError } from './fetch-json.js';

/** Between two looks for a key that is not known: anybody can make up key ids. */
const searchPauseMs = 30_000;
/** After a failure the issuer is left alone for so long. */
const failurePauseMs = 5_000;
/** Keys that could not be looked for anew serve on for so long after they were fetched. */
const maxAgeMs = 24 * 3_600_000;

type LocalJWKSet = ReturnType<typeof createLocalJWKSet>;

export interface KeyPlace {
  issuer: string;
  jwksUrl?: string | undefined;
  timeoutMs: number;
  keepMs: number;
}

/** OpenID Connect Discovery 4: where an issuer's document is. */
export function discoveryUrl(issuer: string): string {
  return `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
}

export class IssuerKeys {
  readonly #clock: Clock;
  #keys: LocalJWKSet | undefined;
  #fetchedAtMs = 0;
  #triedAtMs = Number.NEGATIVE_INFINITY;
  #failure: IssuerError | undefined;
  #running: Promise<void> | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Throws `IssuerError` when there are none, and none can be had. */
  async current(place: KeyPlace): Promise<LocalJWKSet> {
    const ageMs = this.#clock.monotonicMs() - this.#fetchedAtMs;
    if (!this.#keys || ageMs >= place.keepMs) await this.#look(place, failurePauseMs);
    const keys = this.#keys;
    if (!keys || this.#clock.monotonicMs() - this.#fetchedAtMs >= maxAgeMs)
      throw this.#failure ?? new IssuerError('the issuer has no keys');
    return keys;
  }

  /** A token names a key that is not among them. Answers whether it is worth another try. */
  async lookAgain(place: KeyPlace): Promise<boolean> {
    const before = this.#keys;
    await this.#look(place, searchPauseMs);
    return this.#keys !== before;
  }

  /** One look at a time, and none within `pauseMs` of the last. Never throws. */
  async #look(place: KeyPlace, pauseMs: number): Promise<void> {
    if (this.#running) return this.#running;
    if (this.#clock.monotonicMs() - this.#triedAtMs < pauseMs) return;
    this.#triedAtMs = this.#clock.monotonicMs();
    this.#running = this.#fetch(place)
      .then(
        (keys) => {
          this.#keys = keys;
          this.#fetchedAtMs = this.#clock.monotonicMs();
          this.#failure = undefined;
        },
        (error: unknown) => {
          this.#failure = error instanceof IssuerError ? error : new IssuerError(String(error), { cause: error });
        },
      )
      .finally(() => {
        this.#running = undefined;
      });
    return this.#running;
  }

  async #fetch({ issuer, jwksUrl, timeoutMs }: KeyPlace): Promise<LocalJWKSet> {
    const url = jwksUrl ?? (await this.#discover(issuer, timeoutMs));
    const document = await fetchJson({ url, timeoutMs });
    try {
      return createLocalJWKSet(document as unknown as JSONWebKeySet);
    } catch (error) {
      throw new IssuerError(`${url}: no set of keys`, { cause: error });
    }
  }

  async #discover(issuer: string, timeoutMs: number): Promise<string> {
    const document = await fetchJson({ url: discoveryUrl(issuer), timeoutMs });
    const found = document['jwks_uri'];
    // OpenID Connect Discovery 4.3: a document that speaks of another issuer is none of this one's.
    if (document['issuer'] !== issuer) throw new IssuerError(`the discovery document of ${issuer} names another issuer`);
    if (typeof found !== 'string' || !URL.canParse(found))
      throw new IssuerError(`the discovery document of ${issuer} has no jwks_uri`);
    // Keys that came in the clear would let anybody on the way log in; where the issuer itself is asked in the clear (this machine), they may.
    if (new URL(found).protocol !== 'https:' && new URL(found).protocol !== new URL(issuer).protocol) {
      throw new IssuerError(`the keys of ${issuer} are not behind TLS`);
    }
    return found;
  }
}
