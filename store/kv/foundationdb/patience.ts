/** Waiting for something that may never come, for a while. */
import type { Clock } from '../../../ops/telemetry/index.js';

/** Settles as `promise` does, or after `patienceMs` rejects with what `onEnd` gives. What comes later is ignored. */
export function withPatience<T>(clock: Clock, patienceMs: number, promise: Promise<T>, onEnd: () => Error): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = clock.setTimer(patienceMs, () => reject(onEnd()));
    promise.then(
      (value) => {
        timer.cancel();
        resolve(value);
      },
      (error) => {
        timer.cancel();
        reject(error);
      },
    );
  });
}
