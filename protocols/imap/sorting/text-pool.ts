/**
 * Many texts, each once, as UTF-8 in one Buffer, with small numbers; and their order by bytes. A text of n bytes costs n + 24 bytes.
 */

/** Longer texts are cut, and what is cut off stays as a hash: two that differ stay different. */
const maxTextChars = 512;
/** Behind this there is nothing more: texts that are still alike differ in zeros at their ends. */
const maxTextBytes = 2_048;
/** Bytes that take part in the native sort at one time, beside the text's number. */
const bytesPerPass = 5;

/** FNV-1a; the texts of one mailbox, where a made collision costs no more than a comparison. */
function hashOf(bytes: Buffer, from: number, to: number): number {
  let hash = 0x811c9dc5;
  for (let i = from; i < to; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193);
  return hash >>> 0;
}

function cut(text: string): string {
  if (text.length <= maxTextChars) return text;
  const rest = Buffer.from(text.slice(maxTextChars), 'utf8');
  const other = hashOf(Buffer.from(rest).reverse(), 0, rest.length);
  return `${text.slice(0, maxTextChars)}\u{10ffff}${rest.length}.${hashOf(rest, 0, rest.length)}.${other}`;
}

export class TextPool {
  #bytes = Buffer.alloc(1_024);
  #used = 0;
  #count = 0;
  /** Where each text ends; it begins where the one before ends. */
  #ends: Uint32Array = new Uint32Array(64);
  /** Open addressing: number + 1, 0 for free. */
  #table: Uint32Array = new Uint32Array(128);
  /** Numbers in the order of their texts, as far as `#ordered` texts. */
  #order: Uint32Array = new Uint32Array(0);
  #ranks: Uint32Array = new Uint32Array(0);

  constructor() {
    this.add('');
  }

  /** Number of the empty text. */
  static readonly empty = 0;

  get size(): number {
    return this.#count;
  }

  get memoryBytes(): number {
    return this.#bytes.length + 4 * (this.#ends.length + this.#table.length + this.#order.length + this.#ranks.length);
  }

  #start(number: number): number {
    return number === 0 ? 0 : this.#ends[number - 1]!;
  }

  text(number: number): string {
    return this.#bytes.toString('utf8', this.#start(number), this.#ends[number]!);
  }

  /** The number of a text; a new one where it was not there. */
  add(whole: string): number {
    const text = cut(whole);
    const needed = this.#used + text.length * 3;
    if (needed > this.#bytes.length) {
      const larger = Buffer.alloc(Math.max(needed, this.#bytes.length * 2));
      this.#bytes.copy(larger, 0, 0, this.#used);
      this.#bytes = larger;
    }
    const end = this.#used + this.#bytes.write(text, this.#used, 'utf8');
    const mask = this.#table.length - 1;
    let slot = hashOf(this.#bytes, this.#used, end) & mask;
    for (; this.#table[slot] !== 0; slot = (slot + 1) & mask) {
      const number = this.#table[slot]! - 1;
      if (this.#bytes.compare(this.#bytes, this.#start(number), this.#ends[number]!, this.#used, end) === 0) return number;
    }
    if (this.#count === this.#ends.length) this.#ends = grown(this.#ends);
    this.#ends[this.#count] = end;
    this.#used = end;
    this.#table[slot] = ++this.#count;
    if (this.#count * 2 > this.#table.length) this.#rehash();
    return this.#count - 1;
  }

  #rehash(): void {
    const table = new Uint32Array(this.#table.length * 2);
    const mask = table.length - 1;
    for (let number = 0; number < this.#count; number++) {
      let slot = hashOf(this.#bytes, this.#start(number), this.#ends[number]!) & mask;
      while (table[slot] !== 0) slot = (slot + 1) & mask;
      table[slot] = number + 1;
    }
    this.#table = table;
  }

  /** By number: the place of each text in the order of their bytes. Made when there are new texts; few new ones are merged in. */
  ranks(): Uint32Array {
    if (this.#order.length !== this.#count) {
      const added = new Uint32Array(this.#count - this.#order.length);
      for (let i = 0; i < added.length; i++) added[i] = this.#order.length + i;
      this.#sort(added);
      this.#order = this.#merged(this.#order, added);
      this.#ranks = new Uint32Array(this.#count);
      for (let i = 0; i < this.#count; i++) this.#ranks[this.#order[i]!] = i;
    }
    return this.#ranks;
  }

  #compare(a: number, b: number): number {
    return this.#bytes.compare(this.#bytes, this.#start(b), this.#ends[b]!, this.#start(a), this.#ends[a]!);
  }

  #merged(one: Uint32Array, other: Uint32Array): Uint32Array {
    if (one.length === 0) return other;
    const merged = new Uint32Array(one.length + other.length);
    let from = 0;
    let at = 0;
    for (const number of other) {
      let low = from;
      let high = one.length;
      while (low < high) {
        const middle = (low + high) >>> 1;
        if (this.#compare(one[middle]!, number) < 0) low = middle + 1;
        else high = middle;
      }
      merged.set(one.subarray(from, low), at);
      at += low - from;
      merged[at++] = number;
      from = low;
    }
    merged.set(one.subarray(from), at);
    return merged;
  }

  /** By five bytes at a time in native sorts; runs of equal ones go on behind those bytes. */
  #sort(numbers: Uint32Array): void {
    if (numbers.length >= 1 << 24) {
      numbers.sort((a, b) => this.#compare(a, b));
      return;
    }
    const keys = new BigUint64Array(numbers.length);
    const words = new Uint32Array(keys.buffer);
    const before = new Uint32Array(numbers.length);
    const pending: [from: number, to: number, offset: number][] = [[0, numbers.length, 0]];
    for (let run = pending.pop(); run; run = pending.pop()) {
      const [from, to, offset] = run;
      if (to - from <= 8 || offset > maxTextBytes) {
        numbers.subarray(from, to).sort((a, b) => this.#compare(a, b));
        continue;
      }
      for (let i = from; i < to; i++) {
        const key = this.#keyOf(numbers[i]!, offset);
        words[2 * i] = (((key & 0xff) << 24) | (i - from)) >>> 0;
        words[2 * i + 1] = key / 256;
        before[i] = numbers[i]!;
      }
      keys.subarray(from, to).sort();
      let runStart = from;
      for (let i = from; i < to; i++) {
        numbers[i] = before[from + (words[2 * i]! & 0xffffff)]!;
        const isNew = i === from || words[2 * i + 1] !== words[2 * i - 1] || words[2 * i]! >>> 24 !== words[2 * i - 2]! >>> 24;
        if (!isNew) continue;
        if (i - runStart > 1) pending.push([runStart, i, offset + bytesPerPass]);
        runStart = i;
      }
      if (to - runStart > 1) pending.push([runStart, to, offset + bytesPerPass]);
    }
  }

  /** Five bytes of a text as a number; zeros behind its end, so that a shorter text comes first. */
  #keyOf(number: number, offset: number): number {
    const start = this.#start(number) + offset;
    const left = this.#ends[number]! - start;
    if (left >= bytesPerPass) return this.#bytes.readUIntBE(start, bytesPerPass);
    return left <= 0 ? 0 : this.#bytes.readUIntBE(start, left) * 256 ** (bytesPerPass - left);
  }
}

function grown(column: Uint32Array): Uint32Array {
  const larger = new Uint32Array(column.length * 2);
  larger.set(column);
  return larger;
}
