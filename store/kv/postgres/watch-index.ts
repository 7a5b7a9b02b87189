/** Watches of one node by the hash of their key, and what is known of recent changes. Firing too often is allowed, missing a change is not. */
import type { KvError } from '../contract.js';
import { type KeyRange, rangeHolds } from '../key-text.js';
import type { Watch } from '../watches.js';
import { keyHash } from './batch.js';
import type { Changes } from './notice.js';

export class WatchIndex {
  readonly #byHash = new Map<number, Set<Watch>>();

  get size(): number {
    let size = 0;
    for (const watches of this.#byHash.values()) size += watches.size;
    return size;
  }

  add(watch: Watch): void {
    if (watch.isSettled) return;
    const hash = keyHash(watch.key);
    let watches = this.#byHash.get(hash);
    if (!watches) this.#byHash.set(hash, (watches = new Set()));
    watches.add(watch);
    watch.onSettled = () => {
      watches.delete(watch);
      if (watches.size === 0 && this.#byHash.get(hash) === watches) this.#byHash.delete(hash);
    };
  }

  /** `writer` is spared its own watches. */
  fire(changes: Changes, writer?: object): void {
    if (this.#byHash.size === 0) return;
    for (const hash of changes.hashes) {
      const watches = this.#byHash.get(hash);
      if (watches) for (const watch of [...watches]) if (!writer || watch.owner !== writer) watch.fire();
    }
    if (changes.ranges.length === 0) return;
    for (const watch of this.#all()) {
      if (writer && watch.owner === writer) continue;
      if (changes.ranges.some((range) => rangeHolds(range, watch.key))) watch.fire();
    }
  }

  fireAll(): void {
    for (const watch of this.#all()) watch.fire();
  }

  failAll(error: KvError): void {
    for (const watch of this.#all()) watch.fail(error);
  }

  #all(): Watch[] {
    return [...this.#byHash.values()].flatMap((watches) => [...watches]);
  }
}

/** Keys of a generation; then the one before it is forgotten. */
const maxHashes = 20_000;
const maxRanges = 1_000;

interface Generation {
  /** Everything above this version, up to the next generation's, is in here. */
  readonly above: number;
  readonly hashes: Map<number, number>;
  readonly ranges: { readonly version: number; readonly range: KeyRange }[];
}

/** What changed at which version, for watches that are set by transactions which read a version that is no longer the newest. */
export class ChangeHistory {
  #older: Generation | undefined;
  #highest: number;
  #newer: Generation;

  constructor(above: number) {
    this.#highest = above;
    this.#newer = { above, hashes: new Map(), ranges: [] };
  }

  /** Forgets everything; changes up to `version` are unknown. */
  restart(version: number): void {
    this.#older = undefined;
    this.#highest = version;
    this.#newer = { above: version, hashes: new Map(), ranges: [] };
  }

  record(version: number, changes: Changes): void {
    if (version > this.#highest) this.#highest = version;
    for (const hash of changes.hashes) {
      if (version > (this.#newer.hashes.get(hash) ?? 0)) this.#newer.hashes.set(hash, version);
    }
    for (const range of changes.ranges) this.#newer.ranges.push({ version, range });
    if (this.#newer.hashes.size < maxHashes && this.#newer.ranges.length < maxRanges) return;
    // Own commits are recorded before earlier ones of others are heard of: the seam is above all that was recorded.
    this.#older = this.#newer;
    this.#newer = { above: this.#highest, hashes: new Map(), ranges: [] };
  }

  /** Whether `key` was, or may have been, changed above `version`. */
  changedSince(key: string, version: number): boolean {
    const oldest = this.#older ?? this.#newer;
    if (version < oldest.above) return true;
    const hash = keyHash(key);
    for (const generation of [this.#newer, this.#older]) {
      if (!generation) continue;
      if ((generation.hashes.get(hash) ?? 0) > version) return true;
      if (generation.ranges.some((one) => one.version > version && rangeHolds(one.range, key))) return true;
    }
    return false;
  }
}
