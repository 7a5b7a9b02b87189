/**
 * When sessions in IDLE must say something (TRAPS 31). Thousands that were told the same at the same time are due at the same time: they share one timer, and are
 * served in turns. Being told something moves nothing here; who turns out not to be due yet is looked at again when it is.
 */
import type { Clock } from '../../ops/telemetry/index.js';
import { inTurns } from './turns.js';

/** Steps in one interval: signs of life come up to one step early, at times that many sessions have in common. */
const stepsPerInterval = 12;

/** A session in IDLE, as far as silence goes. */
export interface Silent {
  /** When the client was last told anything; monotonic. */
  readonly lastToldMs: number;
  readonly keepAliveMs: number;
  /** Something is to be said now. Must not throw. */
  breakSilence(): void;
}

/** When the next sign of life is due. */
export function keepAliveDueMs(lastToldMs: number, keepAliveMs: number): number {
  const stepMs = Math.max(1, keepAliveMs / stepsPerInterval);
  return Math.floor((lastToldMs + keepAliveMs) / stepMs) * stepMs;
}

export class KeepAlives {
  readonly #clock: Clock;
  /** By the time at which they are looked at; each has its timer. */
  readonly #groups = new Map<number, Set<Silent>>();
  /** Where each of them is. */
  readonly #groupOf = new Map<Silent, Set<Silent>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** From here until `delete`. */
  add(one: Silent): void {
    this.#schedule(one, keepAliveDueMs(one.lastToldMs, one.keepAliveMs));
  }

  delete(one: Silent): void {
    this.#groupOf.get(one)?.delete(one);
    this.#groupOf.delete(one);
  }

  #schedule(one: Silent, atMs: number): void {
    let group = this.#groups.get(atMs);
    if (!group) {
      group = new Set();
      this.#groups.set(atMs, group);
      this.#setTimer(atMs);
    }
    group.add(one);
    this.#groupOf.set(one, group);
  }

  #setTimer(atMs: number): void {
    const delayMs = Math.max(0, atMs - this.#clock.monotonicMs());
    this.#clock.setTimer(delayMs, () => void this.#look(atMs), { background: true });
  }

  async #look(atMs: number): Promise<void> {
    // The machine's timers may fire a fraction of a millisecond early: sessions that compare times would be silent for another interval.
    if (this.#clock.monotonicMs() < atMs) {
      this.#setTimer(atMs);
      return;
    }
    const group = this.#groups.get(atMs) ?? [];
    this.#groups.delete(atMs);
    await inTurns(group, this.#clock, (one) => {
      const nowMs = this.#clock.monotonicMs();
      const dueMs = keepAliveDueMs(one.lastToldMs, one.keepAliveMs);
      const isDue = dueMs <= nowMs;
      this.#schedule(one, isDue ? keepAliveDueMs(nowMs, one.keepAliveMs) : dueMs);
      if (isDue) one.breakSilence();
    });
  }
}

const keepAlivesByClock = new WeakMap<Clock, KeepAlives>();

/** Those of all sessions that run on this clock. */
export function keepAlivesOf(clock: Clock): KeepAlives {
  let found = keepAlivesByClock.get(clock);
  if (!found) {
    found = new KeepAlives(clock);
    keepAlivesByClock.set(clock, found);
  }
  return found;
}
