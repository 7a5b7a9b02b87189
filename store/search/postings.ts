/**
 * In which documents of a segment, and in which of their fields, a term stands. Documents are grouped by the set of fields: most terms have one group.
 *
 * A group is one byte with the fields (bit 7: more groups follow, then comes the length of this one), then the gaps between the documents as varints; or, where
 * that is shorter, a zero byte, the byte with the fields, and a bit for each document.
 */
import { type Bits, type ByteSink, varintBytes } from './bytes.js';
import { type SearchField, searchFields } from './contract.js';

const moreFollow = 0x80;
const fieldBits = 0x7f;
const bitmapMark = 0x00;

/** The bit of each field; part of the format. */
const bitOf = new Map<SearchField, number>(searchFields.map((field, at) => [field, 1 << at]));

export const allFields = fieldBits;

export function maskOf(fields: readonly SearchField[]): number {
  let mask = 0;
  for (const field of fields) mask |= bitOf.get(field) ?? 0;
  return mask;
}

/** Takes the documents of one term after another, ascending within each set of fields, and writes them. */
export class PostingsEncoder {
  readonly #lists: Uint32Array[] = [];
  readonly #lengths = new Uint32Array(fieldBits + 1);
  readonly #masks: number[] = [];

  add(mask: number, document: number): void {
    const length = this.#lengths[mask]!;
    if (length === 0) this.#masks.push(mask);
    let list = this.#lists[mask];
    if (!list || length === list.length) {
      const grown = new Uint32Array(list ? list.length * 2 : 64);
      if (list) grown.set(list);
      this.#lists[mask] = list = grown;
    }
    list[length] = document;
    this.#lengths[mask] = length + 1;
  }

  /** Writes the term; answers how many bytes that took (0: it stands nowhere). Ready for the next term. */
  finish(sink: ByteSink): number {
    const from = sink.length;
    const masks = this.#masks;
    if (masks.length > 1) masks.sort((a, b) => a - b);
    for (let at = 0; at < masks.length; at++) {
      const mask = masks[at]!;
      writeGroup(sink, mask, this.#lists[mask]!, this.#lengths[mask]!, at === masks.length - 1);
      this.#lengths[mask] = 0;
    }
    masks.length = 0;
    return sink.length - from;
  }
}

function writeGroup(sink: ByteSink, mask: number, documents: Uint32Array, count: number, isLast: boolean): void {
  if (count === 1 && isLast) {
    sink.byte(mask);
    sink.varint(documents[0]!);
    return;
  }
  let gapBytes = 0;
  let before = -1;
  for (let at = 0; at < count; at++) {
    gapBytes += varintBytes(documents[at]! - before - 1);
    before = documents[at]!;
  }
  const bitmapBytes = (before >>> 3) + 1;
  const isBitmap = bitmapBytes + 1 < gapBytes;
  if (isBitmap) sink.byte(bitmapMark);
  sink.byte(isLast ? mask : mask | moreFollow);
  if (!isLast) sink.varint(isBitmap ? bitmapBytes : gapBytes);
  if (isBitmap) {
    const bitmap = sink.room(bitmapBytes);
    for (let at = 0; at < count; at++) bitmap[documents[at]! >>> 3]! |= 1 << (documents[at]! & 7);
    return;
  }
  before = -1;
  for (let at = 0; at < count; at++) {
    sink.varint(documents[at]! - before - 1);
    before = documents[at]!;
  }
}

interface Group {
  mask: number;
  isBitmap: boolean;
  from: number;
  to: number;
}

/** The group that begins at `at`. */
function groupAt(bytes: Buffer, at: number, end: number): Group {
  const isBitmap = bytes[at] === bitmapMark;
  if (isBitmap) at++;
  const head = bytes[at++]!;
  if ((head & moreFollow) === 0) return { mask: head, isBitmap, from: at, to: end };
  let length = 0;
  for (let shift = 0, byte = 0x80; byte >= 0x80; shift += 7) {
    byte = bytes[at++]!;
    length |= (byte & 0x7f) << shift;
  }
  return { mask: head & fieldBits, isBitmap, from: at, to: Math.min(end, at + length) };
}

/** Sets the documents of one term that have it in one of these fields. */
export function orPostings(bytes: Buffer, from: number, end: number, fields: number, into: Bits): void {
  for (let next = from; next < end; ) {
    const group = groupAt(bytes, next, end);
    next = group.to;
    if ((group.mask & fields) === 0) continue;
    if (group.isBitmap) {
      for (let at = group.from; at < group.to; at++) {
        const nth = at - group.from;
        into[nth >>> 2]! |= bytes[at]! << ((nth & 3) << 3);
      }
      continue;
    }
    let document = -1;
    for (let at = group.from; at < group.to; ) {
      let byte = bytes[at++]!;
      let gap = byte & 0x7f;
      for (let shift = 7; byte >= 0x80; shift += 7) {
        byte = bytes[at++]!;
        gap |= (byte & 0x7f) << shift;
      }
      document += gap + 1;
      into[document >>> 5]! |= 1 << (document & 31);
    }
  }
}

/** Hands the documents of one term on, under their new numbers; those with a negative one are left out. */
export function copyPostings(bytes: Buffer, from: number, end: number, newNumbers: Int32Array, to: PostingsEncoder): void {
  for (let next = from; next < end; ) {
    const group = groupAt(bytes, next, end);
    next = group.to;
    if (group.isBitmap) {
      for (let at = group.from; at < group.to; at++) {
        for (let bits = bytes[at]!; bits !== 0; bits &= bits - 1) {
          const number = newNumbers[((at - group.from) << 3) + (31 - Math.clz32(bits & -bits))] ?? -1;
          if (number >= 0) to.add(group.mask, number);
        }
      }
      continue;
    }
    let document = -1;
    for (let at = group.from; at < group.to; ) {
      let byte = bytes[at++]!;
      let gap = byte & 0x7f;
      for (let shift = 7; byte >= 0x80; shift += 7) {
        byte = bytes[at++]!;
        gap |= (byte & 0x7f) << shift;
      }
      document += gap + 1;
      const number = newNumbers[document] ?? -1;
      if (number >= 0) to.add(group.mask, number);
    }
  }
}
