/**
 * Checks search indexes: every head can be read and its segments are there, blocks belong to a segment, and the account still has mail. An index can always be
 * made anew from the mail: where it is damaged it is removed, which the background takes for an index that was never begun.
 */
import type { KvReads, KvTransaction } from '../../kv/contract.js';
import { AccountKeys } from '../../mail/keys.js';
import { SearchError } from '../../search/contract.js';
import { blockBytes, blockCount, bytesOf, decodeHead, type SearchHead, type Segment } from '../../search/head.js';
import { accountOf, searchKeys, segmentIdOf } from '../../search/keys.js';
import type { Inspection } from './inspection.js';

const area = 'search';
const removalGraceMs = 2_000;
/** A megabyte of blocks. */
const blocksPerPage = 64;
const looseRowsPerPage = 200;

export async function checkSearch(inspection: Inspection): Promise<void> {
  const all = searchKeys.all();
  for (let begin = all.begin; ; ) {
    const from = begin;
    const [row] = await inspection.read((reads) => reads.getRange(from, all.end, { limit: 1 }));
    if (!row) return;
    const accountId = accountOf(row.key);
    await checkIndex(inspection, accountId);
    inspection.progress(area, 1);
    begin = searchKeys.account(accountId).end;
  }
}

/** The whole index of an account goes. */
function removeIndex(accountId: string): (tx: KvTransaction) => void {
  const { begin, end } = searchKeys.account(accountId);
  return (tx) => tx.clearRange(begin, end);
}

async function checkIndex(inspection: Inspection, accountId: string): Promise<void> {
  const { begin, end } = searchKeys.account(accountId);
  const isOwnerless = async (reads: KvReads) => {
    const [state, [row]] = await Promise.all([
      reads.get(new AccountKeys(accountId).state),
      reads.getRange(begin, end, { limit: 1 }),
    ]);
    return !state && row !== undefined;
  };
  if (await inspection.read(isOwnerless)) {
    // An account that is being removed loses its mail a moment before its index.
    await inspection.options.clock.sleep(removalGraceMs);
    const problem = 'has a search index, but no mail';
    return inspection.suspect({ area, where: accountId, problem, isSo: isOwnerless, mend: removeIndex(accountId) });
  }
  const head = await readHead(inspection, accountId);
  if (head === 'unreadable') return;
  for (const segment of head?.segments ?? []) await checkSegment(inspection, accountId, segment);
  await checkBlocks(inspection, accountId, head);
  await checkLoose(inspection, accountId, head);
}

async function readHead(inspection: Inspection, accountId: string): Promise<SearchHead | undefined | 'unreadable'> {
  const key = searchKeys.head(accountId);
  const value = await inspection.read((reads) => reads.get(key));
  try {
    return value && decodeHead(value);
  } catch (error) {
    if (error instanceof SearchError && error.code === 'unknown-format') {
      inspection.note(`the search index of account ${accountId} is of a newer release; it was not looked at`);
      return 'unreadable';
    }
    const problem = 'the head of its search index can not be read';
    const isSo = async (tx: KvTransaction) => (await tx.get(key))?.equals(value!) ?? false;
    await inspection.suspect({ area, where: accountId, problem, isSo, mend: removeIndex(accountId) });
    return 'unreadable';
  }
}

/** Whether a head names the segment; one that can't be read (a newer release wrote it meanwhile) may name any. */
function names(value: Buffer | undefined, segmentId: string): boolean {
  if (!value) return false;
  try {
    return decodeHead(value).segments.some(({ id }) => id === segmentId);
  } catch (error) {
    if (error instanceof SearchError) return true;
    throw error;
  }
}

/** All blocks with `deep`, else the first and the last one. */
async function checkSegment(inspection: Inspection, accountId: string, segment: Segment): Promise<void> {
  const count = blockCount(segment);
  const numbers = inspection.options.deep ? Array.from({ length: count }, (_, nth) => nth) : [...new Set([0, count - 1])];
  for (let at = 0; at < numbers.length; at += blocksPerPage) {
    const page = numbers.slice(at, at + blocksPerPage);
    const wrongIn = async (reads: KvReads) => {
      const blocks = await reads.getMany(page.map((nth) => searchKeys.block(accountId, segment.id, nth)));
      return page.find((nth, place) => blocks[place]?.length !== Math.min(blockBytes, bytesOf(segment) - nth * blockBytes));
    };
    const wrong = await inspection.read(wrongIn);
    if (wrong === undefined) continue;
    const isSo = async (tx: KvTransaction) => {
      const isThere = names(await tx.get(searchKeys.head(accountId)), segment.id);
      return isThere && (await wrongIn(tx)) !== undefined;
    };
    const problem = `block ${wrong} of segment ${segment.id} of its search index is missing or cut off`;
    return inspection.suspect({ area, where: accountId, problem, isSo, mend: removeIndex(accountId) });
  }
}

/** Blocks of segments that neither the head nor anybody else knows of. */
async function checkBlocks(inspection: Inspection, accountId: string, head: SearchHead | undefined): Promise<void> {
  const known = new Set(head?.segments.map(({ id }) => id));
  const { begin: first, end } = searchKeys.allBlocks(accountId);
  for (let begin = first; ; ) {
    const from = begin;
    const [row] = await inspection.read((reads) => reads.getRange(from, end, { limit: 1 }));
    if (!row) return;
    const id = segmentIdOf(row.key);
    const blocks = searchKeys.blocksOf(accountId, id);
    begin = blocks.end;
    if (known.has(id)) continue;
    await inspection.suspect({
      area,
      where: accountId,
      problem: `blocks of segment ${id} of its search index belong to nothing`,
      isSo: async (tx) => {
        const [value, loose] = await tx.getMany([searchKeys.head(accountId), searchKeys.loose(accountId, id)]);
        if (loose || names(value, id)) return false;
        return (await tx.getRange(blocks.begin, blocks.end, { limit: 1 })).length > 0;
      },
      mend: (tx) => tx.clearRange(blocks.begin, blocks.end),
    });
    inspection.progress(area, 0);
  }
}

/** A segment of the head must not be named as one that is in no head. */
async function checkLoose(inspection: Inspection, accountId: string, head: SearchHead | undefined): Promise<void> {
  const segments = new Set(head?.segments.map(({ id }) => id));
  for await (const rows of inspection.pages(searchKeys.allLoose(accountId), looseRowsPerPage)) {
    for (const { key } of rows) {
      const id = segmentIdOf(key);
      if (!segments.has(id)) continue;
      await inspection.suspect({
        area,
        where: accountId,
        problem: `segment ${id} of its search index is in use, but is to be cleared`,
        isSo: async (tx) => {
          const [row, value] = await tx.getMany([key, searchKeys.head(accountId)]);
          return row !== undefined && value !== undefined && decodeHead(value).segments.some((segment) => segment.id === id);
        },
        mend: (tx) => tx.clear(key),
      });
    }
  }
}
