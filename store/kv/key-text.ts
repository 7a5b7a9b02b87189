/**
 * Keys as strings: each byte becomes the character of the same number (Latin-1), so that JavaScript's string order is the byte
 * order of the contract, and keys can stand in a `Map`. Ranges of such keys, and sets of disjoint ranges.
 */

/** `[begin, end)` over key texts. */
export interface KeyRange {
  readonly begin: string;
  readonly end: string;
}

/** The text of a key; sorts as the key's bytes do. */
export function keyText(key: Uint8Array): string {
  return asBuffer(key).toString('latin1');
}

/** The key of a text. */
export function keyBytes(text: string): Buffer {
  return Buffer.from(text, 'latin1');
}

/** The same bytes seen as a `Buffer`, not copied. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function rangeHolds(range: KeyRange, text: string): boolean {
  return text >= range.begin && text < range.end;
}

export function rangesMeet(a: KeyRange, b: KeyRange): boolean {
  return a.begin < b.end && b.begin < a.end;
}

/** Index of the first element of the ascending `texts` that is not below `text`. */
export function lowerBound(texts: readonly string[], text: string): number {
  let low = 0;
  let high = texts.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (texts[middle]! < text) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Disjoint ranges in ascending order; ranges that touch or overlap are joined. */
export class RangeSet {
  #ranges: KeyRange[] = [];

  get isEmpty(): boolean {
    return this.#ranges.length === 0;
  }

  get ranges(): readonly KeyRange[] {
    return this.#ranges;
  }

  add(begin: string, end: string): void {
    if (begin >= end) return;
    const from = this.#firstEndingAtOrAfter(begin);
    let to = from;
    let joinedBegin = begin;
    let joinedEnd = end;
    while (to < this.#ranges.length && this.#ranges[to]!.begin <= end) {
      const range = this.#ranges[to]!;
      if (range.begin < joinedBegin) joinedBegin = range.begin;
      if (range.end > joinedEnd) joinedEnd = range.end;
      to++;
    }
    this.#ranges.splice(from, to - from, { begin: joinedBegin, end: joinedEnd });
  }

  /** The range that holds `text`, if any. */
  find(text: string): KeyRange | undefined {
    const range = this.#ranges[this.#firstEndingAfter(text)];
    return range && range.begin <= text ? range : undefined;
  }

  /** The range that holds the keys right below `end`, if any (for reading backwards). */
  findBelow(end: string): KeyRange | undefined {
    const range = this.#ranges[this.#firstEndingAtOrAfter(end)];
    return range && range.begin < end ? range : undefined;
  }

  meets(begin: string, end: string): boolean {
    const range = this.#ranges[this.#firstEndingAfter(begin)];
    return range !== undefined && range.begin < end;
  }

  #firstEndingAfter(text: string): number {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#ranges[middle]!.end <= text) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #firstEndingAtOrAfter(text: string): number {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#ranges[middle]!.end < text) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
