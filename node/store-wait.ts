/** A store that can't be reached when a node starts is waited for, as after a power cut that nodes and servers share; the log says so. */
import type { Clock, Logger, Timer } from '../ops/telemetry/index.js';
import { KvError } from '../store/kv/index.js';
import { StartError } from './start-error.js';

const firstPauseMs = 250;
const longestPauseMs = 2_000;
/** A store that is well has answered by then. */
const sayFirstMs = 1_000;
/** Between two lines in the log. */
const sayEveryMs = 10_000;

export interface StoreWait {
  /** 0: one attempt, and nothing is said. */
  timeoutMs: number;
  clock: Clock;
  logger: Logger;
  /** Ends the wait; `untilReachable` throws its reason then. An attempt that is under way is left to itself: the process should end. */
  signal?: AbortSignal | undefined;
}

/**
 * Runs `open` until it does not fail for want of a store, and answers what it does. Everything else that it throws (a wrong password, a wrong key, a database
 * that there is not) will not get better by waiting and is thrown at once. Throws `StartError` when the time is over.
 */
export async function untilReachable<T>(open: () => Promise<T>, wait: StoreWait): Promise<T> {
  const { timeoutMs, clock, signal } = wait;
  if (timeoutMs === 0) return open();
  const beganMs = clock.monotonicMs();
  const notice = new Notice(wait, beganMs);
  let pauseMs = firstPauseMs;
  try {
    for (;;) {
      try {
        const opened = await unlessAborted(open(), signal);
        notice.opened();
        return opened;
      } catch (error) {
        const outage = outageOf(error);
        if (!outage) throw error;
        const leftMs = timeoutMs - (clock.monotonicMs() - beganMs);
        if (leftMs <= 0) {
          const sentence = `the store could not be reached for ${seconds(timeoutMs)} s (store.startTimeoutSeconds): ${outage.message}`;
          throw new StartError(sentence, { cause: error });
        }
        notice.failed(outage.message);
        await clock.sleep(Math.min(pauseMs, leftMs), signal);
        pauseMs = Math.min(longestPauseMs, pauseMs * 2);
      }
    }
  } finally {
    notice.end();
  }
}

/** Tells the operator: with the first failure, or when a second has passed, and then every ten seconds, however long an attempt takes. */
class Notice {
  #reason = 'it has not answered yet';
  #isSaid = false;
  #timer: Timer;

  constructor(
    private readonly wait: StoreWait,
    private readonly beganMs: number,
  ) {
    this.#timer = wait.clock.setTimer(sayFirstMs, () => this.#say());
  }

  failed(reason: string): void {
    this.#reason = reason;
    if (!this.#isSaid) this.#say();
  }

  opened(): void {
    if (this.#isSaid) this.wait.logger.info({ waitedSeconds: seconds(this.#waitedMs) }, 'the store answers');
  }

  end(): void {
    this.#timer.cancel();
  }

  get #waitedMs(): number {
    return this.wait.clock.monotonicMs() - this.beganMs;
  }

  #say(): void {
    const { clock, logger, timeoutMs } = this.wait;
    this.#timer.cancel();
    this.#timer = clock.setTimer(sayEveryMs, () => this.#say());
    this.#isSaid = true;
    const givenUpInSeconds = seconds(Math.max(0, timeoutMs - this.#waitedMs));
    logger.warn({ reason: this.#reason, givenUpInSeconds }, 'the store can not be reached; this node waits for it');
  }
}

const seconds = (ms: number) => Math.round(ms / 1_000);

/** The store's own word that it is away, if that is what went wrong. */
function outageOf(error: unknown): KvError | undefined {
  const found = error instanceof StartError ? error.cause : error;
  if (!(found instanceof KvError)) return undefined;
  const isAway = found.code === 'unavailable' ? found.reason === 'outage' && !isRefusal(found.cause) : found.retryable;
  return isAway ? found : undefined;
}

/** SQLSTATEs of what only an operator can put right: authorization (28), no such database (3D), insufficient privilege (42501). */
function isRefusal(cause: unknown): boolean {
  const code = (cause as { code?: unknown } | undefined)?.code;
  return typeof code === 'string' && /^(28|3D|42501)/.test(code);
}

function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}
