/**
 * Jobs that one node does for all: one row per job with holder, epoch and a counter of renewals. Who holds it renews it; a contender takes it over when
 * it is free, when its holder's fence is broken, or when the row has stood still for a full term on the contender's own clock (TRAPS 20, 21).
 */
import type { KvTransaction } from '../../store/kv/contract.js';

export interface LeaderLease {
  readonly job: string;
  /** By this node's own clock: the last renewal that came through began less than a term ago. A hint: only `assert` decides. */
  readonly isHeld: boolean;
  /** Of the tenure of this node; undefined while it does not hold the job. */
  readonly epoch: number | undefined;
  /** Reads the row in `tx`, so that the commit fails when the job has passed to another. Throws LeaseLost. For every effect on the store. */
  assert(tx: Pick<KvTransaction, 'get'>): Promise<void>;
}

export interface LeaderLeases {
  /** Contends for a job from now on. The same lease for the same name. */
  contend(job: string): LeaderLease;
  /** Begins to contend and to renew. The first try is made at once; resolves when it is over. */
  start(): Promise<void>;
  /** Stops contending and gives back what is held, so that others can take it at once. Never rejects. */
  release(): Promise<void>;
  /** Stops, and leaves the rows to run out. */
  stop(): Promise<void>;
}

/** The job has passed to another node, or was never this node's. */
export class LeaseLost extends Error {
  override readonly name = 'LeaseLost';
}
