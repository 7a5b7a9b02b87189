import { describe, expect, it } from 'vitest';
import { VirtualTime } from '../testing/virtual-time.js';
import { Rounds } from './rounds.js';

function rounds(time: VirtualTime, round: () => Promise<boolean>, intervalMs = 2_000): Rounds {
  return new Rounds({ clock: time.clock(), round, intervalMs: () => intervalMs, retryMs: 500, hurryMs: 50, sustainedMs: 250 });
}

describe('rounds', () => {
  it.each([0, 2, 40])(
    'come soon when others ask for one, and no faster than sustained when they ask all the time (%i ms each)',
    async (tookMs) => {
      const time = new VirtualTime();
      const clock = time.clock();
      const begun: number[] = [];
      const going = rounds(time, async () => {
        begun.push(time.nowMs);
        if (tookMs > 0) await clock.sleep(tookMs);
        return true;
      });
      going.start();
      await time.advance(1_000);
      going.hurry();
      await time.advance(10);
      expect(begun).toHaveLength(1);
      const count = begun.length;
      for (let i = 0; i < 20_000; i++) {
        going.hurry();
        await time.advance(1);
      }
      expect(begun.length - count).toBeLessThanOrEqual(20_000 / 250 + 22);
      expect(begun.length - count).toBeGreaterThan(60);
      for (let i = 1; i < begun.length; i++) expect(begun[i]! - begun[i - 1]!).toBeGreaterThanOrEqual(50);
      // What was asked for in the middle of a round is not forgotten.
      await time.advance(10_000);
      if (tookMs > 0) {
        going.wake();
        await time.advance(1);
        going.hurry();
        const before = begun.length;
        await time.advance(60);
        expect(begun.length).toBe(before + 1);
      }
      const stopping = going.stop();
      await time.advance(100);
      await stopping;
      expect(time.waiting.size).toBe(0);
    },
  );

  it('that took long to fail are tried again a while after their end, whatever the pace', async () => {
    const time = new VirtualTime();
    const clock = time.clock();
    const ends: number[] = [];
    const begun: number[] = [];
    const going = rounds(time, async () => {
      begun.push(time.nowMs);
      await clock.sleep(5_000);
      ends.push(time.nowMs);
      return false;
    });
    going.start();
    for (let i = 0; i < 1_000; i++) {
      await time.advance(20);
      going.retime();
    }
    expect(begun.length).toBeGreaterThan(2);
    for (let i = 1; i < begun.length; i++) expect(begun[i]! - ends[i - 1]!).toBeGreaterThanOrEqual(500);
    const stopping = going.stop();
    await time.advance(6_000);
    await stopping;
  });
});
