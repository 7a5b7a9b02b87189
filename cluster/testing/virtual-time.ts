/**
 * Time for tests of several nodes in one process: one timeline that a test moves, and a clock per node on it, whose wall time may be wrong and whose
 * process may stand still (its timers wait, the time goes on).
 */
import { type Clock, sleepOn, type Timer } from '../../ops/telemetry/index.js';
import { EventHeap } from './event-heap.js';

interface Waiting {
  atMs: number;
  order: number;
  clock: NodeClock;
  /** Undefined once it has been cancelled. */
  callback: (() => void) | undefined;
}

export class VirtualTime {
  nowMs = 0;
  /** Timers of paused clocks stay out of it from the moment they come up. */
  readonly #heap = new EventHeap<Waiting>();
  #order = 0;
  #cancelled = 0;
  #waiting = 0;

  /** Timers that have neither fired nor been cancelled, those of paused clocks included. */
  get waiting(): { readonly size: number } {
    return { size: this.#waiting };
  }

  clock(): NodeClock {
    return new NodeClock(this);
  }

  add(clock: NodeClock, delayMs: number, callback: () => void): Timer {
    const timer: Waiting = { atMs: this.nowMs + delayMs, order: this.#order++, clock, callback };
    this.#heap.push(timer);
    this.#waiting++;
    return {
      cancel: () => {
        if (!timer.callback) return;
        timer.callback = undefined;
        this.#waiting--;
        if (++this.#cancelled > 1_000 && this.#cancelled > this.#heap.size / 2) this.#sweep();
      },
    };
  }

  /** Timers that a paused clock has held back take part again; they are late. */
  resume(held: readonly Waiting[]): void {
    for (const timer of held) this.#heap.push(timer);
  }

  /** Moves on by `ms`, timer by timer; what each of them starts has come to rest before the next. */
  async advance(ms: number): Promise<void> {
    const endMs = this.nowMs + ms;
    await settle();
    for (;;) {
      const next = this.#next(endMs);
      if (!next) break;
      this.nowMs = Math.max(this.nowMs, next.atMs);
      const { callback } = next;
      next.callback = undefined;
      this.#waiting--;
      callback!();
      // All promises that wait for nothing else come to their end within a turn of the event loop.
      await nextTurn();
    }
    this.nowMs = endMs;
    await settle();
  }

  /** Moves on until `condition` holds. Answers how long that took; fails after `limitMs`. */
  async until(condition: () => boolean, limitMs = 120_000, stepMs = 100): Promise<number> {
    const startMs = this.nowMs;
    while (!condition()) {
      if (this.nowMs - startMs > limitMs) throw new Error(`not so within ${limitMs} ms`);
      await this.advance(stepMs);
    }
    return this.nowMs - startMs;
  }

  /** Takes the next timer that is due by `endMs` and whose clock runs. */
  #next(endMs: number): Waiting | undefined {
    for (;;) {
      const first = this.#heap.first();
      if (!first || (first.atMs > endMs && first.callback)) return undefined;
      this.#heap.pop();
      if (!first.callback) this.#cancelled = Math.max(this.#cancelled - 1, 0);
      else if (!first.clock.isPaused) return first;
      else first.clock.hold(first);
    }
  }

  /** Timers that were cancelled long before they came up would fill the heap. */
  #sweep(): void {
    this.#heap.keep(({ callback }) => callback !== undefined);
    this.#cancelled = 0;
  }
}

export class NodeClock implements Clock {
  /** How wrong the wall clock is. */
  wallShiftMs = 0;
  #isPaused = false;
  #held: Waiting[] = [];

  constructor(readonly time: VirtualTime) {}

  /** As after SIGSTOP. */
  get isPaused(): boolean {
    return this.#isPaused;
  }

  set isPaused(isPaused: boolean) {
    this.#isPaused = isPaused;
    if (isPaused) return;
    const held = this.#held;
    this.#held = [];
    this.time.resume(held);
  }

  /** For the timeline: this timer has come up while the clock stood. */
  hold(timer: Waiting): void {
    this.#held.push(timer);
  }

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

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Lets all promises that don't wait for time come to their end. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await nextTurn();
}
