/**
 * Claims that the store holds for this node and nobody here knows: commits that stayed unknown to the end. Given back (and then claimed like any other) when
 * they were unknown at two comparisons in a row, so that those whose acceptance is just being finished are left alone. Not worked on as they are: an enqueue that
 * hangs for so long must find a receipt when it runs again.
 */
import type { Clock, Logger } from '../../ops/telemetry/index.js';
import type { ClaimedDestination, NodeIdentity, Queue } from '../../store/queue/index.js';
import { type DeliveryLanes, refOf } from './delivery-lanes.js';

export interface StrangersDependencies {
  queue: Pick<Queue, 'claimsOf'>;
  node: NodeIdentity;
  clock: Clock;
  logger: Logger;
  lanes: DeliveryLanes;
  limits: { compareIntervalMs: number; claimBatch: number };
}

export class Strangers {
  readonly #d: StrangersDependencies;
  #compareAtMs: number;
  /** Claims in the store that nobody here knew at the last comparison, with their epochs. */
  #seen = new Map<string, number>();

  constructor(dependencies: StrangersDependencies) {
    this.#d = dependencies;
    this.#compareAtMs = dependencies.clock.monotonicMs() + dependencies.limits.compareIntervalMs;
  }

  /** Compares when it is time. */
  async giveBack(release: (claimed: readonly ClaimedDestination[]) => Promise<void>): Promise<void> {
    const { clock, queue, node, logger, lanes, limits } = this.#d;
    if (clock.monotonicMs() < this.#compareAtMs) return;
    const strangers = await queue.claimsOf(node, limits.claimBatch, (ref) => lanes.has(refOf(ref)));
    const before = this.#seen;
    this.#seen = new Map(strangers.map(({ destination, claim }) => [refOf(destination), claim.epoch]));
    this.#compareAtMs = clock.monotonicMs() + limits.compareIntervalMs;
    const left = strangers.filter(({ destination, claim }) => {
      const ref = refOf(destination);
      return before.get(ref) === claim.epoch && !lanes.has(ref);
    });
    if (left.length === 0) return;
    logger.warn({ claims: left.length }, 'claims given back that an unknown commit had left behind');
    await release(left);
  }
}
