import { describe, expect, it } from 'vitest';
import { BlobCorrupt } from './contract.js';
import {
  decodeHead,
  decodeUpload,
  encodeChunkedHead,
  encodeExternalHead,
  encodeInlineHead,
  encodeUpload,
  type UploadRecord,
  withTombstone,
} from './records.js';

const id = 'cd'.repeat(32);
const storageId = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex');
const hex = (text: string) => Buffer.from(text, 'hex');

describe('records of the first format', () => {
  const chunked = '0101000000000000cda8942c000000030d4000010000000102030405060708090a0b0c0d0e0f';
  const tombstoned = '010100006553f100cda8942c000000030d4000010000000102030405060708090a0b0c0d0e0f';
  const inline = '010000000000000028cbf0190000000000030012345678616263';
  const upload = '010100006553f1000000004d';

  it('are read and still written the same', () => {
    const head = { layout: 'chunked', sizeBytes: 200_000, chunkBytes: 65_536, storageId };
    expect(decodeHead(id, hex(chunked))).toEqual({ ...head, tombstoneSeconds: 0 });
    expect(decodeHead(id, hex(tombstoned))).toEqual({ ...head, tombstoneSeconds: 1_700_000_000 });
    expect(encodeChunkedHead(200_000, 65_536, storageId).toString('hex')).toBe(chunked);
    expect(withTombstone(hex(chunked), 1_700_000_000).toString('hex')).toBe(tombstoned);
    expect(decodeHead(id, hex(inline))).toMatchObject({ layout: 'inline', sizeBytes: 3, encoded: hex('0012345678616263') });
    expect(encodeInlineHead(3, hex('0012345678616263')).toString('hex')).toBe(inline);
    const record: UploadRecord = { state: 'garbage', sinceSeconds: 1_700_000_000, place: 'store', chunkCount: 77 };
    expect(decodeUpload(hex(upload))).toEqual(record);
    expect(encodeUpload(record).toString('hex')).toBe(upload);
  });
});

describe('records of what lies outside', () => {
  const index = { frameBytes: 1_000, framesPerGroup: 2, groupBytes: [1_500, 900] };

  it('come back as they were', () => {
    for (const place of ['files', 's3'] as const) {
      const head = withTombstone(encodeExternalHead(3_500, place, storageId, index), 77);
      expect(decodeHead(id, head)).toEqual({
        layout: 'external',
        sizeBytes: 3_500,
        tombstoneSeconds: 77,
        place,
        storageId,
        index,
      });
      for (const isLingering of [false, true]) {
        const record: UploadRecord = { state: 'garbage', sinceSeconds: 9, place, isLingering, isRemovedOnce: !isLingering };
        expect(decodeUpload(encodeUpload(record))).toEqual(record);
      }
    }
  });

  it('are refused wherever a byte changed, unless it is the tombstone, and whatever is missing', () => {
    const head = encodeExternalHead(3_500, 'files', storageId, index);
    for (let at = 0; at < head.length; at++) {
      if (at >= 2 && at < 8) continue;
      const damaged = Buffer.from(head);
      damaged[at]! ^= 0x10;
      expect(() => decodeHead(id, damaged)).toThrow(BlobCorrupt);
    }
    for (let length = 0; length < head.length; length++)
      expect(() => decodeHead(id, head.subarray(0, length))).toThrow(BlobCorrupt);
    expect(() => decodeUpload(Buffer.alloc(10, 7))).toThrow();
  });
});
