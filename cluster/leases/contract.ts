/**
 * Jobs that one node does for all: one row per job with holder, epoch and a counter of renewals. Who holds it renews it; a contender takes it over when
 * it is free, when its holder's fence is broken, or when the row has stood still for a full term on the contender's own clock (TRAPS 20, 21).
 */
import type { KvTransaction } from '../../store/kv/contract.js';
import type { GenerationSource } from '../bus/contract.js';

export interface LeaderLease {
  readonly job: string;
  /** By this node's own clock: the last renewal that came through began less than a term ago. A hint: only `assert` decides. */
  readonly isHeld: boolean;
  /** Of the tenure of this node; undefined while it does not hold the job. */
  readonly epoch: number | undefined;
  /** Reads the row in `tx`, so that the commit fails when the job has passed to another. Throws LeaseLost. For every effect on the store. */
  assert(tx: Pick<KvTransaction, 'get'>): Promise<void>;
}

export interface LeaseHolder {
  job: string;
  /** '' when nobody holds it. */
  nodeId: string;
  epoch: number;
}

/**
 * Once-only work: one look at what is due, or a loop that lasts until its signal is aborted. `signal` is aborted with LeaseLost when the job is lost, when
 * the node's own clock says that it may be, and when it is to be handed over; the work should end within 5 s then, and may save where it stands as long as
 * its lease lets it. Every effect on the store calls `lease.assert(tx)` in its transaction. `lease` is the one of this epoch: it stays lost, also when this
 * node gets the job again.
 */
export type LeaderWork = (epoch: number, signal: AbortSignal, lease: LeaderLease) => Promise<void>;

export interface LeaderWorkOptions {
  /** From the end of a run to the beginning of the next. Default 1 000; after a run that threw it is doubled each time, up to a minute. */
  pauseMs?: number;
}

export interface LeaderLeases {
  /**
   * Contends for the job and runs `work` as long as this node holds it: once, and again after a pause when it has resolved or thrown (logged). Runs never
   * overlap in one node. A job is handed over between two runs; a run that lasts longer than a minute then is aborted for it, and one that does not heed its
   * signal for 5 s has its lease taken away. Answers the way to stop, which resolves when the work has ended and the job was given back. One work for each
   * job: throws an Error for a second one.
   */
  whileLeader(job: string, work: LeaderWork, options?: LeaderWorkOptions): () => Promise<void>;
  /** As last read: who holds the jobs that this node contends for, by name of the job. */
  holders(): LeaseHolder[];
  /** Contends for a job from now on. The same lease for the same name. */
  contend(job: string): LeaderLease;
  /** Begins to contend and to renew. The first try is made at once; resolves when it is over. */
  start(): Promise<void>;
  /**
   * The members have changed, a fence was broken, or another node says that it has given a job back: looks now instead of at the next renewal. Cheap: calls
   * within 50 ms make one look.
   */
  wake(): void;
  /** This node has taken a job, given it back or lost it. Answers the way to stop listening. */
  onChange(listener: () => void): () => void;
  /** Who holds what, for the bus: `bus.follow(leases.source)` wakes this node when a job has moved; `onChange(() => bus.raised(leases.source.name))` wakes others. */
  readonly source: GenerationSource;
  /**
   * For a drain: takes nothing more, aborts the work and waits for it at most 5 s (going on to renew), and gives back what is held, so that others can take
   * it at once. Never rejects.
   */
  release(): Promise<void>;
  /** Aborts the work, waits for it at most 5 s, and leaves the rows to run out. */
  stop(): Promise<void>;
}

/** The job has passed to another node, or was never this node's. */
export class LeaseLost extends Error {
  override readonly name = 'LeaseLost';
}
