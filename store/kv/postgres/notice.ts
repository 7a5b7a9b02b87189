/**
 * What a commit tells other nodes' watches: hashes of the keys and the ranges that were written, as the payload of a NOTIFY
 * (`version:previous:node:base64`, at most 8,000 bytes). `*` in the place of the list: too much to list.
 */
import { type KeyRange, keyBytes } from '../key-text.js';
import type { Entry } from './batch.js';

/** Of the list before base64; NOTIFY takes less than 8,000 bytes in all. */
const maxListBytes = 5_800;

export interface Notice {
  readonly version: number;
  /** The commit before it: if the receiver has not heard of that, it has missed something. */
  readonly previous: number;
  readonly node: string;
  /** Absent: anything may have changed. */
  readonly changes: Changes | undefined;
}

export interface Changes {
  readonly hashes: readonly number[];
  readonly ranges: readonly KeyRange[];
}

/** The part that a batch sends along. */
export function encodeNotice(node: string, entries: readonly Entry[]): string {
  let bytes = 4;
  for (const { hashes, record } of entries) {
    bytes += 4 * hashes.length;
    for (const { begin, end } of record.ranges) bytes += 4 + begin.length + end.length;
  }
  if (bytes > maxListBytes) return `${node}:*`;
  const list = Buffer.allocUnsafe(bytes);
  let at = 2;
  for (const { hashes } of entries) for (const hash of hashes) at = list.writeUInt32BE(hash, at);
  list.writeUInt16BE((at - 2) / 4, 0);
  const countAt = at;
  let ranges = 0;
  at += 2;
  for (const { record } of entries) {
    for (const { begin, end } of record.ranges) {
      at = writeText(list, begin, at);
      at = writeText(list, end, at);
      ranges++;
    }
  }
  list.writeUInt16BE(ranges, countAt);
  return `${node}:${list.toString('base64')}`;
}

function writeText(list: Buffer, text: string, at: number): number {
  list.writeUInt16BE(text.length, at);
  list.set(keyBytes(text), at + 2);
  return at + 2 + text.length;
}

/** Undefined for what is not a notice. */
export function parseNotice(payload: string): Notice | undefined {
  const [version, previous, node, list] = payload.split(':');
  if (list === undefined || !Number.isSafeInteger(Number(version)) || !Number.isSafeInteger(Number(previous))) return undefined;
  const changes = list === '*' ? undefined : decode(Buffer.from(list, 'base64'));
  return { version: Number(version), previous: Number(previous), node: node!, changes };
}

/** A list that is not whole means: anything. */
function decode(list: Buffer): Changes | undefined {
  try {
    const hashes: number[] = [];
    const hashesEnd = 2 + 4 * list.readUInt16BE(0);
    let at = 2;
    for (; at < hashesEnd; at += 4) hashes.push(list.readUInt32BE(at));
    const ranges: KeyRange[] = [];
    let left = list.readUInt16BE(at);
    at += 2;
    const text = () => {
      const end = at + 2 + list.readUInt16BE(at);
      if (end > list.length) throw new RangeError('cut off');
      const found = list.toString('latin1', at + 2, end);
      at = end;
      return found;
    };
    for (; left > 0; left--) ranges.push({ begin: text(), end: text() });
    return { hashes, ranges };
  } catch {
    return undefined;
  }
}
