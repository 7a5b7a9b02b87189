/**
 * Values of single keys that were read lately, so that rows which many transactions ask for (states, counts, names) are not looked up in SQLite each time: a reader's
 * own page cache is void after each commit.
 *
 * What must be true: an entry holds what its key has had from its version on, through every commit that is known by now. Commits take their keys out as soon as they
 * are checked, long before anybody can read them; and nothing is put in that such a commit, durable or not, has written since the version that was read.
 */
import type { CommitRecord } from '../history.js';
import { asBuffer } from '../key-text.js';

/** Larger values are read each time. */
const maxValueBytes = 8 * 1024;
/** What an entry costs besides its key and value, about. */
const entryOverheadBytes = 200;

interface Entry {
  /** Never handed out: whoever reads may do with the bytes as they like. */
  readonly value: Uint8Array | undefined;
  /** The version that was read. Readers of older ones must look themselves. */
  readonly version: number;
}

export class ReadCache {
  /** What was asked for since the last change of generations, and what was before; an entry that is not asked for in between goes. */
  #young = new Map<string, Entry>();
  #old = new Map<string, Entry>();
  #youngBytes = 0;

  /** @param maxBytes of all entries together, about */
  constructor(readonly maxBytes: number) {}

  /** What a key has at `version`, if that is known: a copy of the value, or that there is none. */
  find(key: string, version: number): { value: Buffer | undefined } | undefined {
    let entry = this.#young.get(key);
    if (!entry) {
      entry = this.#old.get(key);
      if (!entry) return undefined;
      this.#old.delete(key);
      this.#keep(key, entry);
    }
    if (entry.version > version) return undefined;
    return { value: entry.value && Buffer.from(entry.value) };
  }

  /** Notes what was read at `version`, and answers it for the reader. To be called only where no commit above that version, durable or not, has written the key. */
  note(key: string, value: Uint8Array | undefined, version: number): Buffer | undefined {
    if (value && value.length > maxValueBytes) return asBuffer(value);
    this.#old.delete(key);
    this.#keep(key, { value, version });
    return value && Buffer.from(value);
  }

  /** A commit was checked: what it writes is not known any more. */
  written({ points, ranges }: Pick<CommitRecord, 'points' | 'ranges'>): void {
    if (ranges.length > 0) {
      this.clear();
      return;
    }
    for (const key of points) {
      this.#young.delete(key);
      this.#old.delete(key);
    }
  }

  clear(): void {
    this.#young.clear();
    this.#old.clear();
    this.#youngBytes = 0;
  }

  get size(): number {
    return this.#young.size + this.#old.size;
  }

  #keep(key: string, entry: Entry): void {
    this.#young.set(key, entry);
    // What is taken out is not subtracted: generations only change the sooner for it.
    this.#youngBytes += key.length + (entry.value?.length ?? 0) + entryOverheadBytes;
    if (this.#youngBytes * 2 <= this.maxBytes) return;
    this.#old = this.#young;
    this.#young = new Map();
    this.#youngBytes = 0;
  }
}
