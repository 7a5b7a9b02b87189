/** A range as a transaction sees it: the snapshot's pairs, with the transaction's own writes laid over them. */

import type { Snapshot } from './backend.js';
import type { KeyValue } from './contract.js';
import { type KeyRange, keyBytes, keyText } from './key-text.js';
import type { WriteBuffer } from './write-buffer.js';

/** Pairs are asked for in pages of at least this many, so that a few cleared keys do not cost a round trip each. */
const minPageRows = 32;

/** The first `limit` pairs of `range` (the last ones, in falling order, when `reverse`). */
export async function mergeRange(
  view: Snapshot,
  writes: WriteBuffer,
  range: KeyRange,
  limit: number,
  reverse: boolean,
): Promise<KeyValue[]> {
  const merged: KeyValue[] = [];
  const ownKeys = writes.keysIn(range.begin, range.end);
  if (reverse) ownKeys.reverse();
  let ownAt = 0;
  const before = (a: string, b: string) => (reverse ? a > b : a < b);
  const push = (key: string, base: KeyValue | undefined) => {
    const value = writes.overlay(key, base?.value);
    if (value !== undefined && merged.length < limit) merged.push({ key: base?.key ?? keyBytes(key), value });
  };

  let rest: KeyRange | undefined = range;
  while (merged.length < limit) {
    rest = rest && beyondCleared(rest, writes, reverse);
    const pageRows = Math.max(limit - merged.length, minPageRows);
    const page: KeyValue[] = rest ? await view.getRange(keyBytes(rest.begin), keyBytes(rest.end), pageRows, reverse) : [];
    let last = '';
    for (const row of page) {
      last = keyText(row.key);
      while (ownAt < ownKeys.length && before(ownKeys[ownAt]!, last)) push(ownKeys[ownAt++]!, undefined);
      if (ownKeys[ownAt] === last) ownAt++;
      push(last, row);
    }
    if (page.length < pageRows) {
      while (ownAt < ownKeys.length && merged.length < limit) push(ownKeys[ownAt++]!, undefined);
      break;
    }
    rest = reverse ? { begin: range.begin, end: last } : { begin: `${last}\0`, end: range.end };
  }
  return merged;
}

/** What is left of `range` after the cleared range that it begins in (ends in, when `reverse`); nothing of it need be read. */
function beyondCleared(range: KeyRange, writes: WriteBuffer, reverse: boolean): KeyRange | undefined {
  const cleared = reverse ? writes.clearedBelow(range.end) : writes.clearedAt(range.begin);
  if (!cleared) return range;
  const rest = reverse ? { begin: range.begin, end: cleared.begin } : { begin: cleared.end, end: range.end };
  return rest.begin < rest.end ? rest : undefined;
}
