/**
 * Looking for a piece of a wildcard pattern in a text, in time linear in the text: a row of fixed units, with places among them (`any`)
 * that take every unit.
 */

/** The unit of a pattern that stands for any one unit of the text. */
export const any = 0xffff_ffff;

export interface Piece {
  /** How many units of a text it takes. */
  readonly length: number;
  /** Where `any` stands in it. */
  readonly wildcards: readonly number[];
  /** Work for one unit of text that is searched, in units compared; at least 1. */
  readonly cost: number;
  isAt(text: Uint32Array, at: number): boolean;
  /** First place at or behind `from` where it stands and ends at `end` or before; -1 for none. */
  find(text: Uint32Array, from: number, end: number): number;
}

export function pieceOf(units: readonly number[]): Piece {
  const pattern = Uint32Array.from(units);
  const wildcards = units.flatMap((unit, index) => (unit === any ? [index] : []));
  const find =
    wildcards.length === 0
      ? prefixSearch(pattern)
      : wildcards.length === pattern.length
        ? anywhere(pattern.length)
        : bitSearch(pattern);
  return {
    length: pattern.length,
    wildcards,
    cost: wildcards.length === 0 ? 1 : Math.ceil(pattern.length / wordBits),
    isAt(text, at) {
      for (let i = 0; i < pattern.length; i++) if (pattern[i] !== any && pattern[i] !== text[at + i]) return false;
      return true;
    },
    find,
  };
}

function anywhere(length: number): Piece['find'] {
  return (_text, from, end) => (from + length <= end ? from : -1);
}

function prefixSearch(pattern: Uint32Array): Piece['find'] {
  const find = knuthMorrisPratt(pattern);
  return (text, from, end) => find((i) => text[i]!, from, end);
}

/** How long a start of the pattern is known to stand at the end of what was read. */
function knuthMorrisPratt(pattern: Uint32Array): (unitAt: (index: number) => number, from: number, end: number) => number {
  let borders: Uint32Array | undefined;
  return (unitAt, from, end) => {
    if (pattern.length === 0) return from <= end ? from : -1;
    borders ??= bordersOf(pattern);
    let matched = 0;
    for (let i = from; i < end; i++) {
      const unit = unitAt(i);
      while (matched > 0 && pattern[matched] !== unit) matched = borders[matched - 1]!;
      if (pattern[matched] === unit) matched++;
      if (matched === pattern.length) return i + 1 - matched;
    }
    return -1;
  };
}

/** Longer ones are searched by our own means: V8 prepares 250 characters of a pattern, and compares the others again at every place. */
const maxNativeSearchChars = 250;

/** Looks for a fixed text in time linear in what is searched. Gives its first place at or behind `from`, or -1. */
export function textSearch(wanted: string): (text: string, from: number) => number {
  if (wanted.length <= maxNativeSearchChars) return (text, from) => text.indexOf(wanted, from);
  const pattern = new Uint32Array(wanted.length);
  for (let i = 0; i < wanted.length; i++) pattern[i] = wanted.charCodeAt(i);
  const find = knuthMorrisPratt(pattern);
  return (text, from) => find((i) => text.charCodeAt(i), from, text.length);
}

function bordersOf(pattern: Uint32Array): Uint32Array {
  const borders = new Uint32Array(pattern.length);
  for (let i = 1, length = 0; i < pattern.length; i++) {
    while (length > 0 && pattern[i] !== pattern[length]) length = borders[length - 1]!;
    if (pattern[i] === pattern[length]) length++;
    borders[i] = length;
  }
  return borders;
}

const wordBits = 32;

/** Baeza-Yates, Gonnet ("shift-and"): one bit for each start of the pattern that stands at the end of what was read. */
function bitSearch(pattern: Uint32Array): Piece['find'] {
  const words = Math.ceil(pattern.length / wordBits);
  const lastBit = 1 << ((pattern.length - 1) % wordBits);
  let masks: { known: Map<number, Int32Array>; other: Int32Array } | undefined;
  return (text, from, end) => {
    masks ??= masksOf(pattern, words);
    const state = new Int32Array(words);
    for (let i = from; i < end; i++) {
      const mask = masks.known.get(text[i]!) ?? masks.other;
      let carry = 1;
      for (let word = 0; word < words; word++) {
        const old = state[word]!;
        state[word] = ((old << 1) | carry) & mask[word]!;
        carry = old >>> 31;
      }
      if ((state[words - 1]! & lastBit) !== 0) return i + 1 - pattern.length;
    }
    return -1;
  };
}

function masksOf(pattern: Uint32Array, words: number) {
  const other = new Int32Array(words);
  pattern.forEach((unit, i) => {
    if (unit === any) other[i >> 5]! |= 1 << (i & 31);
  });
  const known = new Map<number, Int32Array>();
  pattern.forEach((unit, i) => {
    if (unit === any) return;
    let mask = known.get(unit);
    if (!mask) known.set(unit, (mask = Int32Array.from(other)));
    mask[i >> 5]! |= 1 << (i & 31);
  });
  return { known, other };
}
