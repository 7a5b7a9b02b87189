/**
 * Frames of the direct protocol: four bytes of length (big endian, of what follows), one byte of kind, content. A message's content is its envelope, that of
 * a ping and its answer four bytes that come back.
 */
import { gossipLimits } from './contract.js';

export const frameKind = { message: 1, ping: 2, pong: 3 } as const;

const lengthBytes = 4;
const headBytes = lengthBytes + 1;
const maxFrameBytes = 1 + gossipLimits.maxMessageBytes;

export function messageFrame(envelope: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(headBytes + envelope.length);
  frame.writeUInt32BE(1 + envelope.length, 0);
  frame[lengthBytes] = frameKind.message;
  frame.set(envelope, headBytes);
  return frame;
}

export function pingFrame(kind: typeof frameKind.ping | typeof frameKind.pong, token: number): Buffer {
  const frame = Buffer.allocUnsafe(headBytes + 4);
  frame.writeUInt32BE(1 + 4, 0);
  frame[lengthBytes] = kind;
  frame.writeUInt32BE(token, headBytes);
  return frame;
}

export class FrameReader {
  #waiting: Buffer | undefined;

  /** `onFrame` is given views of the chunk or of what waited. */
  constructor(private readonly onFrame: (kind: number, content: Buffer) => void) {}

  /** Answers false when a frame has an impossible length; nothing may be pushed after that. */
  push(chunk: Uint8Array): boolean {
    let bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    if (this.#waiting) bytes = Buffer.concat([this.#waiting, bytes]);
    let at = 0;
    while (bytes.length - at >= lengthBytes) {
      const length = bytes.readUInt32BE(at);
      // Looked at before the rest of the frame is waited for: what waits is never more than one frame.
      if (length === 0 || length > maxFrameBytes) return false;
      const end = at + lengthBytes + length;
      if (end > bytes.length) break;
      this.onFrame(bytes[at + lengthBytes]!, bytes.subarray(at + headBytes, end));
      at = end;
    }
    this.#waiting = at < bytes.length ? Buffer.from(bytes.subarray(at)) : undefined;
    return true;
  }
}
