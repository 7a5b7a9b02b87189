/**
 * Uses of one key over the last period, in buckets of a 24th of it: the record behind rate limits and counters. Pure. The sum goes over the buckets that a
 * period can touch and one more, so it is never too low as long as the clocks of the nodes differ by less than a bucket.
 */
import { Packr } from 'msgpackr';

export const bucketsPerPeriod = 24;
/** The bucket that has begun, those of a whole period before it, and one for clocks that are not quite the same. */
export const spanBuckets = bucketsPerPeriod + 2;

/** A record that is further ahead of a node's clock than this was written by a clock out of its mind. */
const maxAheadMs = 24 * 3_600_000;
const formatVersion = 1;
const packr = new Packr({ useRecords: false });

export interface UseWindow {
  /** Number of the newest bucket since the epoch. */
  newest: number;
  /** Uses by bucket, the newest first; at most `spanBuckets`. */
  counts: number[];
}

export const bucketMsOf = (periodMs: number): number => periodMs / bucketsPerPeriod;

export function encodeWindow({ newest, counts }: UseWindow): Buffer {
  let length = counts.length;
  while (length > 0 && counts[length - 1] === 0) length--;
  return packr.pack([formatVersion, newest, ...counts.slice(0, length)]);
}

/** Throws for a format that this node does not know. */
export function decodeWindow(value: Buffer): UseWindow {
  const fields = packr.unpack(value) as unknown;
  if (!Array.isArray(fields) || fields[0] !== formatVersion) throw new Error('unknown format of a counter of uses');
  const [, newest, ...counts] = fields as number[];
  return { newest: newest!, counts: counts.slice(0, spanBuckets) };
}

/** When the last use is out of the sum. */
export const windowEndsAtMs = ({ newest }: UseWindow, bucketMs: number): number => (newest + spanBuckets) * bucketMs;

export interface Moment {
  bucket: number;
  /** The time that the key lives by. */
  nowMs: number;
  /** What is to be added to this node's clock to get it. */
  offsetMs: number;
  /** The record was moved into this node's time: numbers of its buckets that were remembered mean nothing any more. */
  isMoved: boolean;
}

/**
 * Brings a window to now. A key lives by the most advanced clock that has used it: a node whose clock is behind takes over how far (`offsetMs`, to be kept
 * as long as the key is remembered) and goes on from there at the pace of its own clock, so nobody waits for hours because somebody's clock was ahead. A
 * record more than a day ahead is pulled back, its uses kept as if they were of now.
 */
export function bringToNow(window: UseWindow, bucketMs: number, clockMs: number, offsetMs: number): Moment {
  let nowMs = clockMs + offsetMs;
  const aheadMs = window.newest * bucketMs - nowMs;
  const isMoved = window.counts.length > 0 && window.newest * bucketMs - clockMs > maxAheadMs;
  if (isMoved) {
    nowMs = clockMs;
    window.newest = Math.floor(nowMs / bucketMs);
  } else if (aheadMs > 0) nowMs += aheadMs;
  // Division may round to just below the bucket that the time was made from.
  const bucket = Math.max(window.newest, Math.floor(nowMs / bucketMs));
  advance(window, bucket);
  return { bucket, nowMs, offsetMs: nowMs - clockMs, isMoved };
}

function advance(window: UseWindow, bucket: number): void {
  const steps = Math.min(bucket - window.newest, spanBuckets);
  if (steps > 0) {
    window.counts.unshift(...new Array<number>(steps).fill(0));
    if (window.counts.length > spanBuckets) window.counts.length = spanBuckets;
  }
  if (window.counts.length === 0) window.counts.push(0);
  window.newest = bucket;
}

/** Uses in the newest `buckets` buckets. */
export function usesIn({ counts }: UseWindow, buckets = spanBuckets): number {
  let sum = 0;
  for (let i = 0; i < counts.length && i < buckets; i++) sum += counts[i]!;
  return sum;
}

/** Takes back what was counted in `bucket` and never used; answers how much that was. */
export function giveBack(window: UseWindow, bucket: number, amount: number): number {
  const index = window.newest - bucket;
  const counted = window.counts[index] ?? 0;
  const given = Math.min(counted, amount);
  if (given > 0) window.counts[index] = counted - given;
  return given;
}

/** In how many milliseconds `amount` of the uses are out of the sum, when nobody uses anything until then. */
export function freesInMs(window: UseWindow, amount: number, bucketMs: number, nowMs: number): number {
  let freed = 0;
  for (let index = window.counts.length - 1; index >= 0; index--) {
    freed += window.counts[index]!;
    if (freed >= amount) return Math.max(1, (window.newest - index + spanBuckets) * bucketMs - nowMs);
  }
  return spanBuckets * bucketMs;
}
