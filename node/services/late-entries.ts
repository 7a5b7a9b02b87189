/**
 * Due entries of others' shards that nobody seems to work: their owner is gone, full, or does not know that they are its own. One look is not enough to tell: a
 * long queue has late entries wherever it is worked. What was there at the look before as well is left lying.
 */
import type { Clock } from '../../ops/telemetry/index.js';
import type { DueEntry, Queue } from '../../store/queue/index.js';
import { refOf } from './delivery-lanes.js';

export interface LateLimits {
  /** Entries count as late when they have waited this long. */
  lateAfterSeconds: number;
  /** Entries that one look takes. */
  claimBatch: number;
}

export class LateEntries {
  #lookAtMs = Number.NEGATIVE_INFINITY;
  #seen = new Set<string>();

  constructor(
    private readonly queue: Pick<Queue, 'due'>,
    private readonly clock: Clock,
    private readonly limits: LateLimits,
  ) {}

  /** Those to be taken now; the store is asked twice in `lateAfterSeconds` at most. */
  async look(shards: readonly number[], nowSeconds: number): Promise<DueEntry[]> {
    const { lateAfterSeconds, claimBatch } = this.limits;
    const nowMs = this.clock.monotonicMs();
    if (nowMs < this.#lookAtMs) return [];
    this.#lookAtMs = nowMs + (lateAfterSeconds * 1000) / 2;
    const { entries } = await this.queue.due(shards, nowSeconds - lateAfterSeconds, claimBatch);
    const before = this.#seen;
    this.#seen = new Set(entries.map(sightOf));
    return entries.filter((entry) => before.has(sightOf(entry)));
  }
}

/** An entry that was worked meanwhile and became due again is another one. */
const sightOf = (entry: DueEntry) => `${refOf(entry)}@${entry.dueAtSeconds}`;
