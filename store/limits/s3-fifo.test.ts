import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { S3Fifo } from './s3-fifo.js';

describe('a bounded memory', () => {
  it('keeps what is asked for again while keys that come once go by', () => {
    const memory = new S3Fifo<number>(100);
    for (let key = 0; key < 20; key++) memory.set(`hot${key}`, key);
    for (let turn = 0; turn < 5_000; turn++) {
      memory.set(`once${turn}`, turn);
      expect(memory.get(`hot${turn % 20}`)).toBe(turn % 20);
    }
    expect(memory.size).toBe(100);
  });

  it('never weighs more than it may, and answers with what was set last', () => {
    const steps = fc.array(fc.tuple(fc.nat({ max: 15 }), fc.nat({ max: 60 }), fc.constantFrom('set', 'get', 'delete')));
    fc.assert(
      fc.property(steps, (all) => {
        const memory = new S3Fifo<{ weight: number }>(100, ({ weight }) => weight);
        const last = new Map<string, { weight: number }>();
        for (const [key, weight, what] of all) {
          const name = String(key);
          if (what === 'set') {
            last.set(name, { weight });
            memory.set(name, last.get(name)!);
          } else if (what === 'delete') {
            memory.delete(name);
            last.delete(name);
          } else expect([undefined, last.get(name)]).toContain(memory.get(name));
          expect(memory.weight).toBeLessThanOrEqual(100);
        }
        const kept = [...last.keys()].flatMap((name) => memory.get(name) ?? []);
        expect(kept.length).toBe(memory.size);
        expect(kept.reduce((sum, { weight }) => sum + weight, 0)).toBe(memory.weight);
      }),
    );
  });

  it('does not keep, nor make room for, what alone weighs too much', () => {
    const memory = new S3Fifo<number>(100, (weight) => weight);
    memory.set('small', 10);
    memory.set('large', 101);
    expect([memory.get('small'), memory.get('large'), memory.size]).toEqual([10, undefined, 1]);
    memory.set('small', 101);
    expect([memory.get('small'), memory.weight]).toEqual([undefined, 0]);
  });
});
