/** What the cases of the conformance suite share: what a backend offers, the room each case works in, short ways to fill it and look at it. */
import { type Clock, systemClock } from '../../ops/telemetry/index.js';
import { type KeyValue, KvError, type KvStore, type KvTransaction, prefixEnd } from './contract.js';

/** One kind of store under test. */
export interface ConformanceBackend {
  readonly name: string;
  /** Opens a store on data of its own, or on data that all share; with the clock given, if the backend takes one. */
  open(clock?: Clock): Promise<KvStore>;
  /** Whether `open` heeds the clock: else what needs time to pass is left out, or tried in real time with `STARLING_KV_SLOW=1`. */
  readonly takesClock: boolean;
  /** Another store ("node") on the data of a store that `open` gave. Where it is there, all that is about concurrency runs over two stores as well. */
  openAnother?(store: KvStore): Promise<KvStore>;
  /** How commits are made unknown, where that can be done. */
  readonly faults?: CommitFaults;
}

/** Ways to lose the answer to a commit. */
export interface CommitFaults {
  /**
   * The next commit with writes through `store` (one that `open` gave) loses its answer: after it was `applied`, or before the database had it (`lost`).
   * Counts once; commits after it are answered.
   */
  makeNextCommitUnknown(store: KvStore, outcome: 'applied' | 'lost'): void | Promise<void>;
  /** True for a backend that asks the database what became of the commit: then the body need not run again, and `commit-unknown` need not show. */
  readonly findsOut?: boolean;
}

/** The part of vitest that the suites need. */
export interface TestRunner {
  describe(name: string, body: () => void): void;
  it(name: string, body: () => Promise<void>, timeoutMs?: number): void;
  beforeAll(body: () => Promise<void>): void;
  afterAll(body: () => Promise<void>): void;
}

/** What a case gets: open stores on the same data, and keys of its own. */
export interface CaseRoom {
  readonly store: KvStore;
  /** The store of whoever interferes: another node where there is one, else `store`. */
  readonly other: KvStore;
  /** For many clients: each takes `stores[client % stores.length]`. */
  readonly stores: readonly KvStore[];
  /** A key below the case's prefix. */
  key(name: string | Uint8Array): Buffer;
  /** All keys of the case. */
  readonly begin: Buffer;
  readonly end: Buffer;
}

export type ConformanceCase = readonly [name: string, run: (room: CaseRoom) => Promise<void>];

/** Bytes before the names of a case's keys. */
export const roomPrefixBytes = 3;

/** The room of case number `index` (up to 39,000). */
export function roomIn(stores: readonly KvStore[], index: number): CaseRoom {
  const prefix = Buffer.from([0x63 + (index >>> 8), index & 0xff, 0x2f]);
  const key = (name: string | Uint8Array) =>
    Buffer.concat([prefix, typeof name === 'string' ? Buffer.from(name, 'latin1') : name]);
  return { store: stores[0]!, other: stores.at(-1)!, stores, key, begin: prefix, end: prefixEnd(prefix) };
}

/** The machine's clock, moved forward at will. */
export class ShiftedClock implements Clock {
  #shiftMs = 0;
  advance(byMs: number): void {
    this.#shiftMs += byMs;
  }
  nowMs(): number {
    return systemClock.nowMs() + this.#shiftMs;
  }
  monotonicMs(): number {
    return systemClock.monotonicMs() + this.#shiftMs;
  }
  setTimer: Clock['setTimer'] = systemClock.setTimer;
  sleep: Clock['sleep'] = systemClock.sleep;
}

/** The text of keys without the case's prefix, and of values: `a=1 b=2`. */
export function shown(rows: readonly KeyValue[]): string {
  return rows.map(({ key, value }) => `${nameOf(key)}=${value.toString('latin1')}`).join(' ');
}

/** A key without the case's prefix. */
export function nameOf(key: Buffer): string {
  return key.subarray(roomPrefixBytes).toString('latin1');
}

export function bytes(text: string): Buffer {
  return Buffer.from(text, 'latin1');
}

/** Eight bytes, little-endian, as atomic operations take them. */
export function number64(value: bigint): Buffer {
  const result = Buffer.alloc(8);
  result.writeBigUInt64LE(BigInt.asUintN(64, value));
  return result;
}

/** Sets `a=1 b=2 …` in one transaction; `a=` followed by nothing clears it. */
export async function fill(room: CaseRoom, pairs: string, store: KvStore = room.store): Promise<void> {
  await store.transact(async (tx) => {
    for (const pair of pairs.split(' ')) {
      const [name, value] = pair.split('=') as [string, string];
      if (value === '') tx.clear(room.key(name));
      else tx.set(room.key(name), bytes(value));
    }
  });
}

export async function everything(room: CaseRoom): Promise<string> {
  return shown(await room.store.read((reads) => reads.getRange(room.begin, room.end)));
}

/** Runs one body without retries; its error's code, or `done`. */
export async function once(store: KvStore, body: (tx: KvTransaction) => Promise<unknown>): Promise<string> {
  try {
    await store.transact(body, { maxAttempts: 1 });
    return 'done';
  } catch (error) {
    if (error instanceof KvError) return error.code;
    throw error;
  }
}

/** A transaction reads, another node commits `writes`, the first one writes: how that ends. */
export async function afterwards(
  room: CaseRoom,
  read: (tx: KvTransaction) => Promise<unknown>,
  writes: (tx: KvTransaction) => void,
): Promise<string> {
  return once(room.store, async (tx) => {
    await read(tx);
    // Whatever a slow backend puts off, the version that is read is fixed now.
    await tx.readVersion();
    await room.other.transact(async (other) => writes(other));
    tx.set(room.key('mine'), bytes('1'));
  });
}

/** Lets timers and sockets have their turn: a loop of reads that a store answers at once would keep them from it for ever. */
export function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Numbers from a seed (mulberry32): the same on every machine. `below` is exclusive. */
export function seededNumbers(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296) * below);
  };
}
