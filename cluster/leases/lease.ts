/** One job as this node holds it: the epoch, and until when its own clock lets it believe in it. */
import type { Clock, Timer } from '../../ops/telemetry/index.js';
import { nodeKeys } from '../../store/keyspace.js';
import type { KvTransaction } from '../../store/kv/contract.js';
import { type LeaderLease, LeaseLost } from './contract.js';
import { decodeRow } from './rows.js';
import type { LeaderRuns } from './runs.js';

export class Lease implements LeaderLease {
  heldEpoch: number | undefined;
  heldUntilMs = Number.NEGATIVE_INFINITY;
  /** The work that goes with it. */
  runs: LeaderRuns | undefined;
  /** Somebody uses it without `whileLeader`. */
  isContended = false;
  /** The row is free, and since when (monotonic) this node has seen it so. */
  freeSinceMs: number | undefined;
  /** A node that did not take the job when it was to have it, or did not want it, and until when it gets no other chance. */
  declined: { by: string; untilMs: number } | undefined;
  #timer: Timer | undefined;

  /** `onTermOver`: the term is over by this node's own clock, and no renewal came through. */
  constructor(
    readonly job: string,
    readonly nodeId: string,
    readonly clock: Clock,
    readonly onTermOver: () => void,
  ) {}

  get isHeld(): boolean {
    return this.heldEpoch !== undefined && this.clock.monotonicMs() < this.heldUntilMs;
  }

  get epoch(): number | undefined {
    return this.isHeld ? this.heldEpoch : undefined;
  }

  async assert(tx: Pick<KvTransaction, 'get'>): Promise<void> {
    await this.assertEpoch(tx, this.epoch);
  }

  async assertEpoch(tx: Pick<KvTransaction, 'get'>, epoch: number | undefined): Promise<void> {
    if (epoch === undefined || epoch !== this.epoch) throw new LeaseLost(`this node does not hold ${this.job}`);
    const row = decodeRow(await tx.get(nodeKeys.lease(this.job)));
    if (row?.holder !== this.nodeId || row.epoch !== epoch) throw new LeaseLost(`${this.job} has passed to another node`);
  }

  /** The lease of one epoch alone, for a run that may outlive it. */
  ofEpoch(epoch: number): LeaderLease {
    const lease = this;
    return {
      job: lease.job,
      get isHeld() {
        return lease.epoch === epoch;
      },
      get epoch() {
        return lease.epoch === epoch ? epoch : undefined;
      },
      assert: (tx) => lease.assertEpoch(tx, epoch),
    };
  }

  hold(epoch: number, untilMs: number): void {
    this.heldEpoch = epoch;
    this.heldUntilMs = untilMs;
    if (!this.#timer) this.#watchTerm();
  }

  drop(): void {
    this.heldEpoch = undefined;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** Set once, and anew when it finds that the lease was renewed in the meantime. */
  #watchTerm(): void {
    const waitMs = Math.max(1, Math.ceil(this.heldUntilMs - this.clock.monotonicMs()));
    this.#timer = this.clock.setTimer(
      waitMs,
      () => {
        this.#timer = undefined;
        if (this.isHeld) this.#watchTerm();
        else this.onTermOver();
      },
      { background: true },
    );
  }
}
