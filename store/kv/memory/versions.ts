/** All values that each key has had since the oldest version that somebody may still read. */

import type { KeyValue } from '../contract.js';
import { keyBytes } from '../key-text.js';
import { SortedKeys } from './sorted-keys.js';

interface Version {
  readonly version: number;
  /** `undefined`: the key was cleared. Never changed once it is in here. */
  readonly value: Buffer | undefined;
}

export class VersionedMap {
  readonly #keys = new SortedKeys();
  /** Ascending by version, newest last; never empty. */
  readonly #versions = new Map<string, Version[]>();

  /** Keys that have a value or an old one that is still kept. */
  get size(): number {
    return this.#keys.size;
  }

  /** The kept buffer itself: the caller copies it before it leaves the store. */
  at(key: string, version: number): Buffer | undefined {
    const versions = this.#versions.get(key);
    if (!versions) return undefined;
    for (let at = versions.length - 1; at >= 0; at--) {
      if (versions[at]!.version <= version) return versions[at]!.value;
    }
    return undefined;
  }

  put(key: string, version: number, value: Buffer | undefined): void {
    const versions = this.#versions.get(key);
    if (!versions) {
      if (value === undefined) return;
      this.#versions.set(key, [{ version, value }]);
      this.#keys.add(key);
      return;
    }
    if (versions.at(-1)!.version === version) versions.pop();
    versions.push({ version, value });
  }

  /** Clears all keys of a range; tells which ones had a value. */
  clearRange(begin: string, end: string, version: number): string[] {
    const cleared: string[] = [];
    for (const key of this.#keys.ascending(begin, end)) {
      if (this.#versions.get(key)!.at(-1)!.value !== undefined) cleared.push(key);
    }
    for (const key of cleared) this.put(key, version, undefined);
    return cleared;
  }

  range(begin: string, end: string, version: number, limit: number, reverse: boolean): KeyValue[] {
    const rows: KeyValue[] = [];
    for (const key of reverse ? this.#keys.descending(begin, end) : this.#keys.ascending(begin, end)) {
      if (rows.length >= limit) break;
      const value = this.at(key, version);
      if (value !== undefined) rows.push({ key: keyBytes(key), value: Buffer.from(value) });
    }
    return rows;
  }

  /** Forgets what nobody who reads `floor` or later can see. */
  prune(key: string, floor: number): void {
    const versions = this.#versions.get(key);
    if (!versions) return;
    let kept = versions.length - 1;
    while (kept > 0 && versions[kept]!.version > floor) kept--;
    if (kept > 0) versions.splice(0, kept);
    if (versions.length > 1 || versions[0]!.value !== undefined || versions[0]!.version > floor) return;
    this.#versions.delete(key);
    this.#keys.delete(key);
  }
}
