import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { silentLogger, systemRandom } from '../../ops/telemetry/index.js';
import { BlobMissing } from './contract.js';
import { headKey } from './keys.js';
import { UploadLost } from './sinks.js';
import { createBlobStore } from './store.js';
import {
  type Bench,
  gather,
  keyCounts,
  linkTo,
  mortal,
  openBench,
  purgeFully,
  textOf,
  unlinkFrom,
  upload,
} from './test-bench.js';

const small = { chunkBytes: 1_000, inlineLimitBytes: 3_000, batchBytes: 20_000 };

function purgeAfter(bench: Bench, seconds: number) {
  bench.clock.nowSeconds += seconds;
  return bench.blobs.purge({ nowSeconds: bench.clock.nowSeconds });
}

describe('purge', () => {
  it('waits a generation, puts up a tombstone, waits another, removes', async () => {
    const bench = openBench();
    const { kv, blobs } = bench;
    const blob = blobs.prepare(textOf(2_000));
    await linkTo(kv, blobs, blob, 'q');
    await unlinkFrom(kv, blobs, blob.id, 'q');
    expect(await purgeAfter(bench, 59)).toMatchObject({ tombstoned: 0, removed: 0 });
    expect(await purgeAfter(bench, 1)).toMatchObject({ tombstoned: 1, removed: 0 });
    expect((await blobs.read(blob.id)).length).toBe(2_000);
    expect(await purgeAfter(bench, 59)).toMatchObject({ tombstoned: 0, removed: 0 });
    expect(await purgeAfter(bench, 1)).toMatchObject({ tombstoned: 0, removed: 1, removedBytes: 2_000, more: false });
    await expect(blobs.read(blob.id)).rejects.toThrow(BlobMissing);
    expect(await keyCounts(kv)).toEqual({});
  });

  it('leaves alone what still has a link', async () => {
    const bench = openBench();
    const blob = bench.blobs.prepare(textOf(2_000));
    await linkTo(bench.kv, bench.blobs, blob, 'one');
    await linkTo(bench.kv, bench.blobs, blob, 'two');
    await unlinkFrom(bench.kv, bench.blobs, blob.id, 'one');
    expect(await purgeAfter(bench, 60)).toMatchObject({ examined: 1, tombstoned: 0 });
    expect(await keyCounts(bench.kv)).toEqual({ head: 1, link: 1 });
  });

  it('is stopped by a link on a tombstoned blob, by id or by content', async () => {
    for (const relink of ['link', 'linkPrepared'] as const) {
      const bench = openBench(small);
      const { kv, blobs } = bench;
      const content = randomBytes(10_000);
      const blob = await upload(blobs, content);
      await linkTo(kv, blobs, blob, 'q');
      await unlinkFrom(kv, blobs, blob.id, 'q');
      await purgeAfter(bench, 60);
      const again = relink === 'link' ? blob : await upload(blobs, content);
      const owner = { kind: 'message', accountId: 'a', emailId: 'e' } as const;
      await kv.transact((tx) => (relink === 'link' ? blobs.link(tx, blob.id, owner) : blobs.linkPrepared(tx, again, owner)));
      expect(await purgeAfter(bench, 60)).toMatchObject({ removed: 0 });
      await purgeFully(bench);
      expect((await blobs.read(blob.id)).equals(content)).toBe(true);
      await kv.transact(async (tx) => blobs.unlink(tx, blob.id, owner));
      await purgeAfter(bench, 60);
      expect((await blobs.read(blob.id)).length).toBe(10_000);
      await purgeFully(bench);
      expect(await keyCounts(kv)).toEqual({});
    }
  });

  it('leaves no candidate when one transaction moves a link', async () => {
    const { kv, blobs } = openBench();
    const blob = blobs.prepare(textOf(2_000));
    await linkTo(kv, blobs, blob, 'q');
    await kv.transact(async (tx) => {
      blobs.unlink(tx, blob.id, { kind: 'queue', queueId: 'q' }, { isLinkedElsewhere: true });
      await blobs.link(tx, blob.id, { kind: 'message', accountId: 'a', emailId: 'e' });
    });
    expect(await keyCounts(kv)).toEqual({ head: 1, link: 1 });
  });

  it('resumes where its budget ended', async () => {
    const bench = openBench();
    for (let index = 0; index < 25; index++) {
      const blob = bench.blobs.prepare(textOf(200, `m${index}`));
      await linkTo(bench.kv, bench.blobs, blob, 'q');
      await unlinkFrom(bench.kv, bench.blobs, blob.id, 'q');
    }
    bench.clock.nowSeconds += 60;
    const tombstoned: number[] = [];
    for (;;) {
      const result = await bench.blobs.purge({ nowSeconds: bench.clock.nowSeconds, maxItems: 10 });
      tombstoned.push(result.tombstoned);
      if (!result.more) break;
    }
    expect(tombstoned).toEqual([10, 10, 5]);
    const aborted = AbortSignal.abort();
    expect(await bench.blobs.purge({ nowSeconds: bench.clock.nowSeconds + 60, signal: aborted })).toMatchObject({
      removed: 0,
      more: true,
    });
    await purgeFully(bench);
    expect(await keyCounts(bench.kv)).toEqual({});
  });

  it('goes on past a head that it cannot read', async () => {
    const bench = openBench();
    const ids: string[] = [];
    for (const seed of ['a', 'b', 'c']) {
      const blob = bench.blobs.prepare(textOf(300, seed));
      await linkTo(bench.kv, bench.blobs, blob, 'q');
      await unlinkFrom(bench.kv, bench.blobs, blob.id, 'q');
      ids.push(blob.id);
    }
    await bench.kv.transact(async (tx) => tx.set(headKey(ids[1]!), Buffer.from([99])));
    await purgeFully(bench);
    expect(await keyCounts(bench.kv)).toEqual({ head: 1, candidate: 1 });
  });

  it('ends links of uploaded content when their time is over', async () => {
    const bench = openBench({ uploadLifetimeSeconds: 3_600 });
    const { kv, blobs, clock } = bench;
    const blob = blobs.prepare(textOf(2_000));
    const owner = { kind: 'upload', accountId: 'a', uploadId: 'u' } as const;
    await kv.transact((tx) => blobs.linkPrepared(tx, blob, owner));
    clock.nowSeconds += 1_800;
    await kv.transact((tx) => blobs.linkPrepared(tx, blob, owner));
    clock.nowSeconds += 1_800;
    await purgeFully(bench, 100, 4);
    expect(await keyCounts(kv)).toEqual({ head: 1, link: 1, expiry: 1 });
    clock.nowSeconds += 1_800;
    await purgeFully(bench);
    expect(await keyCounts(kv)).toEqual({});
  });
});

describe('uploads', () => {
  it('that nothing links are given up, and a late link then fails', async () => {
    const bench = openBench({ ...small, abandonedUploadSeconds: 3_600 });
    const blob = await upload(bench.blobs, randomBytes(200_000));
    await purgeAfter(bench, 3_599);
    expect(await keyCounts(bench.kv)).toEqual({ upload: 1, chunk: 200 });
    await purgeAfter(bench, 1);
    expect(await keyCounts(bench.kv)).toEqual({});
    await expect(linkTo(bench.kv, bench.blobs, blob, 'q')).rejects.toThrow(BlobMissing);
  });

  it('that take too long fail instead of leaving half a blob', async () => {
    const bench = openBench({ ...small, abandonedUploadSeconds: 3_600 });
    const writer = bench.blobs.writer();
    await writer.write(randomBytes(50_000));
    await bench.clock.sleep(5);
    await purgeAfter(bench, 3_600);
    const rest = async () => {
      for (let piece = 0; piece < 20; piece++) await writer.write(randomBytes(10_000));
      await writer.finish();
    };
    await expect(rest()).rejects.toThrow(UploadLost);
    await writer.abort();
    await purgeFully(bench, 3_600);
    expect(await keyCounts(bench.kv)).toEqual({});
  });

  it('that are aborted leave nothing, before and after finish; abort after a link does no harm', async () => {
    const bench = openBench(small);
    const open = bench.blobs.writer();
    for (let piece = 0; piece < 10; piece++) open.write(randomBytes(10_000));
    await open.abort();
    const finished = bench.blobs.writer();
    await finished.write(randomBytes(100_000));
    await finished.finish();
    await finished.abort();
    expect(await keyCounts(bench.kv)).toEqual({});
    const linked = bench.blobs.writer();
    const content = randomBytes(100_000);
    await linked.write(content);
    const blob = await linked.finish();
    await linkTo(bench.kv, bench.blobs, blob, 'q');
    await linked.abort();
    expect((await bench.blobs.read(blob.id)).equals(content)).toBe(true);
  });

  it('fail when the store is away, and are cleaned up when it is back', async () => {
    const bench = openBench(small);
    const writer = bench.blobs.writer();
    await writer.write(randomBytes(30_000));
    await bench.clock.sleep(5);
    bench.kv.faults.outage = true;
    const rest = async () => {
      for (let piece = 0; piece < 20; piece++) await writer.write(randomBytes(10_000));
      await writer.finish();
    };
    await expect(rest()).rejects.toMatchObject({ code: 'unavailable' });
    await writer.abort();
    bench.kv.faults.clear();
    expect(await keyCounts(bench.kv)).toMatchObject({ upload: 1 });
    await purgeFully(bench, 86_400);
    expect(await keyCounts(bench.kv)).toEqual({});
  });
});

describe('a blob purged and stored anew while it is read', () => {
  it('gives the same bytes', async () => {
    const bench = openBench(small);
    const { kv, blobs } = bench;
    const content = randomBytes(100_000);
    const first = await upload(blobs, content);
    await linkTo(kv, blobs, first, 'q');
    const reading = blobs.stream(first.id)[Symbol.asyncIterator]();
    const parts = [(await reading.next()).value as Buffer];
    await unlinkFrom(kv, blobs, first.id, 'q');
    await purgeFully(bench);
    expect(await keyCounts(kv)).toEqual({});
    await linkTo(kv, blobs, await upload(blobs, content), 'again');
    parts.push(await gather({ [Symbol.asyncIterator]: () => reading }));
    expect(Buffer.concat(parts).equals(content)).toBe(true);
  });
});

describe('a process that stops at any step', () => {
  it('leaves nothing that a later purge does not find, and never half a linked blob', async () => {
    const content = randomBytes(150_000);
    let stoppedRuns = 0;
    for (let commits = 0; commits < 40; commits++) {
      for (const isLastApplied of [false, true]) {
        const bench = openBench(small);
        const kv = mortal(bench.kv, commits, isLastApplied);
        const blobs = createBlobStore({ kv, clock: bench.clock, random: systemRandom, logger: silentLogger, ...small });
        const life = async () => {
          const blob = await upload(blobs, content);
          await linkTo(kv, blobs, blob, 'q');
          await linkTo(kv, blobs, await upload(blobs, content), 'second');
          await unlinkFrom(kv, blobs, blob.id, 'q');
          await unlinkFrom(kv, blobs, blob.id, 'second');
          await purgeFully({ blobs, clock: bench.clock });
        };
        const outcome = await life().catch((error) => error);
        if (outcome) stoppedRuns++;
        const counts = await keyCounts(bench.kv);
        if (counts['link']) {
          const [id] = [bench.blobs.prepare(content).id];
          expect((await bench.blobs.read(id!)).equals(content)).toBe(true);
          await unlinkFrom(bench.kv, bench.blobs, id!, 'q');
          await unlinkFrom(bench.kv, bench.blobs, id!, 'second');
        }
        await purgeFully(bench, 86_400);
        expect(await keyCounts(bench.kv), `stopped after ${commits} commits`).toEqual({});
      }
    }
    expect(stoppedRuns).toBeGreaterThan(30);
  });
});
