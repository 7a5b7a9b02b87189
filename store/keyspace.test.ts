import fc from 'fast-check';
import { pack, range, unpack } from 'fdb-tuple';
import { describe, expect, it } from 'vitest';
import { type KeyItem, key, keyItems, keysUnder } from './keyspace.js';

const anyString = fc.string({ unit: 'binary', maxLength: 40 }).map((text) => Buffer.from(text, 'utf8').toString('utf8'));
const item: fc.Arbitrary<KeyItem> = fc.oneof(
  anyString,
  fc.maxSafeNat(),
  fc.nat({ max: 70_000 }),
  fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
);
const tuple = fc.array(item, { minLength: 1, maxLength: 6 });

/** The tuple layer as it packs for FoundationDB. */
const reference = (items: KeyItem[]) => pack(items as Parameters<typeof pack>[0]) as Buffer;

describe('keys', () => {
  it('are packed as the tuple layer packs them', () => {
    fc.assert(
      fc.property(tuple, (items) => {
        expect(key(...items).toString('hex')).toBe(reference(items).toString('hex'));
      }),
      { numRuns: 2000 },
    );
  });

  it('come back as the tuple they were made of', () => {
    fc.assert(
      fc.property(tuple, (items) => {
        expect(keyItems(key(...items))).toEqual(items);
      }),
    );
  });

  it('are read as the tuple layer reads them, also where others have packed them', () => {
    const foreign = fc.oneof(
      item,
      fc.integer({ min: -70_000, max: 0 }),
      fc.boolean(),
      fc.constant(null),
      fc.array(fc.nat(), { maxLength: 3 }),
    );
    fc.assert(
      fc.property(fc.array(foreign, { minLength: 1, maxLength: 6 }), (items) => {
        const packed = pack(items as Parameters<typeof pack>[0]) as Buffer;
        expect(keyItems(packed)).toEqual(unpack(packed));
      }),
      { numRuns: 2000 },
    );
  });

  it('give the range of all longer tuples', () => {
    fc.assert(
      fc.property(tuple, (items) => {
        const expected = range(items as Parameters<typeof range>[0]);
        const found = keysUnder(...items);
        expect([found.begin.toString('hex'), found.end.toString('hex')]).toEqual([
          (expected.begin as Buffer).toString('hex'),
          (expected.end as Buffer).toString('hex'),
        ]);
      }),
    );
  });

  it('sort integers as numbers', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.maxSafeNat(), (a, b) => {
        expect(Math.sign(Buffer.compare(key(1, a), key(1, b)))).toBe(Math.sign(a - b));
      }),
    );
  });

  it('refuse what they cannot hold', () => {
    expect(() => key(-1)).toThrow(RangeError);
    expect(() => key(0.5)).toThrow(RangeError);
    expect(() => key(2 ** 53)).toThrow(RangeError);
    expect(() => key('x'.repeat(20_000))).toThrow(RangeError);
    expect(() => key(Buffer.alloc(20_000))).toThrow(RangeError);
  });
});
