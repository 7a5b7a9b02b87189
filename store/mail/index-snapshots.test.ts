import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { createBlobStore } from '../blobs/index.js';
import { MemoryDatabase as Database, type MemoryDatabase, openMemoryStore } from '../kv/index.js';
import type { MailboxEntry } from './contract.js';
import { mailboxId, newMessage, openRoom, type Room, rowsOf, testBackends } from './fixture.js';
import { createMailStore, type MailStoreOptions, type OpenMailStore } from './index.js';
import { decodeChunk, encodeChunks } from './index-chunks.js';
import { bytesPerEntry, IndexColumns } from './index-columns.js';
import { decodeHead } from './index-snapshots.js';
import { AccountKeys } from './keys.js';
import { canonicalKeywords } from './keywords.js';
import { encodeEntry } from './records.js';

const account = 'a1';
/** Every mailbox of ten messages has a snapshot, which is made anew after each ten changes. */
const eager: MailStoreOptions['indexSnapshots'] = { minMessages: 10, minChanges: 10, minIntervalMs: 0 };

const digits = '0123456789abcdefghijklmnopqrstuv';
const emailId = fc.oneof(
  { weight: 5, arbitrary: fc.string({ unit: fc.constantFrom(...digits), minLength: 20, maxLength: 20 }) },
  fc.string({ unit: fc.constantFrom(...'az09'), minLength: 1, maxLength: 24 }),
);
const keyword = fc.constantFrom('$seen', '$flagged', '$junk', 'a', 'b', 'work', 'x'.repeat(100));
const timeMs = fc.oneof(
  fc.integer({ min: -62_000_000_000_000, max: 253_000_000_000_000 }),
  fc.integer({ min: 1.6e12, max: 1.8e12 }),
);
const entries = fc.uniqueArray(
  fc.record<MailboxEntry>({
    uid: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 0xffff_ffff })),
    emailId,
    isDeleted: fc.boolean(),
    modseq: fc.oneof(fc.integer({ min: 1, max: 5_000 }), fc.integer({ min: 1, max: 2 ** 47 })),
    keywords: fc.array(keyword, { maxLength: 4 }).map((list) => canonicalKeywords(list)),
    sizeBytes: fc.integer({ min: 0, max: 0xffff_ffff }),
    receivedAtMs: timeMs,
    savedAtMs: timeMs,
  }),
  { selector: (entry) => entry.uid, maxLength: 120 },
);

function columnsOf(list: readonly MailboxEntry[], put: (columns: IndexColumns, entry: MailboxEntry) => void): IndexColumns {
  const columns = new IndexColumns();
  for (const entry of list) put(columns, entry);
  return columns;
}

const byUid = (list: readonly MailboxEntry[]) => [...list].sort((a, b) => a.uid - b.uid);
const contentsOf = (columns: IndexColumns) => [...columns.uids()].map((uid) => columns.get(uid));

describe('index columns', () => {
  it('hold any entries, put as objects or as stored rows, through chunks and back', () => {
    fc.assert(
      fc.property(entries, (list) => {
        const asObjects = columnsOf(list, (columns, entry) => columns.put(entry));
        const asRows = columnsOf(list, (columns, entry) => columns.putRow(entry.uid, encodeEntry(entry)));
        const restored = new IndexColumns();
        for (const chunk of encodeChunks(asRows.slice(0, asRows.size))) restored.append(decodeChunk(chunk));
        for (const columns of [asObjects, asRows, restored]) expect(contentsOf(columns)).toEqual(byUid(list));
        expect(restored.totals()).toEqual(asObjects.totals());
      }),
    );
  });

  it('follow changes as a map would, and know the first unseen', () => {
    const change = fc.oneof(
      entries.map((list) => ({ put: list, remove: [] as number[] })),
      fc.array(fc.integer({ min: 1, max: 300 })).map((uids) => ({ put: [] as MailboxEntry[], remove: uids })),
    );
    fc.assert(
      fc.property(fc.array(change, { maxLength: 8 }), (changes) => {
        const columns = new IndexColumns();
        const model = new Map<number, MailboxEntry>();
        for (const { put, remove } of changes) {
          for (const entry of put) {
            columns.put(entry);
            model.set(entry.uid, entry);
          }
          const gone = [...new Set(remove)].sort((a, b) => a - b).filter((uid) => model.has(uid));
          expect(columns.remove([...new Set(remove)].sort((a, b) => a - b))).toEqual(gone);
          for (const uid of gone) model.delete(uid);
          const expected = byUid([...model.values()]);
          expect(contentsOf(columns)).toEqual(expected);
          const view = columns.view(0);
          expect(view.firstUnseen()).toBe(expected.findIndex((entry) => !entry.keywords.includes('$seen')));
          expect(columns.totals().bytes).toBe(expected.reduce((sum, entry) => sum + entry.sizeBytes, 0));
        }
      }),
    );
  });

  it('survive more keyword lists and times than fit their narrow columns', () => {
    const columns = new IndexColumns();
    const at = (uid: number): MailboxEntry => ({
      uid,
      emailId: `${uid}`.padStart(20, '0'),
      isDeleted: uid % 2 === 0,
      modseq: uid,
      keywords: canonicalKeywords([`k${uid}`]),
      sizeBytes: uid,
      receivedAtMs: uid * 2 ** 32,
      savedAtMs: 5,
    });
    for (let uid = 1; uid <= 70_000; uid++) columns.put(at(uid));
    for (const uid of [1, 255, 256, 257, 32_768, 32_769, 65_536, 65_537, 70_000]) expect(columns.get(uid)).toEqual(at(uid));
    for (let uid = 1; uid <= 70_000; uid++) if (uid % 7) columns.put({ ...at(uid), keywords: [] });
    for (let uid = 70_001; uid <= 140_000; uid++) columns.put({ ...at(uid), receivedAtMs: 5 });
    for (const uid of [7, 14, 69_993, 139_999])
      expect(columns.get(uid)).toEqual(uid > 70_000 ? { ...at(uid), receivedAtMs: 5 } : at(uid));
    expect(columns.get(8)?.keywords).toEqual([]);
  });

  it('take about forty bytes a message, reserve included', () => {
    const columns = new IndexColumns();
    for (let uid = 1; uid <= 100_000; uid++) {
      columns.put({
        uid,
        emailId: `${uid}`.padStart(20, '0'),
        isDeleted: false,
        modseq: uid,
        keywords: uid % 2 ? ['$seen'] : [],
        sizeBytes: 1_000,
        receivedAtMs: 1.7e12 + uid * 60_000,
        savedAtMs: 1.7e12,
      });
    }
    expect(columns.memoryBytes / 100_000).toBeLessThanOrEqual((bytesPerEntry * 9) / 8 + 0.1);
    expect(bytesPerEntry).toBe(36);
  });
});

interface Node {
  mail: OpenMailStore;
  blobs: ReturnType<typeof createBlobStore>;
  kv: ReturnType<typeof openMemoryStore>;
}

const openNodes: Node[] = [];

function openNode(database: MemoryDatabase, indexSnapshots = eager): Node {
  const kv = openMemoryStore({ database });
  const shared = { kv, clock: systemClock, random: systemRandom, logger: silentLogger };
  const blobs = createBlobStore(shared);
  const node = { kv, blobs, mail: createMailStore({ ...shared, blobs, ...(indexSnapshots && { indexSnapshots }) }) };
  openNodes.push(node);
  return node;
}

async function closeNode(node: Node): Promise<void> {
  openNodes.splice(openNodes.indexOf(node), 1);
  await node.mail.close();
  await node.kv.close();
}

afterEach(async () => {
  for (const node of [...openNodes]) await closeNode(node);
});

async function append(node: Node, inbox: string, count: number): Promise<void> {
  await node.mail.append(
    account,
    Array.from({ length: count }, (_, n) => newMessage(node, [inbox], `${n}`)),
  );
}

/** Opens the mailbox on a node that knows nothing yet, and compares with the rows. */
async function expectFreshView(database: MemoryDatabase, inbox: string, from: 'snapshot' | 'rows' | 'either'): Promise<void> {
  const node = openNode(database, { minMessages: Number.POSITIVE_INFINITY });
  let chunksRead = 0;
  const { read } = node.kv;
  node.kv.read = (body, options) => {
    if (options?.label === 'mail-index-snapshot') chunksRead++;
    return read.call(node.kv, body as never, options) as never;
  };
  const rows = await node.mail.entries(account, inbox);
  const index = await node.mail.openIndex(account, inbox);
  expect([...index.uids()].map((uid) => index.get(uid))).toEqual(rows);
  if (from !== 'either') expect(chunksRead > 0 ? 'snapshot' : 'rows').toBe(from);
  index.release();
  await closeNode(node);
}

async function mailboxWithSnapshot(
  count = 40,
): Promise<{ database: MemoryDatabase; node: Node; inbox: string; keys: AccountKeys }> {
  const database = new Database({ clock: systemClock });
  const node = openNode(database);
  await node.mail.ensureAccount(account);
  const inbox = await mailboxId(node, account, 'INBOX');
  await append(node, inbox, count);
  (await node.mail.openIndex(account, inbox)).release();
  await node.mail.idle();
  return { database, node, inbox, keys: new AccountKeys(account) };
}

const flag = (node: Node, inbox: string, uids: number[]) =>
  node.mail.changeFlags(account, inbox, uids, { mode: 'add', keywords: ['$flagged'], deleted: false });

describe('index snapshots', () => {
  it('are what a mailbox is opened from, with the log behind them', async () => {
    const { database, node, inbox } = await mailboxWithSnapshot();
    await expectFreshView(database, inbox, 'snapshot');
    await flag(node, inbox, [3, 5]);
    await node.mail.expunge(account, inbox, [7], { onlyDeleted: false });
    await append(node, inbox, 2);
    await expectFreshView(database, inbox, 'snapshot');
  });

  it('are made anew when much has changed, and the old one is cleared', async () => {
    const { database, node, inbox, keys } = await mailboxWithSnapshot();
    const before = decodeHead(await node.kv.read((reads) => reads.get(keys.indexHead(inbox))))!;
    const index = await node.mail.openIndex(account, inbox);
    await flag(
      node,
      inbox,
      Array.from({ length: 20 }, (_, n) => n + 1),
    );
    await index.refresh();
    await node.mail.idle();
    const after = decodeHead(await node.kv.read((reads) => reads.get(keys.indexHead(inbox))))!;
    expect(after.modseq).toBeGreaterThan(before.modseq);
    const { begin, end } = keys.allIndexes;
    expect(await node.kv.read((reads) => reads.getRange(begin, end))).toHaveLength(1 + after.chunks);
    await expectFreshView(database, inbox, 'snapshot');
  });

  it('serve a mailbox that has not changed although the log was cut, and no other', async () => {
    const { database, node, inbox } = await mailboxWithSnapshot();
    await node.mail.createMailbox(account, ['other']);
    await node.mail.truncateLog(account, (await node.mail.usage(account)).modseq);
    await expectFreshView(database, inbox, 'snapshot');
    await flag(node, inbox, [1]);
    await node.mail.truncateLog(account, (await node.mail.usage(account)).modseq);
    await expectFreshView(database, inbox, 'rows');
  });

  it.each(['a changed byte', 'a missing chunk', 'a missing head', 'an unknown format', 'another history', 'other counts'])(
    'are not trusted with %s',
    async (fault) => {
      const { database, node, inbox, keys } = await mailboxWithSnapshot();
      await flag(node, inbox, [2]);
      const head = decodeHead(await node.kv.read((reads) => reads.get(keys.indexHead(inbox))))!;
      const chunk = keys.indexChunk(inbox, head.generation, 0);
      await node.kv.transact(async (tx) => {
        const value = (await tx.get(chunk))!;
        if (fault === 'a changed byte') {
          value[value.length >> 1]! ^= 1;
          tx.set(chunk, value);
        } else if (fault === 'a missing chunk') tx.clear(chunk);
        else if (fault === 'a missing head') tx.clear(keys.indexHead(inbox));
        else if (fault === 'an unknown format') tx.set(keys.indexHead(inbox), Buffer.from([0x92, 99, 1]));
        else if (fault === 'another history') tx.set(keys.logAt(head.modseq), (await tx.get(keys.logAt(head.modseq + 1)))!);
        else {
          // An entry that went without its log and counts: only counting finds it out.
          const counts = (await tx.get(keys.counts(inbox)))!;
          counts.writeUInt32BE(counts.readUInt32BE(11) + 1, 11);
          tx.set(keys.counts(inbox), counts);
        }
      });
      await expectFreshView(database, inbox, fault === 'a missing head' || fault.startsWith('an') ? 'rows' : 'either');
    },
  );

  it('go with their mailbox and with the account', async () => {
    const { node } = await mailboxWithSnapshot();
    const { id } = await node.mail.createMailbox(account, ['x']);
    await append(node, id, 30);
    (await node.mail.openIndex(account, id)).release();
    await node.mail.idle();
    expect((await rowsOf(node.kv, account)).get('index')).toBe(4);
    await node.mail.deleteMailbox(account, ['x']);
    expect((await rowsOf(node.kv, account)).get('index')).toBe(2);
    await node.mail.removeAccount(account);
    expect((await rowsOf(node.kv, account)).get('index')).toBeUndefined();
  });

  it('are written by several nodes at once without harm, and what a dead node left is cleared', async () => {
    const { database, node, inbox, keys } = await mailboxWithSnapshot();
    const nodes = [node, openNode(database), openNode(database)];
    await node.kv.transact(async (tx) => {
      for (let n = 0; n < 3; n++) tx.set(keys.indexChunk(inbox, 77, n), Buffer.alloc(10));
      tx.set(keys.indexClaim(inbox), Buffer.of(1));
    });
    await flag(
      node,
      inbox,
      Array.from({ length: 40 }, (_, n) => n + 1),
    );
    await Promise.all(nodes.map(async ({ mail }) => (await mail.openIndex(account, inbox)).release()));
    await Promise.all(nodes.map(({ mail }) => mail.idle()));
    const head = decodeHead(await node.kv.read((reads) => reads.get(keys.indexHead(inbox))))!;
    const { begin, end } = keys.allIndexes;
    expect(await node.kv.read((reads) => reads.getRange(begin, end))).toHaveLength(1 + head.chunks);
    await expectFreshView(database, inbox, 'snapshot');
  });

  it('never give another view than the rows, whatever happens in between', async () => {
    const step = fc.oneof(
      fc.record({
        do: fc.constant('flag' as const),
        uids: fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 30 }),
      }),
      fc.record({
        do: fc.constant('expunge' as const),
        uids: fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 5 }),
      }),
      fc.record({ do: fc.constant('append' as const), count: fc.integer({ min: 1, max: 15 }) }),
      fc.record({ do: fc.constantFrom('cut' as const, 'open' as const, 'settle' as const) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 14 }), async (steps) => {
        const { database, node, inbox } = await mailboxWithSnapshot(20);
        Object.assign(node.kv.faults, { conflict: 0.1, commitUnknownApplied: 0.1, commitUnknownLost: 0.1 });
        const index = await node.mail.openIndex(account, inbox);
        for (const one of steps) {
          if (one.do === 'flag') await flag(node, inbox, one.uids);
          else if (one.do === 'expunge') await node.mail.expunge(account, inbox, one.uids, { onlyDeleted: false });
          else if (one.do === 'append') await append(node, inbox, one.count);
          else if (one.do === 'cut') await node.mail.truncateLog(account, (await node.mail.usage(account)).modseq);
          else if (one.do === 'settle') await node.mail.idle();
          else await expectFreshView(database, inbox, 'either');
          await index.refresh();
        }
        await node.mail.idle();
        await expectFreshView(database, inbox, 'either');
        index.release();
        await closeNode(node);
      }),
      { numRuns: 25 },
    );
  });
});

describe.each(testBackends)('a mailbox of several chunks on %s', (backend) => {
  it('is opened from its snapshot', async () => {
    const room: Room = await openRoom(backend, { indexSnapshots: eager, indexCacheBytes: 1 });
    await room.mail.ensureAccount(account);
    const inbox = await mailboxId(room, account, 'INBOX');
    for (let part = 0; part < 5; part++) {
      await room.mail.append(
        account,
        Array.from({ length: 500 }, (_, n) => newMessage(room, [inbox], `${n % 5}`)),
      );
    }
    (await room.mail.openIndex(account, inbox)).release();
    await room.mail.idle();
    expect((await rowsOf(room.kv, account)).get('index')).toBe(1 + Math.ceil(2_500 / 2_048));
    const index = await room.mail.openIndex(account, inbox);
    expect([...index.uids()].map((uid) => index.get(uid))).toEqual(await room.mail.entries(account, inbox));
    index.release();
    await room.close();
  });
});
