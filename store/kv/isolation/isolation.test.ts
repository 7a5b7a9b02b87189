import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../../ops/telemetry/index.js';
import { seededNumbers } from '../conformance-room.suite.js';
import type { KvReads, KvStore, KvTransaction } from '../contract.js';
import { MemoryDatabase, type MemoryStore, openEmbeddedStore, openMemoryStore } from '../index.js';
import { checkHistory } from './checker.js';
import { describeIsolation, type FaultRun } from './isolation.suite.js';
import { runWorkload } from './workload.js';

const runner = { describe, it, beforeAll, afterAll };
const slowly = () => (Math.random() < 0.3 ? 0.5 : 0);

function memoryStores(count: number, delayMs?: () => number): MemoryStore[] {
  const database = new MemoryDatabase();
  return Array.from({ length: count }, () => openMemoryStore({ database, faults: { delayMs } }));
}

async function closeAll(stores: readonly KvStore[]): Promise<void> {
  await Promise.all(stores.map((store) => store.close()));
}

/** Lost answers, invented conflicts, and short outages of one node at a time. */
async function memoryFaults({ stores, signal, random }: FaultRun): Promise<void> {
  const memory = stores as readonly MemoryStore[];
  for (const { faults } of memory) Object.assign(faults, { commitUnknownApplied: 0.05, commitUnknownLost: 0.05, conflict: 0.05 });
  while (!signal.aborted) {
    const { faults } = memory[random(memory.length)]!;
    faults.outage = true;
    await systemClock.sleep(2);
    faults.outage = false;
    await systemClock.sleep(random(10));
  }
  for (const { faults } of memory) Object.assign(faults, { commitUnknownApplied: 0, commitUnknownLost: 0, conflict: 0 });
}

describeIsolation(runner, {
  name: 'memory',
  open: async () => {
    const stores = memoryStores(3, slowly);
    return { stores, close: () => closeAll(stores) };
  },
  faults: memoryFaults,
});

const root = mkdtempSync(join(tmpdir(), 'starling-isolation-'));
let directories = 0;
afterAll(() => rmSync(root, { recursive: true, force: true }));

describeIsolation(runner, {
  name: 'embedded',
  open: async () => {
    const stores = [await openEmbeddedStore({ directory: join(root, String(directories++)), durability: 'none' })];
    return { stores, close: () => closeAll(stores) };
  },
});

/** A store that does something wrong on purpose; what it does not change goes to the store behind it. */
function broken(store: KvStore, changes: Partial<KvStore>): KvStore {
  return {
    backend: store.backend,
    transact: (body, options) => store.transact(body, options),
    transactVersioned: (body, options) => store.transactVersioned(body, options),
    read: (body, options) => store.read(body, options),
    check: () => store.check(),
    close: () => store.close(),
    ...changes,
  };
}

/** `tx` with some of its methods replaced. */
function replaced(tx: KvTransaction, changes: Partial<KvTransaction>): KvTransaction {
  return new Proxy(tx, {
    get: (target, name) => {
      const own = changes[name as keyof KvTransaction];
      if (own !== undefined) return own;
      const value = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

const withoutConflicts = (tx: KvTransaction): Partial<KvTransaction> => ({
  get: (key) => tx.snapshot.get(key),
  getMany: (keys) => tx.snapshot.getMany(keys),
  getRange: (begin, end, options) => tx.snapshot.getRange(begin, end, options),
  addReadConflictKey: () => {},
  addReadConflictRange: () => {},
});

/** Kinds of anomalies in runs on stores of which each is broken by `break_`, until one of them is `wanted`. */
async function kindsFoundIn(
  break_: (store: KvStore) => KvStore,
  wanted: (kind: string) => boolean,
  seeds = 12,
): Promise<string[]> {
  const kinds = new Set<string>();
  for (let seed = 1; seed <= seeds && ![...kinds].some(wanted); seed++) {
    const stores = memoryStores(2, slowly).map(break_);
    const options = { random: seededNumbers(seed), prefix: Buffer.from('x/'), clients: 8, maxTransactions: 300, maxMs: 5_000 };
    for (const { kind } of checkHistory(await runWorkload(stores, options))) kinds.add(kind);
    await closeAll(stores);
  }
  return [...kinds];
}

const is =
  (...wanted: string[]) =>
  (kind: string) =>
    wanted.includes(kind);
const isCircle = is('G0', 'G1c', 'G-single', 'G2', 'G2-item');

describe('the checker catches a store that', () => {
  it('is not broken: nothing is found', async () => {
    expect(await kindsFoundIn((store) => broken(store, {}), is(), 3)).toEqual([]);
  });

  it('forgets all read conflicts', async () => {
    const kinds = await kindsFoundIn(
      (store) =>
        broken(store, {
          transactVersioned: (body, options) =>
            store.transactVersioned((tx) => body(replaced(tx, withoutConflicts(tx))), options),
        }),
      is('lost-append'),
    );
    expect(kinds).toContain('lost-append');
  });

  it('forgets the conflicts of what is read and not written: snapshot isolation', async () => {
    const kinds = await kindsFoundIn(
      (store) =>
        broken(store, {
          transactVersioned: (body, options) =>
            store.transactVersioned((tx) => {
              const set = (key: Uint8Array, value: Uint8Array) => {
                tx.addReadConflictKey(key);
                tx.set(key, value);
              };
              return body(replaced(tx, { ...withoutConflicts(tx), set }));
            }, options),
        }),
      is('G2', 'G2-item'),
    );
    expect(kinds.some(is('G2', 'G2-item'))).toBe(true);
    expect(kinds).not.toContain('lost-append');
  });

  it('forgets the conflicts of ranges alone: phantoms', async () => {
    const kinds = await kindsFoundIn(
      (store) =>
        broken(store, {
          transactVersioned: (body, options) =>
            store.transactVersioned((tx) => body(replaced(tx, { getRange: withoutConflicts(tx).getRange! })), options),
        }),
      isCircle,
    );
    expect(kinds.some(isCircle)).toBe(true);
  });

  it('lets read-only transactions see an old state', async () => {
    const kinds = await kindsFoundIn((store) => {
      // A copy of everything, refreshed now and then: consistent, and behind.
      let rows: { key: Buffer; value: Buffer }[] = [];
      let turns = 0;
      const reads: KvReads = {
        get: async (key) => rows.find((row) => row.key.equals(key))?.value,
        getMany: async (keys) => keys.map((key) => rows.find((row) => row.key.equals(key))?.value),
        getRange: async (begin, end, options) => {
          const found = rows.filter((row) => Buffer.compare(row.key, begin) >= 0 && Buffer.compare(row.key, end) < 0);
          return (options?.reverse ? found.reverse() : found).slice(0, options?.limit);
        },
      };
      return broken(store, {
        read: async (body) => {
          if (turns++ % 8 === 0) rows = await store.read((fresh) => fresh.getRange(Buffer.from('x'), Buffer.from('y')));
          return body(reads);
        },
      });
    }, is('real-time'));
    expect(kinds).toContain('real-time');
  });

  it('shows each read of a transaction at a version of its own: read skew', async () => {
    const kinds = await kindsFoundIn(
      (store) =>
        broken(store, {
          read: (body) =>
            body({
              get: (key) => store.read((reads) => reads.get(key)),
              getMany: (keys) => store.read((reads) => reads.getMany(keys)),
              getRange: (begin, end, options) => store.read((reads) => reads.getRange(begin, end, options)),
            }),
        }),
      is('G-single', 'internal'),
    );
    expect(kinds.some(is('G-single', 'internal'))).toBe(true);
  });

  it('loses one acknowledged commit', async () => {
    const kinds = await kindsFoundIn((store) => {
      let commits = 0;
      return broken(store, {
        transactVersioned: (body, options) => {
          const lost = commits++ === 100;
          const nothing = { set: () => {}, setVersionstampedKey: () => {} };
          return store.transactVersioned((tx) => body(lost ? replaced(tx, nothing) : tx), options);
        },
      });
    }, is('lost-append'));
    expect(kinds).toContain('lost-append');
  });

  it('applies a commit and calls it a conflict', async () => {
    const kinds = await kindsFoundIn((store) => {
      let commits = 0;
      return broken(store, {
        transactVersioned: async (body, options) => {
          if (commits++ % 50 === 7) await store.transactVersioned(body, options);
          return store.transactVersioned(body, options);
        },
      });
    }, is('G1a'));
    expect(kinds).toContain('G1a');
  });

  it('splits a commit in two', async () => {
    const kinds = await kindsFoundIn(
      (store) =>
        broken(store, {
          transactVersioned: async (body, options) => {
            const stamps: Parameters<KvTransaction['setVersionstampedKey']>[] = [];
            const setVersionstampedKey: KvTransaction['setVersionstampedKey'] = (...stamp) => stamps.push(stamp);
            const first = await store.transactVersioned((tx) => {
              stamps.length = 0;
              return body(replaced(tx, { setVersionstampedKey }));
            }, options);
            if (stamps.length === 0) return first;
            await store.transact(async (tx) => {
              for (const stamp of stamps) tx.setVersionstampedKey(...stamp);
            });
            return first;
          },
        }),
      isCircle,
    );
    expect(kinds.some(isCircle)).toBe(true);
  });

  it('tells versions that are not in the order of its commits', async () => {
    const kinds = await kindsFoundIn(
      (store) =>
        broken(store, {
          transactVersioned: async (body, options) => {
            const { value, version } = await store.transactVersioned(body, options);
            return { value, version: version ^ 4n };
          },
        }),
      is('version-order'),
    );
    expect(kinds).toEqual(['version-order']);
  });
});
