/**
 * Rates that hold for the whole cluster. The store has one record per key; a node takes lots from it and spends them in memory, so a busy key costs each node
 * a transaction or so per 24th of the period. What `contract.ts` promises, and how it is kept:
 * - A lot is counted in the bucket in which it was taken and ends with it (on the monotonic clock), so nothing is used later than it is counted.
 * - What was not used is given back with the next transaction of the key, and never when its commit may have happened before.
 */
import { type Clock, counter } from '../../ops/telemetry/index.js';
import type { KvStore, KvTransaction } from '../kv/contract.js';
import type { Rate, RateLimiter, RateVerdict } from './contract.js';
import { type ExpiringTable, indexExpiry, recordKey } from './expiring.js';
import { assertName, boundedKey } from './keys.js';
import { S3Fifo } from './s3-fifo.js';
import {
  bringToNow,
  bucketMsOf,
  decodeWindow,
  encodeWindow,
  freesInMs,
  giveBack,
  type UseWindow,
  usesIn,
  windowEndsAtMs,
} from './use-window.js';

/** `result`: local = from a lot or a refusal that was remembered, store = decided by a transaction. Limits have bounded names. */
const takesTotal = counter('starling_rate_limit_takes_total', 'Takes from rate limits, by where they were decided.', [
  'limit',
  'result',
]);
const refusedTotal = counter('starling_rate_limit_refused_total', 'Takes that a rate limit has refused.', ['limit']);

export const rateLimits = {
  /** Keys whose lots and refusals a node remembers. */
  maxKeys: 20_000,
  maxPeriodSeconds: 31 * 86_400,
  /** A node takes no more in advance than this share of what is left: as many nodes can do the same. */
  lotShare: 1 / 8,
  /** A refusal is asked again after a bucket, but within these. */
  minRefusalMs: 1_000,
  maxRefusalMs: 30_000,
  maxAttempts: 30,
} as const;

/** (limits, 'rate', name, period ms, key) → uses. */
export const rateTable: ExpiringTable = {
  table: 'rate',
  expiresAtMs: (items, value) => windowEndsAtMs(decodeWindow(value), bucketMsOf(items[1] as number)),
};

const allowed: RateVerdict = { isAllowed: true };

/** Throws RangeError for what is no rate. Answers the period in whole milliseconds. */
export function periodMsOf(periodSeconds: number): number {
  if (!(periodSeconds >= 1 && periodSeconds <= rateLimits.maxPeriodSeconds)) {
    throw new RangeError(`a period has 1 to ${rateLimits.maxPeriodSeconds} seconds, not ${periodSeconds}`);
  }
  return Math.round(periodSeconds * 1000);
}

/** What a node knows of one key under one limit. Times are monotonic. */
interface Allowance {
  /** Taken and not used yet. */
  lot: number;
  lotBucket: number;
  lotEndsAtMs: number;
  /** Used in the bucket of the lot. */
  used: number;
  /** How much to take in advance the next time. */
  ahead: number;
  offsetMs: number;
  /** Takes of at least so much are refused until then without asking. */
  refusedAmount: number;
  refusedUntilMs: number;
  /** When they may be allowed again. */
  freeAtMs: number;
}

interface Waiter {
  amount: number;
  resolve(verdict: RateVerdict): void;
  reject(error: unknown): void;
}

interface Limit {
  id: string;
  name: string;
  of: string;
  count: number;
  periodMs: number;
}

/** A transaction of one key, and who waits for it or for the one after it. */
interface Round {
  allowance: Allowance;
  waiters: Waiter[];
}

interface Taken {
  verdicts: RateVerdict[];
  lot: number;
  bucket: number;
  lotEndsAtMs: number;
  offsetMs: number;
  refusedAmount: number;
  freeInMs: number;
}

/** `maxKeys`: keys remembered. Default 20,000 (some megabytes). */
export function createRateLimits(deps: { kv: KvStore; clock: Clock; maxKeys?: number }): Pick<RateLimiter, 'take' | 'peek'> {
  return new RateLots(deps.kv, deps.clock, deps.maxKeys ?? rateLimits.maxKeys);
}

class RateLots {
  readonly #kv: KvStore;
  readonly #clock: Clock;
  readonly #known: S3Fifo<Allowance>;
  readonly #rounds = new Map<string, Round>();

  constructor(kv: KvStore, clock: Clock, maxKeys: number) {
    this.#kv = kv;
    this.#clock = clock;
    this.#known = new S3Fifo(maxKeys);
  }

  async take(name: string, key: string, rate: Rate, amount = 1): Promise<RateVerdict> {
    if (!Number.isSafeInteger(amount) || amount < 1) throw new RangeError(`an amount is a positive integer, not ${amount}`);
    const limit = limitOf(name, key, rate);
    const known = this.#known.get(limit.id);
    const verdict = known && this.#decideLocally(known, amount);
    takesTotal.inc({ limit: name, result: verdict ? 'local' : 'store' });
    const decided = verdict ?? (await this.#join(limit, amount));
    if (!decided.isAllowed) refusedTotal.inc({ limit: name });
    return decided;
  }

  async peek(name: string, key: string, rate: Rate): Promise<RateVerdict> {
    const limit = limitOf(name, key, rate);
    const known = this.#known.get(limit.id);
    const verdict = known && this.#look(known, 1);
    if (verdict) return verdict;
    const stored = await this.#kv.read((reads) => reads.get(storeKey(limit)), { label: 'rate-peek' });
    const window = windowOf(stored);
    const bucketMs = bucketMsOf(limit.periodMs);
    const { nowMs } = bringToNow(window, bucketMs, this.#clock.nowMs(), known?.offsetMs ?? 0);
    const missing = usesIn(window) + 1 - limit.count;
    return missing <= 0 ? allowed : refused(limit.count < 1 ? limit.periodMs : freesInMs(window, missing, bucketMs, nowMs));
  }

  #look(known: Allowance, amount: number): RateVerdict | undefined {
    const nowMs = this.#clock.monotonicMs();
    if (known.lot >= amount && nowMs < known.lotEndsAtMs) return allowed;
    if (amount >= known.refusedAmount && nowMs < known.refusedUntilMs) return refused(known.freeAtMs - nowMs);
    return undefined;
  }

  #decideLocally(known: Allowance, amount: number): RateVerdict | undefined {
    const verdict = this.#look(known, amount);
    if (verdict?.isAllowed) {
      known.lot -= amount;
      known.used += amount;
    }
    return verdict;
  }

  /** Waits with whoever else asks for this key now. */
  #join(limit: Limit, amount: number): Promise<RateVerdict> {
    return new Promise((resolve, reject) => {
      const waiter = { amount, resolve, reject };
      const running = this.#rounds.get(limit.id);
      if (running) {
        running.waiters.push(waiter);
        return;
      }
      const round: Round = { allowance: this.#known.get(limit.id) ?? newAllowance(), waiters: [waiter] };
      this.#rounds.set(limit.id, round);
      // Whoever asks within this tick goes along.
      queueMicrotask(() => void this.#run(limit, round));
    });
  }

  /** Never rejects: what goes wrong is the waiters'. */
  async #run(limit: Limit, round: Round): Promise<void> {
    const { allowance } = round;
    while (round.waiters.length > 0) {
      const waiters = round.waiters.filter((waiter) => {
        const verdict = this.#decideLocally(allowance, waiter.amount);
        if (verdict) waiter.resolve(verdict);
        return !verdict;
      });
      round.waiters = [];
      if (waiters.length === 0) break;
      try {
        const verdicts = await this.#takeLot(limit, allowance, waiters);
        for (const [i, waiter] of waiters.entries()) waiter.resolve(verdicts[i]!);
      } catch (error) {
        for (const waiter of waiters) waiter.reject(error);
      }
    }
    this.#rounds.delete(limit.id);
    this.#known.set(limit.id, allowance);
  }

  async #takeLot(limit: Limit, allowance: Allowance, waiters: readonly Waiter[]): Promise<RateVerdict[]> {
    const wanted = waiters.reduce((sum, { amount }) => sum + amount, 0);
    const ahead = nextAhead(allowance, wanted, bucketMsOf(limit.periodMs), this.#clock.monotonicMs());
    const unused = { amount: allowance.lot, bucket: allowance.lotBucket };
    // From here the lot belongs to the transaction: when that fails, nobody can tell whether it was given back.
    allowance.lot = 0;
    const taken = await this.#kv.transact((tx) => this.#take(tx, limit, allowance.offsetMs, unused, ahead, waiters), {
      label: 'rate-take',
      maxAttempts: rateLimits.maxAttempts,
    });
    const nowMs = this.#clock.monotonicMs();
    const granted = waiters.reduce((sum, { amount }, i) => (taken.verdicts[i]!.isAllowed ? sum + amount : sum), 0);
    allowance.used = granted + (taken.bucket === allowance.lotBucket ? allowance.used : 0);
    allowance.lot = taken.lot;
    allowance.lotBucket = taken.bucket;
    allowance.lotEndsAtMs = taken.lotEndsAtMs;
    allowance.ahead = ahead;
    allowance.offsetMs = taken.offsetMs;
    allowance.refusedAmount = taken.refusedAmount;
    allowance.freeAtMs = nowMs + taken.freeInMs;
    const { minRefusalMs, maxRefusalMs } = rateLimits;
    const askAgainMs = Math.min(maxRefusalMs, Math.max(minRefusalMs, bucketMsOf(limit.periodMs)));
    allowance.refusedUntilMs = nowMs + Math.min(taken.freeInMs, askAgainMs);
    return taken.verdicts;
  }

  async #take(
    tx: KvTransaction,
    limit: Limit,
    offsetMs: number,
    unused: { amount: number; bucket: number },
    ahead: number,
    waiters: readonly Waiter[],
  ): Promise<Taken> {
    const bucketMs = bucketMsOf(limit.periodMs);
    const startedAtMs = this.#clock.monotonicMs();
    const clockMs = this.#clock.nowMs();
    const stored = await tx.get(storeKey(limit));
    const window = windowOf(stored);
    const moment = bringToNow(window, bucketMs, clockMs, offsetMs);
    // A run that may have been committed has given back already: once too few is safe.
    const mayGiveBack = unused.amount > 0 && stored !== undefined && !moment.isMoved && !tx.mayHaveCommitted;
    const given = mayGiveBack ? giveBack(window, unused.bucket, unused.amount) : 0;
    let free = limit.count - usesIn(window);
    let taken = 0;
    let refusedAmount = Number.POSITIVE_INFINITY;
    let freeInMs = 0;
    const verdicts = waiters.map(({ amount }) => {
      if (amount <= free) {
        free -= amount;
        taken += amount;
        return allowed;
      }
      const retryMs = amount > limit.count ? limit.periodMs : freesInMs(window, amount - free - taken, bucketMs, moment.nowMs);
      if (amount < refusedAmount) {
        refusedAmount = amount;
        freeInMs = retryMs;
      }
      return refused(retryMs);
    });
    const lot = taken > 0 ? Math.min(ahead, Math.floor(free * rateLimits.lotShare)) : 0;
    window.counts[0] = window.counts[0]! + taken + lot;
    // Pulled back once, or it would be the newest for everybody again.
    if (taken + given > 0 || moment.isMoved) {
      tx.set(storeKey(limit), encodeWindow(window));
      if (!stored) indexExpiry(tx, rateTable, itemsOf(limit), windowEndsAtMs(window, bucketMs));
    }
    const lotEndsAtMs = startedAtMs + (moment.bucket + 1) * bucketMs - moment.nowMs;
    return { verdicts, lot, bucket: moment.bucket, lotEndsAtMs, offsetMs: moment.offsetMs, refusedAmount, freeInMs };
  }
}

function newAllowance(): Allowance {
  return {
    lot: 0,
    lotBucket: -1,
    lotEndsAtMs: Number.NEGATIVE_INFINITY,
    used: 0,
    ahead: 0,
    offsetMs: 0,
    refusedAmount: Number.POSITIVE_INFINITY,
    refusedUntilMs: Number.NEGATIVE_INFINITY,
    freeAtMs: Number.NEGATIVE_INFINITY,
  };
}

/** Four times as much when the last lot did not last for its bucket, else what that bucket has used; nothing after a pause, nor the first time. */
function nextAhead({ lotEndsAtMs, ahead, used }: Allowance, wanted: number, bucketMs: number, nowMs: number): number {
  if (nowMs < lotEndsAtMs) return Math.max(4 * ahead, 2 * wanted);
  return nowMs < lotEndsAtMs + 2 * bucketMs ? Math.ceil(1.25 * used) : 0;
}

function limitOf(name: string, key: string, { count, periodSeconds }: Rate): Limit {
  assertName(name);
  if (!(count >= 0 && count <= Number.MAX_SAFE_INTEGER)) throw new RangeError(`a rate's count is not negative: ${count}`);
  const periodMs = periodMsOf(periodSeconds);
  const of = boundedKey(key);
  return { id: `${name} ${periodMs} ${count} ${of}`, name, of, count, periodMs };
}

const itemsOf = ({ name, of, periodMs }: Limit) => [name, periodMs, of];
const storeKey = ({ name, of, periodMs }: Limit): Buffer => recordKey(rateTable, name, periodMs, of);

export function windowOf(stored: Buffer | undefined): UseWindow {
  return stored ? decodeWindow(stored) : { newest: 0, counts: [] };
}

function refused(retryAfterMs: number): RateVerdict {
  return { isAllowed: false, retryAfterSeconds: Math.max(1, Math.ceil(retryAfterMs / 1000)) };
}
