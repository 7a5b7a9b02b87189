import { describe, expect, it } from 'vitest';
import { KeepAlives, keepAliveDueMs, type Silent } from './keep-alives.js';
import { ManualClock } from './testing/manual-clock.js';

const keepAliveMs = 120_000;

/** A session that says something whenever it must. */
class Session implements Silent {
  readonly keepAliveMs = keepAliveMs;
  lastToldMs: number;
  readonly saidAtMs: number[] = [];
  onBreak = () => {};

  constructor(private readonly clock: ManualClock) {
    this.lastToldMs = clock.monotonicMs();
  }

  breakSilence(): void {
    this.lastToldMs = this.clock.monotonicMs();
    this.saidAtMs.push(this.lastToldMs);
    this.onBreak();
  }
}

/** Counts timers that are set. */
class CountingClock extends ManualClock {
  timers = 0;

  override setTimer(delayMs: number, callback: () => void) {
    this.timers++;
    return super.setTimer(delayMs, callback);
  }
}

const settle = async () => {
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
};

describe('signs of life', () => {
  it('are due early rather than late, at times that many have in common', () => {
    for (const toldMs of [0, 1, 9_999, 10_000, 123_456]) {
      const dueMs = keepAliveDueMs(toldMs, keepAliveMs);
      expect(dueMs % 10_000).toBe(0);
      expect(dueMs - toldMs).toBeLessThanOrEqual(keepAliveMs);
      expect(dueMs - toldMs).toBeGreaterThan(keepAliveMs - 10_000);
    }
  });

  it('of a thousand sessions share a timer, and come again and again', async () => {
    const clock = new CountingClock();
    const keepAlives = new KeepAlives(clock);
    const sessions = Array.from({ length: 1_000 }, () => new Session(clock));
    for (const session of sessions) keepAlives.add(session);
    expect(clock.timers).toBe(1);
    for (let round = 0; round < 3; round++) {
      clock.advance(keepAliveMs);
      await settle();
    }
    for (const { saidAtMs } of sessions) expect(saidAtMs).toEqual([120_000, 240_000, 360_000]);
    expect(clock.timers).toBe(4);
  });

  it('wait where the client has been told something meanwhile', async () => {
    const clock = new ManualClock();
    const keepAlives = new KeepAlives(clock);
    const session = new Session(clock);
    keepAlives.add(session);
    clock.advance(70_000);
    session.lastToldMs = clock.monotonicMs();
    clock.advance(50_000);
    await settle();
    expect(session.saidAtMs).toEqual([]);
    clock.advance(69_999);
    await settle();
    expect(session.saidAtMs).toEqual([]);
    clock.advance(1);
    await settle();
    expect(session.saidAtMs).toEqual([190_000]);
  });

  it('end with IDLE, also for those who leave while others are served', async () => {
    const clock = new ManualClock();
    const keepAlives = new KeepAlives(clock);
    const [gone, first, second] = [new Session(clock), new Session(clock), new Session(clock)];
    for (const session of [gone, first, second]) keepAlives.add(session);
    keepAlives.delete(gone);
    first.onBreak = () => keepAlives.delete(second);
    clock.advance(keepAliveMs);
    await settle();
    clock.advance(keepAliveMs);
    await settle();
    expect(gone.saidAtMs).toEqual([]);
    expect(first.saidAtMs).toEqual([120_000, 240_000]);
    expect(second.saidAtMs).toEqual([]);
  });

  it('are not missed where a timer fires a little early', async () => {
    const early: { callback: () => void; delayMs: number }[] = [];
    let nowMs = 0;
    const clock = new ManualClock();
    clock.monotonicMs = () => nowMs;
    clock.setTimer = (delayMs, callback) => {
      early.push({ callback, delayMs });
      return { cancel: () => {} };
    };
    const session = new Session(clock);
    const keepAlives = new KeepAlives(clock);
    keepAlives.add(session);
    nowMs = 119_999.7;
    early[0]!.callback();
    expect(session.saidAtMs).toEqual([]);
    expect(early[1]!.delayMs).toBeCloseTo(0.3);
    nowMs = 120_000;
    early[1]!.callback();
    await settle();
    expect(session.saidAtMs).toEqual([120_000]);
  });
});
