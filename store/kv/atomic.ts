/** The three atomic operations on 8-byte little-endian numbers, as FoundationDB defines them. */

export type AtomicKind = 'add' | 'max' | 'min';

export interface AtomicOperation {
  readonly kind: AtomicKind;
  /** Taken modulo 2^64. */
  readonly operand: bigint;
}

/**
 * The value after one operation. A `base` that is shorter than 8 bytes is read as padded with zeros, a longer one as cut to 8 bytes
 * (what FoundationDB does); an absent one is 0 for `add` and `max`, and gives way to the operand in `min`.
 */
export function applyAtomic(kind: AtomicKind, operand: bigint, base: Uint8Array | undefined): Buffer {
  const result = Buffer.allocUnsafe(8);
  const before = base === undefined ? undefined : readNumber(base);
  result.writeBigUInt64LE(combine(kind, operand, before));
  return result;
}

function combine(kind: AtomicKind, operand: bigint, before: bigint | undefined): bigint {
  if (kind === 'add') return BigInt.asUintN(64, (before ?? 0n) + operand);
  if (before === undefined) return operand;
  if (kind === 'max') return before > operand ? before : operand;
  return before < operand ? before : operand;
}

function readNumber(bytes: Uint8Array): bigint {
  if (bytes.length >= 8) return Buffer.from(bytes.buffer, bytes.byteOffset, 8).readBigUInt64LE(0);
  const padded = Buffer.alloc(8);
  padded.set(bytes);
  return padded.readBigUInt64LE(0);
}
