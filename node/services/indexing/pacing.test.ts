import { describe, expect, it } from 'vitest';
import type { Clock } from '../../../ops/telemetry/index.js';
import { type Errand, Pace } from './pacing.js';

interface BenchOptions {
  share: number;
  isBusy?: () => boolean;
  /** Timers come so late. */
  lateMs?: number;
  /** How much others do at a time. */
  loadAt?: (nowMs: number) => number;
  bearableTail?: number;
}

/** A clock that only moves when somebody works or rests. */
function benchOf(options: BenchOptions) {
  let nowMs = 0;
  let restedMs = 0;
  let workedMs = 0;
  let longestMs = 0;
  const abort = new AbortController();
  const clock = {
    monotonicMs: () => nowMs,
    async sleep(delayMs: number, signal?: AbortSignal) {
      signal?.throwIfAborted();
      nowMs += delayMs + (options.lateMs ?? 0);
      restedMs += delayMs;
    },
  } as Clock;
  const pace = new Pace({
    clock,
    signal: abort.signal,
    share: () => options.share,
    isBusy: options.isBusy ?? (() => false),
    load: () => options.loadAt?.(nowMs) ?? 0,
    bearableTail: () => options.bearableTail ?? 100,
  });
  const work = async (ms: number, chars = 0) => {
    nowMs += ms;
    workedMs += ms;
    await pace.step(chars);
  };
  /** Works in pieces of a tenth of a millisecond; notes how much of that was done without a rest. */
  const workFor = async (totalMs: number) => {
    let atOnceMs = 0;
    for (let doneMs = 0; doneMs < totalMs; doneMs += 0.1) {
      const before = restedMs;
      await work(0.1);
      atOnceMs += 0.1;
      longestMs = Math.max(longestMs, atOnceMs);
      if (restedMs > before) atOnceMs = 0;
    }
  };
  const pass = (ms: number) => {
    nowMs += ms;
  };
  const figures = { now: () => nowMs, restedMs: () => restedMs, workedMs: () => workedMs, longestMs: () => longestMs };
  return { work, workFor, pace, abort, pass, ...figures };
}

const errandOf = (overdueAtMs: number, tail: number | (() => number) = 0): Errand => ({
  overdueAtMs,
  tail: async () => (typeof tail === 'number' ? tail : tail()),
});

describe('the pace of background work', () => {
  it('keeps to its share', async () => {
    const bench = benchOf({ share: 0.25 });
    for (let index = 0; index < 100; index++) await bench.work(10);
    expect(bench.restedMs()).toBe(3_000);
  });

  it('rests after small pieces together, and after much text on a clock that stands', async () => {
    const bench = benchOf({ share: 0.5 });
    await bench.work(2);
    await bench.work(2);
    expect(bench.restedMs()).toBe(0);
    await bench.work(2);
    expect(bench.restedMs()).toBe(6);
    await bench.work(0, 100_000);
    expect(bench.restedMs()).toBe(6);
    await bench.work(0, 200_000);
    expect(bench.restedMs()).toBe(7);
  });

  it.each([
    ['deliveries are many', { isBusy: () => true }],
    ['timers come late', { lateMs: 40 }],
    ['the event loop is at work', { loadAt: () => 0.3 }],
  ])('takes a third of its share in smaller slices where %s', async (_, more) => {
    const bench = benchOf({ share: 0.3, ...more });
    await bench.work(10);
    const before = { worked: bench.workedMs(), rested: bench.restedMs() };
    await bench.workFor(200);
    expect(bench.longestMs()).toBeLessThan(2.2);
    const share = 200 / (200 + bench.restedMs() - before.rested);
    expect(share).toBeGreaterThan(0.09);
    expect(share).toBeLessThan(0.11);
  });

  it('waits for a quiet node, and not longer', async () => {
    const bench = benchOf({ share: 1, loadAt: (nowMs) => (nowMs < 4_000 ? 0.4 : 0) });
    await bench.pace.begin(errandOf(30_000));
    expect(bench.now()).toBeGreaterThan(4_000);
    expect(bench.now()).toBeLessThan(4_600);
    await bench.work(2);
    expect(bench.now()).toBeLessThan(4_700);
  });

  it('begins at once on a quiet node', async () => {
    const bench = benchOf({ share: 1 });
    await bench.pace.begin(errandOf(30_000));
    expect(bench.now()).toBeLessThan(50);
    // One that has just been heard is not listened to again.
    await bench.pace.begin(errandOf(30_000));
    expect(bench.now()).toBeLessThan(50);
  });

  it('waits in the middle of its work as well', async () => {
    let load = 0;
    const bench = benchOf({ share: 1, loadAt: (nowMs) => (nowMs < 2_000 ? load : 0) });
    await bench.pace.begin(errandOf(30_000));
    await bench.workFor(20);
    expect(bench.now()).toBeLessThan(100);
    load = 0.5;
    await bench.workFor(20);
    expect(bench.now()).toBeGreaterThan(2_000);
  });

  it('goes on under constant load when its time is over, with a bounded share', async () => {
    const bench = benchOf({ share: 0.3, loadAt: () => 0.9 });
    await bench.pace.begin(errandOf(30_000));
    expect(bench.now()).toBe(30_000);
    await bench.workFor(100);
    expect(bench.now() - 30_000).toBeGreaterThan(900);
    expect(bench.now() - 30_000).toBeLessThan(1_100);
    // Late already when it begins: it does not wait at all.
    const fromMs = bench.now();
    await bench.pace.begin(errandOf(fromMs - 1));
    expect(bench.now()).toBe(fromMs);
  });

  it('does not wait where searches look through much, and takes its whole share where they look through very much', async () => {
    let tail = 0;
    const bench = benchOf({ share: 0.3, loadAt: () => 0.9, bearableTail: 100 });
    const errand = errandOf(3_600_000, () => (tail += 10));
    await bench.pace.begin(errand);
    expect(tail).toBe(110);
    const slowly = bench.now();
    await bench.workFor(90);
    expect(bench.now() - slowly).toBeGreaterThan(800);
    tail = 1_000;
    await bench.pace.begin(errand);
    const quickly = bench.now();
    await bench.workFor(90);
    expect(bench.now() - quickly).toBeLessThan(400);
  });

  it('waits for nobody without an errand', async () => {
    const bench = benchOf({ share: 0.3, loadAt: () => 0.9 });
    await bench.pace.begin(errandOf(1_000));
    bench.pace.end();
    const fromMs = bench.now();
    await bench.workFor(10);
    expect(bench.now() - fromMs).toBeLessThan(150);
  });

  it('counts only what was worked, and ends at once', async () => {
    const bench = benchOf({ share: 0.1 });
    bench.pass(10_000);
    bench.pace.resume();
    await bench.work(1);
    expect(bench.restedMs()).toBe(0);
    bench.abort.abort(new Error('over'));
    await expect(bench.work(0)).rejects.toThrow('over');
  });

  it('ends in the middle of its wait', async () => {
    const bench = benchOf({ share: 1, loadAt: () => 1 });
    let looks = 0;
    const errand = errandOf(Number.POSITIVE_INFINITY, () => {
      if (++looks === 5) bench.abort.abort(new Error('over'));
      return 0;
    });
    await expect(bench.pace.begin(errand)).rejects.toThrow('over');
    expect(looks).toBe(5);
  });
});
