/**
 * Arguments in PostgreSQL's binary formats, built by hand: arrays as `array_send` writes them (dimensions, element type, then
 * length-prefixed elements), and the answers that the statements of this folder pack into one `bytea`.
 */
import type { KeyValue } from '../contract.js';

const oids = { bytea: 17, int8: 20, int2: 21, int4: 23, bool: 16 } as const;
const headerBytes = 20;
const nothing = Buffer.alloc(0);
const empty = new Map<number, Buffer>();

/** Grows as elements are added; `take` gives the finished argument, a view of the memory behind it. */
export class BinaryArray {
  #memory: Buffer = nothing;
  #at = headerBytes;
  #count = 0;
  #hasNull = 0;

  constructor(
    private readonly type: keyof typeof oids,
    private readonly initialBytes = 512,
  ) {}

  get count(): number {
    return this.#count;
  }

  get byteLength(): number {
    return this.#at;
  }

  /** A key text (Latin-1). */
  text(text: string): void {
    const at = this.#grow(4 + text.length);
    this.#memory.writeInt32BE(text.length, at);
    this.#memory.write(text, at + 4, 'latin1');
  }

  bytes(bytes: Uint8Array): void {
    const at = this.#grow(4 + bytes.length);
    this.#memory.writeInt32BE(bytes.length, at);
    this.#memory.set(bytes, at + 4);
  }

  null(): void {
    this.#hasNull = 1;
    const at = this.#grow(4);
    this.#memory.writeInt32BE(-1, at);
  }

  int2(value: number): void {
    const at = this.#grow(6);
    this.#memory.writeInt32BE(2, at);
    this.#memory.writeInt16BE(value, at + 4);
  }

  int4(value: number): void {
    const at = this.#grow(8);
    this.#memory.writeInt32BE(4, at);
    this.#memory.writeInt32BE(value, at + 4);
  }

  int8(value: bigint): void {
    const at = this.#grow(12);
    this.#memory.writeInt32BE(8, at);
    this.#memory.writeBigInt64BE(value, at + 4);
  }

  bool(value: boolean): void {
    const at = this.#grow(5);
    this.#memory.writeInt32BE(1, at);
    this.#memory[at + 4] = value ? 1 : 0;
  }

  take(): Buffer {
    if (this.#count === 0) return emptyArray(oids[this.type]);
    this.#memory.writeInt32BE(1, 0);
    this.#memory.writeInt32BE(this.#hasNull, 4);
    this.#memory.writeInt32BE(oids[this.type], 8);
    this.#memory.writeInt32BE(this.#count, 12);
    this.#memory.writeInt32BE(1, 16);
    return this.#memory.subarray(0, this.#at);
  }

  #grow(bytes: number): number {
    const at = this.#at;
    this.#at += bytes;
    this.#count++;
    if (this.#at > this.#memory.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(this.initialBytes, this.#memory.length * 2, this.#at));
      if (this.#count > 1) this.#memory.copy(larger, 0, 0, at);
      this.#memory = larger;
    }
    return at;
  }
}

function emptyArray(oid: number): Buffer {
  let array = empty.get(oid);
  if (!array) {
    array = Buffer.alloc(12);
    array.writeInt32BE(oid, 8);
    empty.set(oid, array);
  }
  return array;
}

/** `[bytes]` of a bytea in text form (`\x…`). */
export function fromHex(text: string): Buffer {
  return Buffer.from(text.slice(2), 'hex');
}

/** Fills `values[index - 1]` from a packed answer: index, length, bytes. */
export function unpackValues(text: string | null | undefined, values: (Buffer | undefined)[]): void {
  if (!text) return;
  const packed = fromHex(text);
  for (let at = 0; at < packed.length; ) {
    const index = packed.readInt32BE(at) - 1;
    const end = at + 8 + packed.readInt32BE(at + 4);
    values[index] = packed.subarray(at + 8, end);
    at = end;
  }
}

/** Adds the pairs of a packed answer (key length, value length, key, value) to `rows`. Gives their bytes. */
export function unpackPairs(text: string | null | undefined, rows: KeyValue[]): number {
  if (!text) return 0;
  const packed = fromHex(text);
  for (let at = 0; at < packed.length; ) {
    const keyAt = at + 8;
    const valueAt = keyAt + packed.readInt32BE(at);
    const end = valueAt + packed.readInt32BE(at + 4);
    rows.push({ key: packed.subarray(keyAt, valueAt), value: packed.subarray(valueAt, end) });
    at = end;
  }
  return packed.length;
}
