/**
 * Fixed-width records of the blob subspace: the head of a blob, the record of an upload, and times. Big-endian; the first byte is the format version.
 *
 * head:   version 1 · layout 1 · tombstone (s, 0 = none) 6 · CRC-32 4 · size 6 · then inline: one encoded chunk; chunked: chunk size 4 · storage id 16.
 *         The checksum covers layout, size and, of chunked blobs, the rest; an encoded chunk has its own.
 * upload: version 1 · state 1 · since (s) 6 · chunks written 4
 */
import { crc32 } from 'node:zlib';
import { BlobCorrupt, type BlobId } from './contract.js';

const formatVersion = 1;
const layoutInline = 0;
const layoutChunked = 1;
const tombstoneAt = 2;
const checksumAt = 8;
const sizeAt = 12;
const bodyAt = 18;
export const storageIdBytes = 16;

interface HeadBase {
  sizeBytes: number;
  /** When purge found the blob without links (s); 0 when it lives. */
  tombstoneSeconds: number;
}
/** The content lies in the head itself, as one encoded chunk. */
export interface InlineHead extends HeadBase {
  layout: 'inline';
  encoded: Buffer;
}
/** The content lies in `ceil(sizeBytes / chunkBytes)` chunks under `storageId`. */
export interface ChunkedHead extends HeadBase {
  layout: 'chunked';
  chunkBytes: number;
  storageId: Buffer;
}
export type BlobHead = InlineHead | ChunkedHead;

function headPrefix(layout: number, sizeBytes: number, length: number): Buffer {
  const value = Buffer.allocUnsafe(length);
  value[0] = formatVersion;
  value[1] = layout;
  value.writeUIntBE(0, tombstoneAt, 6);
  value.writeUIntBE(sizeBytes, sizeAt, 6);
  return value;
}

export function encodeInlineHead(sizeBytes: number, encoded: Uint8Array): Buffer {
  const value = headPrefix(layoutInline, sizeBytes, bodyAt + encoded.length);
  value.set(encoded, bodyAt);
  value.writeUInt32BE(headChecksum(value), checksumAt);
  return value;
}

export function encodeChunkedHead(sizeBytes: number, chunkBytes: number, storageId: Uint8Array): Buffer {
  const value = headPrefix(layoutChunked, sizeBytes, bodyAt + 4 + storageIdBytes);
  value.writeUInt32BE(chunkBytes, bodyAt);
  value.set(storageId, bodyAt + 4);
  value.writeUInt32BE(headChecksum(value), checksumAt);
  return value;
}

function headChecksum(head: Buffer): number {
  const layout = head[1]!;
  return crc32(head.subarray(sizeAt, layout === layoutInline ? bodyAt : head.length), layout);
}

/** Throws `BlobCorrupt` for what this version can't read. */
export function decodeHead(id: BlobId, value: Buffer): BlobHead {
  if (value.length < bodyAt || value[0] !== formatVersion) throw new BlobCorrupt(id, 'unknown head format');
  if (headChecksum(value) !== value.readUInt32BE(checksumAt)) throw new BlobCorrupt(id, 'its head has a wrong checksum');
  const sizeBytes = value.readUIntBE(sizeAt, 6);
  const tombstoneSeconds = value.readUIntBE(tombstoneAt, 6);
  if (value[1] === layoutInline) return { layout: 'inline', sizeBytes, tombstoneSeconds, encoded: value.subarray(bodyAt) };
  const chunkBytes = value[1] === layoutChunked && value.length === bodyAt + 4 + storageIdBytes ? value.readUInt32BE(bodyAt) : 0;
  if (chunkBytes === 0) throw new BlobCorrupt(id, 'unknown head layout');
  return { layout: 'chunked', sizeBytes, tombstoneSeconds, chunkBytes, storageId: value.subarray(bodyAt + 4) };
}

/** The same head with another tombstone time; 0 clears it. */
export function withTombstone(head: Buffer, seconds: number): Buffer {
  const value = Buffer.from(head);
  value.writeUIntBE(seconds, tombstoneAt, 6);
  return value;
}

/** Tells it without decoding the rest: every link asks. */
export const isTombstoned = (head: Buffer): boolean => head.readUIntBE(tombstoneAt, 6) !== 0;

export const chunkCountOf = (head: ChunkedHead): number => Math.ceil(head.sizeBytes / head.chunkBytes);

export interface UploadRecord {
  /** `writing`: chunks of a blob that nothing links yet. `garbage`: chunks that nothing will ever link. */
  state: 'writing' | 'garbage';
  sinceSeconds: number;
  /** Chunks 0 … chunkCount - 1 may exist, no others. */
  chunkCount: number;
}

export function encodeUpload(record: UploadRecord): Buffer {
  const value = Buffer.allocUnsafe(12);
  value[0] = formatVersion;
  value[1] = record.state === 'writing' ? 0 : 1;
  value.writeUIntBE(record.sinceSeconds, 2, 6);
  value.writeUInt32BE(record.chunkCount, 8);
  return value;
}

export function decodeUpload(value: Buffer): UploadRecord {
  if (value.length !== 12 || value[0] !== formatVersion) throw new Error('unknown upload record format');
  return {
    state: value[1] === 0 ? 'writing' : 'garbage',
    sinceSeconds: value.readUIntBE(2, 6),
    chunkCount: value.readUInt32BE(8),
  };
}

/** Seconds since the Unix epoch in 6 bytes. */
export function encodeSeconds(seconds: number): Buffer {
  const value = Buffer.allocUnsafe(6);
  value.writeUIntBE(seconds, 0, 6);
  return value;
}

/** 0, which is always old, for what is not a time. */
export const decodeSeconds = (value: Buffer): number => (value.length === 6 ? value.readUIntBE(0, 6) : 0);
