import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TextPool } from './text-pool.js';

const byBytes = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b));

describe('a pool of texts', () => {
  it('keeps each once and orders them by bytes, also those that come later', () => {
    const text = fc.oneof(
      fc.string({ maxLength: 12 }),
      fc.string({ unit: 'binary', maxLength: 6 }),
      fc.tuple(fc.nat(3), fc.constantFrom('', 'A', 'AB', 'BA', 'ABB')).map(([times, end]) => 'MESSAGE '.repeat(times) + end),
      fc.constantFrom('', 'a', 'a\0', 'a\0\0', '\0'),
    );
    fc.assert(
      fc.property(fc.array(fc.array(text, { maxLength: 20 }), { maxLength: 3 }), (batches) => {
        const pool = new TextPool();
        const numbers = new Map<string, number>([['', 0]]);
        for (const batch of batches) {
          for (const one of batch.map((raw) => Buffer.from(raw).toString())) {
            const number = pool.add(one);
            expect(numbers.get(one) ?? number).toBe(number);
            numbers.set(one, number);
            expect(pool.text(number)).toBe(one);
          }
          const ranks = pool.ranks();
          const ordered = [...numbers.keys()].sort(byBytes);
          expect([...numbers.keys()].sort((a, b) => ranks[numbers.get(a)!]! - ranks[numbers.get(b)!]!)).toEqual(ordered);
          expect(pool.size).toBe(numbers.size);
        }
      }),
      { numRuns: 30 },
    );
  });

  it('holds what is very long by its beginning, and knows it again', () => {
    const pool = new TextPool();
    const long = 'x'.repeat(10_000);
    const number = pool.add(`${long}1`);
    expect(pool.add(`${long}2`)).not.toBe(number);
    expect(pool.add(`${long}1`)).toBe(number);
    expect(pool.memoryBytes).toBeLessThan(10_000);
  });

  it('orders thousands with one beginning', () => {
    const pool = new TextPool();
    const texts = Array.from({ length: 3_000 }, (_, i) => `MESSAGE NUMBER ${(i * 7919) % 3_000}`);
    const numbers = texts.map((text) => pool.add(text));
    const ranks = pool.ranks();
    const ordered = texts.map((text, i) => ({ text, rank: ranks[numbers[i]!]! })).sort((a, b) => a.rank - b.rank);
    expect(ordered.map(({ text }) => text)).toEqual([...texts].sort(byBytes));
  });
});
