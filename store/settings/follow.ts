/** Hears of other nodes' changes: a watch on one key, and a look at it from time to time in case the watch was lost. */
import type { Clock, Logger } from '../../ops/telemetry/index.js';
import type { KvStore, KvWatch } from '../kv/contract.js';

/** Between two looks, however often the watch fires. */
const minGapMs = 20;

export interface FollowOptions {
  kv: KvStore;
  clock: Clock;
  logger: Logger;
  key: Buffer;
  /** A change is seen this late at worst. */
  pollIntervalMs: number;
  /** Reads what there is. Called after the watch stands, so that nothing falls in between. */
  refresh(): Promise<void>;
}

/** Answers how to end it. */
export function followKey(options: FollowOptions): () => Promise<void> {
  const ending = new AbortController();
  const running = run(options, ending.signal);
  return async () => {
    ending.abort();
    await running;
  };
}

async function run(options: FollowOptions, signal: AbortSignal): Promise<void> {
  const { clock, logger, pollIntervalMs } = options;
  let isOut = false;
  while (!signal.aborted) {
    let watch: KvWatch | undefined;
    try {
      watch = await watchKey(options, signal);
      await options.refresh();
      if (isOut) logger.info('settings can be read again');
      isOut = false;
    } catch (error) {
      if (!signal.aborted && !isOut) logger.warn({ err: error }, 'settings can not be read now; the last ones hold');
      isOut = true;
    }
    await pause(clock, isOut ? undefined : watch, pollIntervalMs, signal);
    watch?.cancel();
    if (!signal.aborted) await clock.sleep(minGapMs, signal).catch(() => undefined);
  }
}

async function watchKey({ kv, key }: FollowOptions, signal: AbortSignal): Promise<KvWatch> {
  let watch: KvWatch | undefined;
  return kv.transact(
    async (tx) => {
      watch?.cancel();
      await tx.get(key);
      watch = tx.watch(key);
      return watch;
    },
    { label: 'settings', signal },
  );
}

/** Until the watch fires, the poll is due, or it is over. Holds up no process that has nothing else to do. */
function pause(clock: Clock, watch: KvWatch | undefined, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = clock.setTimer(ms, done, { background: true });
    function done() {
      timer.cancel();
      signal.removeEventListener('abort', done);
      resolve();
    }
    signal.addEventListener('abort', done, { once: true });
    if (signal.aborted) done();
    // A watch that failed is as good as one that was lost: the poll looks.
    watch?.fired.then(done, () => undefined);
  });
}
