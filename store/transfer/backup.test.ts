import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { headKey } from '../blobs/keys.js';
import { encodeExternalHead } from '../blobs/records.js';
import { key, subspace } from '../keyspace.js';
import { type KvStore, openEmbeddedStore, openEmbeddedView } from '../kv/index.js';
import {
  BackupDamaged,
  type BackupOptions,
  checkStore,
  fileSink,
  fileSource,
  goAheadAfterRestore,
  type RestoreOptions,
  restoreBackup,
  TransferInterrupted,
  unfinishedTransfer,
  verifyBackup,
  writeBackup,
} from './index.js';
import {
  allRows,
  emptyStore,
  furnish,
  type House,
  impatientClock,
  MemorySink,
  memorySource,
  openHouse,
  restoredRows,
} from './test-bench.js';

const clusterKey = Buffer.alloc(32, 7);
const root = mkdtempSync(join(tmpdir(), 'starling-backup-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let house: House;
/** Of a furnished house, plain and encrypted. */
let plain: Buffer;
let sealed: Buffer;

async function backUp(store: KvStore, more: Partial<BackupOptions> = {}): Promise<Buffer> {
  const sink = new MemorySink();
  const result = await writeBackup({
    from: { store },
    sink,
    software: 'test',
    clock: systemClock,
    random: systemRandom,
    ...more,
  });
  expect(sink.state).toBe('finished');
  expect(result.fileBytes).toBe(sink.bytes.length);
  return sink.bytes;
}

const restore = (bytes: Buffer, target: KvStore, more: Partial<RestoreOptions> & { isRepeatable?: boolean } = {}) =>
  restoreBackup({
    source: memorySource(bytes, more.isRepeatable ?? true),
    target,
    clock: impatientClock,
    random: systemRandom,
    logger: silentLogger,
    ...more,
  });

beforeAll(async () => {
  house = openHouse(emptyStore());
  await furnish(house, 12, 140_000);
  plain = await backUp(house.kv);
  sealed = await backUp(house.kv, { clusterKey });
});

describe('backup and restore', () => {
  it('bring back everything, and tell what', async () => {
    const verified = await verifyBackup({ source: memorySource(plain) });
    expect(verified.head).toMatchObject({ software: 'test', backend: 'memory' });
    const target = emptyStore();
    const totals = await restore(plain, target);
    expect(totals).toEqual(verified.totals);
    expect(await restoredRows(target)).toEqual(await restoredRows(house.kv));
    expect(await unfinishedTransfer(target)).toBeUndefined();
    await expect(restore(plain, target)).rejects.toThrow(/not empty/);
  });

  it('has every account go on above what was seen of the time that is lost, once more where other means have put it back', async () => {
    const target = emptyStore();
    await restore(plain, target);
    const { mail, directory, blobs } = openHouse(target);
    const alice = (await directory.principal('alice@example.test'))!.id;
    const expectAhead = async (times: number) => {
      const [before, after] = await Promise.all([house.mail.mailboxes(alice), mail.mailboxes(alice)]);
      expect(after.map(({ mailbox }) => mailbox)).toEqual(before.map(({ mailbox }) => mailbox));
      for (const [place, { counts }] of after.entries())
        expect(counts.uidNext).toBe(before[place]!.counts.uidNext + times * 1_000_000);
      expect((await mail.recount(alice)).differences).toEqual([]);
    };
    await expectAhead(1);
    expect(await goAheadAfterRestore({ kv: target, clock: impatientClock, random: systemRandom })).toEqual({ accounts: 2 });
    await expectAhead(2);
    const { findings } = await checkStore({ kv: target, blobs, clock: impatientClock, logger: silentLogger });
    expect(findings.filter(({ area }) => area === 'mail')).toEqual([]);
  });

  it('works through a pipe', async () => {
    const target = emptyStore();
    await restore(plain, target, { isRepeatable: false });
    expect(await restoredRows(target)).toEqual(await restoredRows(house.kv));
  });

  it('is smaller than what it holds, and of an empty store it is a backup, too', async () => {
    const { totals, fileBytes } = await verifyBackup({ source: memorySource(plain) });
    expect(fileBytes).toBeLessThan(totals!.bytes);
    const target = emptyStore();
    await restore(await backUp(emptyStore()), target);
    expect(await allRows(target)).toEqual([]);
  });

  it('counts blobs that lie outside of the store, which it does not hold', async () => {
    const store = emptyStore();
    const index = { frameBytes: 1_000, framesPerGroup: 4, groupBytes: [700, 300] };
    await store.transact(async (tx) => {
      tx.set(headKey('a'.repeat(64)), encodeExternalHead(5_000, 'files', Buffer.alloc(16, 1), index));
    });
    const bytes = await backUp(store);
    const expected = { count: 1, bytes: 1_000 };
    expect((await verifyBackup({ source: memorySource(bytes) })).totals!.externalBlobs).toEqual(expected);
    await expect(restore(bytes, emptyStore())).rejects.toThrow(/1 blobs .* left out/);
    const blobs = { options: async () => ({}), inPlace: true };
    expect((await restore(bytes, emptyStore(), { blobs })).externalBlobs).toEqual(expected);
  });

  it('encrypted ones need their key, and show nothing without it', async () => {
    expect(sealed.includes('example.test')).toBe(false);
    expect((await verifyBackup({ source: memorySource(sealed) })).totals).toBeUndefined();
    expect(
      (await verifyBackup({ source: memorySource(sealed), clusterKeys: [Buffer.alloc(32, 9), clusterKey] })).totals!.keys,
    ).toBeGreaterThan(100);
    await expect(verifyBackup({ source: memorySource(sealed), clusterKeys: [Buffer.alloc(32, 8)] })).rejects.toThrow(
      /another cluster key/,
    );
    await expect(restore(sealed, emptyStore())).rejects.toThrow(/cluster key is needed/);
    const target = emptyStore();
    await restore(sealed, target, { clusterKeys: [clusterKey] });
    expect(await restoredRows(target)).toEqual(await restoredRows(house.kv));
  });
});

describe('a damaged backup', () => {
  const offsets = (bytes: Buffer) => {
    // The beginning and the end, and a sample of what is between.
    const between = Array.from({ length: 60 }, () => Math.floor(Math.random() * bytes.length));
    return [...Array(160).keys(), ...between, ...Array.from({ length: 80 }, (_, n) => bytes.length - 1 - n)];
  };

  it.each(['plain', 'sealed'])('is refused before anything is written, wherever a bit is flipped (%s)', async (kind) => {
    const bytes = kind === 'plain' ? plain : sealed;
    const target = emptyStore();
    for (const offset of offsets(bytes)) {
      const flipped = Buffer.from(bytes);
      flipped[offset]! ^= 1 << (offset % 8);
      const restoring = restore(flipped, target, { clusterKeys: [clusterKey] });
      await expect(restoring, `offset ${offset}`).rejects.toBeInstanceOf(BackupDamaged);
    }
    expect(await allRows(target)).toEqual([]);
  });

  it('is refused before anything is written, wherever it ends', async () => {
    const target = emptyStore();
    for (const offset of offsets(plain)) {
      await expect(restore(plain.subarray(0, offset), target), `offset ${offset}`).rejects.toBeInstanceOf(BackupDamaged);
    }
    await expect(restore(Buffer.concat([plain, Buffer.of(0)]), target)).rejects.toThrow(/something follows/);
    expect(await allRows(target)).toEqual([]);
  });

  it('from a pipe leaves a target that nothing starts on', async () => {
    for (const at of [plain.length - 60, plain.length - 10]) {
      const target = emptyStore();
      await expect(restore(plain.subarray(0, at), target, { isRepeatable: false })).rejects.toThrow(/cut off/);
      expect(await unfinishedTransfer(target)).toMatch(/unfinished restore of the backup of 20/);
      // The whole one finishes it.
      await restore(plain, target);
      expect(await restoredRows(target)).toEqual(await restoredRows(house.kv));
    }
  });
});

describe('restoring', () => {
  it('goes on after an interruption, with the same backup only', async () => {
    const target = emptyStore();
    const stop = new AbortController();
    const onProgress: RestoreOptions['onProgress'] = ({ stage, keys }) => {
      if (stage === 'copying' && keys > 90) stop.abort();
    };
    await expect(restore(plain, target, { signal: stop.signal, onProgress, maxBatchRows: 25 })).rejects.toBeInstanceOf(
      TransferInterrupted,
    );
    expect((await allRows(target)).length).toBeGreaterThan(50);
    await expect(restore(sealed, target, { clusterKeys: [clusterKey] })).rejects.toThrow(/something else/);
    await restore(plain, target, { maxBatchRows: 25 });
    expect(await restoredRows(target)).toEqual(await restoredRows(house.kv));
  });

  it('refuses what is not empty, and leaves it alone', async () => {
    const target = emptyStore();
    await target.transact(async (tx) => tx.set(key(subspace.meta, 'x'), Buffer.of(1)));
    await expect(restore(plain, target)).rejects.toThrow(/not empty/);
    expect(await allRows(target)).toHaveLength(1);
  });
});

describe('backup files', () => {
  it('appear whole, for their owner only, and are not written over', async () => {
    const path = join(root, 'whole.backup');
    const from = { store: house.kv };
    const writing = { from, software: 'test', clock: systemClock, random: systemRandom };
    const during: string[] = [];
    await writeBackup({ ...writing, sink: await fileSink(path), onProgress: () => during.push(...readdirSync(root)) });
    expect(during.some((name) => name === 'whole.backup')).toBe(false);
    expect(readdirSync(root)).toEqual(['whole.backup']);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await expect(fileSink(path)).rejects.toThrow(/exists already/);
    // Somebody else's was finished meanwhile.
    const late = join(root, 'late');
    const sink = await fileSink(late);
    await sink.write(Buffer.from('mine'));
    writeFileSync(late, 'theirs');
    await expect(sink.finish()).rejects.toThrow(/can't write .*late/);
    await sink.abort();
    expect(readFileSync(late, 'utf8')).toBe('theirs');
    expect(readdirSync(root).filter((name) => name.includes('partial'))).toEqual([]);
    await verifyBackup({ source: fileSource(path) });
    writeFileSync(join(root, 'short.backup'), readFileSync(path).subarray(0, 5_000));
    await expect(verifyBackup({ source: fileSource(join(root, 'short.backup')) })).rejects.toThrow(/cut off after 5000 bytes/);
    await expect(verifyBackup({ source: fileSource(join(root, 'none')) })).rejects.toThrow(/can't read/);
    await expect(fileSink(join(root, 'no', 'such', 'directory'))).rejects.toThrow(/can't write/);
  });

  it('leave nothing behind when they are interrupted', async () => {
    const stop = new AbortController();
    const path = join(root, 'interrupted.backup');
    const sink = await fileSink(path);
    stop.abort();
    const writing = writeBackup({
      from: { store: house.kv },
      sink,
      software: 'test',
      clock: systemClock,
      random: systemRandom,
      signal: stop.signal,
    });
    await expect(writing).rejects.toBeInstanceOf(TransferInterrupted);
    expect(existsSync(path)).toBe(false);
    expect(readdirSync(root).filter((name) => name.includes('interrupted'))).toEqual([]);
  });

  it('of an embedded store can be made beside its process, of one version, while it writes', async () => {
    const directory = join(root, 'store');
    const store = await openEmbeddedStore({ directory, durability: 'none' });
    const living = openHouse(store);
    const { accountIds } = await furnish(living, 10);
    const view = await openEmbeddedView(directory);
    const before = await restoredRows(store);
    const inbox = (await living.mail.mailboxByPath(accountIds[0]!, ['INBOX']))!.mailbox.id;
    let isOver = false;
    const writing = (async () => {
      for (let n = 0; !isOver; n++) {
        const blob = living.blobs.prepare(Buffer.from(`late ${n}`));
        await living.mail.append(accountIds[0]!, [
          { blob, mailboxIds: [inbox], receivedAtMs: n, summary: Buffer.from('late'), messageIds: [] },
        ]);
      }
    })();
    const sink = new MemorySink();
    await writeBackup({
      from: { view, backend: 'embedded', newest: () => openEmbeddedView(directory) },
      sink,
      software: 'test',
      clock: systemClock,
      random: systemRandom,
    });
    isOver = true;
    await writing;
    const target = emptyStore();
    await restore(sink.bytes, target);
    expect(await restoredRows(target)).toEqual(before);
    await living.mail.close();
    await store.close();
  });
});
