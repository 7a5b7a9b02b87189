/** Asking an issuer about a token (RFC 7662). Good answers are kept for a while, under a digest of the token; the same token is asked about once at a time. */
import { createHash } from 'node:crypto';
import type { Clock } from '../../ops/telemetry/index.js';
import { fetchJson, IssuerError } from './fetch-json.js';

const maxKept = 10_000;
/** Questions at one time; more are turned away, or tokens that somebody makes up would fill the memory while an issuer is slow. */
const maxRunning = 100;

/** An answer that is `active`. */
export type ActiveToken = Readonly<Record<string, unknown>>;

export interface IntrospectionPlace {
  url: string;
  clientId: string;
  clientSecret: string;
  timeoutMs: number;
  keepMs: number;
}

export class Introspection {
  readonly #clock: Clock;
  readonly #kept = new Map<string, { answer: ActiveToken; untilMs: number }>();
  readonly #running = new Map<string, Promise<ActiveToken | undefined>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Undefined: the token is not active. Throws `IssuerError` when the issuer can't be asked. */
  async ask(place: IntrospectionPlace, token: string): Promise<ActiveToken | undefined> {
    const key = createHash('sha256').update(`${place.url}\0${place.clientId}\0${token}`).digest('base64');
    const kept = this.#kept.get(key);
    if (kept && kept.untilMs > this.#clock.monotonicMs()) return kept.answer;
    this.#kept.delete(key);
    const running = this.#running.get(key);
    if (running) return running;
    if (this.#running.size >= maxRunning) throw new IssuerError(`${maxRunning} tokens are being asked about already`);
    const asking = this.#ask(place, token, key).finally(() => this.#running.delete(key));
    this.#running.set(key, asking);
    return asking;
  }

  async #ask(place: IntrospectionPlace, token: string, key: string): Promise<ActiveToken | undefined> {
    const { url, clientId, clientSecret, timeoutMs, keepMs } = place;
    // RFC 6749 2.3.1: both parts are form-encoded before they become a Basic credential.
    const encoded = (text: string) => new URLSearchParams({ v: text }).toString().slice(2);
    const credential = Buffer.from(`${encoded(clientId)}:${encoded(clientSecret)}`).toString('base64');
    const form = new URLSearchParams({ token, token_type_hint: 'access_token' });
    const answer = await fetchJson({ url, timeoutMs, form, authorization: `Basic ${credential}` });
    if (answer['active'] !== true) return undefined;
    const expiresInMs = typeof answer['exp'] === 'number' ? answer['exp'] * 1_000 - this.#clock.nowMs() : keepMs;
    this.#keep(key, answer, Math.min(keepMs, expiresInMs));
    return answer;
  }

  #keep(key: string, answer: ActiveToken, forMs: number): void {
    if (forMs <= 0) return;
    if (this.#kept.size >= maxKept) this.#kept.delete(this.#kept.keys().next().value!);
    this.#kept.set(key, { answer, untilMs: this.#clock.monotonicMs() + forMs });
  }
}
