/** Arithmetic of sets that are held as ascending, disjoint ranges, both ends inclusive. */
import { lowerBound, type Ranges } from './sequence-set.js';

/** Ranges of one VANISHED response: lines stay below what clients bear (RFC 7162 section 4). */
const rangesPerLine = 500;

/** What of `within` is not in `uids` (ascending). */
export function absentFrom(uids: ArrayLike<number>, within: Ranges): Ranges {
  const absent: number[] = [];
  for (let i = 0; i < within.length; i += 2) {
    let from = within[i]!;
    const to = within[i + 1]!;
    for (let at = lowerBound(uids, from); at < uids.length && uids[at]! <= to; at++) {
      if (uids[at]! > from) absent.push(from, uids[at]! - 1);
      from = uids[at]! + 1;
    }
    if (from <= to) absent.push(from, to);
  }
  return absent;
}

/** The part of `ranges` that lies in [from, to]. */
export function clipRanges(ranges: Ranges, from: number, to: number): Ranges {
  const clipped: number[] = [];
  for (let i = 0; i < ranges.length; i += 2) {
    const low = Math.max(from, ranges[i]!);
    const high = Math.min(to, ranges[i + 1]!);
    if (low <= high) clipped.push(low, high);
  }
  return clipped;
}

/** `41,43:116` in texts of a bearable length; none for no ranges. */
export function formatRanges(ranges: Ranges): string[] {
  const texts: string[] = [];
  let parts: string[] = [];
  for (let i = 0; i < ranges.length; i += 2) {
    parts.push(ranges[i] === ranges[i + 1] ? `${ranges[i]}` : `${ranges[i]}:${ranges[i + 1]}`);
    if (parts.length === rangesPerLine) {
      texts.push(parts.join(','));
      parts = [];
    }
  }
  if (parts.length > 0) texts.push(parts.join(','));
  return texts;
}

/** Ascending numbers, each once, as ranges. */
export function rangesOf(numbers: ArrayLike<number>): Ranges {
  const ranges: number[] = [];
  for (let i = 0; i < numbers.length; i++) {
    const number = numbers[i]!;
    if (ranges.length > 0 && ranges[ranges.length - 1] === number - 1) ranges[ranges.length - 1] = number;
    else ranges.push(number, number);
  }
  return ranges;
}
