/** Keeps an index small and quick to ask: which segments are to be merged, which are to be looked through for messages that are gone, and what is to be cleared. */
import { counter } from '../../ops/telemetry/index.js';
import type { KvReads } from '../kv/contract.js';
import type { AccountId } from '../mail/contract.js';
import { type Breathe, SearchError } from './contract.js';
import { bytesOf, decodeHead, decodeLoose, type SearchHead, type Segment } from './head.js';
import { searchKeys, segmentIdOf } from './keys.js';
import { goneDocuments, type IsGone, mergeSegments } from './merge.js';
import type { SegmentReader } from './segment-reader.js';
import { changeHead, clearSegment, SegmentWriter, type WriterContext } from './segment-writer.js';

const mergedBytes = counter('starling_search_merged_bytes_total', 'Bytes of segments that were merged into others');

/** So many segments of about one size make one of the next size. */
const fanOut = 4;
const maxMergedSegments = 16;
/** No segment grows beyond this: a merge is one piece of work, done from the start again by whoever comes after a crash. */
const maxMergedBytes = 67_108_864;
const smallestTierBytes = 65_536;
/** A segment that nothing has been merged with for so long is looked through for documents that are gone. */
const sweepAfterMs = 7 * 86_400_000;
const sweepShare = 0.2;
/** How long blocks stay after their segment was replaced: searches that are under way read them. */
const replacedForMs = 60_000;
/** A writer that has not come to its end by now has crashed, or finds out that it was given up. */
const writingForMs = 600_000;
const loosePerStep = 100;

export interface TidyContext extends WriterContext {
  reader: SegmentReader;
  pause: Breathe;
}

function tierOf(segment: Segment): number {
  return Math.max(0, Math.floor(Math.log(bytesOf(segment) / smallestTierBytes) / Math.log(fanOut)) + 1);
}

/** The segments to be merged next: the smallest ones of about one size, once there are enough of them. Empty when all is well. */
export function nextMerge(segments: readonly Segment[]): Segment[] {
  const tiers = new Map<number, Segment[]>();
  for (const segment of segments) {
    const tier = tierOf(segment);
    const list = tiers.get(tier);
    if (list) list.push(segment);
    else tiers.set(tier, [segment]);
  }
  for (const [, list] of [...tiers].sort(([a], [b]) => a - b)) {
    if (list.length < fanOut) continue;
    let bytes = 0;
    const chosen = new Set<Segment>();
    for (const segment of [...list].sort((a, b) => bytesOf(a) - bytesOf(b)).slice(0, maxMergedSegments)) {
      bytes += bytesOf(segment);
      if (bytes <= maxMergedBytes) chosen.add(segment);
    }
    // In the order of the head, so that older documents come first.
    if (chosen.size >= fanOut) return segments.filter((segment) => chosen.has(segment));
  }
  return [];
}

/** Merges these segments and puts the result into the head. False when another node has merged one of them meanwhile. */
export async function merge(
  context: TidyContext,
  accountId: AccountId,
  segments: readonly Segment[],
  isGone: IsGone,
): Promise<boolean> {
  const { reader, clock, pause } = context;
  const to = new SegmentWriter(context, accountId);
  try {
    const merged = await mergeSegments({ reader, accountId, segments, isGone, to, nowMs: clock.nowMs(), pause });
    const ids = new Set(segments.map(({ id }) => id));
    const isDone = await to.finish((head) => {
      if (!head || head.segments.filter(({ id }) => ids.has(id)).length !== ids.size) return undefined;
      const first = head.segments.findIndex(({ id }) => ids.has(id));
      const before = head.segments.slice(0, first);
      const behind = head.segments.slice(first).filter(({ id }) => !ids.has(id));
      return { head: { ...head, segments: [...before, ...(merged ? [merged] : []), ...behind] }, replaced: segments };
    });
    if (isDone) mergedBytes.inc(segments.reduce((sum, segment) => sum + bytesOf(segment), 0));
    return isDone;
  } catch (error) {
    // Whether the head was switched may be unknown after an error of the store; after this one it was not.
    if (error instanceof SearchError) await to.discard();
    throw error;
  }
}

/** Looks through one segment that has not been merged for long, and rewrites it when much of it is gone. False when there was none. */
export async function sweep(context: TidyContext, accountId: AccountId, head: SearchHead, isGone: IsGone): Promise<boolean> {
  const { reader, clock } = context;
  const nowMs = clock.nowMs();
  const segment = head.segments.find(({ sweptAtMs }) => nowMs - sweptAtMs > sweepAfterMs);
  if (!segment) return false;
  const gone = await goneDocuments(await reader.documents(accountId, segment), isGone);
  const count = gone.reduce((sum, isOne) => sum + isOne, 0);
  if (count > gone.length * sweepShare) return merge(context, accountId, [segment], isGone);
  return changeHead(context, accountId, (now) => {
    const segments = now.segments.map((one) => (one.id === segment.id ? { ...one, sweptAtMs: nowMs } : one));
    return now.segments.some(({ id }) => id === segment.id) ? { ...now, segments } : undefined;
  });
}

/** Clears segments that were replaced a while ago, and those of writers that have crashed. */
export async function clearLoose(context: WriterContext, accountId: AccountId): Promise<void> {
  const { kv, clock } = context;
  const { begin, end } = searchKeys.allLoose(accountId);
  const rows = await kv.read((reads) => reads.getRange(begin, end, { limit: loosePerStep }), { label: 'search-loose' });
  for (const { key, value } of rows) {
    if (!isOver(value, clock.nowMs())) continue;
    const id = segmentIdOf(key);
    await kv.transact(
      async (tx) => {
        const now = await tx.get(key);
        if (!now?.equals(value) || (await isInHead(tx, accountId, id))) return;
        clearSegment(tx, accountId, id);
      },
      { label: 'search-clear' },
    );
  }
}

function isOver(value: Buffer, nowMs: number): boolean {
  try {
    const { state, sinceMs } = decodeLoose(value);
    return nowMs - sinceMs >= (state === 'writing' ? writingForMs : replacedForMs);
  } catch (error) {
    if (error instanceof SearchError) return false;
    throw error;
  }
}

async function isInHead(reads: KvReads, accountId: AccountId, segmentId: string): Promise<boolean> {
  const head = await reads.get(searchKeys.head(accountId));
  return head !== undefined && decodeHead(head).segments.some(({ id }) => id === segmentId);
}
