import { beforeEach, describe, expect, it } from 'vitest';
import { VirtualTime } from '../testing/virtual-time.js';
import { busLimits } from './contract.js';
import { Origins } from './origins.js';

let time: VirtualTime;
let losses: number[];
let origins: Origins;
beforeEach(() => {
  time = new VirtualTime();
  losses = [];
  origins = new Origins({ clock: time.clock(), onLost: (count) => losses.push(count) });
});

const accept = (...sequences: number[]) => sequences.map((sequence) => origins.accept('a', 1, sequence));

describe('the numbers of an origin', () => {
  it('may come in any order for a while, each once', async () => {
    expect(accept(3, 1, 2, 2, 5, 3, 4)).toEqual([true, true, true, false, true, false, true]);
    await time.advance(1_000);
    expect(losses).toEqual([]);
    expect(time.waiting.size).toBe(0);
  });

  it('that do not come are lost, and counted once', async () => {
    accept(1, 4);
    await time.advance(busLimits.reorderMs - 1);
    accept(2, 6);
    expect(losses).toEqual([]);
    await time.advance(2 * busLimits.reorderMs);
    expect(losses).toEqual([1, 1]);
    expect(accept(3, 5, 7)).toEqual([false, false, true]);
    await time.advance(1_000);
    expect(origins.missed).toBe(2);
  });

  it('from before this node listened are no loss of its own, but may have been news', async () => {
    accept(20);
    await time.advance(1_000);
    expect(losses).toEqual([0]);
    origins.accept('b', 1, 5_000);
    expect(losses).toEqual([0, 0]);
    expect(origins.missed).toBe(0);
  });

  it('go on with a higher incarnation, or begin anew; lower ones are not heard', async () => {
    accept(1, 2);
    expect(origins.accept('a', 2, 3)).toBe(true);
    await time.advance(1_000);
    expect(losses).toEqual([]);
    expect(origins.accept('a', 1, 4)).toBe(false);
    expect(origins.accept('a', 3, 1)).toBe(true);
    expect(losses).toEqual([0]);
    expect(origins.accept('a', 3, 2)).toBe(true);
    expect(origins.missed).toBe(0);
  });

  it('may jump far ahead without being counted one by one, and wait in bounded memory', async () => {
    accept(1, 2 ** 50);
    expect(losses).toEqual([2 ** 50 - 2 - busLimits.maxAwaited]);
    for (let n = 1; n <= 100; n++) accept(2 ** 50 + n * 100);
    await time.advance(1_000);
    expect(origins.missed).toBe(2 ** 50 - 2 + 100 * 99);
  });

  it('are remembered for a bounded number of origins', () => {
    for (let n = 0; n <= busLimits.maxOrigins; n++) origins.accept(`origin${n}`, 1, 1);
    // The first was forgotten, the last was not.
    expect(origins.accept('origin0', 1, 1)).toBe(true);
    expect(origins.accept(`origin${busLimits.maxOrigins}`, 1, 1)).toBe(false);
  });
});
