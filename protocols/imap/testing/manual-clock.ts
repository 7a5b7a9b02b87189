/** A clock that stands still until a test moves it. */
import { type Clock, sleepOn, type Timer } from '../../../ops/telemetry/index.js';

export class ManualClock implements Clock {
  #nowMs = 0;
  #timers = new Set<{ atMs: number; callback: () => void }>();

  nowMs(): number {
    return 1_700_000_000_000 + this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const timer = { atMs: this.#nowMs + delayMs, callback };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return sleepOn(this, delayMs, signal);
  }

  /** Moves on, and fires what is due on the way. */
  advance(ms: number): void {
    this.#nowMs += ms;
    for (const timer of [...this.#timers].sort((a, b) => a.atMs - b.atMs)) {
      if (timer.atMs > this.#nowMs || !this.#timers.delete(timer)) continue;
      timer.callback();
    }
  }

  /** Resolves once somebody waits for `delayMs` from now or less. */
  async waiting(delayMs: number): Promise<void> {
    while (![...this.#timers].some((timer) => timer.atMs - this.#nowMs <= delayMs))
      await new Promise((resolve) => setImmediate(resolve));
  }
}
