/**
 * Links, unlinks, reads and purges on several nodes at once, with conflicts and unknown commits: what is linked can be read, and in the end nothing is left.
 */
import { expect } from 'vitest';
import { silentLogger, systemRandom } from '../../ops/telemetry/index.js';
import { MemoryDatabase, openMemoryStore } from '../kv/index.js';
import { BlobMissing, type BlobOwner } from './contract.js';
import type { ExternalBlobOptions } from './external.js';
import { createBlobStore } from './store.js';
import { handClock, keyCounts, objectsOf, purgeFully, textOf, upload } from './test-bench.js';

const limits = { chunkBytes: 500, inlineLimitBytes: 2_000, batchBytes: 2_500, headLimitBytes: 200, generationSeconds: 1 };

/** A small generator, so that a failing run can be played again from its seed. */
function seeded(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

function openNodes(count: number, float: () => number, external: ExternalBlobOptions | undefined, database: MemoryDatabase) {
  const clock = handClock();
  const random = { float, bytes: systemRandom.bytes };
  const nodes = Array.from({ length: count }, () => {
    const faults = {
      conflict: 0.1,
      commitUnknownApplied: 0.1,
      commitUnknownLost: 0.1,
      delayMs: () => (float() < 0.2 ? 0.01 + float() : 0),
    };
    // Retries back off for no time worth mentioning.
    const quick = { ...clock, sleep: () => new Promise<void>((resolve) => setImmediate(resolve)) };
    const kv = openMemoryStore({ database, random, faults, clock: quick });
    return { kv, blobs: createBlobStore({ kv, clock, random, logger: silentLogger, ...limits, external }) };
  });
  return { clock, nodes };
}

const contents = [textOf(100, 'head'), textOf(1_800, 'chunks'), textOf(30_000, 'streamed'), Buffer.from('x')];

/** One run, played by `seed`, on an empty storage. */
export async function raceOnce(
  seed: number,
  external?: ExternalBlobOptions,
  rounds = 6,
  database = new MemoryDatabase(),
): Promise<void> {
  const float = seeded(seed);
  const { clock, nodes } = openNodes(3, float, external, database);
  let isOver = false;
  const pick = <T>(items: readonly T[]): T => items[Math.floor(float() * items.length)]!;

  const owner = async (name: string) => {
    for (let round = 0; round < rounds; round++) {
      const { kv, blobs } = pick(nodes);
      const content = pick(contents);
      const first: BlobOwner = { kind: 'queue', queueId: name };
      const second: BlobOwner = { kind: 'message', accountId: name, emailId: `e${round}` };
      const options = { isUnique: float() < 0.5 };
      const blob =
        content.length > 2_000 || float() < 0.5 ? await upload(blobs, content, 700, options) : blobs.prepare(content, options);
      await kv.transact((tx) => blobs.linkPrepared(tx, blob, first));
      expect((await pick(nodes).blobs.read(blob.id)).equals(content)).toBe(true);
      clock.nowSeconds += Math.floor(float() * 3);
      await kv.transact(async (tx) => {
        const isUnlinkFirst = float() < 0.5;
        if (isUnlinkFirst) blobs.unlink(tx, blob.id, first);
        await blobs.link(tx, blob.id, second);
        if (!isUnlinkFirst) blobs.unlink(tx, blob.id, first);
      });
      for (let read = 0; read < 3; read++) {
        clock.nowSeconds += Math.floor(float() * 3);
        expect((await pick(nodes).blobs.read(blob.id)).equals(content)).toBe(true);
      }
      await kv.transact(async (tx) => blobs.unlink(tx, blob.id, second));
      // Somebody who still knows the id may link it again, or learns that it is gone.
      const late = await kv.transact((tx) => blobs.link(tx, blob.id, first)).catch((error) => error);
      if (late) expect(late).toBeInstanceOf(BlobMissing);
      else expect((await pick(nodes).blobs.read(blob.id)).equals(content)).toBe(true);
      await kv.transact(async (tx) => blobs.unlink(tx, blob.id, first));
    }
  };
  const purger = async (node: number) => {
    while (!isOver) {
      clock.nowSeconds += Math.floor(float() * 2);
      await nodes[node]!.blobs.purge({ nowSeconds: clock.nowSeconds, maxItems: 5 });
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const purging = [purger(0), purger(1)];
  try {
    await Promise.all(['a', 'b', 'c', 'd'].map(owner));
  } finally {
    isOver = true;
    await Promise.all(purging);
  }
  const kv = openMemoryStore({ database });
  const blobs = createBlobStore({ kv, clock, random: systemRandom, logger: silentLogger, ...limits, external });
  await purgeFully({ blobs, clock }, 86_400);
  expect(await keyCounts(kv)).toEqual({});
  if (external) expect(await objectsOf(blobs)).toEqual([]);
}
