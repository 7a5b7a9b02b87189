/**
 * `Resolver` on Node's own stub resolver (c-ares): asks the machine's or given servers, keeps a small cache, asks once for what many
 * want at the same time. Does not validate DNSSEC: `authenticated` is always false.
 */
import { Resolver as NodeResolver } from 'node:dns/promises';
import { isIP } from 'node:net';
import { type Clock, counter, systemClock } from '../../ops/telemetry/index.js';
import type { DnsOutcome, MxRecord, Resolver } from './contract.js';

/** `type`: mx, a, aaaa, txt, ptr. `result`: found, nodata, nxdomain, temporary, cached. */
const lookupsTotal = counter('starling_dns_lookups_total', 'DNS questions', ['type', 'result'] as const);

export interface SystemResolverOptions {
  /** `address` or `address:port`, IPv6 as `[address]:port`. Left out: the machine's. */
  servers?: readonly string[];
  /** For one try, milliseconds. */
  timeoutMs?: number;
  tries?: number;
  /** Cached answers; the oldest leave first. */
  maxCacheEntries?: number;
  /** Lifetime of answers whose TTL Node does not tell (MX, TXT, PTR). */
  defaultTtlSeconds?: number;
  /** Lifetime of "there is none". */
  negativeTtlSeconds?: number;
  /** No answer is kept longer. */
  maxTtlSeconds?: number;
  clock?: Clock;
}

type RecordType = 'mx' | 'a' | 'aaaa' | 'txt' | 'ptr';

interface CacheEntry {
  outcome: DnsOutcome<unknown>;
  /** Monotonic. */
  untilMs: number;
}

interface Answer<T> {
  records: T[];
  ttlSeconds?: number;
}

const canonical = (name: string) => name.replace(/\.$/, '').toLowerCase();

export class SystemResolver implements Resolver {
  readonly #resolver: NodeResolver;
  readonly #clock: Clock;
  readonly #maxCacheEntries: number;
  readonly #defaultTtlSeconds: number;
  readonly #negativeTtlSeconds: number;
  readonly #maxTtlSeconds: number;
  readonly #cache = new Map<string, CacheEntry>();
  readonly #running = new Map<string, Promise<DnsOutcome<unknown>>>();

  constructor(options: SystemResolverOptions = {}) {
    this.#resolver = new NodeResolver({ timeout: options.timeoutMs ?? 5_000, tries: options.tries ?? 3 });
    if (options.servers && options.servers.length > 0) this.#resolver.setServers(options.servers);
    this.#clock = options.clock ?? systemClock;
    this.#maxCacheEntries = options.maxCacheEntries ?? 10_000;
    this.#defaultTtlSeconds = options.defaultTtlSeconds ?? 60;
    this.#negativeTtlSeconds = options.negativeTtlSeconds ?? 30;
    this.#maxTtlSeconds = options.maxTtlSeconds ?? 3_600;
  }

  mx(name: string): Promise<DnsOutcome<MxRecord>> {
    return this.#lookup('mx', name, async (host) => {
      const records = await this.#resolver.resolveMx(host);
      return { records: records.map((record) => ({ preference: record.priority, exchange: canonical(record.exchange) })) };
    });
  }

  a(name: string): Promise<DnsOutcome<string>> {
    return this.#lookup('a', name, async (host) => addresses(await this.#resolver.resolve4(host, { ttl: true })));
  }

  aaaa(name: string): Promise<DnsOutcome<string>> {
    return this.#lookup('aaaa', name, async (host) => addresses(await this.#resolver.resolve6(host, { ttl: true })));
  }

  txt(name: string): Promise<DnsOutcome<string>> {
    return this.#lookup('txt', name, async (host) => ({
      records: (await this.#resolver.resolveTxt(host)).map((parts) => parts.join('')),
    }));
  }

  ptr(address: string): Promise<DnsOutcome<string>> {
    if (!isIP(address)) return Promise.resolve({ status: 'nxdomain', authenticated: false });
    return this.#lookup('ptr', address, async (host) => ({ records: (await this.#resolver.reverse(host)).map(canonical) }));
  }

  async #lookup<T>(type: RecordType, name: string, ask: (name: string) => Promise<Answer<T>>): Promise<DnsOutcome<T>> {
    const host = canonical(name);
    const key = `${type} ${host}`;
    const cached = this.#cache.get(key);
    if (cached && cached.untilMs > this.#clock.monotonicMs()) {
      lookupsTotal.inc({ type, result: 'cached' });
      return cached.outcome as DnsOutcome<T>;
    }
    let running = this.#running.get(key);
    if (!running) {
      running = this.#ask(type, host, key, ask).finally(() => this.#running.delete(key));
      this.#running.set(key, running);
    }
    return running as Promise<DnsOutcome<T>>;
  }

  async #ask<T>(type: RecordType, host: string, key: string, ask: (name: string) => Promise<Answer<T>>): Promise<DnsOutcome<T>> {
    let outcome: DnsOutcome<T>;
    try {
      const { records, ttlSeconds = this.#defaultTtlSeconds } = await ask(host);
      outcome =
        records.length > 0
          ? { status: 'found', records, authenticated: false, ttlSeconds: Math.min(ttlSeconds, this.#maxTtlSeconds) }
          : { status: 'nodata', authenticated: false };
    } catch (error) {
      outcome = outcomeOf(error);
    }
    lookupsTotal.inc({ type, result: outcome.status });
    this.#remember(key, outcome);
    return outcome;
  }

  #remember(key: string, outcome: DnsOutcome<unknown>): void {
    this.#cache.delete(key);
    if (outcome.status === 'temporary') return;
    const ttlSeconds = outcome.status === 'found' ? outcome.ttlSeconds : this.#negativeTtlSeconds;
    if (ttlSeconds <= 0) return;
    this.#cache.set(key, { outcome, untilMs: this.#clock.monotonicMs() + ttlSeconds * 1000 });
    if (this.#cache.size <= this.#maxCacheEntries) return;
    for (const oldest of this.#cache.keys()) {
      this.#cache.delete(oldest);
      break;
    }
  }
}

function addresses(records: { address: string; ttl: number }[]): Answer<string> {
  return { records: records.map((record) => record.address), ttlSeconds: Math.min(...records.map((record) => record.ttl)) };
}

/** c-ares codes: ENOTFOUND is NXDOMAIN, ENODATA an empty answer; a name that can't be asked for can't exist. All else says nothing. */
function outcomeOf(error: unknown): Exclude<DnsOutcome<never>, { status: 'found' }> {
  const code = (error as { code?: string }).code ?? 'unknown';
  if (code === 'ENODATA') return { status: 'nodata', authenticated: false };
  if (code === 'ENOTFOUND' || code === 'EBADNAME') return { status: 'nxdomain', authenticated: false };
  return { status: 'temporary', reason: code };
}
