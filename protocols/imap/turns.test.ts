import { describe, expect, it } from 'vitest';
import { inTurns } from './turns.js';

/** A clock that an item moves by what it costs. */
const costly = () => ({
  now: 0,
  monotonicMs(): number {
    return this.now;
  },
});

describe('work in turns', () => {
  it('is done in order, and whole', async () => {
    const seen: number[] = [];
    await inTurns(
      Array.from({ length: 1_000 }, (_, n) => n),
      costly(),
      (n) => void seen.push(n),
    );
    expect(seen).toEqual(Array.from({ length: 1_000 }, (_, n) => n));
    await inTurns([], costly(), () => expect.unreachable());
  });

  it('lets others have their turn when a slice has taken its time, and after a number of items however quick they seem', async () => {
    for (const costMs of [0.5, 0]) {
      const clock = costly();
      let done = 0;
      let atOthersTurn: number | undefined;
      setImmediate(() => {
        atOthersTurn = done;
      });
      await inTurns(Array.from({ length: 500 }), clock, () => {
        done++;
        clock.now += costMs;
      });
      expect(done).toBe(500);
      expect(atOthersTurn).toBe(costMs > 0 ? 16 : 128);
    }
  });

  it('leaves out what is taken from a set on the way', async () => {
    const set = new Set([1, 2, 3]);
    const seen: number[] = [];
    await inTurns(set, costly(), (n) => {
      seen.push(n);
      set.delete(2);
    });
    expect(seen).toEqual([1, 3]);
  });
});
