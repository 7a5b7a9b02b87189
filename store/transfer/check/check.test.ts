import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock } from '../../../ops/telemetry/index.js';
import { candidateKey, chunkKey, headKey, linkKey } from '../../blobs/keys.js';
import { decodeHead } from '../../blobs/records.js';
import { accountKey, addressKey } from '../../directory/keys.js';
import { key, keyItems, keysUnder, nodeKeys, subspace } from '../../keyspace.js';
import { type KvStore, type KvTransaction, openEmbeddedStore } from '../../kv/index.js';
import { createBans } from '../../limits/index.js';
import { banKey } from '../../limits/keys.js';
import { encodeAcl } from '../../mail/acl.js';
import { encodeFlagRanges } from '../../mail/flag-ranges.js';
import { AccountKeys } from '../../mail/keys.js';
import {
  decodeCounts,
  decodeEntry,
  decodeMessage,
  decodeState,
  encodeCounts,
  encodeEntry,
  encodeLineEnds,
  encodeState,
} from '../../mail/records.js';
import * as queueRecords from '../../queue/records.js';
import {
  comparableRows,
  emptyStore,
  furnish,
  type House,
  impatientClock,
  nowSeconds,
  oldNode,
  openHouse,
} from '../test-bench.js';
import { type CheckOptions, checkStore } from './index.js';

interface Bench {
  house: House;
  accountId: string;
  keys: AccountKeys;
  inbox: string;
}

async function openBench(kv: KvStore = emptyStore()): Promise<Bench> {
  const house = openHouse(kv);
  const { accountIds } = await furnish(house, 6);
  const accountId = accountIds[0]!;
  const inbox = (await house.mail.mailboxByPath(accountId, ['INBOX']))!.mailbox.id;
  return { house, accountId, keys: new AccountKeys(accountId), inbox };
}

const check = ({ house }: Pick<Bench, 'house'>, more: Partial<CheckOptions> = {}) =>
  checkStore({ kv: house.kv, blobs: house.blobs, clock: impatientClock, logger: silentLogger, ...more });

const first = async (tx: KvTransaction, ...items: Parameters<typeof keysUnder>) => {
  const { begin, end } = keysUnder(...items);
  return (await tx.getRange(begin, end, { limit: 1 }))[0]!;
};

type Sabotage = (tx: KvTransaction, bench: Bench) => Promise<void> | void;

/** What is done to a healthy store, what a check says of it, and whether it can put it right. */
const cases: [name: string, sabotage: Sabotage, problems: RegExp[], mendable: boolean][] = [
  [
    'a ban under the key of another network',
    async (tx, { house }) => {
      await createBans({ kv: house.kv, clock: systemClock, logger: silentLogger }).add({
        network: '192.0.2.1',
        reason: 'abuse',
        note: '',
      });
      tx.set(banKey('192.0.2.2'), (await house.kv.read((reads) => reads.get(banKey('192.0.2.1'))))!);
    },
    [/^is a ban of 192\.0\.2\.1$/],
    true,
  ],
  [
    'a list and an annotation of a mailbox that is gone',
    async (tx, { keys }) => {
      tx.set(keys.acl('m0nowhere'), encodeAcl([{ identifier: 'user:someone', rights: ['l', 'r'] }]));
      tx.set(keys.annotation('m0nowhere', 'shared', '/comment'), Buffer.from('x'));
      tx.set(keys.annotation('m0nowhere', 'private', '/comment'), Buffer.from('x'));
      tx.set(keys.recent('m0nowhere'), Buffer.of(0, 0, 0, 1));
    },
    [
      /^there is an access control list, but no mailbox m0nowhere$/,
      /^there is an annotation, but no mailbox m0nowhere$/,
      /^there is a mark of what is recent, but no mailbox m0nowhere$/,
    ],
    true,
  ],
  [
    'line ends of a message that is gone',
    async (tx, { keys }) => tx.set(keys.lineEnds('00000000000000000000'), encodeLineEnds(2)),
    [/^line ends are kept of message 0{20}, which does not exist$/],
    true,
  ],
  [
    'notes of grants that do not fit the list',
    async (tx, { keys, inbox }) => {
      tx.set(keys.acl(inbox), encodeAcl([{ identifier: 'anyone', rights: ['l'] }]));
      tx.set(keys.grantedTo('someone', inbox), Buffer.alloc(0));
    },
    [/is granted to anyone, who does not find it$/, /^there is a note that mailbox \w+ of \w+ was granted, which it was not$/],
    true,
  ],
  [
    'counts of a mailbox',
    async (tx, { keys, inbox }) => {
      const counts = decodeCounts((await tx.get(keys.counts(inbox)))!);
      tx.set(keys.counts(inbox), encodeCounts({ ...counts, total: 99, unseen: 0, uidNext: 3 }));
    },
    [/total of mailbox \w+: stored 99, counted 5/, /unseen of mailbox/, /UIDNEXT of mailbox/],
    true,
  ],
  [
    'what is said of messages in several mailboxes',
    async (tx, { keys, inbox }) => {
      const counts = decodeCounts((await tx.get(keys.counts(inbox)))!);
      expect(counts.shared).toBeDefined();
      tx.set(keys.counts(inbox), encodeCounts({ ...counts, shared: 77 }));
    },
    [/^messages of mailbox \w+ that are elsewhere, too: stored 77, counted \d+$/],
    true,
  ],
  [
    'ranges of flags, and how many mailboxes have some',
    async (tx, { keys }) => {
      const change = { set: 1, clear: 0, adds: [], removes: [], clearsOthers: false };
      tx.set(keys.flagRanges('m0nowhere'), encodeFlagRanges([{ modseq: 1, uids: Uint32Array.of(1, 2), change }]));
      const state = decodeState((await tx.get(keys.state))!);
      tx.set(keys.state, encodeState({ ...state, ranged: 1 }));
    },
    [
      /^there are ranges of flags, but no mailbox m0nowhere$/,
      /^mailboxes with ranges of flags of the account: stored 1, counted 0$/,
    ],
    true,
  ],
  [
    'ranges of flags that are newer than their account',
    async (tx, { keys, inbox }) => {
      const change = { set: 0, clear: 0, adds: [], removes: [], clearsOthers: false };
      const state = decodeState((await tx.get(keys.state))!);
      tx.set(keys.flagRanges(inbox), encodeFlagRanges([{ modseq: state.modseq + 9, uids: Uint32Array.of(900, 901), change }]));
      tx.set(keys.state, encodeState({ ...state, ranged: 1 }));
    },
    [/^ranges of flags of mailbox \w+ are above the account's modseq$/],
    false,
  ],
  [
    'quota and messages of an account',
    async (tx, { keys }) => {
      const state = decodeState((await tx.get(keys.state))!);
      tx.set(keys.state, encodeState({ ...state, usedBytes: 1, messages: 2 }));
    },
    [/messages of the account: stored 2, counted 6/, /used bytes of the account: stored 1/],
    true,
  ],
  [
    'an entry whose message is gone',
    async (tx, { keys }) => {
      const row = await first(tx, subspace.mail, keys.accountId, 'entry');
      const { mailboxId, uid } = keys.entryOf(row.key);
      tx.set(row.key, encodeEntry({ ...decodeEntry(uid, row.value), emailId: 'unknown' }));
      expect(mailboxId).toBeDefined();
    },
    [/has no message unknown/, /message \w+ has no entry/],
    false,
  ],
  [
    'a lost message record',
    async (tx, { keys }) => tx.clear((await first(tx, subspace.mail, keys.accountId, 'message')).key),
    [
      /has no message/,
      /there is a summary, but no message/,
      /thread \w+ names message/,
      /is linked by message \w+ .* does not exist/,
      /messages of the account/,
      /used bytes/,
      /that are elsewhere, too/,
    ],
    false,
  ],
  [
    'a lost summary',
    async (tx, { keys }) => tx.clear((await first(tx, subspace.mail, keys.accountId, 'summary')).key),
    [/has no summary/],
    false,
  ],
  [
    'a lost blob link',
    async (tx, { keys }) => {
      const row = await first(tx, subspace.mail, keys.accountId, 'message');
      const emailId = keys.messageOf(row.key);
      tx.clear(linkKey(decodeMessage(emailId, row.value).blobId, { kind: 'message', accountId: keys.accountId, emailId }));
    },
    [/nothing keeps blob \w+ of message \w+ from the purge/, /nobody links to it/],
    true,
  ],
  [
    'a lost thread row',
    async (tx, { keys }) => {
      // A thread of one message: else the references to it would still lead to the others.
      const threads = (await tx.getRange(keys.allThreads.begin, keys.allThreads.end)).map(({ key: at }) => keys.threadRowOf(at));
      const alone = threads.find(({ threadId }) => threads.filter((other) => other.threadId === threadId).length === 1)!;
      tx.clear(keys.thread(alone.threadId, alone.emailId));
    },
    [/is not in its thread/, /^a reference leads to thread/],
    true,
  ],
  [
    'a reference into the void',
    (tx, { keys }) => tx.set(keys.reference(Buffer.alloc(8, 3)), Buffer.from('nothread')),
    [/a reference leads to thread nothread/],
    true,
  ],
  [
    'log entries below the floor',
    (tx, { keys }) => tx.set(keys.logFloor, Buffer.from('0100000000000300000000', 'hex')),
    [/log has entries below its floor of 3/],
    true,
  ],
  [
    'a name that is gone',
    async (tx, { keys }) => tx.clear((await first(tx, subspace.mail, keys.accountId, 'name')).key),
    [/is not found by its name/],
    true,
  ],
  [
    'a link of a message that never was',
    async (tx, { keys }) => {
      const { blobId } = decodeMessage('x', (await first(tx, subspace.mail, keys.accountId, 'message')).value);
      tx.set(linkKey(blobId, { kind: 'message', accountId: keys.accountId, emailId: 'never' }), Buffer.alloc(0));
    },
    [/is linked by message never/],
    true,
  ],
  [
    'a blob that nobody links to and no purge would find',
    async (tx, { house }) => {
      const [blob, owner] = [house.blobs.prepare(Buffer.from('lonely')), { kind: 'queue', queueId: '0'.repeat(20) } as const];
      await house.blobs.linkPrepared(tx, blob, owner);
      tx.clear(linkKey(blob.id, owner));
    },
    [/nobody links to it/],
    true,
  ],
  [
    'a missing chunk',
    async (tx) => {
      const row = await chunkedHead(tx);
      tx.clear(chunkKey(row.storageId, 4));
    },
    [/the last of its 5 chunks is missing/],
    false,
  ],
  [
    'a head that is gone',
    async (tx, { keys }) => {
      const row = await first(tx, subspace.mail, keys.accountId, 'message');
      tx.clear(headKey(decodeMessage('x', row.value).blobId));
    },
    [/the bytes of message \w+, blob \w+, are gone/, /its bytes are gone, and message/],
    false,
  ],
  [
    'a queued message without a record',
    async (tx) => tx.clear((await first(tx, subspace.queue, 'message')).key),
    [/is a destination without a message/, /is a destination without a message/, /is linked by queued message/],
    false,
  ],
  [
    'a due destination that nothing leads to',
    async (tx) => {
      const { begin, end } = keysUnder(subspace.queue, 'due');
      tx.clear((await tx.getRange(begin, end, { limit: 1 }))[0]!.key);
    },
    [/is due, but would never be tried/],
    true,
  ],
  [
    'a due entry that leads to nothing',
    (tx) => tx.set(queueRecords.dueKey({ queueId: '0'.repeat(20), domain: 'x.example', part: 0 }, nowSeconds), Buffer.alloc(0)),
    [/is due, but there is no such destination/],
    true,
  ],
  [
    'a claim without a destination',
    (tx) =>
      tx.set(queueRecords.claimKey(oldNode.nodeId, { queueId: '0'.repeat(20), domain: 'x.example', part: 0 }), Buffer.alloc(4)),
    [/is claimed, but there is no such destination/],
    true,
  ],
  [
    'claims of a node that is unknown',
    (tx) => tx.clear(nodeKeys.fence(oldNode.nodeId)) ?? tx.clear(nodeKeys.row(oldNode.nodeId)),
    [/is claimed by a+, which no node is/, /is claimed by a+, which no node is/],
    true,
  ],
  [
    'an entry of a line that leads nowhere',
    async (tx) => tx.set(queueRecords.lineKey('down.test', { queueId: 'gone', domain: 'down.test', part: 0 }), Buffer.alloc(0)),
    [/has an entry in a line, or for its priority, that leads nowhere/],
    true,
  ],
  [
    'a destination that has been lost from its line',
    async (tx) => {
      const { begin, end } = keysUnder(subspace.queue, 'destination');
      const rows = await tx.getRange(begin, end);
      const due = rows.map(({ key, value }) => queueRecords.destinationAt(key, value)).find(({ state }) => state === 'due')!;
      tx.set(queueRecords.destinationKey(due), queueRecords.encodeDestination({ ...due, line: 'down.test' }));
    },
    [/is due, but would never be tried/],
    true,
  ],
  [
    'a lost claim',
    async (tx) => tx.clear((await first(tx, subspace.queue, 'claim')).key),
    [/is claimed, but would never be tried/],
    true,
  ],
  [
    'a wrong count of destinations',
    async (tx) => {
      const row = await first(tx, subspace.queue, 'message');
      const id = keyItems(row.key)[2] as string;
      tx.set(row.key, queueRecords.encodeMessage({ ...queueRecords.decodeMessage(id, row.value), partCount: 1 }));
    },
    [/has more destinations than the 1/],
    true,
  ],
  [
    'an address that leads nowhere',
    (tx) => tx.set(addressKey('example.test', 'ghost'), Buffer.from('nobody')),
    [/leads to nobody, which does not exist/],
    true,
  ],
  ['an address that is not found', (tx) => tx.clear(addressKey('example.test', 'alice')), [/mail for it is not found/], true],
  [
    'an account without mail removed half',
    (tx, { accountId }) => tx.clear(accountKey(accountId)),
    [/leads to .* does not exist/, /leads to .* does not exist/, /has mail, but no account/],
    false,
  ],
];

async function chunkedHead(tx: KvTransaction) {
  const { begin, end } = keysUnder(subspace.blob, 'head');
  for (const row of await tx.getRange(begin, end)) {
    const head = decodeHead('x', row.value);
    if (head.layout === 'chunked' && head.sizeBytes > 200_000) return head;
  }
  throw new Error('no chunked blob');
}

describe('a check', () => {
  it('finds nothing in a healthy store, deeply neither', async () => {
    const bench = await openBench();
    const result = await check(bench, { deep: true });
    expect(result).toEqual({
      accounts: 2,
      messages: 12,
      blobs: expect.any(Number),
      queued: 3,
      differences: 0,
      mended: 0,
      findings: [],
      notes: [],
    });
    expect(result.blobs).toBeGreaterThan(12);
  });

  it.each(cases)('finds %s, and mends what it may', async (_, sabotage, problems, mendable) => {
    const bench = await openBench();
    const before = (await bench.house.mail.entries(bench.accountId, bench.inbox)).length;
    await bench.house.kv.transact(async (tx) => sabotage(tx, bench));
    const { findings, differences, mended } = await check(bench);
    for (const problem of problems)
      expect(
        findings.some((finding) => problem.test(finding.problem)),
        String(problem),
      ).toBe(true);
    for (const { problem } of findings)
      expect(
        problems.some((known) => known.test(problem)),
        problem,
      ).toBe(true);
    expect({ differences, mended }).toEqual({ differences: findings.length, mended: 0 });
    expect(findings.every(({ state }) => state === 'mendable') || !mendable).toBe(true);

    const repaired = await check(bench, { repair: true });
    expect(repaired.differences).toBe(mendable ? 0 : repaired.differences);
    const again = await check(bench, { deep: true });
    if (mendable) expect(again.findings).toEqual([]);
    else expect(again.differences).toBeGreaterThan(0);
    // No mail is ever removed.
    expect((await bench.house.mail.entries(bench.accountId, bench.inbox)).length).toBe(before);
  });

  it('finds bytes that were changed, and chunks that belong to nothing, when it looks deeply', async () => {
    const bench = await openBench();
    const { kv } = bench.house;
    await kv.transact(async (tx) => {
      const head = await chunkedHead(tx);
      const chunk = Buffer.from((await tx.get(chunkKey(head.storageId, 1)))!);
      chunk[chunk.length - 1]! ^= 1;
      tx.set(chunkKey(head.storageId, 1), chunk);
      for (const n of [0, 1, 2]) tx.set(chunkKey(Buffer.alloc(16, 9), n), chunk);
    });
    expect((await check(bench)).findings).toEqual([]);
    const { findings } = await check(bench, { deep: true, repair: true });
    expect(findings.map(({ problem, state }) => `${problem} ${state}`)).toEqual([
      expect.stringMatching(/wrong checksum standing/),
      expect.stringMatching(/its chunks, up to 3, belong to nothing mended/),
    ]);
    // The purge takes them away.
    await bench.house.blobs.purge({ nowSeconds });
    expect(await kv.read((reads) => reads.get(chunkKey(Buffer.alloc(16, 9), 0)))).toBeUndefined();
  });

  it('finds bytes that are not those of their id, of both kinds', async () => {
    const bench = await openBench();
    const { blobs, kv } = bench.house;
    for (const isUnique of [true, false]) {
      const [one, other] = ['one', 'other'].map((text) => blobs.prepare(Buffer.from(`${text} ${isUnique}`), { isUnique }));
      await kv.transact(async (tx) => {
        for (const blob of [one!, other!])
          await blobs.linkPrepared(tx, blob, { kind: 'upload', accountId: 'a', uploadId: blob.id });
        tx.set(headKey(one!.id), (await tx.get(headKey(other!.id)))!);
      });
      const { findings } = await check(bench, { deep: true });
      const wrong = findings.filter(({ problem }) => problem.includes('have the digest'));
      expect(wrong.map(({ where }) => where)).toContain(one!.id);
      expect(wrong.map(({ where }) => where)).not.toContain(other!.id);
    }
  });

  it('tells a repaired directory to all nodes', async () => {
    const bench = await openBench();
    const generation = () => bench.house.kv.read((reads) => reads.get(key(subspace.directory, 'generation')));
    await bench.house.kv.transact(async (tx) => tx.clear(addressKey('example.test', 'bob')));
    const before = await generation();
    await check(bench, { repair: true });
    expect(await generation()).not.toEqual(before);
  });

  it('mends through unknown commits and conflicts', async () => {
    const kv = emptyStore();
    const bench = await openBench(kv);
    for (const [, sabotage, , mendable] of cases) if (mendable) await kv.transact(async (tx) => sabotage(tx, bench));
    Object.assign(kv.faults, { commitUnknownApplied: 0.2, commitUnknownLost: 0.2, conflict: 0.2 });
    await check(bench, { repair: true });
    kv.faults.clear();
    await check(bench, { repair: true });
    expect((await check(bench, { deep: true })).findings).toEqual([]);
  });

  it('tells of records that it can not read, leaves them alone, and looks at everything else', async () => {
    const bench = await openBench();
    const { kv } = bench.house;
    await kv.transact(async (tx) => {
      for (const table of ['message', 'destination']) tx.set((await first(tx, subspace.queue, table)).key, Buffer.of(0x91, 9));
      tx.set(accountKey(bench.accountId), Buffer.of(0x91, 9));
      tx.set((await first(tx, subspace.mail, bench.accountId, 'message')).key, Buffer.of(0x91, 9));
    });
    const before = await comparableRows(kv);
    const { findings, messages } = await check(bench, { repair: true, deep: true });
    expect(findings.filter(({ problem }) => /can not be read/.test(problem))).toHaveLength(4);
    expect(findings.every(({ state }) => state === 'standing')).toBe(true);
    expect(messages).toBe(6);
    expect(await comparableRows(kv)).toEqual(before);
  });

  it("leaves chunks alone while there is a head that it can not read: they may be that one's", async () => {
    const bench = await openBench();
    const { kv, blobs } = bench.house;
    const writer = blobs.writer();
    for (let at = 0; at < 10; at++) await writer.write(randomBytes(60_000));
    const large = await writer.finish();
    await kv.transact((tx) => blobs.linkPrepared(tx, large, { kind: 'message', accountId: bench.accountId, emailId: 'none' }));
    const head = (await kv.read((reads) => reads.get(headKey(large.id))))!;
    await kv.transact(async (tx) => tx.set(headKey(large.id), Buffer.of(0x91, 99)));
    const { notes } = await check(bench, { repair: true, deep: true });
    expect(notes).toContainEqual(expect.stringMatching(/were not looked for/));
    await kv.transact(async (tx) => tx.set(headKey(large.id), head));
    await blobs.purge({ nowSeconds: nowSeconds + 7 * 86_400 });
    expect((await blobs.read(large.id)).length).toBe(600_000);
  });

  it('refuses a store that is half of a copy', async () => {
    const bench = await openBench();
    await bench.house.kv.transact(async (tx) => tx.set(key(subspace.meta, 'transfer'), Buffer.of(0x90)));
    await expect(check(bench)).rejects.toThrow(/unfinished/);
  });
});

describe.each(['memory', 'embedded', 'memory without views'])('beside writers, on %s', (backend) => {
  it('raises no false alarm', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'starling-check-'));
    const kv = backend === 'embedded' ? await openEmbeddedStore({ directory, durability: 'none' }) : emptyStore();
    const bench = await openBench(kv);
    const { house, accountId, inbox } = bench;
    const { mail, blobs, queue } = house;
    let isOver = false;
    let changes = 0;
    const archive = (await mail.mailboxByPath(accountId, ['Work', 'Archive']))!.mailbox.id;
    const churn = async () => {
      while (!isOver) {
        changes++;
        const blob = blobs.prepare(Buffer.from(`message ${changes} ${'x'.repeat(changes % 5000)}`));
        const message = {
          blob,
          mailboxIds: [inbox],
          receivedAtMs: changes,
          summary: Buffer.from('s'),
          messageIds: [`${changes}@churn`],
        };
        const [added] = await mail.append(accountId, [message]);
        const uid = added!.uids[0]!.uid;
        await mail.changeFlags(accountId, inbox, [uid], { mode: 'add', keywords: ['$seen'], deleted: false });
        if (changes % 2) await mail.move(accountId, inbox, [uid], archive);
        else await mail.expunge(accountId, inbox, [uid], { onlyDeleted: false });
        // As long as no view keeps still, an account must be left alone now and then.
        await new Promise((resolve) => setTimeout(resolve, backend === 'memory without views' ? 20 : 1));
      }
    };
    const deliver = async () => {
      while (!isOver) {
        const { entries } = await queue.due([...Array(64).keys()], nowSeconds + 100, 10);
        const claimed = await queue.claim(oldNode, entries);
        await queue.release(claimed, nowSeconds + 50);
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    };
    const working = Promise.all([churn(), deliver()]);
    const looked = backend === 'memory without views' ? withoutViews(kv) : kv;
    for (let round = 0; round < 4 || (changes < 10 && round < 100); round++) {
      const { findings, differences } = await checkStore({
        kv: looked,
        blobs,
        clock: impatientClock,
        logger: silentLogger,
        deep: round === 3,
        repair: round % 2 === 1,
      });
      expect(findings).toEqual([]);
      expect(differences).toBe(0);
    }
    isOver = true;
    await working;
    expect(changes).toBeGreaterThan(5);
    await mail.close();
    await kv.close();
    rmSync(directory, { recursive: true, force: true });
  });
});

function withoutViews(kv: KvStore): KvStore {
  return {
    backend: kv.backend,
    transact: (body, options) => kv.transact(body, options),
    transactVersioned: (body, options) => kv.transactVersioned(body, options),
    read: async (body, options) => {
      // Others run in between, as with a real server.
      await new Promise((resolve) => setImmediate(resolve));
      return kv.read(body, options);
    },
    check: () => kv.check(),
    close: () => kv.close(),
  };
}

it('leaves a candidate for the purge where a link had no owner', async () => {
  const bench = await openBench();
  let blobId = '';
  await bench.house.kv.transact(async (tx) => {
    blobId = decodeMessage('x', (await first(tx, subspace.mail, bench.accountId, 'message')).value).blobId;
    tx.set(linkKey(blobId, { kind: 'queue', queueId: '0'.repeat(20) }), Buffer.alloc(0));
  });
  await check(bench, { repair: true });
  expect(await bench.house.kv.read((reads) => reads.get(candidateKey(blobId)))).toBeDefined();
});
