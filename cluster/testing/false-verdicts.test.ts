import { describe, expect, it } from 'vitest';
import { failureTimings } from '../membership/contract.js';
import { huntFalseVerdicts, measureDetection } from './false-verdicts.js';

describe('nodes that live', () => {
  it.each([2, 3, 5])('are never declared dead: %i of them, losses, pauses of 2 s, gossip cut off for 5 s', (nodes) => {
    const report = huntFalseVerdicts({ hours: 0.5, seed: nodes, nodes, pausesPerHour: 240, cutsPerHour: 120 });
    expect(report.pauses).toBeGreaterThan(30);
    expect(report.cuts).toBeGreaterThan(10);
    expect(report.story).toEqual([]);
  });

  it('would be declared dead if they were paused for longer than is promised', () => {
    const report = huntFalseVerdicts({ hours: 0.2, seed: 1, nodes: 3, pauseMs: 4_000, pausesPerHour: 100, cutsPerHour: 0 });
    expect(report.falseVerdicts).toBeGreaterThan(0);
    // They knew, by their own clocks, before anybody else did.
    expect(report.unforeseen).toBe(0);
  });

  it('foresee every verdict, with much loss and stores that stall', () => {
    const timing = failureTimings.fast;
    const report = huntFalseVerdicts({
      hours: 0.2,
      seed: 7,
      timing,
      loss: 0.2,
      pauseMs: 1_500,
      pausesPerHour: 300,
      storeMs: 600,
    });
    expect(report.falseVerdicts).toBeGreaterThan(0);
    expect(report.unforeseen).toBe(0);
  });
});

describe('a node that is killed', () => {
  it.each([
    ['normal', 'noticed', failureTimings.normal, 3_000],
    ['normal', 'silent', failureTimings.normal, 3_000],
    ['fast', 'noticed', failureTimings.fast, 1_000],
    ['fast', 'silent', failureTimings.fast, 1_000],
  ] as const)('is found by all others in time, at any phase: %s timing, %s', (_, how, timing, limitMs) => {
    for (const nodes of [2, 3, 5]) {
      const { lastMs } = measureDetection(40, how === 'noticed', { nodes, timing });
      expect(Math.max(...lastMs)).toBeLessThan(limitMs);
    }
  });

  it('is found in time in a large cluster, by those that watch it', () => {
    const { firstMs } = measureDetection(1, true, { nodes: 50 });
    expect(Math.max(...firstMs)).toBeLessThan(3_000);
  });
});

describe('heartbeats', () => {
  it('cost each node the same, however many there are', () => {
    const perNodeSecond = (nodes: number) => {
      const report = huntFalseVerdicts({ hours: 1 / 180, seed: 3, nodes, loss: 0, pausesPerHour: 0, cutsPerHour: 0 });
      expect(report.story).toEqual([]);
      // Nobody was in doubt for longer than a moment at the beginning.
      expect(report.rounds / nodes).toBeLessThan(20);
      return report.messages / nodes / 20;
    };
    const few = perNodeSecond(5);
    // Four watch it, and hear of it in every interval.
    expect(few).toBeGreaterThan((0.95 * 4 * 1_000) / failureTimings.normal.gossipHeartbeatMs);
    expect(perNodeSecond(50)).toBeLessThan(few * 1.05);
  });
});
