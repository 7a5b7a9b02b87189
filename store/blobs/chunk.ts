/**
 * One chunk as it is stored: algorithm 1 · CRC-32 of what follows 4 · payload. LZ4 payloads are the library's size-prefixed block; that size is
 * checked against the expected length before the library sees it, because it allocates whatever the prefix says.
 */
import { crc32 } from 'node:zlib';
import lz4 from 'lz4-napi';
import { BlobCorrupt, type BlobId } from './contract.js';

const algorithmRaw = 0;
const algorithmLz4 = 1;
const payloadAt = 5;

/** Below this LZ4 gains nothing worth a native call. */
const minCompressBytes = 128;

/** Longest stored chunk; under the store's 100 kB limit with room for backends that add to values. */
export const maxStoredChunkBytes = 90_000;
/** Longest content of one chunk: what does not compress is stored as it is. */
export const maxChunkBytes = maxStoredChunkBytes - payloadAt;

/** A payload with the byte that tells how it was compressed. */
export interface Packed {
  algorithm: number;
  payload: Buffer;
}

/** Compresses, or keeps the content as it is where LZ4 would not shorten it. */
export function pack(content: Buffer): Packed {
  const packed = content.length < minCompressBytes ? content : lz4.compressSync(content);
  return packed.length < content.length
    ? { algorithm: algorithmLz4, payload: packed }
    : { algorithm: algorithmRaw, payload: content };
}

/** The content of a payload whose checksum was right. Throws `BlobCorrupt` when it is not `expectedBytes` long. May share memory with it. */
export function unpack(id: BlobId, { algorithm, payload }: Packed, expectedBytes: number): Buffer {
  const content = algorithm === algorithmRaw ? payload : decompress(id, algorithm, payload, expectedBytes);
  if (content.length !== expectedBytes)
    throw new BlobCorrupt(id, `a chunk has ${content.length} bytes instead of ${expectedBytes}`);
  return content;
}

/** Compresses a chunk of at most `maxChunkBytes`; keeps it raw where LZ4 would not shorten it. */
export function encodeChunk(content: Buffer): Buffer {
  if (content.length > maxChunkBytes) throw new RangeError(`a chunk has at most ${maxChunkBytes} bytes`);
  const { algorithm, payload } = pack(content);
  const value = Buffer.allocUnsafe(payloadAt + payload.length);
  value[0] = algorithm;
  value.writeUInt32BE(crc32(payload), 1);
  value.set(payload, payloadAt);
  return value;
}

/** The content of a stored chunk. Throws `BlobCorrupt` when it is not `expectedBytes` long or was damaged. May share memory with `value`. */
export function decodeChunk(id: BlobId, value: Buffer, expectedBytes: number): Buffer {
  if (value.length < payloadAt) throw new BlobCorrupt(id, 'a chunk is too short');
  const payload = value.subarray(payloadAt);
  if (crc32(payload) !== value.readUInt32BE(1)) throw new BlobCorrupt(id, 'a chunk has a wrong checksum');
  return unpack(id, { algorithm: value[0]!, payload }, expectedBytes);
}

function decompress(id: BlobId, algorithm: number, payload: Buffer, expectedBytes: number): Buffer {
  if (algorithm !== algorithmLz4) throw new BlobCorrupt(id, `a chunk is compressed by the unknown algorithm ${algorithm}`);
  if (payload.length < 4 || payload.readUInt32LE(0) !== expectedBytes) throw new BlobCorrupt(id, 'a chunk has a wrong length');
  try {
    return lz4.uncompressSync(payload);
  } catch (error) {
    throw new BlobCorrupt(id, `a chunk does not decompress (${error instanceof Error ? error.message : 'unknown error'})`);
  }
}
