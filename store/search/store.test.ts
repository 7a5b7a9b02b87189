import { describe, expect, it } from 'vitest';
import { type Clock, silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { KvError, type KvStore, type KvTransaction, MemoryDatabase, openMemoryStore } from '../kv/index.js';
import { type SearchDocument, type SearchField, searchFields } from './contract.js';
import { blockBytes, bytesOf, decodeHead, encodeHead } from './head.js';
import { createSearchStore, type SearchStoreOptions } from './index.js';
import { searchKeys } from './keys.js';

const account = 'alice';

class HandClock implements Clock {
  ms = 1_800_000_000_000;
  nowMs = () => this.ms;
  monotonicMs = () => this.ms;
  setTimer = systemClock.setTimer;
  sleep: Clock['sleep'] = async () => undefined;
}

let ids = 0;
const newId = () => `01h8${(++ids).toString(32).padStart(6, '0')}${(ids * 104_729).toString(32).padStart(10, '0')}`;

function document(texts: Partial<Record<SearchField, string>>, more: Partial<SearchDocument> = {}): SearchDocument {
  const all = searchFields.flatMap((field) => (texts[field] === undefined ? [] : [{ field, text: texts[field] }]));
  return { emailId: newId(), texts: all, ...more };
}

const step = (fromModseq: number, toModseq = fromModseq + 1) => ({ fromModseq, toModseq });
const nobodyIsGone = async (list: readonly string[]) => list.map(() => false);

function open(kv: KvStore = openMemoryStore(), more: Partial<SearchStoreOptions> = {}) {
  const clock = new HandClock();
  const search = createSearchStore({ kv, clock, random: systemRandom, logger: silentLogger, ...more });
  const rows = async () => {
    const { begin, end } = searchKeys.account(account);
    return kv.read((reads) => reads.getRange(begin, end));
  };
  const head = async () => decodeHead((await kv.read((reads) => reads.get(searchKeys.head(account))))!);
  /** Which of these documents a query surely (1) or perhaps (?) means. */
  const ask = async (documents: readonly SearchDocument[], fields: SearchField[], text: string) => {
    const view = (await search.open(account))!;
    const answer = await view.substring({ fields, text });
    return documents
      .map(({ emailId }) => view.documentOf(emailId))
      .map((number) => (answer.has(number) ? '1' : answer.mayHave(number) ? '?' : '0'))
      .join('');
  };
  const words = async (documents: readonly SearchDocument[], text: string, fields: SearchField[] = ['subject', 'body']) => {
    const view = (await search.open(account))!;
    const answer = await view.words({ fields, text });
    return documents.map(({ emailId }) => (answer.has(view.documentOf(emailId)) ? '1' : '0')).join('');
  };
  return { kv, clock, search, rows, head, ask, words };
}

/** With these, some blocks go ahead of the head. */
const smallTransactions = { transactionBytes: 2 * blockBytes };

/** Words of which none comes twice. */
function largeDocuments(count: number, wordsEach: number): SearchDocument[] {
  return Array.from({ length: count }, (_, nth) => {
    const text = Array.from({ length: wordsEach }, (_, n) => `${((n + 1) * 7_919 * (nth + 3)).toString(36)}x${n}`).join(' ');
    return document({ body: text });
  });
}

describe('substring queries', () => {
  it('keep fields apart, and know where only the text can tell', async () => {
    const { search, ask } = open();
    const mails = [
      document({ from: 'Anna Bell <anna@one.example>', subject: 'Lunch today', body: 'The bellhop says hello' }),
      document({ from: 'Bob <bob@two.example>', subject: 'Anna?', body: 'lunch with today-Anna' }),
      document({ body: 'Ann arrived' }, { isPartial: true }),
      document({ from: 'carl@three.example', body: 'nothing' }, { isPartial: ['body'] }),
    ];
    expect(await search.add(account, mails, step(0))).toBe(true);
    expect(await ask(mails, ['from'], 'ANNA')).toBe('10?0');
    expect(await ask(mails, ['subject'], 'anna')).toBe('01?0');
    expect(await ask(mails, ['body'], 'ann')).toBe('011?');
    expect(await ask(mails, ['from', 'body'], 'bell')).toBe('10??');
    // Words that stand side by side in one text only: nobody but the text knows.
    expect(await ask(mails, ['subject'], 'lunch today')).toBe('?0?0');
    expect(await ask(mails, ['from'], 'nobody')).toBe('00?0');
    expect(await ask(mails, [...searchFields], '?')).toBe('????');
    expect(await ask(mails, [], 'anna')).toBe('0000');
  });

  it('do not know messages that are not in the index', async () => {
    const { search } = open();
    await search.add(account, [document({ body: 'known' })], step(0));
    const view = (await search.open(account))!;
    expect(view.documentOf(newId())).toBe(-1);
    expect(view.documentOf('short')).toBe(-1);
    expect(view.documentOf('01h8!!!!!!!!!!!!!!!!')).toBe(-1);
    const answer = await view.substring({ fields: ['body'], text: 'known' });
    expect([answer.has(-1), answer.mayHave(-1)]).toEqual([false, false]);
    expect(await search.open('bob')).toBeUndefined();
    expect(await search.progress('bob')).toBeUndefined();
  });

  it('find what stands where a large text is divided, which leaves others their turns', async () => {
    let turns = 0;
    const { search, ask } = open();
    // Around the 8,192nd character; behind the last one the next text would begin.
    const documents = [-9, -5, -1, 0, 1].map((by) =>
      document({ body: `${'ab '.repeat(30_000).slice(0, 8_192 + by)}zeppelin e\u0301 ${'cd\n'.repeat(60_000)}tail` }),
    );
    documents.push(document({ body: `${'ab'.repeat(100_000)}zeppelin x\u00e9y tail` }));
    await search.add(account, documents, step(0), async () => void turns++);
    expect(turns).toBeGreaterThan(6 * 16);
    expect(await ask(documents, ['body'], 'zeppelin')).toBe('111111');
    expect(await ask(documents, ['body'], '\u00e9')).toBe('111111');
    expect(await ask(documents, ['body'], 'tail')).toBe('111111');
    expect(await ask(documents, ['body'], 'eppeli')).toBe('111111');
  });

  it('give others a turn, however much is in memory already', async () => {
    let turns = 0;
    const clock = new HandClock();
    // Time goes by with each look at it.
    clock.monotonicMs = () => (clock.ms += 5);
    clock.sleep = async () => void turns++;
    const { search } = open(openMemoryStore(), { clock });
    await search.add(account, [document({ body: 'one two three' })], step(0));
    const view = (await search.open(account))!;
    turns = 0;
    for (let round = 0; round < 20; round++) await view.substring({ fields: ['body'], text: 'o' });
    expect(turns).toBeGreaterThan(5);
  });

  it('find terms whose postings lie in several blocks, with and without a cache', async () => {
    for (const cacheBytes of [0, 50_000_000]) {
      const { search, ask, head } = open(openMemoryStore(), { cacheBytes });
      // Every other one has it: gaps; all have it: bits.
      const mails = Array.from({ length: 3_000 }, (_, nth) =>
        document({ body: `${nth % 2 ? 'oddly' : 'evenly'} everywhere n${nth}`, subject: nth % 7 ? '' : 'oddly' }),
      );
      await search.add(account, mails, step(0));
      expect(bytesOf((await head()).segments[0]!)).toBeGreaterThan(3 * blockBytes);
      expect(await ask(mails, ['body'], 'oddl')).toBe('01'.repeat(1_500));
      expect(await ask(mails, ['body'], 'verywher')).toBe('1'.repeat(3_000));
      expect(await ask(mails, ['subject'], 'oddly')).toBe(mails.map((_, nth) => (nth % 7 ? '0' : '1')).join(''));
      expect(await ask(mails, ['body'], 'n2999')).toBe(`${'0'.repeat(2_999)}1`);
      // Two hundred terms in one query.
      expect((await ask(mails, ['body'], 'n29')).match(/1/g)).toHaveLength(111);
    }
  });

  it('are answered with what may be once the segments of an old view are gone', async () => {
    const { search, clock, kv } = open(openMemoryStore(), { cacheBytes: 0 });
    const mails = Array.from({ length: 4 }, () => document({ body: 'apple' }));
    for (const [nth, mail] of mails.entries()) await search.add(account, [mail], step(nth));
    const old = (await search.open(account))!;
    expect(await search.tidy(account, nobodyIsGone)).toBe(false);
    const number = old.documentOf(mails[2]!.emailId);
    expect((await old.substring({ fields: ['body'], text: 'pear' })).mayHave(number)).toBe(false);
    clock.ms += 61_000;
    await search.tidy(account, nobodyIsGone);
    expect((await kv.read((reads) => reads.getRange(...rangeOf(account)))).length).toBe(1);
    const answer = await old.substring({ fields: ['body'], text: 'pear' });
    expect([answer.has(number), answer.mayHave(number)]).toEqual([false, true]);
    await expect(old.words({ fields: ['body'], text: 'apple' })).rejects.toMatchObject({ code: 'changed' });
  });
});

function rangeOf(accountId: string): [Buffer, Buffer] {
  const { begin, end } = searchKeys.allBlocks(accountId);
  return [begin, end];
}

describe('word queries', () => {
  it('find whole words and their other forms in the languages of the account', async () => {
    const { search, words } = open();
    const mails = [
      document({ subject: 'Running shoes', body: 'he runs daily' }, { language: 'en' }),
      document({ body: 'to run is human; runner-up' }, { language: 'en' }),
      document({ body: 'brunch' }, { language: 'en' }),
      document({ body: 'viele Häuser' }, { language: 'de' }),
      document({ body: 'ein Haus' }),
      document({ body: '今日は漢字語です' }),
    ];
    for (const [nth, mail] of mails.entries()) await search.add(account, [mail], step(nth));
    for (let tidied = 0; tidied < 2; tidied++) {
      expect(await words(mails, 'run')).toBe('110000');
      expect(await words(mails, 'running')).toBe('110000');
      expect(await words(mails, 'Run daily')).toBe('100000');
      expect(await words(mails, 'daily run', ['body'])).toBe('100000');
      expect(await words(mails, 'haus')).toBe('000110');
      expect(await words(mails, '漢字')).toBe('000001');
      expect(await words(mails, 'brun')).toBe('000000');
      expect(await words(mails, '')).toBe('000000');
      await search.tidy(account, nobodyIsGone);
    }
  });
});

describe('adding', () => {
  it('leaves alone what is there, and asserts where the index stands', async () => {
    const { search, rows } = open();
    const [first, second] = [document({ body: 'one' }), document({ body: 'two' })];
    expect(await search.add(account, [first], step(3))).toBe(false);
    expect(await rows()).toEqual([]);
    expect(await search.add(account, [first, first], step(0, 5))).toBe(true);
    expect(await search.add(account, [first], step(0, 5))).toBe(false);
    // At the same modseq, too.
    expect(await search.add(account, [first, second], step(5, 5))).toBe(true);
    expect(await search.add(account, [first, second], step(5, 5))).toBe(true);
    expect(await search.progress(account)).toEqual({ modseq: 5, documents: 2 });
    expect(await search.add(account, [], step(5, 9))).toBe(true);
    expect(await search.progress(account)).toEqual({ modseq: 9, documents: 2 });
    await expect(search.add(account, [document({}, { emailId: 'foreign' } as never)], step(9))).rejects.toThrow(RangeError);
    await expect(search.add(account, [], step(9, 8))).rejects.toThrow(RangeError);
  });

  it.each(['applied', 'lost'] as const)('does it once when the fate of the commit was unknown (%s)', async (fate) => {
    const kv = openMemoryStore();
    const { search } = open(kv);
    for (const [nth, documents] of [[document({ body: 'x' })], []].entries()) {
      kv.faults.nextCommit = fate;
      expect(await search.add(account, documents, step(nth))).toBe(true);
      expect(await search.progress(account)).toEqual({ modseq: nth + 1, documents: 1 });
    }
  });

  it('merges by itself where nobody tidies', async () => {
    const { search, head, ask } = open();
    const mails = Array.from({ length: 150 }, (_, nth) => document({ body: `mail${nth}` }));
    for (const [nth, mail] of mails.entries()) await search.add(account, [mail], step(nth));
    expect((await head()).segments.length).toBeLessThanOrEqual(65);
    expect(await ask(mails, ['body'], 'mail149')).toBe(`${'0'.repeat(149)}1`);
  });
});

/** A store that fails from its n-th transaction on, as for a node that crashes. */
function crashing(kv: KvStore, after: number): KvStore {
  let done = 0;
  const transact = (<T>(body: (tx: KvTransaction) => Promise<T>, options?: never) => {
    if (done++ >= after) throw new KvError('unavailable', 'crashed', 'closed');
    return kv.transact(body, options);
  }) as KvStore['transact'];
  return Object.assign(Object.create(kv) as KvStore, { transact, read: kv.read.bind(kv) });
}

describe('a crash', () => {
  const large = largeDocuments(4, 5_000);

  it.each([1, 2])('in a large addition after %i transactions leaves nothing behind once it is tidied', async (after) => {
    const kv = openMemoryStore();
    const { search, clock, rows } = open(kv);
    await search.add(account, [document({ body: 'first' })], step(0));
    const before = await rows();
    await expect(open(crashing(kv, after), smallTransactions).search.add(account, large, step(1))).rejects.toThrow('crashed');
    expect((await rows()).length).toBe(before.length + 1 + 2 * after);
    await search.tidy(account, nobodyIsGone);
    expect((await rows()).length).toBe(before.length + 1 + 2 * after);
    clock.ms += 601_000;
    await search.tidy(account, nobodyIsGone);
    expect(await rows()).toEqual(before);
    expect(await search.add(account, large, step(1))).toBe(true);
    expect(await search.progress(account)).toEqual({ modseq: 2, documents: 5 });
  });

  it('leaves nothing behind once the index is removed', async () => {
    const kv = openMemoryStore();
    const { search, rows } = open(kv);
    await search.add(account, large.slice(0, 1), step(0));
    await expect(open(crashing(kv, 2), smallTransactions).search.add(account, large.slice(1), step(1))).rejects.toThrow(
      'crashed',
    );
    await expect(open(crashing(kv, 2)).search.remove(account)).rejects.toThrow('crashed');
    await search.remove(account);
    expect(await rows()).toEqual([]);
  });

  it('of nobody: a writer that was given up does not go on', async () => {
    const kv = openMemoryStore();
    const { search, clock, rows } = open(kv);
    await search.add(account, [document({ body: 'first' })], step(0));
    const before = await rows();
    // Its second transaction is held up for so long that another node clears what it has written.
    let count = 0;
    const slow: KvStore = Object.assign(Object.create(kv) as KvStore, {
      read: kv.read.bind(kv),
      transact: async (body: never, options: never) => {
        if (++count === 2) {
          clock.ms += 601_000;
          await search.tidy(account, nobodyIsGone);
          expect(await rows()).toEqual(before);
        }
        return kv.transact(body, options);
      },
    });
    expect(await open(slow, smallTransactions).search.add(account, large, step(1))).toBe(false);
    expect(count).toBeGreaterThan(2);
    expect(await rows()).toEqual(before);
  });
});

describe('tidying', () => {
  it('merges by size, drops what is gone, and clears what was replaced a minute ago', async () => {
    const { search, head, rows, clock, ask } = open();
    const mails = Array.from({ length: 8 }, (_, nth) => document({ body: `mail ${nth % 2 ? 'odd' : 'even'}` }));
    for (const [nth, mail] of mails.entries()) await search.add(account, [mail], step(nth));
    const gone = new Set([mails[1]!.emailId, mails[4]!.emailId]);
    expect(await search.tidy(account, async (list) => list.map((id) => gone.has(id)))).toBe(false);
    expect((await head()).segments.map(({ documents }) => documents)).toEqual([6]);
    expect(await ask(mails, ['body'], 'odd')).toBe('00010101');
    expect(await ask(mails, ['body'], 'even')).toBe('10100010');
    expect((await rows()).length).toBe(1 + 1 + 8 + 8);
    clock.ms += 61_000;
    await search.tidy(account, nobodyIsGone);
    expect((await rows()).length).toBe(2);
  });

  it('looks through old segments for what is gone', async () => {
    const { search, head, clock } = open();
    const mails = Array.from({ length: 10 }, (_, nth) => document({ body: `mail ${nth}` }));
    await search.add(account, mails, step(0));
    const onlyFrom = (first: number) => async (list: readonly string[]) =>
      list.map((id) => mails.findIndex(({ emailId }) => emailId === id) < first);
    expect(await search.tidy(account, onlyFrom(9))).toBe(false);
    clock.ms += 8 * 86_400_000;
    // One in ten is no reason to write it anew, nine are.
    expect(await search.tidy(account, onlyFrom(1))).toBe(true);
    expect(await search.tidy(account, onlyFrom(9))).toBe(false);
    expect((await head()).segments[0]!.documents).toBe(10);
    clock.ms += 8 * 86_400_000;
    expect(await search.tidy(account, onlyFrom(9))).toBe(true);
    expect((await head()).segments[0]!.documents).toBe(1);
    clock.ms += 8 * 86_400_000;
    expect(await search.tidy(account, onlyFrom(10))).toBe(true);
    expect((await head()).segments).toEqual([]);
    expect(await search.progress(account)).toEqual({ modseq: 1, documents: 0 });
    expect((await search.open(account))!.documents).toBe(0);
  });

  it('by two nodes at once writes one of the two', async () => {
    const database = new MemoryDatabase({ clock: systemClock });
    const node = () => open(openMemoryStore({ database }), smallTransactions);
    const [one, other] = [node(), node()];
    const mails = largeDocuments(4, 2_500);
    for (const [nth, mail] of mails.entries()) await one.search.add(account, [mail], step(nth));
    await Promise.all([one, other].map(({ search }) => search.tidy(account, nobodyIsGone)));
    const { segments } = await one.head();
    expect(segments.map(({ documents }) => documents)).toEqual([4]);
    one.clock.ms += 61_000;
    await one.search.tidy(account, nobodyIsGone);
    const blocks = await one.kv.read((reads) => reads.getRange(...rangeOf(account)));
    expect(blocks.length).toBe(Math.ceil(bytesOf(segments[0]!) / blockBytes));
    expect(blocks.map(({ value }) => value.length).reduce((sum, length) => sum + length)).toBe(bytesOf(segments[0]!));
    expect(await other.ask(mails, ['body'], `${(7_919 * 4).toString(36)}x0`)).toBe('0100');
  });
});

describe('an index that can not be read', () => {
  it('is told from one that is not there', async () => {
    const { search, kv, rows } = open();
    await search.add(account, [document({ body: 'x' })], step(0));
    const value = (await kv.read((reads) => reads.get(searchKeys.head(account))))!;
    // The format is the first element of the array.
    const newer = Buffer.from(value);
    newer[1] = 2;
    await kv.transact(async (tx) => tx.set(searchKeys.head(account), newer));
    const unknown = { name: 'SearchError', code: 'unknown-format' };
    await expect(search.open(account)).rejects.toMatchObject(unknown);
    await expect(search.progress(account)).rejects.toMatchObject(unknown);
    await expect(search.add(account, [], step(1))).rejects.toMatchObject(unknown);
    await expect(search.tidy(account, nobodyIsGone)).rejects.toMatchObject(unknown);
    expect(await kv.read((reads) => reads.get(searchKeys.head(account)))).toEqual(newer);
    await kv.transact(async (tx) => tx.set(searchKeys.head(account), Buffer.from([0xc1])));
    await expect(search.open(account)).rejects.toMatchObject({ code: 'damaged' });
    await search.remove(account);
    expect(await rows()).toEqual([]);
  });

  it('is damaged without its blocks, or with others', async () => {
    const kv = openMemoryStore();
    await open(kv).search.add(account, [document({ body: 'x' })], step(0));
    const { segments } = await open(kv).head();
    const block = searchKeys.block(account, segments[0]!.id, 0);
    const good = (await kv.read((reads) => reads.get(block)))!;
    await kv.transact(async (tx) => tx.clear(block));
    await expect(open(kv).search.open(account)).rejects.toMatchObject({ code: 'damaged' });
    await kv.transact(async (tx) => tx.set(block, good.subarray(1)));
    await expect(open(kv).search.open(account)).rejects.toMatchObject({ code: 'damaged' });
    await kv.transact(async (tx) => tx.set(block, Buffer.alloc(good.length, 0xff)));
    const view = await open(kv).search.open(account);
    await expect(view!.substring({ fields: ['body'], text: 'x' })).rejects.toMatchObject({ code: 'damaged' });
  });

  it('is damaged without the postings that are to be merged', async () => {
    const { kv, search, head } = open();
    for (let nth = 0; nth < 4; nth++) await search.add(account, largeDocuments(2, 4_000), step(nth));
    const { segments } = await head();
    expect(segments.every((segment) => bytesOf(segment) > 2 * blockBytes)).toBe(true);
    await kv.transact(async (tx) => tx.clear(searchKeys.block(account, segments[1]!.id, 0)));
    const fresh = createSearchStore({ kv, clock: new HandClock(), random: systemRandom, logger: silentLogger });
    await expect(fresh.tidy(account, nobodyIsGone)).rejects.toMatchObject({ code: 'damaged' });
    await fresh.remove(account);
    expect(await fresh.tidy(account, nobodyIsGone)).toBe(false);
  });

  it('keeps a head that names many segments within a value', () => {
    const segment = {
      id: 'ffffffffffffffff',
      documents: 4_294_967_295,
      sectionBytes: Array.from({ length: 7 }, () => 4_294_967_295),
      terms: { count: 4_294_967_295, termBytes: 4_294_967_295 },
      stems: { count: 4_294_967_295, termBytes: 4_294_967_295 },
      sweptAtMs: 2 ** 45,
    };
    const head = { modseq: 2 ** 50, additions: 2 ** 40, languages: [], segments: Array.from({ length: 200 }, () => segment) };
    const bytes = encodeHead(head);
    expect(bytes.length).toBeLessThan(30_000);
    expect(decodeHead(bytes)).toEqual(head);
  });
});
