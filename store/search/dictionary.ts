/**
 * The terms of a segment in the order of their UTF-8 bytes, and where the value of each (its postings) lies. In memory the terms are one run of bytes with line
 * feeds between them, so that "all terms that contain this" is one native search; in the store they are deflated piece by piece.
 */
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { ByteCursor, ByteSink } from './bytes.js';

const separator = 0x0a;
const pieceBytes = 128 * 1_024;
/** Higher levels take much longer and gain next to nothing on sorted words. */
const deflateLevel = 3;

/** A dictionary in its stored form. */
export interface StoredDictionary {
  /** Pieces: varint of the deflated length, deflated `term\nterm\n…`. */
  terms: Buffer;
  /** The same of the varints of the lengths of values. */
  lengths: Buffer;
  count: number;
  /** What the terms take in memory. */
  termBytes: number;
}

class PieceWriter {
  readonly raw = new ByteSink();
  readonly #out = new ByteSink();

  /** To be called between two elements. */
  cut(atLeastBytes = pieceBytes): void {
    if (this.raw.length < atLeastBytes) return;
    const deflated = deflateRawSync(this.raw.take(), { level: deflateLevel });
    this.#out.varint(deflated.length);
    this.#out.copy(deflated, 0, deflated.length);
  }

  finish(): Buffer {
    this.cut(1);
    return this.#out.take();
  }
}

/** Takes terms in ascending order. */
export class DictionaryWriter {
  readonly #terms = new PieceWriter();
  readonly #lengths = new PieceWriter();
  #count = 0;
  #termBytes = 0;

  get count(): number {
    return this.#count;
  }

  /** A term and the length of its value. */
  add(term: string, valueBytes: number): void {
    const before = this.#terms.raw.length;
    this.#terms.raw.text(term);
    this.#end(this.#terms.raw.length - before, valueBytes);
  }

  addBytes(source: Buffer, from: number, to: number, valueBytes: number): void {
    this.#terms.raw.copy(source, from, to);
    this.#end(to - from, valueBytes);
  }

  #end(bytes: number, valueBytes: number): void {
    this.#terms.raw.byte(separator);
    this.#lengths.raw.varint(valueBytes);
    this.#termBytes += bytes + 1;
    this.#count++;
    this.#terms.cut();
    this.#lengths.cut();
  }

  finish(): StoredDictionary {
    return { terms: this.#terms.finish(), lengths: this.#lengths.finish(), count: this.#count, termBytes: this.#termBytes };
  }
}

function* pieces(stored: Buffer): Generator<Buffer, void, undefined> {
  for (const cursor = new ByteCursor(stored); cursor.at < cursor.end; ) yield inflateRawSync(cursor.take(cursor.varint()));
}

/** In memory; terms are known by their ordinals from 0. */
export class Dictionary {
  readonly count: number;
  /** A separator, then each term with one behind it. */
  readonly bytes: Buffer;
  /** Where each term begins in `bytes`; one more for the end. */
  readonly starts: Uint32Array;
  /** Where each value begins among the values; one more for the end. */
  readonly valueStarts: Uint32Array;

  /** Throws RangeError or what zlib throws when the stored form is damaged. */
  constructor(stored: StoredDictionary) {
    this.count = stored.count;
    this.bytes = Buffer.allocUnsafe(1 + stored.termBytes);
    this.starts = new Uint32Array(stored.count + 1);
    this.valueStarts = new Uint32Array(stored.count + 1);
    this.bytes[0] = separator;
    let at = 1;
    for (const piece of pieces(stored.terms)) at += piece.copy(this.bytes, at);
    if (at !== this.bytes.length) throw new RangeError('a dictionary is cut off');
    let nth = 0;
    const { bytes, starts } = this;
    starts[0] = 1;
    // One pass in here beats a native search for each of some hundred thousand terms.
    for (let end = 1; end < bytes.length; end++) if (bytes[end] === separator) starts[++nth] = end + 1;
    let value = 0;
    let values = 0;
    for (const piece of pieces(stored.lengths)) {
      for (const cursor = new ByteCursor(piece); cursor.at < cursor.end; ) this.valueStarts[++values] = value += cursor.varint();
    }
    if (nth !== this.count || values !== this.count)
      throw new RangeError('a dictionary does not have as many terms as it should');
  }

  get memoryBytes(): number {
    return this.bytes.length + this.starts.byteLength + this.valueStarts.byteLength;
  }

  term(ordinal: number): string {
    return this.bytes.toString('utf8', this.starts[ordinal]!, this.starts[ordinal + 1]! - 1);
  }

  /** The ordinal of the first term that is not before `term`. */
  #lowerBound(term: Buffer): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.bytes.compare(term, 0, term.length, this.starts[middle]!, this.starts[middle + 1]! - 1) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** -1 when there is no such term. */
  ordinalOf(term: string): number {
    const wanted = Buffer.from(term, 'utf8');
    const at = this.#lowerBound(wanted);
    if (at === this.count || this.starts[at + 1]! - 1 - this.starts[at]! !== wanted.length) return -1;
    return this.#startsWith(at, wanted) ? at : -1;
  }

  #startsWith(ordinal: number, prefix: Buffer): boolean {
    const start = this.starts[ordinal]!;
    const end = this.starts[ordinal + 1]! - 1;
    return end - start >= prefix.length && this.bytes.compare(prefix, 0, prefix.length, start, start + prefix.length) === 0;
  }

  /** Ordinals of the terms that begin with this, ascending. */
  withPrefix(prefix: string): number[] {
    const wanted = Buffer.from(prefix, 'utf8');
    const found: number[] = [];
    for (let at = this.#lowerBound(wanted); at < this.count && this.#startsWith(at, wanted); at++) found.push(at);
    return found;
  }

  /** Ordinals of the terms that end with this, ascending. */
  withSuffix(suffix: string): number[] {
    return this.#holding(Buffer.from(`${suffix}\n`, 'utf8'));
  }

  /** Ordinals of the terms that contain this anywhere, ascending. */
  containing(text: string): number[] {
    return this.#holding(Buffer.from(text, 'utf8'));
  }

  #holding(needle: Buffer): number[] {
    const found: number[] = [];
    const { bytes, starts } = this;
    let ordinal = -1;
    for (let at = bytes.indexOf(needle, 1); at >= 0; at = bytes.indexOf(needle, starts[ordinal + 1]!)) {
      ordinal = this.#ordinalAt(at, ordinal + 1);
      found.push(ordinal);
      if (ordinal + 1 >= this.count) break;
    }
    return found;
  }

  /** The term that covers this place in `bytes`, at `from` or behind it. */
  #ordinalAt(place: number, from: number): number {
    const { starts } = this;
    let step = 1;
    while (from + step < this.count && starts[from + step]! <= place) step *= 2;
    let low = from + (step >>> 1);
    let high = Math.min(this.count, from + step);
    if (step === 1) low = from;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (starts[middle]! <= place) low = middle;
      else high = middle;
    }
    return low;
  }
}

/** Compares term `a` of one dictionary with term `b` of another. A loop: most terms differ within a few bytes, for which a native call is too dear. */
export function compareTerms(left: Dictionary, a: number, right: Dictionary, b: number): number {
  const leftBytes = left.bytes;
  const rightBytes = right.bytes;
  let i = left.starts[a]!;
  let j = right.starts[b]!;
  const leftEnd = left.starts[a + 1]! - 1;
  const rightEnd = right.starts[b + 1]! - 1;
  while (i < leftEnd && j < rightEnd) {
    const difference = leftBytes[i++]! - rightBytes[j++]!;
    if (difference !== 0) return difference;
  }
  return leftEnd - i - (rightEnd - j);
}

const surrogates = /[\ud800-\udfff]/;
/** From here on the order of UTF-16 units, which is JavaScript's, may not be that of UTF-8 bytes. */
const firstSurrogate = 0xd800;

/** Terms in the order of their UTF-8 bytes, lot by lot, so that others may have a turn between: those of a lot begin with the same two characters. */
export function* sortedLots(terms: Iterable<string>): Generator<string[], void, undefined> {
  const lots = new Map<number, string[]>();
  for (const term of terms) {
    const first = term.charCodeAt(0);
    const second = term.length > 1 ? Math.min(term.charCodeAt(1), firstSurrogate) + 1 : 0;
    const place = first < firstSurrogate ? first * 0x1_0000 + second : firstSurrogate * 0x1_0000;
    const lot = lots.get(place);
    if (lot) lot.push(term);
    else lots.set(place, [term]);
  }
  for (const place of Float64Array.from(lots.keys()).sort()) yield inByteOrder(lots.get(place)!);
}

function inByteOrder(terms: string[]): string[] {
  if (terms.length < 2) return terms;
  if (!terms.some((term) => surrogates.test(term))) return terms.sort();
  return terms
    .map((term) => ({ term, bytes: Buffer.from(term, 'utf8') }))
    .sort((a, b) => a.bytes.compare(b.bytes))
    .map(({ term }) => term);
}
