import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Clock, type Random, systemClock } from '../../../ops/telemetry/index.js';
import { describeConformance, ShiftedClock } from '../conformance.suite.js';
import { KvError, type KvStore, kvLimits } from '../contract.js';
import { MemoryDatabase, type MemoryStore, openMemoryStore } from '../index.js';

const delayMs = () => (Math.random() < 0.3 ? 0.5 : 0);
for (const [name, faults] of [
  ['memory', {}],
  ['memory with delays', { delayMs }],
] as const) {
  const another = async (store: KvStore) => openMemoryStore({ database: (store as MemoryStore).database, faults });
  describeConformance(
    { describe, it, beforeAll, afterAll },
    {
      name,
      takesClock: true,
      open: async (clock?: Clock) => openMemoryStore({ clock, faults }),
      openAnother: another,
      faults: {
        makeNextCommitUnknown: (store, outcome) => {
          (store as MemoryStore).faults.nextCommit = outcome;
        },
      },
    },
  );
}

/** Random from a seed, so that a failing run can be repeated. */
function seeded(seed: number): Random {
  const float = () => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return seed / 2147483648;
  };
  return { float, bytes: (length) => Buffer.from(Array.from({ length }, () => Math.floor(float() * 256))) };
}

/** Never waits, so that backoff takes no time. */
const impatientClock: Clock = { ...systemClock, sleep: async () => {} };

const key = Buffer.from('k');

async function codeOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (reason) => reason,
  );
  return error instanceof KvError ? `${error.code}${error.reason ? ` ${error.reason}` : ''}` : String(error);
}

/** Adds 1 under an id that is chosen before: harmless to repeat. */
function countOnce(store: MemoryStore, id: string): Promise<void> {
  const mark = Buffer.from(`done/${id}`);
  return store.transact(async (tx) => {
    if (await tx.get(mark)) return;
    tx.set(mark, Buffer.of(1));
    tx.add(key, 1n);
  });
}

async function count(store: MemoryStore): Promise<number> {
  return Number((await store.read((reads) => reads.get(key)))?.readBigInt64LE() ?? 0n);
}

describe('memory faults', () => {
  it('repeats bodies through conflicts and unknown commits, and idempotent bodies count once', async () => {
    const faults = { conflict: 0.2, commitUnknownApplied: 0.2, commitUnknownLost: 0.2 };
    const store = openMemoryStore({ clock: impatientClock, random: seeded(7), faults });
    await Promise.all(Array.from({ length: 200 }, (_, at) => countOnce(store, String(at))));
    expect(await count(store)).toBe(200);
  });

  it('a blind increment is doubled by an unknown commit that was applied', async () => {
    const store = openMemoryStore({ clock: impatientClock, random: seeded(7), faults: { commitUnknownApplied: 0.5 } });
    for (let at = 0; at < 50; at++) await store.transact(async (tx) => tx.add(key, 1n));
    store.faults.clear();
    expect(await count(store)).toBeGreaterThan(50);
  });

  it('tells unknown rather than unavailable when an earlier attempt may have committed', async () => {
    const store = openMemoryStore({ clock: impatientClock, faults: { commitUnknownApplied: 1 } });
    let runs = 0;
    const failing = store.transact(async (tx) => {
      if (runs++ === 1) store.faults.outage = true;
      await tx.get(key);
      tx.set(key, Buffer.of(1));
    });
    expect(await codeOf(failing)).toBe('commit-unknown outage');
    store.faults.clear();
    expect(await store.read((reads) => reads.get(key))).toEqual(Buffer.of(1));
  });

  it('gives up after maxAttempts with the last error', async () => {
    const store = openMemoryStore({ clock: impatientClock, faults: { conflict: 1 } });
    let runs = 0;
    const failing = store.transact(
      async (tx) => {
        runs++;
        await tx.get(key);
        tx.set(key, Buffer.of(1));
      },
      { maxAttempts: 7 },
    );
    expect(await codeOf(failing)).toBe('conflict');
    expect(runs).toBe(7);
  });

  it('an outage stops everything of one node, at once and without retries, and ends', async () => {
    const database = new MemoryDatabase();
    const [a, b] = [openMemoryStore({ database }), openMemoryStore({ database })];
    a.faults.outage = true;
    expect(await codeOf(a.transact(async (tx) => tx.set(key, Buffer.of(1))))).toBe('unavailable outage');
    expect(await codeOf(a.read((reads) => reads.get(key)))).toBe('unavailable outage');
    expect(await codeOf(a.check())).toBe('unavailable outage');
    await b.transact(async (tx) => tx.set(key, Buffer.of(2)));
    a.faults.outage = false;
    expect(await a.read((reads) => reads.get(key))).toEqual(Buffer.of(2));
  });

  it('an outage during a body meets its next read', async () => {
    const store = openMemoryStore();
    const failing = store.transact(async (tx) => {
      await tx.get(key);
      store.faults.outage = true;
      await tx.get(Buffer.from('other'));
    });
    expect(await codeOf(failing)).toBe('unavailable outage');
  });

  it('a commit on its way when the outage begins is unknown', async () => {
    let release = () => {};
    const clock: Clock = { ...systemClock, sleep: () => new Promise((resolve) => (release = resolve)) };
    const store = openMemoryStore({ clock, faults: { delayMs: (operation) => (operation === 'commit' ? 10 : 0) } });
    const committing = store.transact(async (tx) => tx.set(key, Buffer.of(1)), { maxAttempts: 1 });
    await new Promise((resolve) => setImmediate(resolve));
    store.faults.outage = true;
    release();
    expect(await codeOf(committing)).toBe('commit-unknown');
  });
});

describe('memory database', () => {
  it('serves several nodes: commits, conflicts and watches cross between them; closing one leaves the others', async () => {
    const database = new MemoryDatabase();
    const [a, b] = [openMemoryStore({ database }), openMemoryStore({ database })];
    const watch = await a.transact(async (tx) => tx.watch(key));
    const result = a.transact(
      async (tx) => {
        await tx.get(key);
        await b.transact(async (other) => other.set(key, Buffer.of(9)));
        tx.set(Buffer.from('x'), Buffer.of(1));
      },
      { maxAttempts: 1 },
    );
    expect(await codeOf(result)).toBe('conflict');
    await watch.fired;
    const waiting = await a.transact(async (tx) => tx.watch(key));
    await a.close();
    expect(await codeOf(waiting.fired)).toBe('unavailable closed');
    expect(await b.read((reads) => reads.get(key))).toEqual(Buffer.of(9));
    expect(database.watchCount).toBe(0);
  });

  it('forgets old versions and cleared keys as soon as nobody reads them', async () => {
    const clock = new ShiftedClock();
    const store = openMemoryStore({ clock });
    const keys = Array.from({ length: 100 }, (_, at) => Buffer.from(`k${at}`));
    const write = (value: Buffer | undefined) =>
      store.transact(async (tx) => {
        for (const each of keys) value ? tx.set(each, value) : tx.clear(each);
      });
    await write(Buffer.of(1));
    await write(undefined);
    expect(store.database.keyCount).toBe(0);

    await write(Buffer.of(2));
    const hanging = store.read(
      async (reads) => {
        await reads.get(keys[0]!);
        await write(undefined);
        expect(store.database.keyCount).toBe(100);
        expect(await reads.get(keys[1]!)).toEqual(Buffer.of(2));
        clock.advance(kvLimits.maxTransactionMs + 1);
        await store.transact(async (tx) => tx.set(Buffer.from('other'), Buffer.of(1)));
        expect(store.database.keyCount).toBe(1);
        await reads.get(keys[1]!);
      },
      { maxAttempts: 1 },
    );
    expect(await codeOf(hanging)).toBe('too-old');
  });

  it('is deterministic: the same seeds and bodies give the same versions and results', async () => {
    const run = async () => {
      const faults = { conflict: 0.3, commitUnknownApplied: 0.1, commitUnknownLost: 0.1 };
      const store = openMemoryStore({ clock: impatientClock, random: seeded(11), faults });
      const trace: string[] = [];
      const client = async (id: number) => {
        for (let at = 0; at < 10; at++) {
          const { version } = await store.transactVersioned(async (tx) => {
            const before = (await tx.get(key))?.toString() ?? '';
            tx.set(key, Buffer.from(before.slice(-20) + id));
          });
          trace.push(`${id}:${version}`);
        }
      };
      await Promise.all([1, 2, 3, 4].map(client));
      return trace.join(' ');
    };
    expect(await run()).toBe(await run());
  });
});
