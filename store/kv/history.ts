/**
 * Optimistic conflict detection in one process: what the recent commits wrote, kept as long as a transaction that reads an older
 * version is running. A transaction conflicts when something that it read was written by a commit above its read version.
 *
 * What must be true: every commit above the lowest pinned version is in here, whether it is durable yet or not.
 */

import { type CommitRequest, PendingConflict, type ReadSet } from './backend.js';
import { KvError } from './contract.js';
import { type KeyRange, rangeHolds, rangesMeet } from './key-text.js';

/** One commit: its version, and what it wrote. */
export interface CommitRecord {
  readonly version: number;
  readonly points: readonly string[];
  readonly ranges: readonly KeyRange[];
  /** Resolves when the commit is visible to readers, or has failed; absent once it is visible from the beginning. */
  readonly settled?: Promise<void>;
}

export class CommitHistory {
  readonly #lastWriter = new Map<string, CommitRecord>();
  /** Ascending by version. */
  #records: CommitRecord[] = [];
  #head = 0;
  /** Records that wrote ranges; few, so looked through one by one. */
  #withRanges = 0;
  #start = 0;
  /** Versions that are being read, ascending (a later snapshot never reads an older version), with their counts. */
  readonly #pins = new Map<number, number>();

  /** Keeps the commits above `version` until `unpin`. */
  pin(version: number): void {
    this.#pins.set(version, (this.#pins.get(version) ?? 0) + 1);
  }

  unpin(version: number): void {
    const count = this.#pins.get(version);
    if (count === undefined) return;
    if (count === 1) this.#pins.delete(version);
    else this.#pins.set(version, count - 1);
  }

  /** The lowest version that somebody reads. */
  get lowestPin(): number | undefined {
    for (const version of this.#pins.keys()) return version;
    return undefined;
  }

  get size(): number {
    return this.#records.length - this.#head;
  }

  record(record: CommitRecord): void {
    this.#records.push(record);
    if (record.ranges.length > 0) this.#withRanges++;
    for (const key of record.points) this.#lastWriter.set(key, record);
  }

  /** The newest commit above `readVersion` that wrote something of `reads`. */
  findConflict(reads: ReadSet, readVersion: number): CommitRecord | undefined {
    if (this.size === 0 || this.#records.at(-1)!.version <= readVersion) return undefined;
    for (const key of reads.points) {
      const writer = this.#lastWriter.get(key);
      if (writer && writer.version > readVersion) return writer;
    }
    if (reads.ranges.length === 0 && this.#withRanges === 0) return undefined;
    for (let at = this.#records.length - 1; at >= this.#head; at--) {
      const record = this.#records[at]!;
      if (record.version <= readVersion) return undefined;
      if (meets(record, reads)) return record;
    }
    return undefined;
  }

  /** A commit above `version` that wrote `key`, if any; the newest one among point writes. */
  writerSince(key: string, version: number): CommitRecord | undefined {
    return this.findConflict({ points: [key], ranges: [] }, version);
  }

  /** Nothing is known about commits up to `version`: what has read an older one can't commit any more. */
  startAt(version: number): void {
    this.#start = version;
  }

  /** Throws `conflict` when `request` read what has changed since. */
  assertNoConflict(request: CommitRequest): void {
    if (request.readVersion === undefined) return;
    if (request.readVersion < this.#start) throw new KvError('too-old', 'the store was opened anew since this transaction began');
    const record = this.findConflict(request.reads, request.readVersion);
    if (!record) return;
    const message = `something read at version ${request.readVersion} was changed by version ${record.version}`;
    throw record.settled
      ? new PendingConflict(message, record.settled, contended(record, request.reads))
      : new KvError('conflict', message);
  }

  /** Forgets what no running transaction and none begun from now on (at `visibleVersion` or later) can conflict with. */
  prune(visibleVersion: number): void {
    const floor = Math.min(this.lowestPin ?? visibleVersion, visibleVersion);
    while (this.#head < this.#records.length && this.#records[this.#head]!.version <= floor) {
      const record = this.#records[this.#head++]!;
      if (record.ranges.length > 0) this.#withRanges--;
      for (const key of record.points) if (this.#lastWriter.get(key) === record) this.#lastWriter.delete(key);
    }
    if (this.#head > 1024 && this.#head * 2 > this.#records.length) {
      this.#records = this.#records.slice(this.#head);
      this.#head = 0;
    }
    if (this.#head === this.#records.length) {
      this.#records.length = 0;
      this.#head = 0;
    }
  }

  /** Takes back the commits of a version that did not happen. */
  drop(version: number): void {
    const kept = this.#records.slice(this.#head).filter((record) => record.version !== version);
    this.#records = [];
    this.#head = 0;
    this.#withRanges = 0;
    this.#lastWriter.clear();
    for (const record of kept) this.record(record);
  }
}

function meets(record: CommitRecord, reads: ReadSet): boolean {
  for (const range of reads.ranges) {
    for (const key of record.points) if (rangeHolds(range, key)) return true;
    for (const written of record.ranges) if (rangesMeet(range, written)) return true;
  }
  if (record.ranges.length === 0) return false;
  for (const key of reads.points) for (const written of record.ranges) if (rangeHolds(written, key)) return true;
  return false;
}

/** What `record` wrote and `reads` read: for telling apart who competes with whom. */
function contended(record: CommitRecord, reads: ReadSet): string {
  const written = new Set(record.points);
  for (const key of reads.points) if (written.has(key)) return key;
  return reads.ranges[0]?.begin ?? record.ranges[0]?.begin ?? '';
}
