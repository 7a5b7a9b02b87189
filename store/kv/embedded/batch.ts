/**
 * Many transactions' writes as one run of bytes that is handed to the writer thread without copying. Per operation: kind (1 byte),
 * two lengths (4 bytes each, little-endian), then the bytes of key and value, or of a range's two ends.
 */
import type { AtomicKind } from '../atomic.js';

const headerBytes = 9;
const firstCapacityBytes = 64 * 1024;
const put = 1;
const clear = 2;
const clearRange = 3;
const atomicKinds: Record<AtomicKind, number> = { add: 4, max: 5, min: 6 };
const atomicNames: Record<number, AtomicKind> = { 4: 'add', 5: 'max', 6: 'min' };

export class BatchEncoder {
  #bytes: Buffer;
  #length = 0;

  /** `recycled`: a buffer that came back from the writer. */
  constructor(recycled?: ArrayBuffer) {
    this.#bytes = Buffer.from(recycled ?? new ArrayBuffer(firstCapacityBytes));
  }

  get length(): number {
    return this.#length;
  }

  /** Takes back what was added since `length` was read. */
  truncate(length: number): void {
    this.#length = length;
  }

  put(key: string, value: Buffer): void {
    const at = this.#header(put, key.length, value.length);
    this.#bytes.write(key, at, key.length, 'latin1');
    this.#bytes.set(value, at + key.length);
  }

  clear(key: string): void {
    const at = this.#header(clear, key.length, 0);
    this.#bytes.write(key, at, key.length, 'latin1');
  }

  clearRange(begin: string, end: string): void {
    const at = this.#header(clearRange, begin.length, end.length);
    this.#bytes.write(begin, at, begin.length, 'latin1');
    this.#bytes.write(end, at + begin.length, end.length, 'latin1');
  }

  /** `operand` is unsigned. */
  atomic(kind: AtomicKind, key: string, operand: bigint): void {
    const at = this.#header(atomicKinds[kind], key.length, 8);
    this.#bytes.write(key, at, key.length, 'latin1');
    this.#bytes.writeBigUInt64LE(operand, at + key.length);
  }

  /** Gives the bytes away; the encoder is done. */
  take(): { buffer: ArrayBuffer; length: number } {
    return { buffer: this.#bytes.buffer as ArrayBuffer, length: this.#length };
  }

  /** Makes room and writes the header; gives the place of the bytes. */
  #header(kind: number, firstBytes: number, secondBytes: number): number {
    const end = this.#length + headerBytes + firstBytes + secondBytes;
    if (end > this.#bytes.length) this.#growTo(end);
    const at = this.#length;
    this.#bytes[at] = kind;
    this.#bytes.writeUInt32LE(firstBytes, at + 1);
    this.#bytes.writeUInt32LE(secondBytes, at + 5);
    this.#length = end;
    return at + headerBytes;
  }

  #growTo(neededBytes: number): void {
    const grown = Buffer.from(new ArrayBuffer(Math.max(neededBytes, this.#bytes.length * 2)));
    this.#bytes.copy(grown, 0, 0, this.#length);
    this.#bytes = grown;
  }
}

/** Where a decoded batch goes. The arrays are views of the batch. */
export interface BatchTarget {
  put(key: Uint8Array, value: Uint8Array): void;
  clear(key: Uint8Array): void;
  clearRange(begin: Uint8Array, end: Uint8Array): void;
  atomic(kind: AtomicKind, key: Uint8Array, operand: bigint): void;
}

/** Plays a batch's operations in their order. */
export function decodeBatch(buffer: ArrayBuffer, length: number, target: BatchTarget): void {
  const bytes = Buffer.from(buffer, 0, length);
  let at = 0;
  while (at < length) {
    const kind = bytes[at]!;
    const middle = at + headerBytes + bytes.readUInt32LE(at + 1);
    const end = middle + bytes.readUInt32LE(at + 5);
    const first = bytes.subarray(at + headerBytes, middle);
    if (kind === put) target.put(first, bytes.subarray(middle, end));
    else if (kind === clear) target.clear(first);
    else if (kind === clearRange) target.clearRange(first, bytes.subarray(middle, end));
    else target.atomic(atomicNames[kind]!, first, bytes.readBigUInt64LE(middle));
    at = end;
  }
}
