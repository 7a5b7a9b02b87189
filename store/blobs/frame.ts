/**
 * How a blob lies in an external storage: frames one after the other, each with the compressed content of `frameBytes` bytes (the last one fewer).
 *
 * frame: length of what follows 4 · algorithm 1 · CRC-32 4 · payload. The checksum covers storage id, position, algorithm and payload, so that a whole
 * frame in a wrong place is found too.
 *
 * The head of the blob keeps the stored lengths of groups of frames: a range is read from the beginning of the group where it begins.
 */
import { crc32 } from 'node:zlib';
import { pack, unpack } from './chunk.js';
import { BlobCorrupt, type BlobId } from './contract.js';

const lengthBytes = 4;
const payloadAt = 9;
/** Most groups that a head lists: 2 KiB. With more frames, groups are joined in pairs. */
const maxGroups = 512;

/** Where frames lie: stored bytes of each group of `framesPerGroup` frames (the last one may have fewer). */
export interface FrameIndex {
  frameBytes: number;
  framesPerGroup: number;
  groupBytes: number[];
}

function frameChecksum(storageId: Buffer, index: number, algorithm: number, payload: Buffer): number {
  const position = Buffer.allocUnsafe(5);
  position.writeUInt32BE(index, 0);
  position[4] = algorithm;
  return crc32(payload, crc32(position, crc32(storageId)));
}

/** Makes the frames of one blob, in order, and their index. */
export class FrameEncoder {
  readonly #storageId: Buffer;
  readonly #index: FrameIndex;
  #frames = 0;

  constructor(storageId: Buffer, frameBytes: number) {
    this.#storageId = storageId;
    this.#index = { frameBytes, framesPerGroup: 1, groupBytes: [] };
  }

  /** The next frame. All but the last one have `frameBytes` of content. */
  encode(content: Buffer): Buffer {
    const { algorithm, payload } = pack(content);
    const frame = Buffer.allocUnsafe(payloadAt + payload.length);
    frame.writeUInt32BE(frame.length - lengthBytes, 0);
    frame[lengthBytes] = algorithm;
    frame.writeUInt32BE(frameChecksum(this.#storageId, this.#frames, algorithm, payload), lengthBytes + 1);
    frame.set(payload, payloadAt);
    this.#count(frame.length);
    return frame;
  }

  get index(): FrameIndex {
    return this.#index;
  }

  #count(bytes: number): void {
    const index = this.#index;
    if (this.#frames % index.framesPerGroup > 0) index.groupBytes[index.groupBytes.length - 1]! += bytes;
    else index.groupBytes.push(bytes);
    this.#frames++;
    if (index.groupBytes.length < maxGroups || this.#frames % index.framesPerGroup > 0) return;
    const joined: number[] = [];
    for (let at = 0; at < maxGroups; at += 2) joined.push(index.groupBytes[at]! + index.groupBytes[at + 1]!);
    index.groupBytes = joined;
    index.framesPerGroup *= 2;
  }
}

export function storedBytesOf(index: FrameIndex): number {
  let sum = 0;
  for (const bytes of index.groupBytes) sum += bytes;
  return sum;
}

export interface FrameSpan {
  /** Stored bytes to read. */
  start: number;
  end: number;
  /** Number of the first frame in them. */
  firstFrame: number;
}

/** The stored bytes that hold the content `[start, end)`, which is not empty. */
export function locateFrames(index: FrameIndex, start: number, end: number): FrameSpan {
  const groupContent = index.frameBytes * index.framesPerGroup;
  const firstGroup = Math.floor(start / groupContent);
  const endGroup = Math.ceil(end / groupContent);
  const span = { start: 0, end: 0, firstFrame: firstGroup * index.framesPerGroup };
  for (let group = 0; group < endGroup; group++) {
    const bytes = index.groupBytes[group] ?? 0;
    if (group < firstGroup) span.start += bytes;
    span.end += bytes;
  }
  return span;
}

/** Cuts stored bytes, in whatever pieces they arrive, into frames and decodes them. */
export class FrameDecoder {
  readonly #id: BlobId;
  readonly #storageId: Buffer;
  readonly #frameBytes: number;
  readonly #sizeBytes: number;
  #frame: number;
  #pieces: Buffer[] = [];
  #bytes = 0;
  /** Stored bytes of the frame that is being gathered; unknown until its length has arrived. */
  #wanted = lengthBytes;

  constructor(id: BlobId, storageId: Buffer, frameBytes: number, sizeBytes: number, firstFrame: number) {
    this.#id = id;
    this.#storageId = storageId;
    this.#frameBytes = frameBytes;
    this.#sizeBytes = sizeBytes;
    this.#frame = firstFrame;
  }

  /** Content that is whole now: `at` is where it lies in the blob. Frames that end at or before `from` are not decoded. */
  *push(piece: Buffer, from: number): Generator<{ at: number; content: Buffer }, void, undefined> {
    this.#pieces.push(piece);
    this.#bytes += piece.length;
    while (this.#bytes >= this.#wanted) {
      const joined = this.#pieces.length === 1 ? this.#pieces[0]! : Buffer.concat(this.#pieces, this.#bytes);
      this.#pieces = [joined];
      if (this.#wanted === lengthBytes) {
        this.#wanted = lengthBytes + this.#checkedLength(joined.readUInt32BE(0));
        if (this.#bytes < this.#wanted) return;
      }
      const frame = joined.subarray(0, this.#wanted);
      const rest = joined.subarray(this.#wanted);
      this.#pieces = rest.length > 0 ? [rest] : [];
      this.#bytes = rest.length;
      this.#wanted = lengthBytes;
      const at = this.#frame * this.#frameBytes;
      const expectedBytes = Math.min(this.#frameBytes, this.#sizeBytes - at);
      if (expectedBytes <= 0) throw new BlobCorrupt(this.#id, 'it has more frames than content');
      const index = this.#frame++;
      if (at + expectedBytes > from) yield { at, content: this.#decode(frame, index, expectedBytes) };
    }
  }

  #checkedLength(length: number): number {
    // A payload is never longer than its content: what does not shrink is stored raw.
    if (length > payloadAt - lengthBytes && length <= payloadAt - lengthBytes + this.#frameBytes) return length;
    throw new BlobCorrupt(this.#id, `a frame of ${length} bytes can't be`);
  }

  #decode(frame: Buffer, index: number, expectedBytes: number): Buffer {
    const algorithm = frame[lengthBytes]!;
    const payload = frame.subarray(payloadAt);
    if (frameChecksum(this.#storageId, index, algorithm, payload) !== frame.readUInt32BE(lengthBytes + 1))
      throw new BlobCorrupt(this.#id, `frame ${index} has a wrong checksum`);
    return unpack(this.#id, { algorithm, payload }, expectedBytes);
  }
}
