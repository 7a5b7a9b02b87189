/**
 * Fixed-width records of the blob subspace: the head of a blob, the record of an upload, and times. Big-endian; the first byte is the format version.
 *
 * head:   version 1 · layout 1 · tombstone (s, 0 = none) 6 · CRC-32 4 · size 6 · then
 *         inline: one encoded chunk; chunked: chunk size 4 · storage id 16;
 *         external: place 1 · framing 1 · storage id 16 · frame size 4 · frames per group 4 · stored bytes of each group 4.
 *         The checksum covers layout, size and, but for inline blobs, the rest; an encoded chunk has its own.
 * upload: version 1 · state 1 · since (s) 6 · chunks written 4; outside of the store: version 2 · state 1 · since (s) 6 · place 1 · flags 1
 */
import { crc32 } from 'node:zlib';
import { BlobCorrupt, type BlobId } from './contract.js';
import type { ExternalPlace } from './external.js';
import type { FrameIndex } from './frame.js';

const formatVersion = 1;
const layoutInline = 0;
const layoutChunked = 1;
const layoutExternal = 2;
/** Numbers of places in records; never renumbered. */
const places: readonly (ExternalPlace | undefined)[] = [undefined, 'files', 's3'];
/** The frames of frame.ts, each with its own algorithm. */
const framingFrames = 1;
const groupsAt = 44;
const externalUploadVersion = 2;
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
/** The content lies in frames under `storageId`, outside of the key-value store. */
export interface ExternalHead extends HeadBase {
  layout: 'external';
  place: ExternalPlace;
  storageId: Buffer;
  index: FrameIndex;
}
export type BlobHead = InlineHead | ChunkedHead | ExternalHead;

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

export function encodeExternalHead(sizeBytes: number, place: ExternalPlace, storageId: Uint8Array, index: FrameIndex): Buffer {
  const value = headPrefix(layoutExternal, sizeBytes, groupsAt + 4 * index.groupBytes.length);
  value[bodyAt] = places.indexOf(place);
  value[bodyAt + 1] = framingFrames;
  value.set(storageId, bodyAt + 2);
  value.writeUInt32BE(index.frameBytes, groupsAt - 8);
  value.writeUInt32BE(index.framesPerGroup, groupsAt - 4);
  for (const [group, bytes] of index.groupBytes.entries()) value.writeUInt32BE(bytes, groupsAt + 4 * group);
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
  if (value[1] === layoutExternal) return { sizeBytes, tombstoneSeconds, ...decodeExternal(id, value, sizeBytes) };
  const chunkBytes = value[1] === layoutChunked && value.length === bodyAt + 4 + storageIdBytes ? value.readUInt32BE(bodyAt) : 0;
  if (chunkBytes === 0) throw new BlobCorrupt(id, 'unknown head layout');
  return { layout: 'chunked', sizeBytes, tombstoneSeconds, chunkBytes, storageId: value.subarray(bodyAt + 4) };
}

function decodeExternal(id: BlobId, value: Buffer, sizeBytes: number): Omit<ExternalHead, keyof HeadBase> {
  const place = value.length > groupsAt ? places[value[bodyAt]!] : undefined;
  if (!place || value[bodyAt + 1] !== framingFrames)
    throw new BlobCorrupt(id, 'its bytes are in a place or a form that is not known');
  const frameBytes = value.readUInt32BE(groupsAt - 8);
  const framesPerGroup = value.readUInt32BE(groupsAt - 4);
  const groupBytes: number[] = [];
  for (let at = groupsAt; at + 4 <= value.length; at += 4) groupBytes.push(value.readUInt32BE(at));
  if (groupBytes.length !== Math.ceil(sizeBytes / (frameBytes * framesPerGroup)))
    throw new BlobCorrupt(id, 'unknown head layout');
  const storageId = value.subarray(bodyAt + 2, groupsAt - 8);
  return { layout: 'external', place, storageId, index: { frameBytes, framesPerGroup, groupBytes } };
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

/** `writing`: bytes of a blob that nothing links yet. `garbage`: bytes that nothing will ever link. */
interface UploadBase {
  state: 'writing' | 'garbage';
  sinceSeconds: number;
}
export interface StoreUpload extends UploadBase {
  place: 'store';
  /** Chunks 0 … chunkCount - 1 may exist, no others. */
  chunkCount: number;
}
export interface ExternalUpload extends UploadBase {
  place: ExternalPlace;
  /** Garbage whose writer may still be at work: removed now and once more much later. */
  isLingering: boolean;
  /** The first of these two removals is done. */
  isRemovedOnce: boolean;
}
export type UploadRecord = StoreUpload | ExternalUpload;

export function encodeUpload(record: UploadRecord): Buffer {
  const isStore = record.place === 'store';
  const value = Buffer.allocUnsafe(isStore ? 12 : 10);
  value[0] = isStore ? formatVersion : externalUploadVersion;
  value[1] = record.state === 'writing' ? 0 : 1;
  value.writeUIntBE(record.sinceSeconds, 2, 6);
  if (isStore) value.writeUInt32BE(record.chunkCount, 8);
  else {
    value[8] = places.indexOf(record.place);
    value[9] = (record.isLingering ? 1 : 0) | (record.isRemovedOnce ? 2 : 0);
  }
  return value;
}

export function decodeUpload(value: Buffer): UploadRecord {
  const base = { state: value[1] === 0 ? ('writing' as const) : ('garbage' as const) };
  if (value.length === 12 && value[0] === formatVersion)
    return { ...base, sinceSeconds: value.readUIntBE(2, 6), place: 'store', chunkCount: value.readUInt32BE(8) };
  const place = value.length === 10 && value[0] === externalUploadVersion ? places[value[8]!] : undefined;
  if (!place) throw new Error('unknown upload record format');
  const isLingering = (value[9]! & 1) !== 0;
  return { ...base, sinceSeconds: value.readUIntBE(2, 6), place, isLingering, isRemovedOnce: (value[9]! & 2) !== 0 };
}

/** Seconds since the Unix epoch in 6 bytes. */
export function encodeSeconds(seconds: number): Buffer {
  const value = Buffer.allocUnsafe(6);
  value.writeUIntBE(seconds, 0, 6);
  return value;
}

/** 0, which is always old, for what is not a time. */
export const decodeSeconds = (value: Buffer): number => (value.length === 6 ? value.readUIntBE(0, 6) : 0);
