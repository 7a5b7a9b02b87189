/** Insists on a write: the work is done and must not be forgotten because the store can't take its record just now. */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import { isStoreTrouble } from './settle.js';

export interface Backoff {
  /** Milliseconds until the next try: doubled each time from half a second to half a minute, with jitter. */
  next(): number;
  reset(): void;
}

const firstBackoffMs = 500;
const maxBackoffMs = 30_000;

export function createBackoff(random: Random): Backoff {
  let delayMs = firstBackoffMs;
  return {
    next() {
      const jittered = delayMs * (0.75 + random.float() / 2);
      delayMs = Math.min(delayMs * 2, maxBackoffMs);
      return jittered;
    },
    reset() {
      delayMs = firstBackoffMs;
    },
  };
}

/** Repeats `save` through outages of the store until it succeeds, fails for another reason (ClaimLost), or `signal` ends it. */
export async function untilSaved<T>(
  { clock, random, logger }: { clock: Clock; random: Random; logger: Logger },
  save: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const backoff = createBackoff(random);
  for (;;) {
    try {
      return await save();
    } catch (error) {
      if (!isStoreTrouble(error) || signal?.aborted) throw error;
      const delayMs = backoff.next();
      logger.warn({ err: error, delayMs }, 'the store does not take a result, trying again');
      await clock.sleep(delayMs, signal);
    }
  }
}
