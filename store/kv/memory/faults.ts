/** Faults that a test or the simulator injects into one memory store. All may be changed at any time. */

export type MemoryOperation = 'begin' | 'read' | 'commit';

export interface MemoryFaultOptions {
  /** Probability that a commit which has read something fails with `conflict`. */
  conflict?: number;
  /** Probability that a commit is applied and then reported as `commit-unknown`. */
  commitUnknownApplied?: number;
  /** Probability that a commit is not applied and reported as `commit-unknown`. */
  commitUnknownLost?: number;
  /** How long each operation takes, milliseconds on the store's clock; 0 or undefined: no wait at all. */
  delayMs?: (operation: MemoryOperation) => number | undefined;
  /** Every operation fails with `unavailable` (`outage`); a commit that is already on its way becomes unknown. */
  outage?: boolean;
}

export class MemoryFaults {
  /** What becomes of the next commit, which then is `commit-unknown`; once. */
  nextCommit: 'applied' | 'lost' | undefined;
  conflict: number;
  commitUnknownApplied: number;
  commitUnknownLost: number;
  delayMs: ((operation: MemoryOperation) => number | undefined) | undefined;
  outage: boolean;

  constructor(options: MemoryFaultOptions = {}) {
    this.conflict = options.conflict ?? 0;
    this.commitUnknownApplied = options.commitUnknownApplied ?? 0;
    this.commitUnknownLost = options.commitUnknownLost ?? 0;
    this.delayMs = options.delayMs;
    this.outage = options.outage ?? false;
  }

  /** Whether `nextCommit` was set to `outcome`; it is used up then. */
  takeNextCommit(outcome: 'applied' | 'lost'): boolean {
    if (this.nextCommit !== outcome) return false;
    this.nextCommit = undefined;
    return true;
  }

  /** Back to a store without faults. */
  clear(): void {
    Object.assign(this, new MemoryFaults());
  }
}
