/** Growing bytes with variable-length integers (7 bits a byte, lowest first), and runs of bits: what postings and dictionaries are made of. */

export class ByteSink {
  #bytes: Buffer;
  length = 0;

  constructor(initialBytes = 1_024) {
    this.#bytes = Buffer.allocUnsafe(initialBytes);
  }

  #grow(by: number): void {
    const grown = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.length + by));
    this.#bytes.copy(grown, 0, 0, this.length);
    this.#bytes = grown;
  }

  byte(value: number): void {
    if (this.length === this.#bytes.length) this.#grow(1);
    this.#bytes[this.length++] = value;
  }

  /** An integer below 2^32. */
  varint(value: number): void {
    if (this.length + 5 > this.#bytes.length) this.#grow(5);
    const bytes = this.#bytes;
    let at = this.length;
    while (value > 0x7f) {
      bytes[at++] = (value & 0x7f) | 0x80;
      value >>>= 7;
    }
    bytes[at++] = value;
    this.length = at;
  }

  copy(source: Buffer, from: number, to: number): void {
    if (this.length + to - from > this.#bytes.length) this.#grow(to - from);
    source.copy(this.#bytes, this.length, from, to);
    this.length += to - from;
  }

  text(text: string): void {
    if (this.length + 3 * text.length > this.#bytes.length) this.#grow(3 * text.length);
    this.length += this.#bytes.write(text, this.length, 'utf8');
  }

  /** So many bytes to be filled by the caller at once; zero at first. */
  room(length: number): Buffer {
    if (this.length + length > this.#bytes.length) this.#grow(length);
    const room = this.#bytes.subarray(this.length, this.length + length);
    this.length += length;
    return room.fill(0);
  }

  /** What was written so far, as bytes of its own; the sink is empty afterwards. */
  take(): Buffer {
    const taken = Buffer.from(this.#bytes.subarray(0, this.length));
    this.length = 0;
    return taken;
  }
}

/** How many bytes `varint` takes. */
export function varintBytes(value: number): number {
  if (value < 0x80) return 1;
  if (value < 0x4000) return 2;
  if (value < 0x20_0000) return 3;
  return value < 0x1000_0000 ? 4 : 5;
}

/** Reads what `ByteSink` wrote, in order. */
export class ByteCursor {
  constructor(
    readonly bytes: Buffer,
    public at = 0,
    readonly end = bytes.length,
  ) {}

  varint(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      if (this.at >= this.end || shift > 28) throw new RangeError('an integer is cut off');
      const byte = this.bytes[this.at++]!;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
  }

  take(length: number): Buffer {
    if (this.at + length > this.end) throw new RangeError('bytes are cut off');
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }
}

/** One bit for each document of a segment or a view. */
export type Bits = Uint32Array;

export const newBits = (count: number): Bits => new Uint32Array((count + 31) >>> 5);

export const hasBit = (bits: Bits, at: number): boolean => ((bits[at >>> 5] ?? 0) & (1 << (at & 31))) !== 0;

export function setBit(bits: Bits, at: number): void {
  bits[at >>> 5]! |= 1 << (at & 31);
}

/** Sets the first `count` bits. */
export function fillBits(bits: Bits, count: number): void {
  bits.fill(0xffff_ffff, 0, count >>> 5);
  if (count & 31) bits[count >>> 5]! |= (1 << (count & 31)) - 1;
}

export function andBits(into: Bits, other: Bits): void {
  for (let at = 0; at < into.length; at++) into[at]! &= other[at]!;
}

/** Clears in `into` what is set in `other`. */
export function clearBits(into: Bits, other: Bits): void {
  for (let at = 0; at < into.length; at++) into[at]! &= ~other[at]!;
}

/** Sets in `into`, from bit `base` on, what is set in `other`. */
export function orBitsAt(into: Bits, other: Bits, base: number): void {
  const shift = base & 31;
  const first = base >>> 5;
  for (let at = 0; at < other.length; at++) {
    const word = other[at]!;
    if (word === 0) continue;
    into[first + at]! |= word << shift;
    if (shift !== 0 && first + at + 1 < into.length) into[first + at + 1]! |= word >>> (32 - shift);
  }
}

export function countBits(bits: Bits): number {
  let count = 0;
  for (let word of bits) {
    word -= (word >>> 1) & 0x5555_5555;
    word = (word & 0x3333_3333) + ((word >>> 2) & 0x3333_3333);
    count += Math.imul((word + (word >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
  }
  return count;
}
