import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { machineHasSwift, SwiftServer } from '../../test-cluster/harness/swift.js';
import { type BlobId, type BlobStore, createBlobStore, type ExternalBlobOptions, type S3Options } from '../blobs/index.js';
import { candidateKey, headKey, uploadKey } from '../blobs/keys.js';
import { key, nodeKeys, subspace } from '../keyspace.js';
import { KvError, type KvStore, type MemoryStore } from '../kv/index.js';
import {
  BackupDamaged,
  type BackupOptions,
  type CopyOptions,
  checkStore,
  copyStore,
  type RestoreOptions,
  restoreBackup,
  TransferInterrupted,
  TransferRefused,
  unfinishedTransfer,
  verifyBackup,
  writeBackup,
} from './index.js';
import { movedKey } from './spaces.js';
import { allRows, comparableRows, emptyStore, impatientClock, MemorySink, memorySource } from './test-bench.js';

const root = mkdtempSync(join(tmpdir(), 'starling-objects-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let folders = 0;
/** A directory that does not exist yet. */
const fresh = () => join(root, `blobs-${folders++}`);
const parts = { clock: impatientClock, random: systemRandom, logger: silentLogger };
const files = (directory: string): ExternalBlobOptions => ({ writeTo: 'files', thresholdBytes: 5_000, files: { directory } });
const openBlobs = (kv: KvStore, external: ExternalBlobOptions) =>
  createBlobStore({ ...parts, clock: systemClock, kv, external, inlineLimitBytes: 5_000 });

interface Installation {
  kv: MemoryStore;
  blobs: BlobStore;
  contents: Map<BlobId, Buffer>;
}

async function write({ kv, blobs, contents }: Installation, bytes: number): Promise<BlobId> {
  // Half of it shrinks.
  const content = Buffer.concat([systemRandom.bytes(bytes >> 1), Buffer.alloc(bytes - (bytes >> 1), 'text ')]);
  const writer = blobs.writer();
  await writer.write(content);
  const blob = await writer.finish();
  await kv.transact((tx) => blobs.linkPrepared(tx, blob, { kind: 'upload', accountId: 'a', uploadId: String(contents.size) }));
  contents.set(blob.id, content);
  return blob.id;
}

/** One small blob in the store, and outside of it 20 of 5 kB to 3 MB. */
async function install(external: ExternalBlobOptions, sizes?: number[]): Promise<Installation> {
  const kv = emptyStore();
  const installation = { kv, blobs: openBlobs(kv, external), contents: new Map<BlobId, Buffer>() };
  await write(installation, 3_000);
  for (const bytes of sizes ?? [3_000_000, 2_097_152, ...Array.from({ length: 18 }, (_, n) => 5_001 + n * n * 700)])
    await write(installation, bytes);
  return installation;
}

async function expectContents(kv: KvStore, external: ExternalBlobOptions, contents: Map<BlobId, Buffer>): Promise<void> {
  const blobs = openBlobs(kv, external);
  for (const [id, content] of contents) expect((await blobs.read(id)).equals(content), id).toBe(true);
  const result = await checkStore({ ...parts, kv, blobs, deep: true });
  expect(result.findings.filter(({ area }) => area === 'blobs')).toEqual([]);
  expect(result.notes).toEqual([]);
}

async function backUp(kv: KvStore, external: ExternalBlobOptions, more: Partial<BackupOptions> = {}) {
  const sink = new MemorySink();
  const result = await writeBackup({
    ...parts,
    from: { store: kv },
    sink,
    software: 'test',
    blobs: async () => external,
    ...more,
  });
  return { bytes: sink.bytes, blobs: result.externalBlobs };
}

const restore = (bytes: Buffer, target: KvStore, external: ExternalBlobOptions, more: Partial<RestoreOptions> = {}) =>
  restoreBackup({ ...parts, source: memorySource(bytes), target, blobs: { options: async () => external }, ...more });

const isMark = (row: string) => row.startsWith(key(subspace.blob, 'storage').toString('hex'));
const withoutMarks = async (kv: KvStore) => (await comparableRows(kv)).filter((row) => !isMark(row));

function objectFiles(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .map((name) => join(directory, name))
    .filter((path) => /[0-9a-f]{32}(\.tmp)?$/.test(path) && statSync(path).isFile())
    .sort();
}

let directory: string;
let source: Installation;
let plain: Buffer;
beforeAll(async () => {
  directory = fresh();
  source = await install(files(directory));
  plain = (await backUp(source.kv, files(directory))).bytes;
});

describe('a backup of blobs in files', () => {
  it('brings all of them back into a directory of its own', async () => {
    expect(objectFiles(directory)).toHaveLength(20);
    const stored = objectFiles(directory).reduce((sum, path) => sum + statSync(path).size, 0);
    const { totals } = await verifyBackup({ source: memorySource(plain) });
    expect(totals!.externalBlobs).toEqual({
      count: 20,
      bytes: stored,
      carried: { count: 20, bytes: stored, digest: expect.stringMatching(/^[0-9a-f]{64}$/) },
    });
    const [target, into] = [emptyStore(), files(fresh())];
    const stages = new Set<string>();
    const restored = await restore(plain, target, into, { onProgress: ({ stage }) => stages.add(stage) });
    expect(restored).toEqual(totals);
    expect(stages).toContain('objects');
    await expectContents(target, into, source.contents);
    expect(await withoutMarks(target)).toEqual(await withoutMarks(source.kv));
    // Neither takes the other's storage for its own.
    await expect(openBlobs(target, files(directory)).check()).rejects.toThrow(/another installation/);
    await expect(openBlobs(source.kv, into).check()).rejects.toThrow(/another installation/);
  });

  it('comes through a pipe and encrypted as well', async () => {
    const clusterKey = Buffer.alloc(32, 3);
    const sealed = await backUp(source.kv, files(directory), { clusterKey });
    const [target, into] = [emptyStore(), files(fresh())];
    await restore(sealed.bytes, target, into, { source: memorySource(sealed.bytes, false), clusterKeys: [clusterKey] });
    await expectContents(target, into, source.contents);
  });

  it('is refused before anything is written, wherever it ends or a bit is flipped', async () => {
    const [target, into] = [emptyStore(), fresh()];
    for (let n = 1; n < 40; n++) {
      const at = Math.floor((plain.length * n) / 40);
      const flipped = Buffer.from(plain);
      flipped[at]! ^= 1;
      await expect(restore(flipped, target, files(into)), `flipped ${at}`).rejects.toBeInstanceOf(BackupDamaged);
      await expect(restore(plain.subarray(0, at), target, files(into)), `cut ${at}`).rejects.toBeInstanceOf(BackupDamaged);
    }
    expect(await allRows(target)).toEqual([]);
    expect(existsSync(into)).toBe(false);
  });

  it('from a pipe that ends early leaves a target that nothing starts on, and the whole one finishes it', async () => {
    const [target, into] = [emptyStore(), files(fresh())];
    for (const share of [0.3, 0.6, 0.9]) {
      const cut = memorySource(plain.subarray(0, Math.floor(plain.length * share)), false);
      await expect(restore(plain, target, into, { source: cut })).rejects.toThrow(/cut off/);
      expect(await unfinishedTransfer(target)).toMatch(/unfinished restore/);
    }
    await restore(plain, target, into);
    expect(await unfinishedTransfer(target)).toBeUndefined();
    await expectContents(target, into, source.contents);
  });

  it('can be interrupted anywhere', async () => {
    const [target, into] = [emptyStore(), files(fresh())];
    for (let after = 0; ; after += 5) {
      const stop = new AbortController();
      let seen = 0;
      const onProgress: RestoreOptions['onProgress'] = ({ stage }) => {
        if (stage === 'objects' && seen++ === after + 25) stop.abort();
      };
      try {
        await restore(plain, target, into, { onProgress, signal: stop.signal, maxBatchRows: 10 });
        expect(after).toBeGreaterThan(10);
        break;
      } catch (error) {
        expect(error).toBeInstanceOf(TransferInterrupted);
        expect(await unfinishedTransfer(target)).toBeDefined();
      }
    }
    await expectContents(target, into, source.contents);
    expect(objectFiles(into.files!.directory)).toHaveLength(20);
  });

  it('goes on after a kill that left half an object under its temporary name', async () => {
    const [target, into] = [emptyStore(), fresh()];
    const cut = memorySource(plain.subarray(0, Math.floor(plain.length * 0.95)), false);
    await expect(restore(plain, target, files(into), { source: cut })).rejects.toThrow(/cut off/);
    const [short, unfinished] = objectFiles(into);
    truncateSync(short!, 10);
    writeFileSync(`${unfinished}.tmp`, readFileSync(unfinished!).subarray(0, 9));
    unlinkSync(unfinished!);
    await restore(plain, target, files(into));
    await expectContents(target, files(into), source.contents);
    expect(objectFiles(into)).toHaveLength(20);
  });

  it('waits for a storage that is away', async () => {
    const [target, into] = [emptyStore(), fresh()];
    writeFileSync(into, 'in the way');
    await expect(restore(plain, target, files(into))).rejects.toBeInstanceOf(TransferRefused);
    expect(await unfinishedTransfer(target)).toBeDefined();
    unlinkSync(into);
    await restore(plain, target, files(into));
    await expectContents(target, files(into), source.contents);
  });

  it('refuses the storage of another installation, and its own one unless that is gone', async () => {
    const other = fresh();
    await install(files(other), [6_000]);
    const target = emptyStore();
    const before = objectFiles(other);
    await expect(restore(plain, target, files(other))).rejects.toThrow(/holds the blobs of another installation/);
    expect(objectFiles(other)).toEqual(before);
    await expect(restore(plain, target, { thresholdBytes: 1 })).rejects.toThrow(/do not say where that is/);
    // The installation that it was made of may still run there.
    const [lostDirectory, lost] = [fresh(), emptyStore()];
    await restore(plain, lost, files(lostDirectory));
    const again = (await backUp(lost, files(lostDirectory))).bytes;
    const successor = emptyStore();
    await expect(restore(again, successor, files(lostDirectory))).rejects.toThrow(/comes from.*--blobs-in-place/);
    unlinkSync(objectFiles(lostDirectory)[4]!);
    const damaged = objectFiles(lostDirectory)[7]!;
    writeFileSync(damaged, Buffer.alloc(statSync(damaged).size));
    await restore(again, successor, files(lostDirectory), {
      blobs: { options: async () => files(lostDirectory), inPlace: true },
    });
    await expectContents(successor, files(lostDirectory), source.contents);
    const empty = { options: async () => files(fresh()), inPlace: true };
    await expect(restore(again, emptyStore(), files(directory), { blobs: empty })).rejects.toThrow(/is it mounted/);
  });

  it('holds heads only where blobs are to be left out', async () => {
    const { bytes, blobs } = await backUp(source.kv, files(directory), { blobs: undefined });
    expect(blobs).toEqual({ count: 20, bytes: expect.any(Number) });
    expect(bytes.length).toBeLessThan(200_000);
    const target = emptyStore();
    await expect(restore(bytes, target, {})).rejects.toThrow(/20 blobs.*left out.*--blobs-in-place/);
    expect(await allRows(target)).toEqual([]);
    const pipe = { source: memorySource(bytes, false) };
    await expect(restore(bytes, target, {}, pipe)).rejects.toThrow(/20 blobs.*left out.*--blobs-in-place/);
    expect(await unfinishedTransfer(target)).toMatch(/unfinished restore/);
    const inPlace = { blobs: { options: async () => ({}), inPlace: true } };
    expect((await restore(bytes, target, {}, inPlace)).externalBlobs).toEqual(blobs);
    await expectContents(target, files(directory), source.contents);
  });
});

it('restored beside its original, an installation forgets a storage that nothing of it lies in', async () => {
  const into = files(fresh());
  const { kv, contents } = await install(into, []);
  await openBlobs(kv, into).check();
  const { bytes } = await backUp(kv, into);
  const [beside, instead] = [emptyStore(), emptyStore()];
  await restore(bytes, beside, into);
  await expect(openBlobs(beside, into).check()).rejects.toThrow(/another installation/);
  await restore(bytes, instead, into, { blobs: { options: async () => into, inPlace: true } });
  await expectContents(instead, into, contents);
  // A copy takes such a storage over, unless nodes may go on using it.
  const copy = (target: KvStore, mayBeOnline: boolean) =>
    copyStore({ ...parts, source: kv, target, sourceName: 'here', targetName: 'there', mayBeOnline });
  const [online, successor] = [emptyStore(), emptyStore()];
  await copy(online, true);
  await expect(openBlobs(online, into).check()).rejects.toThrow(/another installation/);
  expect(await unfinishedTransfer(kv)).toBeUndefined();
  await copy(successor, false);
  await expectContents(successor, into, contents);
  expect(await unfinishedTransfer(kv)).toMatch(/was moved to there/);
});

it('what became of the blobs is settled before the target is whole, also when that was cut off', async () => {
  const [target, into] = [emptyStore(), files(fresh())];
  const settled: unknown[] = [];
  const destination = { directory: into.files!.directory };
  const settle = async (to: unknown) => {
    settled.push(to);
    expect(await unfinishedTransfer(target)).toBeDefined();
    if (settled.length === 1) throw new Error('killed');
  };
  const blobs = { options: async () => into, destination, settle };
  const pipe = () => memorySource(plain, false);
  await expect(restore(plain, target, into, { blobs, source: pipe() })).rejects.toThrow('killed');
  const { externalBlobs } = await restore(plain, target, into, { blobs, source: pipe() });
  expect(settled).toEqual([destination, destination]);
  expect(externalBlobs).toMatchObject({ count: 20, carried: { count: 20 } });
});

describe('objects that are missing while a backup is written', () => {
  /** Takes the first object away once the rows have been read; `purge` does what a purge would have done before. */
  async function withLoss(purge: (kv: KvStore, id: BlobId) => Promise<void>) {
    const into = files(fresh());
    const installation = await install(into, [6_000, 2_500_000, 7_000]);
    const [, first] = [...installation.contents.keys()];
    const options = async () => {
      await purge(installation.kv, first!);
      for (const path of objectFiles(into.files!.directory)) if (statSync(path).size < 5_000) unlinkSync(path);
      return into;
    };
    return { installation, backup: () => backUp(installation.kv, into, { blobs: options }) };
  }

  it('are lost when the store still needs them', async () => {
    const { backup } = await withLoss(async () => {});
    await expect(backup()).rejects.toThrow(/bytes of blob [0-9a-f]{64} are lost/);
  });

  it('are left out and counted when they were purged', async () => {
    const { backup, installation } = await withLoss(async (kv) => {
      for (const [id, content] of installation.contents) {
        if (content.length > 5_000 && content.length < 10_000) await kv.transact(async (tx) => tx.clear(headKey(id)));
      }
    });
    const { bytes, blobs } = await backup();
    expect(blobs).toMatchObject({ count: 3, gone: 2, carried: { count: 1 } });
    const [target, into] = [emptyStore(), files(fresh())];
    await restore(bytes, target, into);
    const [large] = [...installation.contents].filter(([, content]) => content.length > 10_000);
    expect((await openBlobs(target, into).read(large![0])).equals(large![1])).toBe(true);
    expect(objectFiles(into.files!.directory)).toHaveLength(1);
    // The check tells of those whose links were in the backup.
    const { findings } = await checkStore({ ...parts, kv: target, blobs: openBlobs(target, into) });
    expect(findings.filter(({ problem }) => /bytes are missing from files/.test(problem))).toHaveLength(2);
  });

  it('that are damaged come along as they are, and are counted', async () => {
    const into = files(fresh());
    const { kv } = await install(into, [6_000, 7_000]);
    const [path] = objectFiles(into.files!.directory);
    const bytes = readFileSync(path!);
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(path!, bytes);
    expect((await backUp(kv, into)).blobs).toMatchObject({ carried: { count: 2 }, damaged: 1 });
    truncateSync(path!, 100);
    await expect(backUp(kv, into)).rejects.toThrow(/are lost \(files: its file has 100 bytes instead of/);
    const blobs = openBlobs(kv, into);
    for (const deep of [false, true]) {
      const { findings } = await checkStore({ ...parts, kv, blobs, deep });
      expect(findings.filter(({ area }) => area === 'blobs')).toHaveLength(1);
    }
    rmSync(into.files!.directory, { recursive: true });
    mkdirSync(into.files!.directory);
    await expect(backUp(kv, into)).rejects.toThrow(KvError);
    const away = await checkStore({ ...parts, kv, blobs: openBlobs(kv, into) });
    expect(away.findings.filter(({ area }) => area === 'blobs')).toEqual([]);
    expect(away.notes).toEqual([expect.stringMatching(/blobs in files were not looked at.*mounted/)]);
  });
});

describe('copying a store with blobs in files', () => {
  const copy = (from: KvStore, target: KvStore, more: Partial<CopyOptions> = {}) =>
    copyStore({ ...parts, source: from, target, sourceName: 'here', targetName: 'embedded:/there', ...more });

  it('shares them, and no node starts on the source any more', async () => {
    const into = files(fresh());
    const { kv, contents } = await install(into, [6_000, 70_000]);
    await kv.transact(async (tx) => tx.set(nodeKeys.fence('asleep'), Buffer.alloc(0)));
    const target = emptyStore();
    expect((await copy(kv, target)).externalBlobs).toMatchObject({ count: 2, isShared: true });
    expect(await kv.read((reads) => reads.get(nodeKeys.fence('asleep')))).toBeUndefined();
    expect(await unfinishedTransfer(kv)).toMatch(/was moved to embedded:\/there on 20.*start nodes there/);
    expect(await unfinishedTransfer(target)).toBeUndefined();
    expect(await target.read((reads) => reads.get(movedKey))).toBeUndefined();
    expect(await comparableRows(target)).toEqual(await comparableRows(kv));
    await expectContents(target, into, contents);
    await expect(copy(kv, emptyStore())).rejects.toThrow(/was moved to/);
    // A copy of the copy may go on from there.
    await copy(target, emptyStore());
    expect(await unfinishedTransfer(target)).toBeDefined();
  });

  it('marks the source before the target is whole, wherever it is cut off', async () => {
    const into = files(fresh());
    const { kv, contents } = await install(into, [6_000, 70_000]);
    const target = emptyStore();
    for (let commits = 1; ; commits++) {
      let left = commits;
      const mortal = (store: KvStore): KvStore => ({
        backend: store.backend,
        read: (body, options) => store.read(body, options),
        openView: () => store.openView!(),
        transact: async (body, options) => {
          if (left-- <= 0) throw new Error('killed');
          return store.transact(body, options);
        },
        transactVersioned: (body, options) => store.transactVersioned(body, options),
        check: () => store.check(),
        close: async () => {},
      });
      const ended = await copy(mortal(kv), mortal(target), { maxBatchRows: 3 }).then(
        () => true,
        () => false,
      );
      const [old, copied] = await Promise.all([unfinishedTransfer(kv), unfinishedTransfer(target)]);
      const isEmpty = (await allRows(target)).length === 0;
      expect(old !== undefined || copied !== undefined || isEmpty, `after ${commits} commits`).toBe(true);
      if (ended) break;
      expect(commits).toBeLessThan(60);
    }
    await expectContents(target, into, contents);
  });

  it('is refused while nodes run that would go on using them', async () => {
    const { kv } = await install(files(fresh()), [6_000]);
    const beat = () => kv.transact(async (tx) => tx.set(key(subspace.node, 'row', 'n1'), systemRandom.bytes(4)));
    await beat();
    const proxied = new Proxy(kv, {
      get: (target, name) => {
        if (name === 'backend') return 'postgres';
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    const clock = { ...impatientClock, sleep: beat };
    const target = emptyStore();
    await expect(copy(proxied, target, { mayBeOnline: true, clock })).rejects.toThrow(/nodes run on the source \(n1\).*share/);
    expect(await allRows(target)).toEqual([]);
    expect(await unfinishedTransfer(kv)).toBeUndefined();
    await copy(proxied, target, { mayBeOnline: true });
  });

  it('without such blobs leaves the source as it was', async () => {
    const { kv } = await install({});
    await copy(kv, emptyStore());
    expect(await unfinishedTransfer(kv)).toBeUndefined();
  });

  it('copies them into another directory when asked to, also after an interruption', async () => {
    const [from, into] = [files(fresh()), files(fresh())];
    const { kv, contents } = await install(from, [6_000, 1_500_000, 70_000]);
    const target = emptyStore();
    const blobs = { from: async () => from, to: async () => into };
    const stop = new AbortController();
    const onProgress: CopyOptions['onProgress'] = ({ stage }) => {
      if (stage === 'objects') stop.abort();
    };
    await expect(copy(kv, target, { blobs, onProgress, signal: stop.signal })).rejects.toThrow(TransferInterrupted);
    // The source has gone on meanwhile: the copy begins anew, in the same directory.
    await kv.transact(async (tx) => {
      tx.set(candidateKey('0'.repeat(64)), Buffer.alloc(6, 255));
      tx.clear(uploadKey(Buffer.alloc(16)));
    });
    const totals = await copy(kv, target, { blobs });
    expect(totals.externalBlobs).toMatchObject({ count: 3, carried: { count: 3 } });
    expect(await unfinishedTransfer(kv)).toBeUndefined();
    expect(await unfinishedTransfer(target)).toBeUndefined();
    await expectContents(target, into, contents);
    await expectContents(kv, from, contents);
    await expect(openBlobs(target, from).check()).rejects.toThrow(/another installation/);
    await expect(copy(kv, emptyStore(), { blobs })).rejects.toThrow(/another installation/);
    await expect(copy(kv, emptyStore(), { blobs: { ...blobs, to: blobs.from } })).rejects.toThrow(/comes from/);
  });
});

describe.runIf(machineHasSwift())('blobs on S3', () => {
  let swift: SwiftServer;
  const place = (prefix: string): ExternalBlobOptions => {
    const { endpoint, region, accessKeyId, secretAccessKey } = swift;
    const s3: S3Options = { endpoint, region, accessKeyId, secretAccessKey, bucket: 'objects', prefix };
    return { writeTo: 's3', thresholdBytes: 5_000, s3 };
  };
  beforeAll(async () => {
    swift = await SwiftServer.start();
    const { S3mini } = await import('s3mini');
    const { endpoint, region, accessKeyId, secretAccessKey } = swift;
    await new S3mini({ endpoint: `${endpoint}/objects`, region, accessKeyId, secretAccessKey }).createBucket();
  });
  afterAll(() => swift?.stop());

  it('are saved, and restored under another prefix', async () => {
    const [from, into] = [place('one/'), place('two/')];
    const { kv, contents } = await install(from, [6_000, 3_000_000, 14_000_000]);
    const { bytes, blobs } = await backUp(kv, from);
    expect(blobs.carried!.count).toBe(3);
    const target = emptyStore();
    await expect(restore(bytes, target, from)).rejects.toThrow(/bucket objects holds the blobs.*comes from/);
    const cut = memorySource(bytes.subarray(0, bytes.length - 5_000), false);
    await expect(restore(bytes, target, into, { source: cut })).rejects.toThrow(/cut off/);
    await restore(bytes, target, into);
    await expectContents(target, into, contents);
  });
});
