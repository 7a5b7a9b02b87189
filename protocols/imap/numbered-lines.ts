/**
 * FETCH responses of many messages that differ in little but their numbers: each is made from the bytes of the one before it, so that flags of a hundred thousand
 * messages cost neither a string per message nor the encoding of one.
 */
import type { Output } from './output.js';

const maxBlockBytes = 32_768;
/** What is allowed for a line: a block should not be much larger than what will be in it, since a slow client's blocks wait in memory. */
const usualLineBytes = 96;
/** Fewer lines are written as text. */
const minLines = 32;
const zero = 0x30;
const carriageReturn = 0x0d;
const lineFeed = 0x0a;

export class NumberedLines {
  readonly #output: Output;
  /** Between the first number and the second. */
  readonly #middle: string;
  readonly #blockBytes: number;
  #block: Buffer | undefined;
  /** Of the block, what is in use. */
  #used = 0;
  #lineStart = 0;
  #lineBytes = 0;
  #tail: string | undefined;
  /** Numbers that are as long as those of the last line: from `low` to below `high`. */
  #firstLow = 0;
  #firstHigh = 0;
  #secondLow = 0;
  #secondHigh = 0;
  /** Where in a line the digits of its numbers end. */
  #firstEnd = 0;
  #secondEnd = 0;

  /** For about so many lines. */
  constructor(output: Output, middle: string, lines: number) {
    this.#output = output;
    this.#middle = middle;
    this.#blockBytes = Math.min(maxBlockBytes, lines * usualLineBytes);
    if (lines >= minLines) this.#block = Buffer.allocUnsafeSlow(this.#blockBytes);
  }

  /** `* FIRST` middle `SECOND` tail and the end of the line, in latin1; a `second` below 0 is left out. What is written elsewhere comes before, until `flush`. */
  add(first: number, second: number, tail: string): void {
    const block = this.#block;
    const hasSameLengths =
      first >= this.#firstLow && first < this.#firstHigh && second >= this.#secondLow && second < this.#secondHigh;
    if (block === undefined || !hasSameLengths || this.#used + this.#secondEnd + tail.length + 2 > this.#blockBytes) {
      this.#addAnew(first, second, tail);
      return;
    }
    const start = this.#used;
    const isSameTail = tail === this.#tail;
    block.copyWithin(start, this.#lineStart, this.#lineStart + (isSameTail ? this.#lineBytes : this.#secondEnd));
    putDigits(block, start + this.#firstEnd, first);
    if (second >= 0) putDigits(block, start + this.#secondEnd, second);
    if (!isSameTail) {
      let end = start + this.#secondEnd;
      end += block.write(tail, end, 'latin1');
      block[end] = carriageReturn;
      block[end + 1] = lineFeed;
      this.#tail = tail;
      this.#lineBytes = end + 2 - start;
    }
    this.#lineStart = start;
    this.#used += this.#lineBytes;
  }

  /** Hands on what was added; to be called before anything else is written, and at the end. */
  flush(): void {
    if (this.#used === 0 || this.#block === undefined) return;
    const bytes = this.#block.subarray(0, this.#used);
    // A short rest is copied; longer ones are the socket's now.
    const isKept = this.#output.bytes(bytes);
    if (isKept) this.#block = Buffer.allocUnsafeSlow(this.#blockBytes);
    this.#used = 0;
    this.#firstHigh = 0;
  }

  #addAnew(first: number, second: number, tail: string): void {
    const begin = `* ${first}${this.#middle}`;
    const numbers = second < 0 ? begin : `${begin}${second}`;
    const line = `${numbers}${tail}\r\n`;
    if (this.#block === undefined) {
      this.#output.write(line);
      return;
    }
    if (this.#used + line.length > this.#blockBytes) this.flush();
    if (line.length > this.#blockBytes) {
      this.#output.write(line);
      return;
    }
    this.#lineStart = this.#used;
    this.#lineBytes = this.#block.write(line, this.#used, 'latin1');
    this.#used += this.#lineBytes;
    this.#tail = tail;
    this.#firstEnd = begin.length - this.#middle.length;
    this.#secondEnd = numbers.length;
    [this.#firstLow, this.#firstHigh] = sameLength(first);
    [this.#secondLow, this.#secondHigh] = second < 0 ? [Number.NEGATIVE_INFINITY, 0] : sameLength(second);
  }
}

/** From the lowest number of as many digits to below the first of more. */
function sameLength(number: number): [low: number, high: number] {
  const high = 10 ** String(number).length;
  return [number < 10 ? 0 : high / 10, high];
}

/** Writes the digits of a number over as many others that end before `end`. */
function putDigits(bytes: Uint8Array, end: number, number: number): void {
  let at = end;
  let rest = number;
  do {
    const tenth = Math.floor(rest / 10);
    bytes[--at] = zero + (rest - 10 * tenth);
    rest = tenth;
  } while (rest > 0);
}
