/** What the tests of this folder stand on: nodes with clocks of their own on one memory database, in virtual time. */
import { type Clock, type Random, silentLogger, sleepOn, type Timer } from '../../ops/telemetry/index.js';
import { keyItems, keysUnder, nodeKeys, subspace } from '../keyspace.js';
import { type KvStore, MemoryDatabase, type MemoryFaultOptions, openMemoryStore } from '../kv/index.js';

/** Time that stands still until it is told to go on; timers fire in order. */
export class VirtualTime {
  elapsedMs = 0;
  readonly #timers = new Set<{ atMs: number; callback: () => void }>();

  /** A clock of this time whose wall shows `offsetMs` more (or less). */
  clock(offsetMs = 0): Clock & { offsetMs: number } {
    const startMs = 1_800_000_000_000;
    const clock = {
      offsetMs,
      nowMs: () => startMs + this.elapsedMs + clock.offsetMs,
      monotonicMs: () => this.elapsedMs,
      setTimer: (delayMs: number, callback: () => void): Timer => {
        const timer = { atMs: this.elapsedMs + delayMs, callback };
        this.#timers.add(timer);
        return { cancel: () => this.#timers.delete(timer) };
      },
      sleep: (delayMs: number, signal?: AbortSignal) => sleepOn(clock, delayMs, signal),
    };
    return clock;
  }

  async advance(ms: number): Promise<void> {
    const endMs = this.elapsedMs + ms;
    for (;;) {
      await settle();
      const next = [...this.#timers].filter(({ atMs }) => atMs <= endMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (!next) break;
      this.#timers.delete(next);
      this.elapsedMs = Math.max(this.elapsedMs, next.atMs);
      next.callback();
    }
    this.elapsedMs = endMs;
    await settle();
  }

  /** Lets time go on until the promise is settled. */
  async until<T>(promise: Promise<T>, stepMs = 5): Promise<T> {
    let isSettled = false;
    const settled = promise.finally(() => {
      isSettled = true;
    });
    settled.catch(() => {});
    await settle();
    for (let step = 0; !isSettled; step++) {
      if (step > 100_000) throw new Error('it never ends');
      await this.advance(stepMs);
    }
    return settled;
  }
}

/** Lets everything that waits for nothing but its turn happen. */
async function settle(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
}

export function seeded(seed: number): Random {
  let state = seed >>> 0 || 1;
  const float = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
  return { float, bytes: (length) => Buffer.from(Array.from({ length }, () => Math.floor(float() * 256))) };
}

/** Counts transactions and reads. */
export function counting(kv: KvStore): KvStore & { transactions: number; reads: number } {
  const counted = Object.assign(Object.create(kv) as KvStore & { transactions: number; reads: number }, {
    transactions: 0,
    reads: 0,
  });
  counted.transact = (body, options) => {
    counted.transactions++;
    return kv.transact(body, options);
  };
  counted.read = (body, options) => {
    counted.reads++;
    return kv.read(body, options);
  };
  return counted;
}

export function bench(seed = 1) {
  const time = new VirtualTime();
  const clock = time.clock();
  const database = new MemoryDatabase({ clock });
  const random = seeded(seed);
  return {
    time,
    clock,
    random,
    logger: silentLogger,
    store: (faults: MemoryFaultOptions = {}) => openMemoryStore({ database, clock, random, faults }),
  };
}

/** How many rows each table of a subspace has. */
export async function tables(kv: KvStore, space: number = subspace.limits): Promise<Record<string, number>> {
  const { begin, end } = keysUnder(space);
  const rows = await kv.read((reads) => reads.getRange(begin, end));
  const counts: Record<string, number> = {};
  for (const { key } of rows) {
    // The log's versionstamps are not for this library.
    const table = key.includes('ban-log\0') ? 'ban-log' : String(keyItems(key)[1]);
    counts[table] = (counts[table] ?? 0) + 1;
  }
  return counts;
}

export const raiseFence = (kv: KvStore, nodeId: string) =>
  kv.transact(async (tx) => tx.set(nodeKeys.fence(nodeId), Buffer.alloc(0)));
export const breakFence = (kv: KvStore, nodeId: string) => kv.transact(async (tx) => tx.clear(nodeKeys.fence(nodeId)));
