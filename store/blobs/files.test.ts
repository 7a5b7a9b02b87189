import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MemoryDatabase } from '../kv/index.js';
import { blobConformance, smallExternal, smallLimits } from './conformance.suite.js';
import type { ExternalStorage } from './external.js';
import { strayObjects } from './inspect.js';
import { keyCounts, linkTo, objectsOf, openBench, purgeFully, unlinkFrom, upload } from './test-bench.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'blob-files-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const pathOf = (directory: string, id: string) => join(directory, id.slice(0, 2), id.slice(2, 4), id);

const mountSmall = (directory: string, size = '16m') =>
  spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', directory]).status === 0;
const unmount = (directory: string) => spawnSync('umount', [directory]);

/** A file system that can be full, and a mount that can be lost, need the right to mount. */
const canMount = await (async () => {
  const probe = await mkdtemp(join(tmpdir(), 'blob-mount-'));
  const can = mountSmall(probe, '1m');
  if (can) unmount(probe);
  await rm(probe, { recursive: true });
  if (can) return true;
  if (process.env['CI'] === 'true') throw new Error('CI must be allowed to mount a tmpfs');
  process.stderr.write('skipped: needs the right to mount a tmpfs\n');
  return false;
})();

let count = 0;
blobConformance(
  'files',
  async () => {
    const directory = join(folder, `${count++}`);
    await mkdir(directory);
    if (canMount) mountSmall(directory);
    const aside = `${directory}.aside`;
    let isAway = false;
    return {
      place: 'files',
      database: new MemoryDatabase(),
      external: { writeTo: 'files', files: { directory }, ...smallExternal },
      async away() {
        // As when a mount is lost: the directory is there, and empty.
        isAway = true;
        if (canMount) mountSmall(directory);
        else {
          await rename(directory, aside);
          await mkdir(directory);
        }
      },
      async back() {
        if (isAway && canMount) unmount(directory);
        else if (isAway) {
          await rm(directory, { recursive: true });
          await rename(aside, directory);
        }
        isAway = false;
        await rm(join(directory, 'filler'), { force: true });
      },
      full: () => writeFile(join(directory, 'filler'), Buffer.alloc(20_000_000)).catch(() => {}),
      async damage(_bench, storageId, change) {
        const path = pathOf(directory, storageId);
        const bytes = change(await readFile(path).catch(() => Buffer.alloc(0)));
        if (bytes) await writeFile(path, bytes);
        else await rm(path);
      },
      async close() {
        // Twice where a test failed while it was away.
        while (canMount && unmount(directory).status === 0);
      },
    };
  },
  { canBeFull: canMount, races: { runs: 10, rounds: 5 }, longBytes: 2_000_000 },
);

describe('a directory of blobs', () => {
  const openAt = async (directory: string, database = new MemoryDatabase()) =>
    openBench({ ...smallLimits, database, external: { writeTo: 'files', files: { directory }, ...smallExternal } });

  it('is refused when its mark is missing or is that of another installation, even for reading what is not there', async () => {
    const directory = join(folder, 'marked');
    const database = new MemoryDatabase();
    const bench = await openAt(directory, database);
    const content = randomBytes(20_000);
    const blob = await upload(bench.blobs, content);
    await linkTo(bench.kv, bench.blobs, blob, 'q');
    const stranger = await openAt(directory);
    await expect(upload(stranger.blobs, content)).rejects.toMatchObject({ code: 'unavailable', reason: 'outage' });
    await expect(stranger.blobs.check()).rejects.toThrow('another installation');
    await rename(join(directory, 'starling-blobs'), join(directory, 'elsewhere'));
    await expect(upload(bench.blobs, randomBytes(20_000))).rejects.toThrow('is it mounted?');
    // What can be read is read.
    expect((await bench.blobs.read(blob.id)).equals(content)).toBe(true);
    const another = await openAt(directory, database);
    await expect(another.blobs.check()).rejects.toThrow('is it mounted?');
    await rename(join(directory, 'elsewhere'), join(directory, 'starling-blobs'));
    await another.blobs.check();
  });

  it('is marked alike by nodes that use it for the first time at once', async () => {
    const directory = join(folder, 'first');
    const database = new MemoryDatabase();
    const nodes = await Promise.all(Array.from({ length: 4 }, () => openAt(directory, database)));
    await Promise.all(
      nodes.map(async ({ kv, blobs }, node) => linkTo(kv, blobs, await upload(blobs, randomBytes(9_000)), `q${node}`)),
    );
    expect((await readdir(directory)).filter((name) => name.startsWith('starling-blobs'))).toEqual(['starling-blobs']);
    expect(await objectsOf(nodes[0]!.blobs)).toHaveLength(4);
  });

  it('shows temporary files of a dead process as unfinished, and the purge removes them', async () => {
    const bench = await openAt(join(folder, 'dead'));
    const writer = bench.blobs.writer();
    await writer.write(randomBytes(2_000_000));
    // The process is gone: neither finish nor abort.
    const deadline = performance.now() + 10_000;
    while ((await objectsOf(bench.blobs)).length === 0 && performance.now() < deadline) await bench.clock.sleep(5);
    expect(await objectsOf(bench.blobs)).toMatchObject([{ isComplete: false }]);
    await purgeFully(bench, 86_400);
    expect(await objectsOf(bench.blobs)).toEqual([]);
    expect(await keyCounts(bench.kv)).toEqual({});
    await writer.abort();
  });

  it('has strays only when nobody knows of them', async () => {
    const directory = join(folder, 'strays');
    const bench = await openAt(directory);
    const { kv, blobs } = bench;
    await linkTo(kv, blobs, await upload(blobs, randomBytes(9_000)), 'q');
    await upload(blobs, randomBytes(9_000));
    const strayId = 'ab'.repeat(16);
    await mkdir(join(directory, 'ab', 'ab'), { recursive: true });
    await writeFile(pathOf(directory, strayId), 'left over');
    const find = async (nowMs: number) => {
      const ids: string[] = [];
      for await (const { storageId } of strayObjects(kv, blobs.storages(), { nowMs })) ids.push(storageId);
      return ids;
    };
    const { mtimeMs } = await stat(pathOf(directory, strayId));
    expect(await find(mtimeMs + 1_000)).toEqual([]);
    expect(await find(mtimeMs + 2 * 86_400_000)).toEqual([strayId]);
    for await (const stray of strayObjects(kv, blobs.storages(), { nowMs: mtimeMs + 2 * 86_400_000 }))
      await stray.storage.remove(stray.storageId, { isAbandoned: true });
    expect(await objectsOf(blobs)).toHaveLength(2);
  });

  it('is no stray when it was written while somebody with a wrong clock looked for strays', async () => {
    const { kv, blobs } = await openAt(join(folder, 'young'));
    const [storage] = blobs.storages();
    const late: ExternalStorage = Object.create(storage!, {
      list: {
        async *value() {
          await linkTo(kv, blobs, await upload(blobs, randomBytes(9_000)), 'late');
          await upload(blobs, randomBytes(9_000));
          yield* storage!.list();
        },
      },
    });
    const found: string[] = [];
    for await (const { storageId } of strayObjects(kv, [late], { nowMs: Date.now() + 2 * 86_400_000 })) found.push(storageId);
    expect(found).toEqual([]);
    expect(await objectsOf(blobs)).toHaveLength(2);
  });

  it('is written without holding more than a few batches, and read by a node that knows only the head', async () => {
    const directory = join(folder, 'long');
    const database = new MemoryDatabase();
    const bench = openBench({ database, external: { writeTo: 'files', files: { directory } } });
    const piece = randomBytes(65_536);
    const writer = bench.blobs.writer();
    let held = 0;
    for (let written = 0, pieces = 1; written < 60_000_000; pieces++) {
      const copy = Buffer.from(piece);
      copy.writeUInt32LE(written, 0);
      await writer.write(copy);
      written += copy.length;
      if (pieces % 20 === 0) held = Math.max(held, written - ((await objectsOf(bench.blobs))[0]?.sizeBytes ?? 0));
    }
    const blob = await writer.finish();
    await linkTo(bench.kv, bench.blobs, blob, 'q');
    let read = 0;
    for await (const part of openBench({ database, external: { files: { directory } } }).blobs.stream(blob.id))
      read += part.length;
    expect(read).toBe(blob.sizeBytes);
    // The threshold, or two batches of half a megabyte and a frame; the file is longer than its content by a few bytes per frame.
    expect(held).toBeGreaterThan(100_000);
    expect(held).toBeLessThan(1_400_000);
    await unlinkFrom(bench.kv, bench.blobs, blob.id, 'q');
    await purgeFully(bench);
    expect(await objectsOf(bench.blobs)).toEqual([]);
  });
});
