/**
 * Turns among transactions of one process that keep losing to each other over the same key: without them, each commit makes all
 * others run again, and the last of many runs out of attempts. A turn is only courtesy: correctness never depends on having one.
 */
import type { Clock, Timer } from '../../ops/telemetry/index.js';

/** Ends a turn, and gives it to who has waited longest. */
export type PassOn = () => void;

interface Waiting {
  readonly begin: (passOn: PassOn | undefined) => void;
  readonly impatience: Timer;
}

export class Turnstile {
  /** A key is in here as long as somebody has its turn. */
  readonly #queues = new Map<string, Set<Waiting>>();

  constructor(readonly clock: Pick<Clock, 'setTimer'>) {}

  /** Resolves with the turn for `key`, or with nothing after `patienceMs`: whoever has it may be slow, or be waiting for the asker. */
  take(key: string, patienceMs: number): Promise<PassOn | undefined> {
    const queue = this.#queues.get(key);
    if (!queue) {
      this.#queues.set(key, new Set());
      return Promise.resolve(() => this.#passOn(key));
    }
    return new Promise((begin) => {
      const impatience = this.clock.setTimer(patienceMs, () => {
        queue.delete(waiting);
        begin(undefined);
      });
      const waiting: Waiting = { begin, impatience };
      queue.add(waiting);
    });
  }

  #passOn(key: string): void {
    const queue = this.#queues.get(key)!;
    for (const next of queue) {
      queue.delete(next);
      next.impatience.cancel();
      next.begin(() => this.#passOn(key));
      return;
    }
    this.#queues.delete(key);
  }
}
