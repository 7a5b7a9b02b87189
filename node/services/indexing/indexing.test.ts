import { afterEach, describe, expect, it } from 'vitest';
import { registry, silentLogger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import { summarizeWithin } from '../../../protocols/message/index.js';
import { keysUnder, subspace } from '../../../store/keyspace.js';
import { KvError, type KvStore, type MemoryFaultOptions } from '../../../store/kv/index.js';
import { mailLimits, type NewMessage } from '../../../store/mail/contract.js';
import { mailboxId, openRoom, type Room, type TestBackend, until } from '../../../store/mail/fixture.js';
import { shardsOf } from '../../../store/queue/index.js';
import { stemLanguages } from '../../../store/search/analysis/contract.js';
import { createSearchStore, type SearchField, type SearchStore } from '../../../store/search/index.js';
import { isPending, pendingKey, pendingSlotOf } from '../../../store/search/pending.js';
import { createIndexer, type Indexer, type IndexerDependencies, type IndexingSettings } from './index.js';

const closing: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

const account = 'account1';

const settings: IndexingSettings = {
  isEnabled: true,
  delayMs: 0,
  share: 1,
  patienceMs: 0,
  bearableTail: 1_000,
  batchMessages: 100,
  batchChars: 1_000_000,
  maxBodyChars: 100_000,
  languages: stemLanguages,
};

const searchStore = (kv: KvStore) => createSearchStore({ kv, clock: systemClock, random: systemRandom, logger: silentLogger });

interface Bench extends Room {
  search: SearchStore;
  inbox: string;
}

async function openBench(backend: TestBackend = 'memory', faults?: MemoryFaultOptions): Promise<Bench> {
  const room = await openRoom(backend, faults ? { faults } : {});
  closing.push(() => room.close());
  await room.mail.ensureAccount(account);
  return { ...room, search: searchStore(room.kv), inbox: await mailboxId(room, account, 'INBOX') };
}

function indexerOf(bench: Bench, more: Partial<IndexerDependencies> = {}): Indexer {
  const indexer = createIndexer({
    kv: bench.kv,
    mail: bench.mail,
    blobs: bench.blobs,
    search: bench.search,
    directory: { principals: async () => [] },
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
    nodeId: 'n1',
    settings: () => settings,
    timings: { lookMs: 5, turnMs: 60_000 },
    ...more,
  });
  closing.push(() => indexer.stop());
  return indexer;
}

function mailOf(bench: Bench, body: string, headers = ''): NewMessage {
  const text = `From: =?utf-8?q?J=C3=BCrgen?= <juergen@example.test>\r\nTo: bob@example.test\r\nSubject: Hello there\r\n${headers}\r\n${body}\r\n`;
  const bytes = Buffer.from(text);
  const { encoded, messageIds } = summarizeWithin(bytes, mailLimits.maxSummaryBytes);
  const common = { mailboxIds: [bench.inbox], receivedAtMs: 1_700_000_000_000 };
  return { ...common, blob: bench.blobs.prepare(bytes), summary: encoded, messageIds };
}

async function put(bench: Bench, ...bodies: string[]): Promise<string[]> {
  const inserted = await bench.mail.append(
    account,
    bodies.map((body) => mailOf(bench, body)),
  );
  return inserted.map(({ emailId }) => emailId);
}

/** What is found, surely and perhaps, among these messages. */
async function found(bench: Bench, text: string, ids: readonly string[], fields: SearchField[] = ['body']) {
  const view = await searchStore(bench.kv).open(account);
  if (!view) return { sure: [], perhaps: [...ids] };
  const answer = await view.substring({ fields, text });
  const at = (id: string) => view.documentOf(id);
  return {
    sure: ids.filter((id) => at(id) >= 0 && answer.has(at(id))),
    perhaps: ids.filter((id) => at(id) < 0 || answer.mayHave(at(id))),
  };
}

const waits = (bench: Bench) => bench.kv.read((reads) => isPending(reads, account));

async function metric(name: string, labels: Record<string, string> = {}): Promise<number> {
  const values = (await registry.getSingleMetric(name)!.get()).values;
  return values.find((value) => Object.entries(labels).every(([label, text]) => value.labels[label] === text))?.value ?? 0;
}

describe.each(['memory', 'embedded'] as const)('indexing on the %s store', (backend) => {
  it('finds in every field what was delivered, and leaves no note', async () => {
    const bench = await openBench(backend);
    expect(await waits(bench)).toBe(false);
    const [first, second] = await put(bench, 'The invoices are attached, please have a look at them.', 'Nothing to see.');
    expect(await waits(bench)).toBe(true);
    const ids = [first!, second!];
    expect(await found(bench, 'invoice', ids)).toEqual({ sure: [], perhaps: ids });
    indexerOf(bench).start();
    await until(async () => !(await waits(bench)));
    expect(await found(bench, 'nvoic', ids)).toEqual({ sure: [first], perhaps: [] });
    expect(await found(bench, 'JÜRGEN', ids, ['from'])).toEqual({ sure: ids, perhaps: [] });
    expect(await found(bench, 'bob', ids, ['to'])).toEqual({ sure: ids, perhaps: [] });
    expect(await found(bench, 'hello', ids, ['subject'])).toEqual({ sure: ids, perhaps: [] });
    expect(await found(bench, 'bob', ids, ['cc', 'body'])).toEqual({ sure: [], perhaps: [] });
    const view = (await bench.search.open(account))!;
    const byStem = await view.words({ fields: ['body'], text: 'invoice' });
    expect(ids.filter((id) => byStem.has(view.documentOf(id)))).toEqual([first]);
    // Flags are no work, new mail is.
    await bench.mail.changeFlags(account, bench.inbox, [1], { mode: 'add', keywords: ['$seen'], deleted: false });
    expect(await waits(bench)).toBe(false);
    const [third] = await put(bench, 'More invoices');
    await until(async () => !(await waits(bench)));
    expect(await found(bench, 'invoices', [...ids, third!])).toEqual({ sure: [first, third], perhaps: [] });
  });
});

describe('indexing', () => {
  it('by two nodes at once puts each message in once', async () => {
    const bench = await openBench();
    const ids: string[] = [];
    const nodes = ['n1', 'n2'].map((nodeId) => indexerOf({ ...bench, search: searchStore(bench.kv) }, { nodeId }));
    for (let round = 0; round < 20; round++) {
      ids.push(...(await put(bench, `round${round} one`, `round${round} two`)));
      const working = Promise.all(nodes.map((node) => node.catchUp()));
      ids.push(...(await put(bench, `round${round} late`)));
      await working;
    }
    await nodes[0]!.catchUp();
    expect(await waits(bench)).toBe(false);
    expect((await bench.search.progress(account))?.documents).toBe(60);
    expect((await found(bench, 'round7', ids)).sure).toHaveLength(3);
  });

  it('goes on after a crash between the index and the note', async () => {
    const bench = await openBench();
    const ids = await put(bench, 'before the crash');
    const dying: SearchStore = Object.assign(Object.create(bench.search) as SearchStore, {
      open: (id: string) => bench.search.open(id),
      progress: (id: string) => bench.search.progress(id),
      add: async (...args: Parameters<SearchStore['add']>) => {
        await bench.search.add(...args);
        throw new Error('the power is gone');
      },
    });
    const dead = indexerOf({ ...bench, search: dying }, { timings: { lookMs: 5 } });
    dead.start();
    await until(async () => (await bench.search.progress(account))?.documents === 1);
    await dead.stop();
    expect(await waits(bench)).toBe(true);
    await indexerOf(bench).catchUp();
    expect(await waits(bench)).toBe(false);
    expect((await bench.search.progress(account))?.documents).toBe(1);
    expect((await found(bench, 'crash', ids)).sure).toEqual(ids);
  });

  it('gives each account that fails its time, and the others theirs', async () => {
    const bench = await openBench();
    await bench.mail.ensureAccount('account2');
    await put(bench, 'of the first');
    const inbox = await mailboxId(bench, 'account2', 'INBOX');
    await bench.mail.append('account2', [mailOf({ ...bench, inbox }, 'of the second')]);
    const failing: SearchStore = Object.assign(Object.create(bench.search) as SearchStore, {
      open: (id: string) => bench.search.open(id),
      progress: (id: string) => (id === account ? Promise.reject(new Error('broken')) : bench.search.progress(id)),
      add: (...args: Parameters<SearchStore['add']>) => bench.search.add(...args),
      tidy: (...args: Parameters<SearchStore['tidy']>) => bench.search.tidy(...args),
    });
    const before = await metric('starling_search_turns_total', { outcome: 'failed' });
    indexerOf({ ...bench, search: failing }).start();
    await until(async () => (await bench.search.progress('account2'))?.documents === 1);
    await until(async () => (await metric('starling_search_turns_total', { outcome: 'failed' })) > before);
    expect(await waits(bench)).toBe(true);
    expect((await metric('starling_search_turns_total', { outcome: 'failed' })) - before).toBe(1);
  });

  it('goes through all messages when the log does not reach back, and drops what was destroyed', async () => {
    const bench = await openBench();
    const ids = await put(bench, 'alpha one', 'alpha two', 'alpha three');
    const indexer = indexerOf(bench);
    await indexer.catchUp();
    const before = await metric('starling_search_scans_total');
    ids.push(...(await put(bench, 'alpha four')), ...(await put(bench, 'alpha five')));
    await bench.mail.expunge(account, bench.inbox, [2, 4], { onlyDeleted: false });
    const { modseq } = await bench.mail.usage(account);
    await bench.mail.truncateLog(account, modseq - 1);
    await indexer.catchUp();
    expect((await metric('starling_search_scans_total')) - before).toBe(1);
    const left = [ids[0]!, ids[2]!, ids[4]!];
    expect(await found(bench, 'alpha', left)).toEqual({ sure: left, perhaps: [] });
    expect((await bench.search.progress(account))?.modseq).toBe(modseq);
    const view = (await bench.search.open(account))!;
    expect(view.documentOf(ids[3]!)).toBe(-1);
  });

  it('walks through a large account in turns, reading each message once', async () => {
    const bench = await openBench();
    const ids: string[] = [];
    for (let lot = 0; lot < 3; lot++) {
      ids.push(...(await put(bench, ...Array.from({ length: 350 }, (_, index) => `number ${lot * 350 + index} of many`))));
    }
    const before = await metric('starling_search_documents_total', { result: 'whole' });
    const turns = await metric('starling_search_turns_total', { outcome: 'more' });
    const scans = await metric('starling_search_scans_total');
    await indexerOf(bench, { timings: { turnMs: 0 } }).catchUp();
    expect((await metric('starling_search_documents_total', { result: 'whole' })) - before).toBe(1_050);
    expect((await metric('starling_search_turns_total', { outcome: 'more' })) - turns).toBeGreaterThanOrEqual(2);
    expect((await metric('starling_search_scans_total')) - scans).toBe(1);
    expect(await found(bench, ' 777 of', ids)).toEqual({ sure: [], perhaps: [ids[777]] });
    // A process that begins anew reads only what is missing.
    await bench.kv.transact(async (tx) => tx.set(pendingKey(account), Buffer.alloc(8, 0)));
    await bench.mail.truncateLog(account, (await bench.mail.usage(account)).modseq);
    ids.push(...(await put(bench, 'the last one')));
    await indexerOf(bench).catchUp();
    expect((await metric('starling_search_documents_total', { result: 'whole' })) - before).toBe(1_051);
  });

  it('keeps what can not be read, or not whole, as a candidate', async () => {
    const bench = await openBench();
    const long = `${'word '.repeat(30_000)}needle`;
    const [lost, cut, fine] = await put(bench, 'this will be lost', long, 'this is fine');
    const [message] = await bench.mail.messages(account, [lost!]);
    const { begin, end } = keysUnder(subspace.blob, 'head');
    await bench.kv.transact(async (tx) => {
      for (const row of await tx.getRange(begin, end)) {
        if (row.key.includes(Buffer.from(message!.blobId)) || row.key.includes(Buffer.from(message!.blobId, 'hex')))
          tx.clear(row.key);
      }
    });
    await expect(bench.blobs.read(message!.blobId)).rejects.toThrow();
    await indexerOf(bench).catchUp();
    const ids = [lost!, cut!, fine!];
    expect(await found(bench, 'needle', ids)).toEqual({ sure: [], perhaps: [lost, cut] });
    expect(await found(bench, 'fine', ids)).toEqual({ sure: [fine], perhaps: [lost, cut] });
    expect(await found(bench, 'juergen', ids, ['from'])).toEqual({ sure: ids, perhaps: [] });
  });

  it('removes the index of a removed account, and makes it anew with the account', async () => {
    const bench = await openBench();
    await put(bench, 'soon gone');
    const indexer = indexerOf(bench);
    await indexer.catchUp();
    await bench.mail.removeAccount(account);
    expect(await waits(bench)).toBe(true);
    await indexer.catchUp();
    const { begin, end } = keysUnder(subspace.search, account);
    expect(await bench.kv.read((reads) => reads.getRange(begin, end))).toEqual([]);
    expect(await waits(bench)).toBe(false);
    await bench.mail.ensureAccount(account);
    const again = { ...bench, inbox: await mailboxId(bench, account, 'INBOX') };
    const ids = await put(again, 'back again');
    await indexer.catchUp();
    expect(await found(bench, 'back', ids)).toEqual({ sure: ids, perhaps: [] });
  });

  it('finds mail that nobody noted', async () => {
    const bench = await openBench();
    const ids = await put(bench, 'from an older node');
    await bench.kv.transact(async (tx) => tx.clear(pendingKey(account)));
    const principals = async () => [{ id: account }] as never;
    indexerOf(bench, { directory: { principals } }).start();
    await until(async () => (await found(bench, 'older', ids)).sure.length === 1);
  });

  it("takes another node's accounts only late", async () => {
    const bench = await openBench();
    await put(bench, 'whose is this');
    const shares = () => [{ nodeId: 'n1' }, { nodeId: 'n2' }];
    const timings = { lookMs: 2, lookAtOthersMs: 2, lateMs: 3_600_000 };
    const [one, two] = ['n1', 'n2'].map((nodeId) => indexerOf(bench, { nodeId, shares, timings }));
    one!.start();
    two!.start();
    await until(async () => !(await waits(bench)));
    await Promise.all([one!.stop(), two!.stop()]);
    // Its owner is away.
    await put(bench, 'and this');
    const owner = shardsOf('n1', shares()).includes(pendingSlotOf(account)) ? 'n1' : 'n2';
    const nodeId = owner === 'n1' ? 'n2' : 'n1';
    const patient = indexerOf(bench, { nodeId, shares, timings });
    patient.start();
    await systemClock.sleep(50);
    await patient.stop();
    expect(await waits(bench)).toBe(true);
    indexerOf(bench, { nodeId, shares, timings: { ...timings, lateMs: 30 } }).start();
    await until(async () => !(await waits(bench)));
  });

  it('waits for a quiet node, as long as searches have little to look through', async () => {
    const bench = await openBench();
    const patient = { ...settings, patienceMs: 3_600_000, bearableTail: 3 };
    let load = 1;
    await put(bench, 'one', 'two');
    let looks = 0;
    const busy = indexerOf(bench, {
      load: () => {
        looks++;
        return load;
      },
      settings: () => patient,
    });
    busy.start();
    await until(() => looks > 4);
    expect((await bench.search.progress(account))?.documents ?? 0).toBe(0);
    load = 0;
    await until(async () => !(await waits(bench)));
    load = 1;
    await put(bench, 'three', 'four', 'five', 'six');
    await until(async () => !(await waits(bench)));
    expect((await bench.search.progress(account))?.documents).toBe(6);
  });

  it('ends while it waits for a quiet node', async () => {
    const bench = await openBench();
    await put(bench, 'one');
    let looks = 0;
    const busy = indexerOf(bench, {
      load: () => {
        looks++;
        return 1;
      },
      settings: () => ({ ...settings, patienceMs: 3_600_000 }),
    });
    busy.start();
    await until(() => looks > 4);
    await busy.stop();
    expect(await waits(bench)).toBe(true);
  });

  it('comes through conflicts and unknown commits', async () => {
    const bench = await openBench('memory', { conflict: 0.2, commitUnknownApplied: 0.1, commitUnknownLost: 0.1 });
    const ids: string[] = [];
    const indexer = indexerOf(bench);
    for (let round = 0; round < 30; round++) {
      ids.push(...(await put(bench, `stormy ${round}`)));
      await indexer.catchUp();
    }
    expect((await bench.search.progress(account))?.documents).toBe(30);
    expect((await found(bench, 'stormy', ids)).sure).toEqual(ids);
  });

  it('gives others their turns while the store has trouble with one account', async () => {
    const bench = await openBench();
    const other = 'account2';
    await bench.mail.ensureAccount(other);
    await put(bench, 'first in the row');
    const inbox = await mailboxId(bench, other, 'INBOX');
    await bench.mail.append(other, [{ ...mailOf(bench, 'second'), mailboxIds: [inbox] }]);
    const mail = Object.create(bench.mail) as typeof bench.mail;
    mail.usage = async (accountId) => {
      if (accountId === account) throw new KvError('too-old', 'its reads take too long');
      return bench.mail.usage(accountId);
    };
    indexerOf(bench, { mail }).start();
    await until(async () => !(await bench.kv.read((reads) => isPending(reads, other))));
    expect(await waits(bench)).toBe(true);
  });

  it('puts a message in as far as it goes when its text can not be worked on', async () => {
    const bench = await openBench();
    const text = 'This is a sentence in English, which is long enough to be told from all others by the words in it.';
    const ids = await put(bench, text, 'short');
    const languages = Object.assign([...stemLanguages], {
      includes: () => {
        throw new TypeError('nobody thought of this');
      },
    });
    await indexerOf(bench, { settings: () => ({ ...settings, languages }) }).catchUp();
    expect(await waits(bench)).toBe(false);
    expect(await found(bench, 'sentence', ids)).toEqual({ sure: [], perhaps: [ids[0]] });
  });

  describe('of all mail, when the index is removed in the middle', () => {
    /** Removes the index in front of the nth call of `method`. */
    function removing(search: SearchStore, method: 'add' | 'progress', nth: number): SearchStore {
      let calls = 0;
      const interfere = async (called: 'add' | 'progress') => {
        if (called === method && ++calls === nth) await search.remove(account);
      };
      return {
        open: (id) => search.open(id),
        tidy: (id, isGone) => search.tidy(id, isGone),
        remove: (id) => search.remove(id),
        add: async (...step) => {
          await interfere('add');
          return search.add(...step);
        },
        progress: async (id) => {
          await interfere('progress');
          return search.progress(id);
        },
      };
    }

    it.each([
      ['add', 3, 60_000],
      ['progress', 3, 0],
    ] as const)('begins anew (%s %i)', async (method, nth, turnMs) => {
      const bench = await openBench();
      for (let lot = 0; lot < 6; lot++) await put(bench, ...Array.from({ length: 100 }, (_, index) => `number ${lot} ${index}`));
      const search = removing(bench.search, method, nth);
      const indexer = indexerOf(bench, {
        search,
        timings: { turnMs },
        settings: () => ({ ...settings, batchMessages: 50, languages: [] }),
      });
      await indexer.catchUp();
      expect(await waits(bench)).toBe(false);
      expect((await bench.search.progress(account))?.documents).toBe(600);
    });
  });

  it('stops in the middle of its work', async () => {
    const bench = await openBench();
    await put(bench, ...Array.from({ length: 300 }, (_, index) => `number ${index}`));
    const indexer = indexerOf(bench, { settings: () => ({ ...settings, batchMessages: 10, share: 0.05 }) });
    indexer.start();
    await until(async () => ((await bench.search.progress(account))?.documents ?? 0) > 0);
    await indexer.stop();
    const { documents } = (await bench.search.progress(account))!;
    expect(documents).toBeLessThan(300);
    await systemClock.sleep(30);
    expect((await bench.search.progress(account))?.documents).toBe(documents);
  });
});
