import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import type { KvTransaction } from '../../kv/index.js';
import { blockCount, decodeHead, encodeLoose, type SearchHead } from '../../search/head.js';
import { createSearchStore } from '../../search/index.js';
import { searchKeys } from '../../search/keys.js';
import { emptyStore, furnish, type House, impatientClock, openHouse } from '../test-bench.js';
import { type CheckOptions, checkStore } from './index.js';

/** A house in which the mail of the first account is indexed: enough text for several blocks. */
async function openIndexed() {
  const house = openHouse(emptyStore());
  const { accountIds } = await furnish(house, 4);
  const accountId = accountIds[0]!;
  const search = createSearchStore({ kv: house.kv, clock: systemClock, random: systemRandom, logger: silentLogger });
  const inbox = (await house.mail.mailboxByPath(accountId, ['INBOX']))!.mailbox.id;
  const documents = (await house.mail.entries(accountId, inbox)).map(({ emailId }, nth) => ({
    emailId,
    texts: [{ field: 'body' as const, text: Array.from({ length: 9_000 }, (_, n) => `word${n * (nth + 1)}`).join(' ') }],
  }));
  const { modseq } = await house.mail.usage(accountId);
  expect(await search.add(accountId, documents, { fromModseq: 0, toModseq: modseq })).toBe(true);
  const head = decodeHead((await house.kv.read((reads) => reads.get(searchKeys.head(accountId))))!);
  expect(blockCount(head.segments[0]!)).toBeGreaterThan(3);
  return { house, accountId, search, head };
}

const check = (house: House, more: Partial<CheckOptions> = {}) =>
  checkStore({ kv: house.kv, blobs: house.blobs, clock: impatientClock, logger: silentLogger, ...more });

type Indexed = Awaited<ReturnType<typeof openIndexed>>;
type Sabotage = (tx: KvTransaction, accountId: string, head: SearchHead) => void;

const firstSegment = (head: SearchHead) => head.segments[0]!;
const stray = '00ff00ff00ff00ff';

/** What is done, what is said of it, and whether the index is still there once it is mended. */
const cases: [name: string, sabotage: Sabotage, problem: RegExp, remains: boolean, deep?: boolean][] = [
  [
    'a missing last block',
    (tx, account, head) => tx.clear(searchKeys.block(account, firstSegment(head).id, blockCount(firstSegment(head)) - 1)),
    /^block \d+ of segment \w+ of its search index is missing or cut off$/,
    false,
  ],
  [
    'a block that is cut off, deeply',
    (tx, account, head) => tx.set(searchKeys.block(account, firstSegment(head).id, 1), Buffer.alloc(7)),
    /^block 1 of segment \w+ of its search index is missing or cut off$/,
    false,
    true,
  ],
  [
    'a head that can not be read',
    (tx, account) => tx.set(searchKeys.head(account), Buffer.from([0xc1, 0, 1])),
    /^the head of its search index can not be read$/,
    false,
  ],
  [
    'blocks of no segment',
    (tx, account) => tx.set(searchKeys.block(account, stray, 0), Buffer.from('stray')),
    /^blocks of segment 00ff00ff00ff00ff of its search index belong to nothing$/,
    true,
  ],
  [
    'a segment in use that is to be cleared',
    (tx, account, head) =>
      tx.set(searchKeys.loose(account, firstSegment(head).id), encodeLoose({ state: 'replaced', sinceMs: 1 })),
    /^segment \w+ of its search index is in use, but is to be cleared$/,
    true,
  ],
];

async function hasAnswers({ search, accountId }: Indexed): Promise<boolean> {
  const view = await search.open(accountId);
  const answer = await view?.substring({ fields: ['body'], text: 'word8' });
  return answer?.has(0) ?? false;
}

describe('a check of search indexes', () => {
  it('finds nothing wrong with a healthy one, nor with one that is being written', async () => {
    const { house, accountId } = await openIndexed();
    await house.kv.transact(async (tx) => {
      tx.set(searchKeys.loose(accountId, stray), encodeLoose({ state: 'writing', sinceMs: 1 }));
      tx.set(searchKeys.block(accountId, stray, 0), Buffer.from('begun'));
    });
    const { findings, notes } = await check(house, { deep: true });
    expect({ findings, notes }).toEqual({ findings: [], notes: [] });
  });

  it.each(cases)('finds %s, and mends it', async (_, sabotage, problem, remains, deep = false) => {
    const indexed = await openIndexed();
    const { house, accountId, head } = indexed;
    await house.kv.transact(async (tx) => sabotage(tx, accountId, head));
    const { findings } = await check(house, { deep });
    expect(findings).toEqual([{ area: 'search', where: accountId, problem: expect.stringMatching(problem), state: 'mendable' }]);
    expect((await check(house, { deep, repair: true })).mended).toBe(1);
    expect((await check(house, { deep: true })).findings).toEqual([]);
    expect(await hasAnswers(indexed)).toBe(remains);
    if (!remains) expect(await indexed.search.progress(accountId)).toBeUndefined();
  });

  it('finds the index of an account that is gone', async () => {
    const { house, search } = await openIndexed();
    const documents = [{ emailId: '01h00000000000000001', texts: [{ field: 'body' as const, text: 'left behind' }] }];
    await search.add('nobody', documents, { fromModseq: 0, toModseq: 1 });
    const finding = { area: 'search', where: 'nobody', problem: 'has a search index, but no mail', state: 'mendable' };
    expect((await check(house)).findings).toEqual([finding]);
    await check(house, { repair: true });
    expect(await search.open('nobody')).toBeUndefined();
    expect((await check(house)).findings).toEqual([]);
  });

  it('leaves an index of a newer release alone', async () => {
    const { house, accountId } = await openIndexed();
    // [99, …]: the format comes first.
    const newer = Buffer.from([0x92, 99, 1]);
    await house.kv.transact(async (tx) => {
      tx.set(searchKeys.head(accountId), newer);
      tx.set(searchKeys.block(accountId, stray, 0), Buffer.from('of a kind unknown here'));
    });
    const { findings, notes } = await check(house, { repair: true });
    expect(findings).toEqual([]);
    expect(notes).toEqual([expect.stringContaining('is of a newer release')]);
    expect(await house.kv.read((reads) => reads.get(searchKeys.head(accountId)))).toEqual(newer);
  });
});
