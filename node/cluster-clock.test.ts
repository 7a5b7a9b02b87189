import { describe, expect, it } from 'vitest';
import type { NodeView } from '../cluster/membership/index.js';
import { VirtualTime } from '../cluster/testing/virtual-time.js';
import { silentLogger } from '../ops/telemetry/index.js';
import { ClusterClock, correctionOf, keepTime } from './cluster-clock.js';

const hourMs = 3_600_000;

describe('the correction', () => {
  it.each([
    [[], 0],
    [[-hourMs], 0],
    [[-hourMs, -hourMs + 1_000], -hourMs + 1_000],
    [[hourMs, -hourMs], 0],
    [[24 * hourMs, 48 * hourMs], 24 * hourMs],
    [[0, hourMs], 0],
    [[3_000, 4_000], 0],
    // Half of the nodes say this, half that.
    [[0, hourMs, hourMs], 0],
    [[hourMs, hourMs, hourMs], hourMs],
  ])('to differences of %j is %i', (skewsMs, correctionMs) => {
    expect(correctionOf(skewsMs)).toBe(correctionMs);
  });
});

describe('a node whose clock is an hour ahead', () => {
  const start = () => {
    const time = new VirtualTime();
    const machine = time.clock();
    machine.wallShiftMs = hourMs;
    const clock = new ClusterClock(machine);
    // The others' clocks are right.
    const view = (isSelf: boolean): NodeView => ({
      nodeId: '',
      isSelf,
      health: 'alive',
      verdict: 'alive',
      heartbeatAgeMs: 0,
      ...(isSelf ? {} : { clockSkewMs: -machine.wallShiftMs }),
    });
    const { end: stop } = keepTime({
      clock,
      membership: { nodes: () => [view(true), view(false), view(false)] },
      logger: silentLogger,
    });
    return { time, machine, clock, stop, wrongMs: () => clock.nowMs() - (machine.nowMs() - machine.wallShiftMs) };
  };

  it('has the date of the others, and intervals of its own', async () => {
    const { time, machine, clock, stop, wrongMs } = start();
    expect(wrongMs()).toBe(0);
    expect(clock.monotonicMs()).toBe(machine.monotonicMs());
    stop();
    await time.advance(60_000);
    expect(time.waiting.size).toBe(0);
  });

  it('does not trust what it knew of the others when its clock is set', async () => {
    const { time, machine, clock, stop, wrongMs } = start();
    await time.advance(4_000);
    machine.wallShiftMs = 0;
    await time.advance(2_000);
    expect([clock.correctionMs, wrongMs()]).toEqual([0, 0]);
    machine.wallShiftMs = -2 * hourMs;
    await time.advance(20_000);
    expect(clock.correctionMs).toBe(0);
    await time.advance(20_000);
    expect(wrongMs()).toBe(0);
    stop();
  });
});

describe('a node that joins', () => {
  const start = (rows: { sentAtMs: number; clockSkewMs?: number }[]) => {
    const time = new VirtualTime();
    const clock = new ClusterClock(time.clock());
    const nodes = rows.map(
      ({ sentAtMs, clockSkewMs }): NodeView => ({
        nodeId: String(sentAtMs),
        isSelf: false,
        health: 'alive',
        verdict: 'alive',
        heartbeatAgeMs: 0,
        row: { sentAtMs: clock.nowMs() + sentAtMs } as never,
        ...(clockSkewMs === undefined ? {} : { clockSkewMs }),
      }),
    );
    const keeper = keepTime({ clock, membership: { nodes: () => nodes }, logger: silentLogger });
    let isKnown = false;
    void keeper.known.then(() => {
      isKnown = true;
    });
    return { time, nodes, keeper, isKnown: () => isKnown };
  };

  it('goes on at once where all clocks look alike, and where nobody else is', async () => {
    for (const rows of [[], [{ sentAtMs: -2_000 }, { sentAtMs: 1_000 }]]) {
      const { time, isKnown } = start(rows);
      await time.advance(0);
      expect(isKnown()).toBe(true);
    }
  });

  it('waits for heartbeats where a row is from another time, but not for ever', async () => {
    const { time, nodes, isKnown } = start([{ sentAtMs: hourMs }]);
    await time.advance(1_000);
    expect(isKnown()).toBe(false);
    nodes[0]!.clockSkewMs = hourMs;
    await time.advance(200);
    expect(isKnown()).toBe(true);
    const silent = start([{ sentAtMs: -hourMs }]);
    await silent.time.advance(4_900);
    expect(silent.isKnown()).toBe(false);
    await silent.time.advance(200);
    expect(silent.isKnown()).toBe(true);
  });

  it('does not wait when it is ended', async () => {
    const { time, keeper, isKnown } = start([{ sentAtMs: hourMs }]);
    keeper.end();
    await time.advance(0);
    expect(isKnown()).toBe(true);
    expect(time.waiting.size).toBe(0);
  });
});
