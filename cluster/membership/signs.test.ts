import { describe, expect, it } from 'vitest';
import { failureTimings } from './contract.js';
import { LocalHealth } from './local-health.js';
import { ArrivalEstimate, deviationsOf } from './phi.js';
import { Shares } from './shares.js';
import { type Hearing, verdictOf } from './verdict.js';
import { watching } from './watchers.js';

describe('the verdict', () => {
  const timing = failureTimings.normal;
  // Fence, gossip, age of the row.
  it.each([
    [true, 'yes', 0, 'alive'],
    [true, 'yes', 4_999, 'alive'],
    [true, 'yes', 5_000, 'store-less'],
    [true, 'yes', 1e9, 'store-less'],
    [true, 'no', 0, 'isolated'],
    [true, 'no', 1_999, 'isolated'],
    [true, 'no', 2_000, 'suspect'],
    [true, 'no', 1e9, 'suspect'],
    [true, 'unknown', 0, 'alive'],
    [true, 'unknown', 4_999, 'alive'],
    [true, 'unknown', 5_000, 'suspect'],
    ...(['yes', 'no', 'unknown'] as const).flatMap((gossip) => [0, 1e9].map((age) => [false, gossip, age, 'dead'] as const)),
  ] as const)('with fence %s, heard %s, row still for %i ms is %s', (hasFence, gossip, rowAgeMs, expected) => {
    expect(verdictOf({ hasFence, gossip, rowAgeMs }, timing)).toBe(expected);
  });
});

describe('phi', () => {
  it('is there from the first heartbeat, rises with silence, and follows the normal distribution', () => {
    const estimate = new ArrivalEstimate(250);
    expect(estimate.phi(0)).toBeLessThan(0.01);
    expect(estimate.phi(250)).toBeCloseTo(0.3, 2);
    // One in a thousand is 3.09 deviations away.
    expect(deviationsOf(3)).toBeCloseTo(3.09, 1);
    let last = 0;
    for (let silenceMs = 0; silenceMs < 60_000; silenceMs += 50) {
      const phi = estimate.phi(silenceMs);
      expect(phi).toBeGreaterThanOrEqual(last);
      expect(Number.isFinite(phi)).toBe(true);
      last = phi;
    }
    expect(estimate.phi(estimate.silenceMs(deviationsOf(8)))).toBeCloseTo(8, 5);
  });

  it('gets used to irregular arrivals, forgets them again, and never trusts a rhythm too far', () => {
    const estimate = new ArrivalEstimate(250);
    for (let i = 0; i < 200; i++) estimate.add(250);
    expect(estimate.deviationMs).toBe(50);
    const regular = estimate.phi(600);
    for (let i = 0; i < 64; i++) estimate.add(i % 2 ? 100 : 500);
    expect(estimate.phi(600)).toBeLessThan(regular / 3);
    for (let i = 0; i < 64; i++) estimate.add(250);
    expect(estimate.phi(600)).toBeCloseTo(regular, 5);
    // News by several ways at once, and an outage: neither is a rhythm.
    for (let i = 0; i < 64; i++) estimate.add(1);
    expect(estimate.meanMs).toBe(250);
    for (let i = 0; i < 64; i++) estimate.add(1e9);
    expect(estimate.meanMs).toBe(750);
  });
});

describe('who watches whom', () => {
  it.each([1, 2, 3, 5, 6, 7, 8, 13, 50, 200])('among %i: mutual, by several, few, and everybody is reached', (count) => {
    const ids = Array.from({ length: count }, (_, i) => `n${String(i).padStart(3, '0')}`);
    const of = new Map(ids.map((id) => [id, watching(id, ids)]));
    for (const [id, { watchers }] of of) {
      expect(watchers).not.toContain(id);
      expect(new Set(watchers).size).toBe(watchers.length);
      expect(watchers.length).toBeGreaterThanOrEqual(Math.min(count - 1, 3));
      expect(watchers.length).toBeLessThanOrEqual(4);
      for (const watcher of watchers) expect(of.get(watcher)!.watchers).toContain(id);
    }
    let reached = new Set([ids[0]!]);
    for (let hop = 0; hop < of.get(ids[0]!)!.hops; hop++)
      reached = new Set([...reached].flatMap((id) => [id, ...of.get(id)!.watchers]));
    expect(reached.size).toBe(count);
  });

  it('is nobody for who is not among them', () => {
    expect(watching('x', ['a', 'b']).watchers).toEqual([]);
  });
});

describe('local health', () => {
  it('stretches up to four times, and recovers slowly', () => {
    const health = new LocalHealth();
    for (let i = 0; i < 9; i++) health.worse();
    expect(health.stretch).toBe(4);
    for (let i = 0; i < 7; i++) health.better();
    expect(health.stretch).toBe(4);
    health.better();
    expect(health.stretch).toBe(3);
    for (let i = 0; i < 50; i++) health.better();
    expect(health.stretch).toBe(1);
  });
});

describe('shares', () => {
  const one = (nodeId: string, gossip: Hearing, roles = ['queue']) =>
    ({ nodeId, roles, gossip, verdict: gossip === 'no' ? 'isolated' : 'alive' }) as const;

  it('of who is cut off stay what they were, role by role, until it is heard again', () => {
    const shares = new Shares();
    const self = { nodeId: 'b', roles: ['queue'] };
    expect(shares.update([one('a', 'yes'), one('c', 'yes', ['smtp', 'queue'])], self, 'b')).toBe(true);
    expect(shares.of('smtp')).toEqual([{ nodeId: 'c' }]);
    expect(shares.update([one('a', 'yes'), one('c', 'no', ['smtp', 'queue'])], self, 'b')).toBe(true);
    const kept = { nodeId: 'c', keptAmong: ['a', 'b', 'c'] };
    expect(shares.of('queue')).toEqual([{ nodeId: 'a' }, { nodeId: 'b' }, kept]);
    expect(shares.of('smtp')).toEqual([{ nodeId: 'c', keptAmong: ['c'] }]);
    // Another comes, and it becomes silent in the store as well.
    shares.update([one('a', 'yes'), { ...one('c', 'no'), verdict: 'suspect' }, one('d', 'yes')], self, 'b');
    expect(shares.of().find(({ nodeId }) => nodeId === 'c')).toEqual(kept);
    expect(shares.update([one('a', 'yes'), { ...one('c', 'no'), verdict: 'dead' }, one('d', 'yes')], self, 'b')).toBe(true);
    expect(shares.members).toEqual(['a', 'b', 'd']);
    expect(shares.update([one('a', 'yes'), one('d', 'yes')], self, 'b')).toBe(false);
  });

  it('of halves: the one with the smallest id goes on, the other keeps what it had', () => {
    const isHeld = (ownId: string, heard: string[], unheard: string[]) => {
      const shares = new Shares();
      const others = [...heard.map((id) => one(id, 'yes')), ...unheard.map((id) => one(id, 'no'))];
      shares.update(others, { nodeId: ownId, roles: [] }, ownId);
      return shares.of().find(({ nodeId }) => nodeId === ownId)!.keptAmong !== undefined;
    };
    expect(isHeld('a', ['b'], ['c', 'd'])).toBe(false);
    expect(isHeld('c', ['d'], ['a', 'b'])).toBe(true);
    expect(isHeld('b', [], ['a'])).toBe(true);
    expect(isHeld('a', [], ['b'])).toBe(false);
    expect(isHeld('b', ['c'], ['a'])).toBe(false);
    expect(isHeld('a', [], ['b', 'c'])).toBe(true);
  });
});
