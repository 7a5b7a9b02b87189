import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlobCorrupt } from './contract.js';
import { FrameDecoder, FrameEncoder, locateFrames, storedBytesOf } from './frame.js';
import { decodeHead, encodeExternalHead } from './records.js';
import { textOf } from './test-bench.js';

const id = 'ab'.repeat(32);
const storageId = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex');

function encodeAll(content: Buffer, frameBytes: number, under = storageId) {
  const encoder = new FrameEncoder(under, frameBytes);
  const frames: Buffer[] = [];
  for (let at = 0; at < content.length; at += frameBytes) frames.push(encoder.encode(content.subarray(at, at + frameBytes)));
  return { stored: Buffer.concat(frames), index: encoder.index };
}

function decodeRange(
  stored: Buffer,
  index: ReturnType<typeof encodeAll>['index'],
  sizeBytes: number,
  start: number,
  end: number,
  pieceBytes: number,
) {
  const span = locateFrames(index, start, end);
  const decoder = new FrameDecoder(id, storageId, index.frameBytes, sizeBytes, span.firstFrame);
  const parts: Buffer[] = [];
  for (let at = span.start; at < span.end; at += pieceBytes) {
    for (const { at: from, content } of decoder.push(stored.subarray(at, Math.min(span.end, at + pieceBytes)), start))
      parts.push(content.subarray(Math.max(0, start - from), Math.max(0, end - from)));
  }
  return Buffer.concat(parts);
}

describe('frames', () => {
  it('give any range of any content, cut into any pieces', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40_000 }),
        fc.integer({ min: 1, max: 500 }),
        fc.integer({ min: 1, max: 3_000 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.boolean(),
        (sizeBytes, frameBytes, pieceBytes, from, part, isText) => {
          const content = isText ? textOf(sizeBytes) : randomBytes(sizeBytes);
          const { stored, index } = encodeAll(content, frameBytes);
          expect(storedBytesOf(index)).toBe(stored.length);
          const start = Math.floor(from * (sizeBytes - 1));
          const end = start + 1 + Math.floor(part * (sizeBytes - start - 1));
          const got = decodeRange(stored, index, sizeBytes, start, end, pieceBytes);
          expect(got.equals(content.subarray(start, end))).toBe(true);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('keep their index short, however long the content is', () => {
    const content = randomBytes(100_000);
    const { stored, index } = encodeAll(content, 17);
    expect(index.groupBytes.length).toBeLessThanOrEqual(512);
    expect(index.framesPerGroup).toBe(16);
    const head = decodeHead(id, encodeExternalHead(content.length, 's3', storageId, index));
    expect(head).toMatchObject({ layout: 'external', place: 's3', sizeBytes: content.length, tombstoneSeconds: 0, index });
    expect(decodeRange(stored, index, content.length, 50_001, 50_009, 64).equals(content.subarray(50_001, 50_009))).toBe(true);
  });

  it('are not accepted in another place or of another object', () => {
    const content = randomBytes(3_000);
    const { stored, index } = encodeAll(content, 1_000);
    const frame = index.groupBytes[0]!;
    const swapped = Buffer.concat([stored.subarray(frame, 2 * frame), stored.subarray(0, frame), stored.subarray(2 * frame)]);
    expect(() => decodeRange(swapped, index, 3_000, 0, 3_000, 500)).toThrow(BlobCorrupt);
    const strange = encodeAll(content, 1_000, randomBytes(16));
    expect(() => decodeRange(strange.stored, index, 3_000, 0, 3_000, 500)).toThrow(BlobCorrupt);
  });

  it('never make the reader gather more than a frame can have', () => {
    const { stored, index } = encodeAll(randomBytes(1_000), 1_000);
    stored.writeUInt32BE(0x7fff_ffff, 0);
    expect(() => decodeRange(stored, index, 1_000, 0, 1_000, 100)).toThrow('a frame of 2147483647 bytes');
  });
});
