/**
 * Frames of the direct protocol: four bytes of length (big endian, of what follows), one byte of kind, content. A message's content is its envelope, that of
 * a ping and its answer four bytes that come back. Those of published messages have the number of their topic in place of the kind.
 */
import { gossipLimits, type Topic } from './contract.js';

export const frameKind = { message: 1, ping: 2, pong: 3 } as const;

const lengthBytes = 4;
const headBytes = lengthBytes + 1;
const maxFrameBytes = 1 + gossipLimits.maxMessageBytes;

const topicNumbers: Readonly<Record<Topic, number>> = { membership: 1, changes: 2, control: 3 };
const topicsByNumber = new Map((Object.keys(topicNumbers) as Topic[]).map((topic) => [topicNumbers[topic], topic]));

export const messageFrame = (envelope: Uint8Array): Buffer => envelopeFrame(frameKind.message, envelope);

export const publishedFrame = (topic: Topic, envelope: Uint8Array): Buffer => envelopeFrame(topicNumbers[topic], envelope);

/** Undefined for a topic of a later version. */
export const topicOfFrame = (kind: number): Topic | undefined => topicsByNumber.get(kind);

function envelopeFrame(kind: number, envelope: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(headBytes + envelope.length);
  frame.writeUInt32BE(1 + envelope.length, 0);
  frame[lengthBytes] = kind;
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
