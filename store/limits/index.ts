import type { Clock, Logger } from '../../ops/telemetry/index.js';
import type { KvStore } from '../kv/contract.js';
import { type BansDependencies, createBans, type OpenBans } from './bans.js';
import { createConcurrencyLimiter, type OpenConcurrencyLimiter, purgeDeadSlots } from './concurrency.js';
import type { Greylist, RateLimiter } from './contract.js';
import { type Assert, purgeExpired } from './expiring.js';
import { createGreylist, greylistTable } from './greylist.js';
import { createKnownLogins, type KnownLogins, knownLoginTable } from './known-logins.js';
import { createRateLimits, rateTable } from './rate-limiter.js';
import { countTable, createUseCounter, type UseCounter } from './use-counter.js';

export { banLimits, createBans, type OpenBans } from './bans.js';
export { createConcurrencyLimiter, type OpenConcurrencyLimiter } from './concurrency.js';
export type * from './contract.js';
export { createGreylist } from './greylist.js';
export { createKnownLogins, type KnownLogins } from './known-logins.js';
export { networkOf, parseAddress, parseNetwork } from './networks.js';
export { S3Fifo } from './s3-fifo.js';

export interface OpenRateLimiter extends RateLimiter, UseCounter {}

/** `take` and `peek` need no timers; `count` keeps what it has counted for up to a second: call `stop` before the store is closed. */
export function createRateLimiter(deps: { kv: KvStore; clock: Clock; logger: Logger }): OpenRateLimiter {
  const limits = createRateLimits(deps);
  const counter = createUseCounter(deps);
  return {
    take: (name, key, rate, amount) => limits.take(name, key, rate, amount),
    peek: (name, key, rate) => limits.peek(name, key, rate),
    count: (name, key, periodSeconds, amount) => counter.count(name, key, periodSeconds, amount),
    uses: (name, key, periodSeconds) => counter.uses(name, key, periodSeconds),
    reset: (name, key, periodSeconds) => counter.reset(name, key, periodSeconds),
    stop: () => counter.stop(),
  };
}

export interface Limits {
  rates: OpenRateLimiter;
  concurrency: OpenConcurrencyLimiter;
  greylist: Greylist;
  bans: OpenBans;
  knownLogins: KnownLogins;
  /**
   * In the job `purge`: forgets counters, greylist entries, slots of dead nodes and bans that are over. Bounded steps that may be cut off anywhere; `assert`
   * is called in each transaction and may throw. Throws KvError.
   */
  forgetExpired(nowMs: number, assert?: Assert): Promise<void>;
  /** Saves what waits, and ends all timers. */
  stop(): Promise<void>;
}

/** Everything of this room on one store. `bans.start()` is the caller's. */
export function createLimits(deps: BansDependencies & { nodeId: () => string }): Limits {
  const { kv } = deps;
  const rates = createRateLimiter(deps);
  const concurrency = createConcurrencyLimiter(deps);
  const greylist = createGreylist(deps);
  const bans = createBans(deps);
  const knownLogins = createKnownLogins(deps);
  return {
    rates,
    concurrency,
    greylist,
    bans,
    knownLogins,
    async forgetExpired(nowMs, assert) {
      for (const table of [rateTable, countTable, greylistTable, knownLoginTable]) await purgeExpired(kv, table, nowMs, assert);
      await purgeDeadSlots(kv, assert);
      await bans.forgetExpired(assert);
    },
    async stop() {
      concurrency.stop();
      await bans.stop();
      await rates.stop();
    },
  };
}
