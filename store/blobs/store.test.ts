import { createHash, randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { silentLogger } from '../../ops/telemetry/index.js';
import { keysUnder, subspace } from '../keyspace.js';
import type { KvStore } from '../kv/index.js';
import { BlobCorrupt, BlobMissing } from './contract.js';
import { chunkKey, headKey } from './keys.js';
import { createBlobStore } from './store.js';
import { gather, handClock, keyCounts, linkTo, openBench, textOf, unlinkFrom, upload } from './test-bench.js';

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

describe('round trips', () => {
  const limit = 131_072;
  const sizes = [0, 1, 127, 128, 2_000, 65_535, 65_536, 65_537, limit - 1, limit, limit + 1, 2 * 65_536 * 16, 5_000_000];
  for (const size of sizes) {
    for (const kind of ['text', 'noise'] as const) {
      it(`${size} bytes of ${kind}`, async () => {
        const { kv, blobs } = openBench();
        const content = kind === 'text' ? textOf(size) : randomBytes(size);
        const blob = await upload(blobs, content, 17_001);
        expect(blob).toMatchObject({ id: sha256(content), sizeBytes: size });
        await linkTo(kv, blobs, blob, 'q');
        expect((await blobs.read(blob.id)).equals(content)).toBe(true);
        expect((await gather(blobs.stream(blob.id))).equals(content)).toBe(true);
        expect(await kv.read((reads) => blobs.stat(reads, blob.id))).toEqual({ id: blob.id, sizeBytes: size });
        expect(await keyCounts(kv)).not.toHaveProperty('upload');
      });
    }
  }

  it('keeps small content in the head, and what was prepared in memory reads the same', async () => {
    const { kv, blobs } = openBench();
    const small = textOf(2_000);
    await linkTo(kv, blobs, blobs.prepare(small), 'q');
    expect(await keyCounts(kv)).toEqual({ head: 1, link: 1 });
    const middle = randomBytes(100_000);
    const prepared = blobs.prepare(new Uint8Array(middle));
    await linkTo(kv, blobs, prepared, 'q');
    expect(await keyCounts(kv)).toEqual({ head: 2, link: 2, chunk: 2 });
    expect((await blobs.read(prepared.id)).equals(middle)).toBe(true);
  });

  it('holds no more than it is told until the link', async () => {
    const { kv, blobs } = openBench();
    for (const [maxHeldBytes, heldBytes] of [
      [undefined, 2_000],
      [2_000, 2_000],
      [1_999, undefined],
      [0, undefined],
    ] as const) {
      const content = randomBytes(2_000);
      const writer = blobs.writer(maxHeldBytes === undefined ? {} : { maxHeldBytes });
      await writer.write(content);
      const blob = await writer.finish();
      expect(blob.heldBytes).toBe(heldBytes);
      await linkTo(kv, blobs, blob, 'q');
      expect((await blobs.read(blob.id)).equals(content)).toBe(true);
      expect(await keyCounts(kv)).not.toHaveProperty('upload');
    }
  });

  it('refuses to prepare what does not fit one transaction, and blobs from elsewhere', async () => {
    const { kv, blobs } = openBench();
    expect(() => blobs.prepare(Buffer.alloc(4 * 1024 * 1024 + 1))).toThrow(RangeError);
    await expect(linkTo(kv, blobs, { id: 'f'.repeat(64), sizeBytes: 3 }, 'q')).rejects.toThrow(TypeError);
    const { clock } = openBench();
    const make = (chunkBytes: number) => () =>
      createBlobStore({ kv, clock, random: { float: Math.random, bytes: randomBytes }, logger: silentLogger, chunkBytes });
    expect(make(90_000)).toThrow(RangeError);
    expect(make(0)).toThrow(RangeError);
  });

  it('takes content octet by octet', async () => {
    const { kv, blobs } = openBench({ inlineLimitBytes: 9_000, chunkBytes: 5_000 });
    for (const size of [8_999, 15_001]) {
      const content = randomBytes(size);
      const blob = await upload(blobs, content, 1);
      await linkTo(kv, blobs, blob, 'q');
      expect(blob.id).toBe(sha256(content));
      expect((await blobs.read(blob.id)).equals(content)).toBe(true);
    }
  });

  it('links what is stored already by its name, and nothing that has gone', async () => {
    const { kv, blobs, clock } = openBench({ headLimitBytes: 64 });
    const content = randomBytes(200_000);
    const { id, sizeBytes } = await upload(blobs, content);
    const named = blobs.stored({ id, sizeBytes });
    expect(named).toMatchObject({ id, sizeBytes });
    await expect(linkTo(kv, blobs, named, 'q2')).rejects.toThrow(BlobMissing);
    await linkTo(kv, blobs, await upload(blobs, content), 'q1');
    await linkTo(kv, blobs, named, 'q2');
    await unlinkFrom(kv, blobs, id, 'q1');
    for (let i = 0; i < 3; i++) await blobs.purge({ nowSeconds: (clock.nowSeconds += 100) });
    expect((await blobs.read(id)).equals(content)).toBe(true);
    await unlinkFrom(kv, blobs, id, 'q2');
    await blobs.purge({ nowSeconds: (clock.nowSeconds += 100) });
    // Between tombstone and removal a link brings it back.
    await linkTo(kv, blobs, named, 'q3');
    for (let i = 0; i < 3; i++) await blobs.purge({ nowSeconds: (clock.nowSeconds += 100) });
    expect((await blobs.read(id)).equals(content)).toBe(true);
    await unlinkFrom(kv, blobs, id, 'q3');
    for (let i = 0; i < 3; i++) await blobs.purge({ nowSeconds: (clock.nowSeconds += 100) });
    await expect(linkTo(kv, blobs, named, 'q4')).rejects.toThrow(BlobMissing);
    expect(await keyCounts(kv)).toEqual({ upload: 1, chunk: 4 });
  });

  it('takes one giant write, and empty ones', async () => {
    const { kv, blobs } = openBench();
    const content = randomBytes(6_000_000);
    const writer = blobs.writer();
    await writer.write(Buffer.alloc(0));
    const waits = [
      writer.write(content.subarray(0, 5_900_000)),
      writer.write(content.subarray(5_900_000)),
      writer.write(Buffer.alloc(0)),
    ];
    await Promise.all(waits);
    const blob = await writer.finish();
    await linkTo(kv, blobs, blob, 'q');
    expect(blob.id).toBe(sha256(content));
    expect((await blobs.read(blob.id)).equals(content)).toBe(true);
    expect(() => writer.write(content)).toThrow();
  });
});

describe('ranges', () => {
  it('give what a slice of the content gives, and read only the chunks they touch', async () => {
    const { kv, blobs } = openBench({ chunkBytes: 100, inlineLimitBytes: 500, batchBytes: 1_000, headLimitBytes: 64 });
    const contents = [Buffer.alloc(0), randomBytes(50), randomBytes(101), textOf(450), textOf(5_000), randomBytes(3_000)];
    const ids: string[] = [];
    for (const content of contents) {
      const blob = await upload(blobs, content, 333);
      await linkTo(kv, blobs, blob, 'q');
      ids.push(blob.id);
    }
    await fc.assert(
      fc.asyncProperty(
        fc.nat(contents.length - 1),
        fc.option(fc.integer({ min: -10, max: 5_500 }), { nil: undefined }),
        fc.option(fc.integer({ min: -10, max: 5_500 }), { nil: undefined }),
        async (which, start, end) => {
          const content = contents[which]!;
          const wanted = content.subarray(Math.max(0, start ?? 0), Math.max(0, end ?? content.length));
          expect((await blobs.read(ids[which]!, { start, end })).equals(wanted)).toBe(true);
          expect((await gather(blobs.stream(ids[which]!, { start, end }))).equals(wanted)).toBe(true);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('ask for no chunk outside the range', async () => {
    const bench = openBench({ chunkBytes: 1_000, inlineLimitBytes: 500 });
    const content = randomBytes(100_000);
    const blob = await upload(bench.blobs, content);
    await linkTo(bench.kv, bench.blobs, blob, 'q');
    const asked: number[] = [];
    const watched = createBlobStore({
      ...bench,
      kv: countingReads(bench.kv, asked),
      random: { float: Math.random, bytes: randomBytes },
      logger: silentLogger,
    });
    expect((await watched.read(blob.id, { start: 5_999, end: 7_001 })).equals(content.subarray(5_999, 7_001))).toBe(true);
    expect(asked).toEqual([3]);
  });
});

/** Notes how many keys each `getMany` asks for. */
function countingReads(kv: KvStore, asked: number[]): KvStore {
  return new Proxy(kv, {
    get(target, name) {
      if (name !== 'read') return Reflect.get(target, name, target);
      return (body: Parameters<KvStore['read']>[0]) =>
        target.read((reads) =>
          body({
            get: (key) => reads.get(key),
            getRange: (begin, end, options) => reads.getRange(begin, end, options),
            getMany(keys) {
              asked.push(keys.length);
              return reads.getMany(keys);
            },
          }),
        );
    },
  });
}

describe('memory', () => {
  it('stays within two batches however long the stream and however slow the store', async () => {
    const clock = handClock();
    const bench = openBench({ handClock: clock });
    let committed = 0;
    const slow = new Proxy(bench.kv, {
      get(target, name) {
        if (name !== 'transact') return Reflect.get(target, name, target);
        return async (body: Parameters<KvStore['transact']>[0], options: Parameters<KvStore['transact']>[1]) => {
          await clock.sleep(2);
          let bytes = 0;
          const value = await target.transact((tx) => {
            const set = tx.set.bind(tx);
            bytes = 0;
            tx.set = (key, written) => {
              bytes += written.length;
              set(key, written);
            };
            return body(tx);
          }, options);
          committed += bytes;
          expect(bytes).toBeLessThan(1_000_000);
          return value;
        };
      },
    });
    const blobs = createBlobStore({ kv: slow, clock, random: { float: Math.random, bytes: randomBytes }, logger: silentLogger });
    const writer = blobs.writer();
    const piece = randomBytes(65_536);
    const hash = createHash('sha256');
    let written = 0;
    let mostHeld = 0;
    while (written < 50_000_000) {
      piece.writeUInt32LE(written, 0);
      const copy = Buffer.from(piece);
      hash.update(copy);
      await writer.write(copy);
      written += copy.length;
      mostHeld = Math.max(mostHeld, written - committed);
    }
    const blob = await writer.finish();
    expect(mostHeld).toBeGreaterThan(700_000);
    expect(mostHeld).toBeLessThan(2 * 786_432 + 200_000);
    expect(blob.id).toBe(hash.digest('hex'));
    await linkTo(bench.kv, bench.blobs, blob, 'q');
    const check = createHash('sha256');
    for await (const part of bench.blobs.stream(blob.id)) check.update(part);
    expect(check.digest('hex')).toBe(blob.id);
  });
});

describe('the same content twice', () => {
  it('is stored once, small or large', async () => {
    const bench = openBench();
    for (const content of [textOf(2_000), randomBytes(90_000), randomBytes(400_000)]) {
      const first = await upload(bench.blobs, content);
      await linkTo(bench.kv, bench.blobs, first, 'one');
      const before = await keyCounts(bench.kv);
      const second = await upload(bench.blobs, content);
      expect(second.id).toBe(first.id);
      await linkTo(bench.kv, bench.blobs, second, 'two');
      await bench.blobs.purge({ nowSeconds: bench.clock.nowSeconds });
      expect(await keyCounts(bench.kv)).toEqual({ ...before, link: before['link']! + 1 });
      expect((await bench.blobs.read(first.id)).equals(content)).toBe(true);
    }
  });

  it('leaves no stray chunks when one transaction links it to several owners at once', async () => {
    const { kv, blobs } = openBench();
    for (const content of [randomBytes(90_000), randomBytes(300_000)]) {
      const blob = await upload(blobs, content);
      const before = await keyCounts(kv);
      await kv.transact(async (tx) => {
        const owners = ['a', 'b', 'c'].map((queueId) => ({ kind: 'queue' as const, queueId }));
        await Promise.all(owners.map((owner) => blobs.linkPrepared(tx, blob, owner)));
      });
      const after = await keyCounts(kv);
      const expected = Math.ceil(content.length / 65_536);
      expect((after['chunk'] ?? 0) - (before['chunk'] ?? 0)).toBe(content.length > 131_072 ? 0 : expected);
      expect(after['upload']).toBeUndefined();
      expect((await blobs.read(blob.id)).equals(content)).toBe(true);
    }
  });
});

describe('what is not there or not whole', () => {
  it('is BlobMissing', async () => {
    const { kv, blobs } = openBench();
    const id = 'a'.repeat(64);
    await expect(blobs.read(id)).rejects.toThrow(BlobMissing);
    await expect(gather(blobs.stream(id))).rejects.toThrow(BlobMissing);
    await expect(kv.transact((tx) => blobs.link(tx, id, { kind: 'queue', queueId: 'q' }))).rejects.toThrow(BlobMissing);
    expect(await kv.read((reads) => blobs.stat(reads, id))).toBeUndefined();
  });

  it('is BlobCorrupt, wherever a byte changed', async () => {
    const { kv, blobs } = openBench({ chunkBytes: 1_000, inlineLimitBytes: 100_000 });
    for (const content of [textOf(900), randomBytes(300), textOf(5_000), randomBytes(5_000)]) {
      const blob = blobs.prepare(content);
      await linkTo(kv, blobs, blob, 'q');
      const { begin, end } = keysUnder(subspace.blob);
      const pairs = await kv.read((reads) => reads.getRange(begin, end));
      for (const { key, value } of pairs.filter((pair) => pair.value.length > 0)) {
        for (const at of [0, 1, 2, 8, 11, 12, 15, 16, 17, 18, 19, 22, 23, value.length >> 1, value.length - 1]) {
          const damaged = Buffer.from(value);
          damaged[at % value.length]! ^= 0x41;
          await kv.transact(async (tx) => tx.set(key, damaged));
          const outcome = await blobs.read(blob.id).catch((error) => error);
          // A changed tombstone time is no damage to the content.
          if (Buffer.isBuffer(outcome)) expect(outcome.equals(content)).toBe(true);
          else expect(outcome).toBeInstanceOf(BlobCorrupt);
        }
        await kv.transact(async (tx) => tx.set(key, value.subarray(0, value.length - 1)));
        await expect(blobs.read(blob.id)).rejects.toThrow(BlobCorrupt);
        await kv.transact(async (tx) => tx.set(key, value));
      }
      expect((await blobs.read(blob.id)).equals(content)).toBe(true);
      await kv.transact(async (tx) => tx.clearRange(begin, end));
    }
  });

  it('names a missing chunk and never trusts the size in a compressed one', async () => {
    const { kv, blobs } = openBench({ inlineLimitBytes: 1_000 });
    const blob = await upload(blobs, textOf(200_000));
    await linkTo(kv, blobs, blob, 'q');
    const head = (await kv.read((reads) => reads.get(headKey(blob.id))))!;
    const second = chunkKey(head.subarray(head.length - 16), 1);
    const value = (await kv.read((reads) => reads.get(second)))!;
    await kv.transact(async (tx) => tx.clear(second));
    await expect(blobs.read(blob.id)).rejects.toThrow('chunk 1 is missing');
    expect((await blobs.read(blob.id, { end: 65_536 })).length).toBe(65_536);
    const { crc32 } = await import('node:zlib');
    value.writeUInt32LE(0x7fff_ffff, 5);
    value.writeUInt32BE(crc32(value.subarray(5)), 1);
    await kv.transact(async (tx) => tx.set(second, value));
    await expect(blobs.read(blob.id)).rejects.toThrow('wrong length');
  });
});
