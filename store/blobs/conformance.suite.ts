/**
 * What every place for the bytes of large blobs must give, with its faults: run by the tests of the key-value store, of files and of S3.
 */
import { createHash, randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger, systemRandom } from '../../ops/telemetry/index.js';
import type { MemoryDatabase } from '../kv/index.js';
import { BlobCorrupt, BlobMissing } from './contract.js';
import type { ExternalBlobOptions, ExternalPlace } from './external.js';
import { isIdOf } from './ids.js';
import { placementOf } from './inspect.js';
import { headKey } from './keys.js';
import { raceOnce } from './race.suite.js';
import { createBlobStore } from './store.js';
import {
  type Bench,
  gather,
  keyCounts,
  linkTo,
  mortal,
  objectsOf,
  openBench,
  purgeFully,
  textOf,
  unlinkFrom,
  upload,
} from './test-bench.js';

/** An empty storage with its faults. */
export interface StorageUnderTest {
  place: ExternalPlace | 'chunks';
  database: MemoryDatabase;
  /** Undefined for the key-value store. */
  external: ExternalBlobOptions | undefined;
  /** Nobody can reach it from now on. */
  away(bench: Bench): Promise<void> | void;
  back(bench: Bench): Promise<void> | void;
  /** Nothing more can be written from now on; only asked for with `canBeFull`. */
  full?(bench: Bench): Promise<void> | void;
  /** Replaces the stored bytes of a blob, all of them or one chunk; undefined: removes them. */
  damage(bench: Bench, storageId: string, change: (bytes: Buffer) => Buffer | undefined): Promise<void>;
  close(): Promise<void>;
}

/** Content over 3,000 bytes is large; frames and chunks are short, so that little content has many. */
export const smallLimits = { chunkBytes: 1_000, inlineLimitBytes: 3_000, batchBytes: 20_000 };
export const smallExternal = { thresholdBytes: 3_000, frameBytes: 1_000 };

export interface ConformanceOptions {
  /** Runs of what is slow where requests are. */
  races: { runs: number; rounds: number };
  canBeFull: boolean;
  /** Tries fewer of the steps at which a process may stop. */
  isSlow?: boolean;
  /** Length of the longest content. */
  longBytes: number;
}

export function blobConformance(name: string, open: () => Promise<StorageUnderTest>, options: ConformanceOptions): void {
  describe(`blobs in ${name}`, () => {
    let storage: StorageUnderTest;
    let bench: Bench;
    beforeEach(async () => {
      storage = await open();
      bench = openBench({ ...smallLimits, external: storage.external, database: storage.database });
    });
    afterEach(() => storage.close());

    const storedOnce = async (content: Buffer, queueId = 'q') => {
      const blob = await upload(bench.blobs, content);
      await linkTo(bench.kv, bench.blobs, blob, queueId);
      return blob.id;
    };
    const placeOf = async (id: string) => placementOf(id, (await bench.kv.read((reads) => reads.get(headKey(id))))!);
    const isEmpty = async () => {
      expect(await keyCounts(bench.kv)).toEqual({});
      expect(await objectsOf(bench.blobs)).toEqual([]);
    };
    /** The same storage seen by a node of its own. */
    const anotherNode = (kv = bench.kv) =>
      createBlobStore({
        kv,
        clock: bench.clock,
        random: systemRandom,
        logger: silentLogger,
        ...smallLimits,
        external: storage.external,
      });

    it('gives back what was written, whatever its length', async () => {
      for (const size of [0, 1, 2_999, 3_000, 3_001, 4_000, 9_001, 100_000, options.longBytes]) {
        for (const content of [textOf(size), randomBytes(size)]) {
          const blob = await upload(bench.blobs, content, 17_001);
          expect(blob).toMatchObject({ id: createHash('sha256').update(content).digest('hex'), sizeBytes: size });
          await linkTo(bench.kv, bench.blobs, blob, 'q');
          expect((await bench.blobs.read(blob.id)).equals(content)).toBe(true);
          expect((await gather(anotherNode().stream(blob.id))).equals(content)).toBe(true);
          const placement = await placeOf(blob.id);
          if (size > 3_000) expect(placement).toMatchObject({ place: storage.place, sizeBytes: size });
          else expect(['head', 'chunks']).toContain(placement.place);
        }
      }
      expect(await keyCounts(bench.kv)).not.toHaveProperty('upload');
      for (const object of await objectsOf(bench.blobs)) expect(object.isComplete).toBe(true);
    });

    it('gives ranges that a slice of the content gives', async () => {
      const contents = [randomBytes(3_001), textOf(60_000), randomBytes(31_500)];
      const ids: string[] = [];
      for (const content of contents) ids.push(await storedOnce(content));
      const edge = fc.option(fc.integer({ min: -10, max: 65_000 }), { nil: undefined });
      await fc.assert(
        fc.asyncProperty(fc.nat(contents.length - 1), edge, edge, async (which, start, end) => {
          const content = contents[which]!;
          const wanted = content.subarray(Math.max(0, start ?? 0), Math.max(0, end ?? content.length));
          expect((await bench.blobs.read(ids[which]!, { start, end })).equals(wanted)).toBe(true);
          expect((await gather(bench.blobs.stream(ids[which]!, { start, end }))).equals(wanted)).toBe(true);
        }),
        { numRuns: options.races.runs * 5 },
      );
    });

    it('stores the same content once, when two nodes write it at the same time too', async () => {
      const content = randomBytes(50_000);
      const other = anotherNode();
      const blobs = await Promise.all([upload(bench.blobs, content), upload(other, content)]);
      expect(await objectsOf(bench.blobs)).toHaveLength(storage.external ? 2 : 0);
      await Promise.all([linkTo(bench.kv, bench.blobs, blobs[0], 'a'), linkTo(bench.kv, other, blobs[1], 'b')]);
      await bench.blobs.purge({ nowSeconds: bench.clock.nowSeconds });
      expect(await objectsOf(bench.blobs)).toHaveLength(storage.external ? 1 : 0);
      expect(await keyCounts(bench.kv)).toMatchObject({ head: 1, link: 2 });
      for (const node of [bench.blobs, other]) expect((await node.read(blobs[0].id)).equals(content)).toBe(true);
      await unlinkFrom(bench.kv, bench.blobs, blobs[0].id, 'a');
      await purgeFully(bench);
      expect((await other.read(blobs[0].id)).equals(content)).toBe(true);
      await unlinkFrom(bench.kv, bench.blobs, blobs[0].id, 'b');
      await purgeFully(bench);
      await isEmpty();
    });

    it('stores unique content under ids that sort by time, as often as it is written', async () => {
      for (const content of [textOf(2_000), randomBytes(50_000)]) {
        const digest = createHash('sha256').update(content).digest('hex');
        const ids: string[] = [];
        for (let round = 0; round < 3; round++) {
          const blob = await upload(bench.blobs, content, 10_000, { isUnique: true });
          await linkTo(bench.kv, bench.blobs, blob, `unique ${round}`);
          ids.push(blob.id);
          bench.clock.nowSeconds += 1;
        }
        expect(new Set([...ids, digest]).size).toBe(4);
        expect(ids).toEqual([...ids].sort());
        for (const [round, id] of ids.entries()) {
          expect(isIdOf(id, digest)).toBe(true);
          expect((await anotherNode().read(id)).equals(content)).toBe(true);
          await unlinkFrom(bench.kv, bench.blobs, id, `unique ${round}`);
        }
      }
      await purgeFully(bench);
      await isEmpty();
    });

    it('keeps the bytes until the head has been gone, and a link on the way brings them back', async () => {
      const content = randomBytes(50_000);
      const id = await storedOnce(content);
      await unlinkFrom(bench.kv, bench.blobs, id, 'q');
      bench.clock.nowSeconds += 60;
      expect(await bench.blobs.purge({ nowSeconds: bench.clock.nowSeconds })).toMatchObject({ tombstoned: 1 });
      expect((await bench.blobs.read(id)).equals(content)).toBe(true);
      await bench.kv.transact((tx) => bench.blobs.link(tx, id, { kind: 'queue', queueId: 'again' }));
      await purgeFully(bench);
      expect((await bench.blobs.read(id)).equals(content)).toBe(true);
      await unlinkFrom(bench.kv, bench.blobs, id, 'again');
      await purgeFully(bench);
      await expect(bench.blobs.read(id)).rejects.toThrow(BlobMissing);
      await isEmpty();
    });

    it('leaves nothing of uploads that were aborted, before and after their end', async () => {
      const open = bench.blobs.writer();
      for (let piece = 0; piece < 10; piece++) await open.write(randomBytes(10_000));
      await open.abort();
      const finished = bench.blobs.writer();
      await finished.write(randomBytes(100_000));
      await finished.finish();
      await finished.abort();
      await isEmpty();
      const content = randomBytes(100_000);
      const linked = bench.blobs.writer();
      await linked.write(content);
      const blob = await linked.finish();
      await linkTo(bench.kv, bench.blobs, blob, 'q');
      await linked.abort();
      expect((await bench.blobs.read(blob.id)).equals(content)).toBe(true);
    });

    it('gives up what nobody linked, and a late link fails', async () => {
      const blob = await upload(bench.blobs, randomBytes(100_000));
      bench.clock.nowSeconds += 86_399;
      await bench.blobs.purge({ nowSeconds: bench.clock.nowSeconds });
      expect(await keyCounts(bench.kv)).toMatchObject({ upload: 1 });
      bench.clock.nowSeconds += 1;
      await bench.blobs.purge({ nowSeconds: bench.clock.nowSeconds });
      expect(await objectsOf(bench.blobs)).toEqual([]);
      await expect(linkTo(bench.kv, bench.blobs, blob, 'q')).rejects.toThrow(BlobMissing);
      await purgeFully(bench, 86_400);
      await isEmpty();
    });

    it('removes what a writer that hung for a day finished after all', async () => {
      const writer = bench.blobs.writer();
      await writer.write(randomBytes(50_000));
      bench.clock.nowSeconds += 86_400;
      await bench.blobs.purge({ nowSeconds: bench.clock.nowSeconds });
      const outcome = await writer
        .finish()
        .then((blob) => linkTo(bench.kv, bench.blobs, blob, 'q'))
        .catch((error) => error);
      expect(outcome).toBeInstanceOf(Error);
      await purgeFully(bench, 86_400);
      await isEmpty();
    });

    it('leaves nothing, and never half a linked blob, when a process stops at any step', async () => {
      const content = randomBytes(20_000);
      let stoppedRuns = 0;
      for (let commits = 0; commits < 14; commits++) {
        for (const isLastApplied of options.isSlow ? [commits % 2 === 0] : [false, true]) {
          const kv = mortal(bench.kv, commits, isLastApplied);
          const blobs = anotherNode(kv as Bench['kv']);
          const life = async () => {
            const blob = await upload(blobs, content);
            await linkTo(kv, blobs, blob, 'q');
            await linkTo(kv, blobs, await upload(blobs, content), 'second');
            await unlinkFrom(kv, blobs, blob.id, 'q');
            await unlinkFrom(kv, blobs, blob.id, 'second');
            await purgeFully({ blobs, clock: bench.clock });
          };
          if (await life().catch((error) => error)) stoppedRuns++;
          const { id } = bench.blobs.prepare(content);
          if ((await keyCounts(bench.kv))['link']) {
            expect((await bench.blobs.read(id)).equals(content)).toBe(true);
            await unlinkFrom(bench.kv, bench.blobs, id, 'q');
            await unlinkFrom(bench.kv, bench.blobs, id, 'second');
          }
          await purgeFully(bench, 86_400);
          await isEmpty();
        }
      }
      expect(stoppedRuns).toBeGreaterThan(options.isSlow ? 6 : 14);
    });

    it('is unavailable while it is away, and loses nothing by that', async () => {
      const content = randomBytes(50_000);
      const id = await storedOnce(content);
      const small = textOf(500);
      const smallId = await storedOnce(small);
      await storage.away(bench);
      await expect(bench.blobs.read(id)).rejects.toMatchObject({ code: 'unavailable' });
      await expect(gather(bench.blobs.stream(id))).rejects.toMatchObject({ code: 'unavailable' });
      const writer = bench.blobs.writer();
      const write = async () => {
        for (let piece = 0; piece < 10; piece++) await writer.write(randomBytes(10_000));
        await writer.finish();
      };
      await expect(write()).rejects.toMatchObject({ code: 'unavailable' });
      await writer.abort();
      if (storage.external) {
        await expect(bench.blobs.check()).rejects.toMatchObject({ code: 'unavailable' });
        expect((await bench.blobs.read(smallId)).equals(small)).toBe(true);
        await unlinkFrom(bench.kv, bench.blobs, id, 'q');
        await purgeFully(bench, 86_400);
        // The head is gone, the bytes wait for the storage.
        expect(await keyCounts(bench.kv)).toMatchObject({ head: 1, upload: 2 });
        expect(await storedOnce(textOf(600))).toBeDefined();
      }
      await storage.back(bench);
      await bench.blobs.check();
      if (!storage.external) expect((await bench.blobs.read(id)).equals(content)).toBe(true);
      expect((await bench.blobs.read(await storedOnce(content, 'anew'))).equals(content)).toBe(true);
      for (const queueId of ['q', 'anew']) await unlinkFrom(bench.kv, bench.blobs, id, queueId);
      await unlinkFrom(bench.kv, bench.blobs, smallId, 'q');
      await unlinkFrom(bench.kv, bench.blobs, bench.blobs.prepare(textOf(600)).id, 'q');
      await purgeFully(bench, 86_400);
      await isEmpty();
    });

    const fullTest = () =>
      it('says so when it is full, and leaves nothing of what did not fit', async () => {
        await storedOnce(textOf(200_000));
        const before = await objectsOf(bench.blobs);
        await storage.full!(bench);
        const writer = bench.blobs.writer();
        const write = async () => {
          for (let piece = 0; piece < 100; piece++) await writer.write(randomBytes(50_000));
          await writer.finish();
        };
        await expect(write()).rejects.toMatchObject({ code: 'unavailable', reason: 'no-space' });
        await writer.abort();
        expect((await bench.blobs.read(bench.blobs.prepare(textOf(200_000)).id)).equals(textOf(200_000))).toBe(true);
        await storage.back(bench);
        await purgeFully(bench, 86_400);
        expect(await keyCounts(bench.kv)).not.toHaveProperty('upload');
        expect(await objectsOf(bench.blobs)).toEqual(before);
      });
    if (options.canBeFull) fullTest();

    it('never gives wrong bytes: cut, longer, changed or lost ones are BlobCorrupt', async () => {
      for (const content of [textOf(8_000), randomBytes(8_000)]) {
        const id = await storedOnce(content);
        const { storageId } = await placeOf(id);
        let whole: Buffer = Buffer.alloc(0);
        await storage.damage(bench, storageId!, (bytes) => {
          whole = Buffer.from(bytes);
          return bytes;
        });
        const flips = Array.from({ length: 12 }, (_, step) => Math.floor((step * (whole.length - 1)) / 11));
        const changes: ((bytes: Buffer) => Buffer | undefined)[] = [
          () => undefined,
          () => whole.subarray(0, whole.length - 1),
          () => whole.subarray(0, 3),
          () => Buffer.concat([whole, whole.subarray(0, 1)]),
          ...flips.map((at) => () => {
            const damaged = Buffer.from(whole);
            damaged[at]! ^= 0x41;
            return damaged;
          }),
        ];
        for (const change of changes) {
          await storage.damage(bench, storageId!, change);
          await expect(bench.blobs.read(id)).rejects.toThrow(BlobCorrupt);
          await expect(gather(bench.blobs.stream(id))).rejects.toThrow(BlobCorrupt);
        }
        await storage.damage(bench, storageId!, () => whole);
        expect((await bench.blobs.read(id)).equals(content)).toBe(true);
      }
    });

    it('goes on with the same bytes when a blob is purged and stored anew while it is read', async () => {
      const content = randomBytes(options.longBytes);
      const id = await storedOnce(content);
      const reading = bench.blobs.stream(id)[Symbol.asyncIterator]();
      const parts = [(await reading.next()).value as Buffer];
      await unlinkFrom(bench.kv, bench.blobs, id, 'q');
      await purgeFully(bench);
      await isEmpty();
      await storedOnce(content, 'again');
      parts.push(await gather({ [Symbol.asyncIterator]: () => reading }));
      expect(Buffer.concat(parts).equals(content)).toBe(true);
    });

    it('stays readable when new blobs go to the key-value store', async () => {
      const content = randomBytes(20_000);
      const id = await storedOnce(content);
      const { external } = storage;
      const later = openBench({
        ...smallLimits,
        handClock: bench.clock,
        database: storage.database,
        external: external && { ...external, writeTo: undefined },
      });
      expect((await later.blobs.read(id)).equals(content)).toBe(true);
      const other = await upload(later.blobs, randomBytes(20_000));
      await linkTo(later.kv, later.blobs, other, 'q');
      expect((await placeOf(other.id)).place).toBe('chunks');
      if (external) {
        const without = openBench({ ...smallLimits, database: storage.database });
        await expect(without.blobs.read(id)).rejects.toMatchObject({ code: 'unavailable' });
      }
      for (const one of [id, other.id]) await unlinkFrom(later.kv, later.blobs, one, 'q');
      await purgeFully(later);
      await isEmpty();
    });

    it('never loses a linked blob to purges, links and unlinks on several nodes', async () => {
      const { runs, rounds } = options.races;
      await fc.assert(
        fc.asyncProperty(fc.integer(), (seed) => raceOnce(seed, storage.external, rounds, storage.database)),
        {
          numRuns: runs,
        },
      );
    });
  });
}
