/**
 * Values of single keys that were read lately, so that rows which many transactions ask for (states, counts, names) are not looked up in SQLite each time: a reader's
 * own page cache is void after each commit.
 *
 * What must be true: an entry holds what its key has had from its version on, through every commit that is known by now. A commit puts what it writes in the place
 * of what was known of its keys as soon as it is checked, long before anybody can read its version; and nothing is put in that such a commit, durable or not, has
 * written since the version that was read. Whoever takes a commit back must clear the cache.
 */
import { applyAtomic } from '../atomic.js';
import type { CommitRecord } from '../history.js';
import { asBuffer, type KeyRange, rangeHolds } from '../key-text.js';
import type { PointWrite } from '../write-buffer.js';

/** Larger values are read each time. */
const maxValueBytes = 8 * 1024;
/** What an entry costs besides its key and value, about. */
const entryOverheadBytes = 200;
/** Cleared ranges that are remembered; then the cache begins anew. */
const maxRanges = 16;

interface Known {
  /** Never handed out: whoever reads may do with the bytes as they like. */
  readonly value: Uint8Array | undefined;
  /** The version that was read, or that wrote it. Readers of older ones must look themselves. */
  readonly version: number;
}

interface Entry extends Known {
  /** Commits that were counted when this was noted. */
  readonly commits: number;
  /** What the key had up to `version`, for those who read while that is on its way to the disk. */
  readonly before: Known | undefined;
}

/** A cleared range, and as the how manieth of the commits it was cleared. */
interface ClearedRange {
  readonly range: KeyRange;
  readonly commits: number;
}

export class ReadCache {
  /** What was asked for since the last change of generations, and what was before; an entry that is not asked for in between goes. */
  #young = new Map<string, Entry>();
  #old = new Map<string, Entry>();
  #youngBytes = 0;
  /** Counted, as several share a version. */
  #commits = 0;
  #cleared: ClearedRange[] = [];

  /** @param maxBytes of all entries together, about */
  constructor(readonly maxBytes: number) {}

  /** What a key has at `version`, if that is known: a copy of the value, or that there is none. */
  find(key: string, version: number): { value: Buffer | undefined } | undefined {
    const entry = this.#entry(key);
    if (!entry) return undefined;
    const known = entry.version <= version ? entry : entry.before;
    if (!known || known.version > version) return undefined;
    return { value: known.value && Buffer.from(known.value) };
  }

  /** Notes what was read at `version`, and answers it for the reader. To be called only where no commit above that version, durable or not, has written the key. */
  note(key: string, value: Uint8Array | undefined, version: number): Buffer | undefined {
    if (value && value.length > maxValueBytes) return asBuffer(value);
    this.#keep(key, { value, version, commits: this.#commits, before: undefined });
    return value && Buffer.from(value);
  }

  /** A commit was checked: its keys have what `writes` says from its version on. Keys without a point write there are not known any more. */
  written({ version, points, ranges }: CommitRecord, writes: ReadonlyMap<string, PointWrite>): void {
    this.#commits++;
    // Ranges are cleared before points are written.
    if (ranges.length > 0) this.#clearRanges(ranges);
    for (const key of points) {
      const entry = this.#entry(key);
      if (!entry) continue;
      const write = writes.get(key);
      const value = write === undefined ? unknown : outcome(write, entry.value);
      if (value === unknown) this.#forget(key);
      else this.#keep(key, { value, version, commits: this.#commits, before: beforeOf(entry, version) });
    }
  }

  clear(): void {
    this.#young.clear();
    this.#old.clear();
    this.#youngBytes = 0;
    this.#cleared = [];
  }

  get size(): number {
    return this.#young.size + this.#old.size;
  }

  /** The entry of a key that no cleared range has met; it is young then. */
  #entry(key: string): Entry | undefined {
    let entry = this.#young.get(key);
    if (!entry) {
      entry = this.#old.get(key);
      if (!entry) return undefined;
      this.#keep(key, entry);
    }
    for (const { range, commits } of this.#cleared) {
      if (entry.commits >= commits || !rangeHolds(range, key)) continue;
      this.#forget(key);
      return undefined;
    }
    return entry;
  }

  #forget(key: string): void {
    this.#young.delete(key);
    this.#old.delete(key);
  }

  #clearRanges(ranges: readonly KeyRange[]): void {
    if (this.#cleared.length + ranges.length > maxRanges) this.clear();
    else for (const range of ranges) this.#cleared.push({ range, commits: this.#commits });
  }

  #keep(key: string, entry: Entry): void {
    this.#old.delete(key);
    this.#young.set(key, entry);
    // What is taken out is not subtracted: generations only change the sooner for it.
    this.#youngBytes += key.length + (entry.value?.length ?? 0) + (entry.before?.value?.length ?? 0) + entryOverheadBytes;
    if (this.#youngBytes * 2 <= this.maxBytes) return;
    this.#old = this.#young;
    this.#young = new Map();
    this.#youngBytes = 0;
  }
}

const unknown = Symbol('a value that is not kept');

/** What a key has after `write`, when it had `value` before. In memory of its own: small buffers are parts of larger ones, which would be kept with them. */
function outcome(write: PointWrite, value: Uint8Array | undefined): Uint8Array | undefined | typeof unknown {
  if (write === null) return undefined;
  if (Buffer.isBuffer(write)) return write.length > maxValueBytes ? unknown : new Uint8Array(write);
  let result = value;
  for (const { kind, operand } of write as Exclude<PointWrite, Buffer | null>) result = applyAtomic(kind, operand, result);
  return result && new Uint8Array(result);
}

/** What readers of versions below `version` find. Two commits of one version are seen together. */
function beforeOf(entry: Entry, version: number): Known | undefined {
  return entry.version < version ? { value: entry.value, version: entry.version } : entry.before;
}
