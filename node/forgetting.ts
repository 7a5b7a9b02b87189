/** What the job `purge` forgets besides blobs and mail: counters, greylist entries and bans that are over, look-up entries, old histories. */
import type { Clock } from '../ops/telemetry/index.js';
import type { KvReads } from '../store/kv/contract.js';
import type { Limits } from '../store/limits/index.js';
import type { Lookups } from '../store/lookups/contract.js';
import type { History } from '../store/queue/index.js';

const dayMs = 86_400_000;

export interface ForgettingDependencies {
  clock: Clock;
  limits: Pick<Limits, 'forgetExpired'>;
  lookups: Pick<Lookups, 'forgetExpired'>;
  history: Pick<History, 'forget'>;
  /** Of messages that have left the queue. */
  keepHistoryDays: () => number;
}

/**
 * One pass; bounded steps that may be cut off anywhere. One that fails does not keep the others from their turn; then the first error is thrown: what `assert`
 * throws, KvError.
 */
export async function forgetExpired(
  { clock, limits, lookups, history, keepHistoryDays }: ForgettingDependencies,
  assert: (reads: KvReads) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const nowMs = clock.nowMs();
  const steps = [
    () => limits.forgetExpired(nowMs, assert),
    () => lookups.forgetExpired(nowMs, assert),
    () => history.forget(nowMs - keepHistoryDays() * dayMs, assert),
  ];
  const errors: unknown[] = [];
  for (const step of steps) {
    if (signal.aborted) break;
    try {
      await step();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw errors[0];
}
