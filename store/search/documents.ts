/** The documents of a segment: message ids by number, numbers by message id, and which documents have not all of their text in the index. */
import type { EmailId } from '../mail/contract.js';
import { ByteCursor, ByteSink } from './bytes.js';

/** An id is twenty digits of base 32: two numbers of 50 bits, which is 13 bytes. */
const idChars = 20;
const halfChars = 10;
const idBytes = 13;
const twoTo48 = 2 ** 48;
const notADigit = 0xff;

const digitOf = new Uint8Array(128).fill(notADigit);
for (const [value, digit] of [...'0123456789abcdefghijklmnopqrstuv'].entries()) digitOf[digit.charCodeAt(0)] = value;

/** Ten digits as a number; -1 where they are none. */
function half(id: string, from: number): number {
  let high = 0;
  let low = 0;
  let all = 0;
  for (let at = from; at < from + 5; at++) {
    const digit = digitOf[id.charCodeAt(at)] ?? notADigit;
    all |= digit;
    high = (high << 5) | digit;
  }
  for (let at = from + 5; at < from + halfChars; at++) {
    const digit = digitOf[id.charCodeAt(at)] ?? notADigit;
    all |= digit;
    low = (low << 5) | digit;
  }
  return all > 31 ? -1 : high * 2 ** 25 + low;
}

const halfText = (value: number) => value.toString(32).padStart(halfChars, '0');

/** Whether this is an id that the mail store may have given. */
export function isEmailId(id: EmailId): boolean {
  return id.length === idChars && half(id, 0) >= 0 && half(id, halfChars) >= 0;
}

export interface IndexedDocument {
  emailId: EmailId;
  /** Fields of which not all is in the index. */
  partialFields: number;
}

/** The stored form. Ids must be such that `isEmailId`. */
export function encodeDocuments(documents: readonly IndexedDocument[]): Buffer {
  const sink = new ByteSink(documents.length * idBytes + 16);
  for (const { emailId } of documents) {
    const place = sink.room(idBytes);
    const [times, randoms] = [half(emailId, 0), half(emailId, halfChars)];
    place.writeUIntBE(Math.floor(times / 4), 0, 6);
    place[6] = ((times % 4) << 2) | Math.floor(randoms / twoTo48);
    place.writeUIntBE(randoms % twoTo48, 7, 6);
  }
  let before = -1;
  for (const [number, { partialFields }] of documents.entries()) {
    if (partialFields === 0) continue;
    sink.varint(number - before - 1);
    sink.byte(partialFields);
    before = number;
  }
  return sink.take();
}

/** In memory, about 24 bytes a document. */
export class DocumentTable {
  readonly #times: Float64Array;
  readonly #randoms: Float64Array;
  /** Open addressing: number + 1 of the document, 0 for none. */
  readonly #slots: Int32Array;
  readonly #partial: { number: number; fields: number }[] = [];

  constructor(
    stored: Buffer,
    readonly count: number,
  ) {
    if (stored.length < count * idBytes) throw new RangeError('a table of documents is cut off');
    this.#times = new Float64Array(count);
    this.#randoms = new Float64Array(count);
    let slots = 4;
    while (slots < count * 1.5) slots *= 2;
    this.#slots = new Int32Array(slots);
    for (let number = 0, at = 0; number < count; number++, at += idBytes) {
      const middle = stored[at + 6]!;
      this.#times[number] = stored.readUIntBE(at, 6) * 4 + (middle >>> 2);
      this.#randoms[number] = (middle & 3) * twoTo48 + stored.readUIntBE(at + 7, 6);
      this.#enter(number);
    }
    let number = -1;
    for (const cursor = new ByteCursor(stored, count * idBytes); cursor.at < cursor.end; ) {
      number += cursor.varint() + 1;
      this.#partial.push({ number, fields: cursor.take(1)[0]! });
    }
  }

  get memoryBytes(): number {
    return this.count * 16 + this.#slots.byteLength + this.#partial.length * 32;
  }

  /** Documents of which not all is in the index, ascending. */
  get partial(): readonly { number: number; fields: number }[] {
    return this.#partial;
  }

  #firstSlot(times: number, randoms: number): number {
    // ToInt32 takes the lowest bits, which are random; the time helps where somebody's randomness is poor.
    return (Math.imul(randoms | 0, 0x9e37_79b1) ^ Math.imul(times | 0, 0x85eb_ca6b)) & (this.#slots.length - 1);
  }

  #enter(number: number): void {
    const last = this.#slots.length - 1;
    let slot = this.#firstSlot(this.#times[number]!, this.#randoms[number]!);
    while (this.#slots[slot] !== 0) slot = (slot + 1) & last;
    this.#slots[slot] = number + 1;
  }

  /** The document's number in the segment, or -1. */
  numberOf(id: EmailId): number {
    if (id.length !== idChars) return -1;
    const times = half(id, 0);
    const randoms = half(id, halfChars);
    const last = this.#slots.length - 1;
    for (let slot = this.#firstSlot(times, randoms); ; slot = (slot + 1) & last) {
      const entered = this.#slots[slot]!;
      if (entered === 0) return -1;
      if (this.#randoms[entered - 1] === randoms && this.#times[entered - 1] === times) return entered - 1;
    }
  }

  emailId(number: number): EmailId {
    return halfText(this.#times[number]!) + halfText(this.#randoms[number]!);
  }
}
