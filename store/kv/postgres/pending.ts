/**
 * What this node's commits that are on their way will have written. A transaction that has read some of it would be refused by the
 * server anyway; told at once, it can wait for exactly that commit and then take its turn.
 */
import type { CommitRequest, ReadSet } from '../backend.js';
import { type KeyRange, rangeHolds, rangesMeet } from '../key-text.js';

/** One transaction's writes as conflicts see them; versionstamped keys count as the range that they will be in. */
export interface WriteRecord {
  readonly points: readonly string[];
  readonly ranges: readonly KeyRange[];
  /** Resolves when it has committed or failed. */
  readonly settled: Promise<void>;
}

export class PendingWrites {
  readonly #lastWriter = new Map<string, WriteRecord>();
  readonly #records = new Set<WriteRecord>();
  #withRanges = 0;

  add(record: WriteRecord): void {
    this.#records.add(record);
    if (record.ranges.length > 0) this.#withRanges++;
    for (const key of record.points) this.#lastWriter.set(key, record);
  }

  remove(record: WriteRecord): void {
    if (!this.#records.delete(record)) return;
    if (record.ranges.length > 0) this.#withRanges--;
    for (const key of record.points) if (this.#lastWriter.get(key) === record) this.#lastWriter.delete(key);
  }

  /** The last record that wrote something of `reads`, and a key that shows where they meet. */
  find(reads: ReadSet): { record: WriteRecord; contended: string } | undefined {
    if (this.#records.size === 0) return undefined;
    for (const key of reads.points) {
      const record = this.#lastWriter.get(key);
      if (record) return { record, contended: key };
    }
    if (reads.ranges.length === 0 && this.#withRanges === 0) return undefined;
    let found: { record: WriteRecord; contended: string } | undefined;
    for (const record of this.#records) {
      const contended = meetingPoint(record, reads);
      if (contended !== undefined) found = { record, contended };
    }
    return found;
  }
}

function meetingPoint(record: WriteRecord, reads: ReadSet): string | undefined {
  for (const range of reads.ranges) {
    for (const key of record.points) if (rangeHolds(range, key)) return range.begin;
    for (const written of record.ranges) if (rangesMeet(range, written)) return range.begin;
  }
  if (record.ranges.length > 0) {
    for (const key of reads.points) for (const written of record.ranges) if (rangeHolds(written, key)) return written.begin;
  }
  return undefined;
}

const highestStamp = '\xff'.repeat(10);

/** The keys that a versionstamped write below `prefix` can get. */
export function stampedRange(prefix: string): KeyRange {
  return { begin: prefix, end: prefix + highestStamp };
}

export function pointsWritten(request: CommitRequest): string[] {
  const points = [...request.writes.points.keys()];
  for (const key of request.writeConflicts.points) points.push(key);
  return points;
}

export function rangesWritten(request: CommitRequest): KeyRange[] {
  const ranges = [...request.writes.clearedRanges, ...request.writeConflicts.ranges];
  for (const { prefix } of request.writes.stamped) ranges.push(stampedRange(prefix));
  return ranges;
}
