/** Bounds what is asked of a store that may never answer: whoever waits gets an error in time, and only so many calls are left hanging. */
import type { Clock } from '../../ops/telemetry/index.js';

const maxHanging = 3;

export class Deadline {
  #hanging = 0;

  constructor(
    readonly clock: Clock,
    readonly timeoutMs: number,
  ) {}

  /** Runs `work`; rejects after `timeoutMs` and aborts the signal. Rejects at once while too many earlier calls still hang. */
  async bound<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#hanging >= maxHanging) throw new Error(`${maxHanging} earlier calls have not come back from the store`);
    const over = new AbortController();
    const settled = () => void this.#hanging--;
    this.#hanging++;
    // What throws at once has come back as well.
    const running = (async () => work(over.signal))();
    running.then(settled, settled);
    return new Promise<T>((resolve, reject) => {
      const timer = this.clock.setTimer(
        this.timeoutMs,
        () => {
          const error = new Error(`the store has not answered within ${this.timeoutMs} ms`);
          over.abort(error);
          reject(error);
        },
        { background: true },
      );
      running.then(resolve, reject).finally(() => timer.cancel());
    });
  }
}
