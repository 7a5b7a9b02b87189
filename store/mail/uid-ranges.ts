/** Sets of UIDs as ranges: first and last of one after another, ascending, with a gap between any two. */

export type UidRanges = Uint32Array;

/** Of UIDs that ascend, each once. */
export function rangesOf(uids: ArrayLike<number>): UidRanges {
  const ends: number[] = [];
  for (let at = 0; at < uids.length; at++) {
    const uid = uids[at]!;
    const last = ends.length - 1;
    if (last > 0 && ends[last] === uid - 1) ends[last] = uid;
    else ends.push(uid, uid);
  }
  return Uint32Array.from(ends);
}

export function includesUid(ranges: UidRanges, uid: number): boolean {
  let low = 0;
  let high = ranges.length >>> 1;
  // The first range that ends at `uid` or above.
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ranges[2 * middle + 1]! < uid) low = middle + 1;
    else high = middle;
  }
  return 2 * low < ranges.length && ranges[2 * low]! <= uid;
}

export function countUids(ranges: UidRanges): number {
  let count = 0;
  for (let at = 0; at < ranges.length; at += 2) count += ranges[at + 1]! - ranges[at]! + 1;
  return count;
}

/** The UIDs themselves, ascending, at most `limit` of them. */
export function uidsIn(ranges: UidRanges, limit = Number.POSITIVE_INFINITY): number[] {
  const uids: number[] = [];
  for (let at = 0; at < ranges.length; at += 2) {
    const last = ranges[at + 1]!;
    for (let uid = ranges[at]!; uid <= last; uid++) {
      if (uids.length >= limit) return uids;
      uids.push(uid);
    }
  }
  return uids;
}

/** The lowest UIDs of all these sets together, ascending, each once, at most `limit` of them. */
export function lowestUids(sets: readonly UidRanges[], limit: number): number[] {
  const uids = new Set(sets.flatMap((ranges) => uidsIn(ranges, limit)));
  return [...uids].sort((a, b) => a - b).slice(0, limit);
}

/** What is in the one and not in the other. */
export function withoutUids(ranges: UidRanges, others: UidRanges): UidRanges {
  if (ranges.length === 0 || others.length === 0) return ranges;
  const ends: number[] = [];
  let other = 0;
  for (let at = 0; at < ranges.length; at += 2) {
    let first = ranges[at]!;
    const last = ranges[at + 1]!;
    while (other < others.length && others[other + 1]! < first) other += 2;
    // One of the others may reach into the next range as well: it is passed only when it ends below that.
    for (let cut = other; cut < others.length && others[cut]! <= last && first <= last; cut += 2) {
      if (others[cut]! > first) ends.push(first, others[cut]! - 1);
      first = others[cut + 1]! + 1;
    }
    if (first <= last) ends.push(first, last);
  }
  return Uint32Array.from(ends);
}

/** Distances and lengths as numbers of seven bits a byte, lowest first. */
export function packRanges(ranges: UidRanges): Buffer {
  const out = Buffer.allocUnsafe(ranges.length * 5);
  let at = 0;
  let before = 0;
  for (const end of ranges) {
    let distance = end - before;
    while (distance >= 0x80) {
      out[at++] = (distance & 0x7f) | 0x80;
      distance >>>= 7;
    }
    out[at++] = distance;
    before = end;
  }
  return out.subarray(0, at);
}

/** Throws for bytes that are not what `packRanges` gives. */
export function unpackRanges(bytes: Uint8Array): UidRanges {
  const ends: number[] = [];
  let before = 0;
  for (let at = 0; at < bytes.length; ) {
    let distance = 0;
    for (let factor = 1; ; factor *= 0x80) {
      const byte = bytes[at++];
      if (byte === undefined || factor > 0x8000_0000) throw new Error('unknown format of UID ranges');
      distance += (byte & 0x7f) * factor;
      if (byte < 0x80) break;
    }
    // Only the last of a range may be its first; the next range begins behind a gap.
    const isNextRange = ends.length > 0 && ends.length % 2 === 0;
    before += distance;
    if (before > 0xffff_ffff || (isNextRange && distance < 2)) throw new Error('unknown format of UID ranges');
    ends.push(before);
  }
  if (ends.length % 2 !== 0) throw new Error('unknown format of UID ranges');
  return Uint32Array.from(ends);
}
