/** The part of the conformance suite where many transactions meet: contention, watches, and a serialisability checker. */
import assert from 'node:assert/strict';
import type { CaseRoom, ConformanceCase } from './conformance-room.suite.js';
import type { KvStore, KvTransaction, KvWatch } from './contract.js';

const clients = 64;

async function increment(tx: KvTransaction, key: Buffer): Promise<void> {
  const before = (await tx.get(key))?.readUInt32LE() ?? 0;
  const after = Buffer.alloc(4);
  after.writeUInt32LE(before + 1);
  tx.set(key, after);
}

const contentionCases: readonly ConformanceCase[] = [
  [
    '64 clients count one counter by reading and writing',
    async ({ store, key }) => {
      await Promise.all(
        Array.from({ length: clients }, () => store.transact((tx) => increment(tx, key('n')), { maxAttempts: 1000 })),
      );
      assert.equal((await store.read((reads) => reads.get(key('n'))))!.readUInt32LE(), clients);
    },
  ],
  [
    '64 clients count one counter by atomic additions, at the first attempt',
    async ({ store, key }) => {
      const counting = async () => {
        for (let at = 0; at < 5; at++) await store.transact(async (tx) => tx.add(key('n'), 1n), { maxAttempts: 1 });
      };
      await Promise.all(Array.from({ length: clients }, counting));
      assert.equal((await store.read((reads) => reads.get(key('n'))))!.readBigInt64LE(), BigInt(5 * clients));
    },
  ],
  [
    '64 clients take distinct numbers, ascending in commit order, without a gap',
    async ({ store, key, begin, end }) => {
      const take = () =>
        store.transact(
          async (tx) => {
            const next = (await tx.get(key('!next')))?.readUInt32LE() ?? 0;
            await increment(tx, key('!next'));
            tx.setVersionstampedKey(key('log/'), new Uint8Array(), Buffer.from(String(next)));
          },
          { maxAttempts: 1000 },
        );
      await Promise.all(Array.from({ length: clients }, take));
      const rows = (await store.read((reads) => reads.getRange(begin, end))).slice(1);
      assert.deepEqual(
        rows.map((row) => Number(row.value)),
        Array.from({ length: clients }, (_, at) => at),
      );
    },
  ],
  [
    'transfers keep their sum in every snapshot',
    async ({ store, key, begin, end }) => {
      const accounts = 8;
      await store.transact(async (tx) => {
        for (let at = 0; at < accounts; at++) tx.set(key(String(at)), Buffer.from('100'));
      });
      const sum = async () => {
        const rows = await store.read((reads) => reads.getRange(begin, end));
        return rows.reduce((total, row) => total + Number(row.value), 0);
      };
      const move = async (client: number) => {
        for (let at = 0; at < 4; at++) {
          const [from, to] = [key(String((client + at) % accounts)), key(String((client * 3 + at + 1) % accounts))];
          await store.transact(async (tx) => {
            const [a, b] = await tx.getMany([from, to]);
            if (from.equals(to)) return;
            tx.set(from, Buffer.from(String(Number(a) - 1)));
            tx.set(to, Buffer.from(String(Number(b) + 1)));
          });
          assert.equal(await sum(), 100 * accounts);
        }
      };
      await Promise.all(Array.from({ length: 16 }, (_, client) => move(client)));
      assert.equal(await sum(), 100 * accounts);
    },
  ],
];

async function watchOf(store: KvStore, key: Buffer): Promise<KvWatch> {
  return store.transact(async (tx) => tx.watch(key));
}

const watchCases: readonly ConformanceCase[] = [
  [
    'a watch fires on set, clear, cleared range, atomic and versionstamped writes',
    async ({ store, key }) => {
      await store.transact(async (tx) => tx.set(key('k'), Buffer.from('0')));
      const changes: ((tx: KvTransaction) => void)[] = [
        (tx) => tx.set(key('k'), Buffer.from('1')),
        (tx) => tx.clear(key('k')),
        (tx) => tx.add(key('k'), 1n),
        (tx) => tx.clearRange(key('a'), key('z')),
      ];
      for (const change of changes) {
        const watch = await watchOf(store, key('k'));
        await store.transact(async (tx) => change(tx));
        await watch.fired;
      }
    },
  ],
  [
    'a watch stays silent while other keys change, and resolves on cancel',
    async ({ store, key }) => {
      const watch = await watchOf(store, key('k'));
      let fired = false;
      void watch.fired.then(() => {
        fired = true;
      });
      await store.transact(async (tx) => {
        tx.set(key('j'), Buffer.from('1'));
        tx.set(key('k2'), Buffer.from('1'));
        tx.clearRange(key('l'), key('m'));
      });
      await store.read((reads) => reads.get(key('k')));
      assert.equal(fired, false);
      watch.cancel();
      watch.cancel();
      await watch.fired;
    },
  ],
  [
    'a change between the read and the commit of the watcher is not lost',
    async ({ store, key }) => {
      const reader = await store.transact(async (tx) => {
        await tx.snapshot.get(key('k'));
        await store.transact(async (other) => other.set(key('k'), Buffer.from('1')));
        return tx.watch(key('k'));
      });
      await reader.fired;
      const writer = await store.transact(async (tx) => {
        await tx.snapshot.get(key('k'));
        await store.transact(async (other) => other.set(key('k'), Buffer.from('2')));
        tx.set(key('elsewhere'), Buffer.from('1'));
        return tx.watch(key('k'));
      });
      await writer.fired;
    },
  ],
  [
    'a watch does not outlive a body that throws',
    async ({ store, key }) => {
      let watch: KvWatch | undefined;
      await assert.rejects(
        store.transact(async (tx) => {
          watch = tx.watch(key('k'));
          throw new Error('no');
        }),
      );
      await assert.rejects(watch!.fired);
    },
  ],
  [
    'a chain of watchers sees every last value: nobody sleeps through a change',
    async ({ store, key }) => {
      const last = 40;
      const follow = async () => {
        for (;;) {
          const { value, watch } = await store.transact(async (tx) => ({
            value: (await tx.get(key('n')))?.readUInt32LE() ?? 0,
            watch: tx.watch(key('n')),
          }));
          if (value === last) return watch.cancel();
          await watch.fired;
        }
      };
      const count = async () => {
        for (let at = 0; at < last; at++) await store.transact((tx) => increment(tx, key('n')));
      };
      await Promise.all([follow(), follow(), follow(), count()]);
    },
  ],
];

/** One finished transaction of the history: what it read, where it appended, and when it ran. */
interface Observed {
  readonly id: number;
  readonly reads: ReadonlyMap<string, readonly number[]>;
  readonly begunAt: number;
  readonly endedAt: number;
}

/**
 * Strict serialisability by the list-append method: every transaction reads lists and appends its id to some. The final lists give
 * the order of writes; each read must be a prefix; the graph of dependencies, real time included, must have no cycle.
 */
async function listAppend(room: CaseRoom): Promise<void> {
  const names = ['a', 'b', 'c', 'd', 'e'];
  const observed: Observed[] = [];
  let ticks = 0;
  let seed = 42;
  const random = (below: number) => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return Math.floor((seed / 2147483648) * below);
  };
  const run = async (id: number) => {
    const picked = names.filter(() => random(3) === 0);
    const appended = new Set(names.filter(() => random(4) === 0));
    const byRange = random(4) === 0;
    const begunAt = ticks++;
    const reads = await room.store.transact(
      async (tx) => {
        const lists = new Map<string, readonly number[]>();
        if (byRange) for (const name of names) lists.set(name, []);
        if (byRange)
          for (const row of await tx.getRange(room.begin, room.end))
            lists.set(row.key.subarray(3).toString(), numbers(row.value));
        for (const name of picked) lists.set(name, numbers(await tx.get(room.key(name))));
        for (const name of appended) {
          const list = lists.get(name) ?? numbers(await tx.get(room.key(name)));
          lists.set(name, list);
          tx.set(room.key(name), Buffer.from([...list, id].join(',')));
        }
        return lists;
      },
      { maxAttempts: 1000 },
    );
    observed.push({ id, reads, begunAt, endedAt: ticks++ });
  };
  const client = async (index: number) => {
    for (let at = 0; at < 12; at++) await run(index * 100 + at + 1);
  };
  await Promise.all(Array.from({ length: 12 }, (_, index) => client(index)));
  const lists = new Map<string, readonly number[]>();
  for (const name of names) lists.set(name, numbers(await room.store.read((reads) => reads.get(room.key(name)))));
  assertSerialisable(observed, lists);
}

function numbers(value: Buffer | undefined): number[] {
  return value && value.length > 0 ? value.toString().split(',').map(Number) : [];
}

/** Throws unless the history has an order that explains it. Exported so that the checker itself can be tried. */
export function assertSerialisable(observed: readonly Observed[], finalLists: ReadonlyMap<string, readonly number[]>): void {
  const edges = new Map<number, Set<number>>(observed.map(({ id }) => [id, new Set<number>()]));
  const edge = (from: number | undefined, to: number | undefined) => {
    if (from !== undefined && to !== undefined && from !== to) edges.get(from)!.add(to);
  };
  for (const list of finalLists.values()) {
    assert.equal(new Set(list).size, list.length, 'an append happened twice');
    for (let at = 1; at < list.length; at++) edge(list[at - 1], list[at]);
  }
  for (const { id, reads, begunAt } of observed) {
    for (const [name, list] of reads) {
      const full = finalLists.get(name)!;
      assert.deepEqual(list, full.slice(0, list.length), 'a read saw what never was');
      edge(list.at(-1), id);
      edge(id, full[list.length]);
    }
    for (const other of observed) if (other.endedAt < begunAt) edge(other.id, id);
  }
  assertAcyclic(edges);
}

function assertAcyclic(edges: ReadonlyMap<number, ReadonlySet<number>>): void {
  const incoming = new Map<number, number>([...edges.keys()].map((id) => [id, 0]));
  for (const targets of edges.values()) for (const target of targets) incoming.set(target, incoming.get(target)! + 1);
  const free = [...incoming].filter(([, count]) => count === 0).map(([id]) => id);
  let removed = 0;
  for (let id = free.pop(); id !== undefined; id = free.pop()) {
    removed++;
    for (const target of edges.get(id)!) {
      const left = incoming.get(target)! - 1;
      incoming.set(target, left);
      if (left === 0) free.push(target);
    }
  }
  assert.equal(removed, edges.size, 'the transactions have no serial order');
}

export const concurrencyCases: readonly ConformanceCase[] = [
  ...contentionCases,
  ...watchCases,
  ['random transactions are strictly serialisable', listAppend],
];
