/**
 * Signals that end one delivery: because its time is over or because all deliveries end. To make one and to listen to it for the first time costs more than all
 * else around a delivery, so a delivery that came to its own end leaves its signal to the next.
 */
import type { Clock } from '../../../ops/telemetry/index.js';

export interface Ending {
  readonly signal: AbortSignal;
  /** Whoever was given the signal has let go of it. */
  over(): void;
}

const maxSpare = 1_000;

/** Answers a signal that is aborted with what `stopping` is aborted with, or with `late()` after `maxMs`. */
export function createEndings(clock: Pick<Clock, 'setTimer'>, late: () => Error) {
  const spare: AbortController[] = [];
  return (stopping: AbortSignal, maxMs: number): Ending => {
    const controller = spare.pop() ?? new AbortController();
    const { signal } = controller;
    // Not AbortSignal.any: what it hangs on a signal as long-lived as `stopping` is never taken off again.
    const stop = () => controller.abort(stopping.reason);
    if (stopping.aborted) stop();
    stopping.addEventListener('abort', stop, { once: true });
    const timer = clock.setTimer(maxMs, () => controller.abort(late()), { background: true });
    return {
      signal,
      over() {
        timer.cancel();
        stopping.removeEventListener('abort', stop);
        if (!signal.aborted && spare.length < maxSpare) spare.push(controller);
      },
    };
  };
}
