/**
 * Time and randomness as things that are handed in. Everything in `store/`, `cluster/` and `node/mailflow/` takes a `Clock` and
 * a `Random`; only this file touches the machine's own. The simulator hands in others and replays a run from its seed.
 */
import { randomBytes } from 'node:crypto';

/** A handle that `Clock.setTimer` gave; cancelling twice, or after it fired, is harmless. */
export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Wall clock, milliseconds since the Unix epoch. May jump; never used to decide who owns what. */
  nowMs(): number;
  /** Monotonic milliseconds since an arbitrary start. */
  monotonicMs(): number;
  /** Calls `callback` once after `delayMs`. With `background`, the timer does not keep the process alive. */
  setTimer(delayMs: number, callback: () => void, options?: { background?: boolean }): Timer;
  /** Resolves after `delayMs`; rejects with the signal's reason when it is aborted first. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
}

export interface Random {
  /** Uniform in [0, 1). */
  float(): number;
  /** `length` random bytes; from a cryptographic source in production. */
  bytes(length: number): Buffer;
}

/** `sleep` on top of any clock's `setTimer`. */
export function sleepOn(clock: Pick<Clock, 'setTimer'>, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const onAbort = () => {
      timer.cancel();
      reject(signal!.reason);
    };
    const timer = clock.setTimer(delayMs, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** The machine's own clock. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  setTimer(delayMs, callback, options) {
    const handle = setTimeout(callback, delayMs);
    if (options?.background) handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
  sleep: (delayMs, signal) => sleepOn(systemClock, delayMs, signal),
};

// The kernel is asked for a few kilobytes at a time: ids and salts are small, and each of them is handed out once.
const poolBytes = 4_096;
let pool = Buffer.alloc(0);
let poolUsed = 0;

function pooledBytes(length: number): Buffer {
  if (length > poolBytes / 4) return randomBytes(length);
  if (poolUsed + length > pool.length) {
    pool = randomBytes(poolBytes);
    poolUsed = 0;
  }
  const bytes = Buffer.from(pool.subarray(poolUsed, poolUsed + length));
  pool.fill(0, poolUsed, poolUsed + length);
  poolUsed += length;
  return bytes;
}

/** The machine's own randomness. */
export const systemRandom: Random = {
  float: () => Math.random(),
  bytes: pooledBytes,
};
