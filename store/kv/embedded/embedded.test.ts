import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Clock } from '../../../ops/telemetry/index.js';
import { describeConformance } from '../conformance.suite.js';
import { type KvStore, kvLimits } from '../contract.js';
import { openEmbeddedStore } from './store.js';

const root = mkdtempSync(join(tmpdir(), 'starling-kv-'));
let directories = 0;
const freshDirectory = () => join(root, String(directories++));
afterAll(() => rmSync(root, { recursive: true, force: true }));

describeConformance(
  { describe, it, beforeAll, afterAll },
  {
    name: 'embedded',
    takesClock: true,
    open: (clock?: Clock) => openEmbeddedStore({ directory: freshDirectory(), clock, durability: 'none' }),
  },
);

const key = Buffer.from('k');

async function reopened<T>(directory: string, body: (store: KvStore) => Promise<T>): Promise<T> {
  const store = await openEmbeddedStore({ directory });
  try {
    return await body(store);
  } finally {
    await store.close();
  }
}

describe('embedded store', () => {
  it('keeps data and ascending versions over a restart', async () => {
    const directory = freshDirectory();
    const first = await reopened(directory, (store) => store.transactVersioned(async (tx) => tx.set(key, Buffer.from('kept'))));
    await reopened(directory, async (store) => {
      expect(await store.read((reads) => reads.get(key))).toEqual(Buffer.from('kept'));
      const read = await store.transactVersioned(async (tx) => tx.readVersion());
      expect(read.value).toBe(first.version);
      const second = await store.transactVersioned(async (tx) => tx.set(key, Buffer.from('2')));
      expect(second.version).toBeGreaterThan(first.version);
    });
  });

  it('close waits for the commits that run, and they are durable', async () => {
    const directory = freshDirectory();
    const store = await openEmbeddedStore({ directory });
    const commits = Array.from({ length: 50 }, (_, at) => store.transact(async (tx) => tx.set(Buffer.from(`k${at}`), key)));
    await new Promise((resolve) => setImmediate(resolve));
    await store.close();
    await Promise.all(commits);
    await reopened(directory, async (again) => {
      expect(await again.read((reads) => reads.getRange(Buffer.from('k'), Buffer.from('l')))).toHaveLength(50);
    });
  });

  it('serves far more writers of one key than a transaction has attempts', async () => {
    await reopened(freshDirectory(), async (store) => {
      let bodies = 0;
      const count = () =>
        store.transact(async (tx) => {
          bodies++;
          const before = (await tx.get(key))?.readUInt32LE() ?? 0;
          const after = Buffer.alloc(4);
          after.writeUInt32LE(before + 1);
          tx.set(key, after);
        });
      await Promise.all(Array.from({ length: 300 }, count));
      expect((await store.read((reads) => reads.get(key)))!.readUInt32LE()).toBe(300);
      // Each is run a few times, not once for every other's commit (which would be 45,000).
      expect(bodies).toBeLessThan(10_000);
    });
  });

  it('a transaction inside the body of one that has its turn does not wait for ever', async () => {
    await reopened(freshDirectory(), async (store) => {
      const contend = (inner: boolean, depth = 0) =>
        store
          .transact(
            async (tx) => {
              await tx.get(key);
              if (inner && depth === 0) await contend(false, 1);
              tx.set(key, Buffer.from(String(Math.random())));
            },
            { maxAttempts: 3 },
          )
          .catch((error) => expect(error).toMatchObject({ code: 'conflict' }));
      await Promise.all(Array.from({ length: 8 }, () => contend(true)));
    });
  });

  it('serves more snapshots at once than it has connections', async () => {
    await reopened(freshDirectory(), async (store) => {
      let open = 0;
      let release = () => {};
      const released = new Promise<void>((resolve) => (release = resolve));
      const readers: Promise<string | undefined>[] = [];
      for (let at = 0; at < 40; at++) {
        await store.transact(async (tx) => tx.set(key, Buffer.from(String(at))));
        readers.push(
          store.read(async (reads) => {
            await reads.get(Buffer.from('other'));
            open++;
            await released;
            return (await reads.get(key))?.toString();
          }),
        );
        await new Promise((resolve) => setImmediate(resolve));
      }
      expect(open).toBeLessThan(40);
      release();
      const seen = await Promise.all(readers);
      // The first ones hold the snapshots they began with; those that had to wait see the newest state.
      expect(seen.slice(0, 8)).toEqual(['0', '1', '2', '3', '4', '5', '6', '7']);
      expect(seen.at(-1)).toBe('39');
    });
  });

  it('keeps the log bounded while everybody writes and reads', async () => {
    const directory = freshDirectory();
    const store = await openEmbeddedStore({ directory, durability: 'none' });
    const { statSync } = await import('node:fs');
    const value = Buffer.alloc(60_000, 0x61);
    const client = async (id: number) => {
      for (let at = 0; at < 100; at++) {
        await store.transact(async (tx) => {
          await tx.get(Buffer.from(`${id}/${at % 10}`));
          tx.set(Buffer.from(`${id}/${at % 10}`), value);
        });
      }
    };
    await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map(client));
    expect(8 * 100 * value.length).toBeGreaterThan(45_000_000);
    expect(statSync(join(directory, 'kv.sqlite-wal')).size).toBeLessThan(80_000_000);
    await store.close();
    expect(statSync(join(directory, 'kv.sqlite-wal'), { throwIfNoEntry: false })?.size ?? 0).toBe(0);
  });

  it('lets go of a snapshot whose body hangs', async () => {
    let sweep = () => {};
    let shiftMs = 0;
    const { systemClock } = await import('../../../ops/telemetry/index.js');
    const clock: Clock = {
      ...systemClock,
      monotonicMs: () => systemClock.monotonicMs() + shiftMs,
      setTimer: (_delayMs, callback) => {
        sweep = callback;
        return { cancel: () => {} };
      },
    };
    const store = await openEmbeddedStore({ directory: freshDirectory(), clock, durability: 'none' });
    const hanging = store.read(
      async (reads) => {
        await reads.get(key);
        shiftMs += kvLimits.maxTransactionMs + 500;
        sweep();
        shiftMs = 0;
        return reads.get(key);
      },
      { maxAttempts: 1 },
    );
    await expect(hanging).rejects.toMatchObject({ code: 'too-old' });
    await store.close();
  });
});
