/**
 * Sequence sets (RFC 9051 section 9): ranges of sequence numbers or UIDs, kept as ranges so that `1:4294967295` costs nothing.
 */
import type { Cursor } from './cursor.js';
import { ImapSyntaxError } from './limits.js';

/** As written: pairs of ends, `star` for `*`. `saved` is `$`, the result of an earlier SEARCH (RFC 5182). */
export type SequenceSet = { kind: 'ranges'; ends: number[] } | { kind: 'saved' };

/** Stands for `*`: the largest number in use. */
export const star = 0;

/** Ascending, disjoint ranges, both ends inclusive: [from, to, from, to, …]. */
export type Ranges = readonly number[];

export function readSequenceSet(cursor: Cursor): SequenceSet {
  return parseSequenceSet(cursor.setText(), cursor.limits.maxArguments);
}

/** Throws ImapSyntaxError. */
export function parseSequenceSet(text: string, maxRanges: number): SequenceSet {
  if (text === '$') return { kind: 'saved' };
  const ends: number[] = [];
  for (const range of text.split(',')) {
    const colon = range.indexOf(':');
    const first = readEnd(colon < 0 ? range : range.slice(0, colon));
    ends.push(first, colon < 0 ? first : readEnd(range.slice(colon + 1)));
    if (ends.length > maxRanges * 2) throw new ImapSyntaxError('Too many ranges', 'LIMIT', 'NO');
  }
  return { kind: 'ranges', ends };
}

function readEnd(text: string): number {
  if (text === '*') return star;
  // Neither 0 nor more than 32 bits (nz-number).
  if (!/^[0-9]{1,10}$/.test(text)) throw new ImapSyntaxError('Bad sequence set');
  const value = Number(text);
  if (value === 0 || value > 0xffff_ffff) throw new ImapSyntaxError('Bad sequence set');
  return value;
}

/** `*` becomes `largest`; reversed ends are put right, overlaps joined. With nothing in use (`largest` 0) `*` matches nothing. */
export function resolveRanges(ends: readonly number[], largest: number): Ranges {
  const pairs: [number, number][] = [];
  for (let i = 0; i < ends.length; i += 2) {
    const a = ends[i]! === star ? largest : ends[i]!;
    const b = ends[i + 1]! === star ? largest : ends[i + 1]!;
    if (a === 0 || b === 0) continue;
    pairs.push(a <= b ? [a, b] : [b, a]);
  }
  pairs.sort((x, y) => x[0] - y[0]);
  const merged: number[] = [];
  for (const [from, to] of pairs) {
    const last = merged.length - 1;
    if (last > 0 && from <= merged[last]! + 1) merged[last] = Math.max(merged[last]!, to);
    else merged.push(from, to);
  }
  return merged;
}

export function inRanges(ranges: Ranges, value: number): boolean {
  let low = 0;
  let high = ranges.length / 2 - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (value < ranges[middle * 2]!) high = middle - 1;
    else if (value > ranges[middle * 2 + 1]!) low = middle + 1;
    else return true;
  }
  return false;
}

/** `1:3,5` from ascending numbers. With an order other than ascending, runs are joined where they ascend by one (COPYUID). */
export function formatNumbers(numbers: ArrayLike<number>): string {
  const parts: string[] = [];
  for (let i = 0; i < numbers.length; ) {
    const from = numbers[i]!;
    let to = from;
    while (i + 1 < numbers.length && numbers[i + 1] === to + 1) {
      to++;
      i++;
    }
    i++;
    parts.push(from === to ? `${from}` : `${from}:${to}`);
  }
  return parts.join(',');
}

/** Index of the first element that is at least `value`. */
export function lowerBound(sorted: ArrayLike<number>, value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
