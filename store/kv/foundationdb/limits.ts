/** What may be written and read: the contract's limits, and the part of the key space that FoundationDB keeps for itself. */
import { KvError, kvLimits } from '../contract.js';
import { asBuffer } from '../key-text.js';

/** Keys that begin with this byte are FoundationDB's own. */
const firstSystemByte = 0xff;
const endOfKeys = Buffer.of(firstSystemByte);

/** Throws for a key that is none of ours. */
export function checkOwnKey(key: Uint8Array): void {
  if (key[0] === firstSystemByte) throw new RangeError("keys that begin with the byte 0xff are FoundationDB's own");
}

/** The range without what lies among FoundationDB's own keys, where nothing of ours can be; undefined when nothing is left. */
export function clamped(begin: Uint8Array, end: Uint8Array): { begin: Buffer; end: Buffer } | undefined {
  const [low, high] = [asBuffer(begin), asBuffer(end)];
  const limit = high[0] === firstSystemByte ? endOfKeys : high;
  return low.compare(limit) < 0 ? { begin: low, end: limit } : undefined;
}

export function checkKeyLength(length: number): void {
  if (length > kvLimits.maxKeyBytes) throw new KvError('too-large', `a key is longer than ${kvLimits.maxKeyBytes} bytes`);
}

export function checkValue(value: Uint8Array): void {
  if (value.length <= kvLimits.maxValueBytes) return;
  throw new KvError('too-large', `a value is longer than ${kvLimits.maxValueBytes} bytes`);
}

export function checkUnsigned(value: bigint): void {
  if (BigInt.asUintN(64, value) !== value) throw new RangeError('an atomic maximum or minimum takes an unsigned 64-bit number');
}
