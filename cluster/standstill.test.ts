import { describe, expect, it } from 'vitest';
import { StandstillWatch } from './standstill.js';

const states = (state: string) => new Map([['a', state]]);

describe('standstill', () => {
  it('counts from the end of the look that saw the change to the beginning of the last one', () => {
    const watch = new StandstillWatch(4_000);
    expect(watch.look(states('1'), 0, 300)).toEqual(['a']);
    expect(watch.stoodStillMs('a')).toBe(0);
    expect(watch.look(states('1'), 2_000, 2_900)).toEqual([]);
    expect(watch.stoodStillMs('a')).toBe(1_700);
    expect(watch.look(states('2'), 4_000, 4_500)).toEqual(['a']);
    expect(watch.stoodStillMs('a')).toBe(0);
    expect(watch.sinceMs('a')).toBe(4_500);
  });

  it('starts afresh after a gap, and forgets what is gone', () => {
    const watch = new StandstillWatch(4_000);
    for (let at = 0; at <= 8_000; at += 2_000) watch.look(states('1'), at, at);
    expect(watch.stoodStillMs('a')).toBe(8_000);
    watch.look(states('1'), 12_000, 12_001);
    expect(watch.stoodStillMs('a')).toBe(0);
    watch.look(states('1'), 14_000, 14_000);
    expect(watch.stoodStillMs('a')).toBe(1_999);
    watch.look(new Map(), 16_000, 16_000);
    expect(watch.stoodStillMs('a')).toBe(0);
    expect(watch.sinceMs('a')).toBeUndefined();
    expect(watch.look(states('1'), 18_000, 18_000)).toEqual(['a']);
    expect(watch.stoodStillMs('a')).toBe(0);
  });
});
