/**
 * Time for tests of several nodes in one process: one timeline that a test moves, and a clock per node on it, whose wall time may be wrong and whose
 * process may stand still (its timers wait, the time goes on).
 */
import { type Clock, sleepOn, type Timer } from '../../ops/telemetry/index.js';

interface Waiting {
  atMs: number;
  order: number;
  clock: NodeClock;
  callback: () => void;
}

export class VirtualTime {
  nowMs = 0;
  readonly waiting = new Set<Waiting>();
  #order = 0;

  clock(): NodeClock {
    return new NodeClock(this);
  }

  add(clock: NodeClock, delayMs: number, callback: () => void): Timer {
    const timer = { atMs: this.nowMs + delayMs, order: this.#order++, clock, callback };
    this.waiting.add(timer);
    return { cancel: () => this.waiting.delete(timer) };
  }

  /** Moves on by `ms`, timer by timer; what each of them starts has come to rest before the next. */
  async advance(ms: number): Promise<void> {
    const endMs = this.nowMs + ms;
    await settle();
    for (;;) {
      let next: Waiting | undefined;
      for (const timer of this.waiting) {
        if (timer.clock.isPaused || timer.atMs > endMs) continue;
        if (!next || timer.atMs < next.atMs || (timer.atMs === next.atMs && timer.order < next.order)) next = timer;
      }
      if (!next) break;
      this.waiting.delete(next);
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.callback();
      await settle();
    }
    this.nowMs = endMs;
  }

  /** Moves on until `condition` holds. Answers how long that took; fails after `limitMs`. */
  async until(condition: () => boolean, limitMs = 120_000): Promise<number> {
    const startMs = this.nowMs;
    while (!condition()) {
      if (this.nowMs - startMs > limitMs) throw new Error(`not so within ${limitMs} ms`);
      await this.advance(100);
    }
    return this.nowMs - startMs;
  }
}

export class NodeClock implements Clock {
  /** How wrong the wall clock is. */
  wallShiftMs = 0;
  /** As after SIGSTOP. */
  isPaused = false;

  constructor(readonly time: VirtualTime) {}

  nowMs(): number {
    return 1_800_000_000_000 + this.time.nowMs + this.wallShiftMs;
  }

  monotonicMs(): number {
    return this.time.nowMs;
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    return this.time.add(this, delayMs, callback);
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return sleepOn(this, delayMs, signal);
  }
}

/** Lets all promises that don't wait for time come to their end. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
}
