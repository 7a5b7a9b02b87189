/**
 * Message ids in 13 bytes instead of 20 characters: 50 bits of time and 50 random bits, as `ids.ts` makes them. Six digits (30 bits) in each of three
 * words, the last two in a byte and the lowest bits of the first word; what does not look like that stands in a list beside them.
 */
import { emailIdLength } from './ids.js';

const digits = '0123456789abcdefghijklmnopqrstuv';
/** Value of each character, 0xff for what is no digit. */
const digitValue = new Uint8Array(256).fill(0xff);
for (let value = 0; value < digits.length; value++) digitValue[digits.charCodeAt(value)] = value;
const codeOf = Uint8Array.from(digits, (digit) => digit.charCodeAt(0));

/** A bit of the second word that no digit uses: the first word is a place in the list of other ids. */
const isOther = 1;
const text = Buffer.alloc(emailIdLength);

/** Bytes of one packed id. */
export const packedIdBytes = 13;

export class PackedIds {
  first: Uint32Array<ArrayBuffer>;
  second: Uint32Array<ArrayBuffer>;
  third: Uint32Array<ArrayBuffer>;
  last: Uint8Array<ArrayBuffer>;
  /** Ids of another form, in the order in which they came; few or none. */
  readonly others: string[] = [];

  constructor(capacity: number) {
    this.first = new Uint32Array(capacity);
    this.second = new Uint32Array(capacity);
    this.third = new Uint32Array(capacity);
    this.last = new Uint8Array(capacity);
  }

  /** The id at `start` of `bytes`, as 20 latin1 characters; false, with nothing written, when it has another form. */
  setBytes(at: number, bytes: Uint8Array, start: number): boolean {
    let bad = 0;
    const six = (from: number) => {
      let word = 0;
      for (let i = from; i < from + 6; i++) {
        const value = digitValue[bytes[i]!]!;
        bad |= value;
        word = (word << 5) | (value & 31);
      }
      return word;
    };
    const first = six(start);
    const second = six(start + 6);
    const third = six(start + 12);
    const high = digitValue[bytes[start + 18]!]!;
    const low = digitValue[bytes[start + 19]!]!;
    if ((bad | high | low) & 0xe0) return false;
    const rest = (high << 5) | low;
    this.first[at] = ((first << 2) | (rest >>> 8)) >>> 0;
    this.second[at] = (second << 2) >>> 0;
    this.third[at] = third;
    this.last[at] = rest & 0xff;
    return true;
  }

  set(at: number, id: string): void {
    if (id.length === emailIdLength && text.write(id, 'latin1') === emailIdLength && this.setBytes(at, text, 0)) return;
    this.first[at] = this.others.push(id) - 1;
    this.second[at] = isOther;
    this.third[at] = 0;
    this.last[at] = 0;
  }

  get(at: number): string {
    const first = this.first[at]!;
    const second = this.second[at]!;
    if (second & isOther) return this.others[first]!;
    const third = this.third[at]!;
    const rest = ((first & 3) << 8) | this.last[at]!;
    for (let i = 0, shift = 27; i < 6; i++, shift -= 5) {
      text[i] = codeOf[(first >>> shift) & 31]!;
      text[i + 6] = codeOf[(second >>> shift) & 31]!;
    }
    for (let i = 12, shift = 25; i < 18; i++, shift -= 5) text[i] = codeOf[(third >>> shift) & 31]!;
    text[18] = codeOf[rest >>> 5]!;
    text[19] = codeOf[rest & 31]!;
    return text.toString('latin1');
  }

  /** Whether the id of this place stands in `others`. */
  isOther(at: number): boolean {
    return (this.second[at]! & isOther) !== 0;
  }

  copyWithin(target: number, begin: number, end: number): void {
    this.first.copyWithin(target, begin, end);
    this.second.copyWithin(target, begin, end);
    this.third.copyWithin(target, begin, end);
    this.last.copyWithin(target, begin, end);
  }
}
