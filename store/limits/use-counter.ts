/**
 * Counts uses of a key on all nodes, approximately: each node keeps what it has counted for up to a second before it adds it to the record in the store.
 */
import type { Clock, Logger, Timer } from '../../ops/telemetry/index.js';
import type { KvStore } from '../kv/contract.js';
import { type ExpiringTable, indexExpiry, recordKey } from './expiring.js';
import { assertName, boundedKey } from './keys.js';
import { periodMsOf, windowOf } from './rate-limiter.js';
import { S3Fifo } from './s3-fifo.js';
import { bringToNow, bucketMsOf, bucketsPerPeriod, decodeWindow, encodeWindow, usesIn, windowEndsAtMs } from './use-window.js';

/** How old an answer may be, and how long uses wait to be added. */
const freshMs = 1_000;
const maxKeys = 20_000;
/** Keys with uses that the store could not take; what comes beyond is not counted. */
const maxUnsaved = 10_000;
const maxFlushesAtOnce = 16;

/** (limits, 'count', name, period ms, key) → uses. */
export const countTable: ExpiringTable = {
  table: 'count',
  expiresAtMs: (items, value) => windowEndsAtMs(decodeWindow(value), bucketMsOf(items[1] as number)),
};

export interface UseCounter {
  /** Counts `amount` more; answers the uses on all nodes within about the last period. Throws KvError: it is counted when the store can be used again. */
  count(name: string, key: string, periodSeconds: number, amount?: number): Promise<number>;
  /** The same without counting. */
  uses(name: string, key: string, periodSeconds: number): Promise<number>;
  /** Begins at 0 again. What other nodes have counted within the last second may come back. Throws KvError. */
  reset(name: string, key: string, periodSeconds: number): Promise<void>;
  /** Adds what waits, and ends. */
  stop(): Promise<void>;
}

interface Counted {
  items: [name: string, periodMs: number, of: string];
  /** In the store when it was last asked. */
  stored: number;
  askedAtMs: number;
  unsaved: number;
  offsetMs: number;
  /** Ends in the order in which they began: one transaction per key at a time. */
  busy: Promise<void>;
}

export function createUseCounter(deps: { kv: KvStore; clock: Clock; logger: Logger }): UseCounter {
  return new SharedCounter(deps.kv, deps.clock, deps.logger);
}

class SharedCounter implements UseCounter {
  readonly #known = new S3Fifo<Counted>(maxKeys);
  readonly #unsaved = new Map<string, Counted>();
  #timer: Timer | undefined;
  #isStopped = false;

  constructor(
    readonly kv: KvStore,
    readonly clock: Clock,
    readonly logger: Logger,
  ) {}

  async count(name: string, key: string, periodSeconds: number, amount = 1): Promise<number> {
    const [id, counted] = this.#entry(name, key, periodSeconds);
    if (this.#unsaved.size < maxUnsaved || this.#unsaved.has(id)) {
      counted.unsaved += amount;
      this.#unsaved.set(id, counted);
    }
    if (this.#isStale(counted)) await this.#exchange(id, counted);
    else this.#flushLater();
    return counted.stored + counted.unsaved;
  }

  async uses(name: string, key: string, periodSeconds: number): Promise<number> {
    const [id, counted] = this.#entry(name, key, periodSeconds);
    if (this.#isStale(counted)) await this.#exchange(id, counted);
    return counted.stored + counted.unsaved;
  }

  async reset(name: string, key: string, periodSeconds: number): Promise<void> {
    const [id, counted] = this.#entry(name, key, periodSeconds);
    const forget = async () => {
      counted.unsaved = 0;
      this.#unsaved.delete(id);
      await this.kv.transact(async (tx) => tx.clear(recordKey(countTable, ...counted.items)), { label: 'use-reset' });
      counted.stored = 0;
      counted.askedAtMs = this.clock.monotonicMs();
    };
    await this.#inTurn(counted, forget);
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#flush();
  }

  #entry(name: string, key: string, periodSeconds: number): [id: string, Counted] {
    assertName(name);
    const items: Counted['items'] = [name, periodMsOf(periodSeconds), boundedKey(key)];
    const id = items.join(' ');
    const known = this.#known.get(id) ?? this.#unsaved.get(id);
    if (known) return [id, known];
    const counted: Counted = {
      items,
      stored: 0,
      askedAtMs: Number.NEGATIVE_INFINITY,
      unsaved: 0,
      offsetMs: 0,
      busy: Promise.resolve(),
    };
    this.#known.set(id, counted);
    return [id, counted];
  }

  #isStale({ askedAtMs }: Counted): boolean {
    return this.clock.monotonicMs() - askedAtMs >= freshMs;
  }

  #inTurn(counted: Counted, work: () => Promise<void>): Promise<void> {
    const turn = counted.busy.then(work);
    counted.busy = turn.catch(() => {});
    return turn;
  }

  /** Adds what waits, and asks for the sum; once for all that wait for it. */
  #exchange(id: string, counted: Counted): Promise<void> {
    return this.#inTurn(counted, async () => {
      if (!this.#isStale(counted) && counted.unsaved === 0) return;
      const amount = counted.unsaved;
      counted.unsaved = 0;
      this.#unsaved.delete(id);
      try {
        counted.stored = await this.#add(counted, amount);
        counted.askedAtMs = this.clock.monotonicMs();
      } catch (error) {
        // Perhaps it is counted twice then: an approximate count may be, and one that an attacker can lose must not be.
        counted.unsaved += amount;
        if (counted.unsaved > 0) {
          this.#unsaved.set(id, counted);
          this.#flushLater();
        }
        throw error;
      }
    });
  }

  #add(counted: Counted, amount: number): Promise<number> {
    const storeKey = recordKey(countTable, ...counted.items);
    const bucketMs = bucketMsOf(counted.items[1]);
    return this.kv.transact(
      async (tx) => {
        const stored = await (amount > 0 ? tx : tx.snapshot).get(storeKey);
        const window = windowOf(stored);
        counted.offsetMs = bringToNow(window, bucketMs, this.clock.nowMs(), counted.offsetMs).offsetMs;
        if (amount > 0) {
          window.counts[0] = window.counts[0]! + amount;
          tx.set(storeKey, encodeWindow(window));
          if (!stored) indexExpiry(tx, countTable, counted.items, windowEndsAtMs(window, bucketMs));
        }
        return usesIn(window, bucketsPerPeriod + 1);
      },
      { label: 'use-count' },
    );
  }

  #flushLater(): void {
    if (!this.#isStopped) this.#timer ??= this.clock.setTimer(freshMs, () => void this.#flush(), { background: true });
  }

  /** Ends with the first failure: the store is not well, and what is left is tried with the next. */
  async #flush(): Promise<void> {
    this.#timer?.cancel();
    this.#timer = undefined;
    const waiting = [...this.#unsaved];
    for (let at = 0; at < waiting.length; at += maxFlushesAtOnce) {
      const some = waiting.slice(at, at + maxFlushesAtOnce).map(([id, counted]) => this.#exchange(id, counted));
      for (const result of await Promise.allSettled(some)) {
        if (result.status === 'fulfilled') continue;
        this.logger.debug({ err: result.reason }, 'uses can not be counted in the store yet');
        return;
      }
    }
  }
}
