/** This node's share of the jobs among the members: which free job it may take and when, and to whom it should hand over one that it holds. */
import { assignJobs } from './assignment.js';
import type { Lease } from './lease.js';
import type { LeaseRow } from './rows.js';

/** A node that let a reserved job go, or had it handed over to this one, gets no other chance for so long. */
const declinedMs = 600_000;

export interface ShareOptions {
  nodeId: string;
  members?: (() => readonly string[]) | undefined;
  graceMs: number;
  settleMs: number;
}

export class Share {
  readonly #o: ShareOptions;
  /** Undefined where nobody tells who they are: then every job is this node's share. */
  #members: readonly string[] | undefined;
  #text = '';
  /** Since when the members have been the same (monotonic). */
  #sinceMs = 0;
  #assignedFor = '';
  #assigned = new Map<string, string>();

  constructor(options: ShareOptions) {
    this.#o = options;
  }

  /** To be called at each look, before the rest. */
  refresh(jobs: readonly string[], nowMs: number): void {
    const members = this.#o.members?.();
    this.#members = members;
    if (!members) return;
    const text = [...members].sort().join(' ');
    if (text !== this.#text) [this.#text, this.#sinceMs] = [text, nowMs];
    const assignedFor = `${[...jobs].sort().join(' ')}\n${text}`;
    if (assignedFor === this.#assignedFor) return;
    this.#assignedFor = assignedFor;
    this.#assigned = assignJobs(jobs, members);
  }

  /** Which other node should have a job that this one holds. Without delay where this node is no ready member any more. */
  successorOf(lease: Lease, nowMs: number): string | undefined {
    const { nodeId, settleMs } = this.#o;
    if (!this.#members) return undefined;
    const preferred = this.#assigned.get(lease.job);
    if (preferred === nodeId || preferred === undefined) return undefined;
    if (lease.declined?.by === preferred && nowMs < lease.declined.untilMs) return undefined;
    if (this.#members.includes(nodeId) && nowMs - this.#sinceMs < settleMs) return undefined;
    return preferred;
  }

  /** From when on (monotonic) this node may take a job that is free; infinite for one that is no ready member. */
  mayTakeFromMs(lease: Lease, row: LeaseRow | undefined): number {
    const { nodeId, graceMs } = this.#o;
    if (!this.#members) return Number.NEGATIVE_INFINITY;
    if (!this.#members.includes(nodeId)) return Number.POSITIVE_INFINITY;
    return this.#firstFor(lease, row) === nodeId ? Number.NEGATIVE_INFINITY : (lease.freeSinceMs ?? 0) + graceMs;
  }

  /** This node takes the job: whoever was to have it has let it lie, or has had it given to this one. */
  noteTaken(lease: Lease, row: LeaseRow | undefined, nowMs: number): void {
    let first = this.#firstFor(lease, row);
    // Who gave it to this node sees the share elsewhere (it knows other jobs: another release): without this the two would hand it to and fro.
    if (first === this.#o.nodeId) first = this.#assigned.get(lease.job);
    if (first !== undefined && first !== this.#o.nodeId) lease.declined = { by: first, untilMs: nowMs + declinedMs };
  }

  /** Who goes first at a free job. */
  #firstFor(lease: Lease, row: LeaseRow | undefined): string | undefined {
    if (!this.#members) return undefined;
    return row?.reservedFor && this.#members.includes(row.reservedFor) ? row.reservedFor : this.#assigned.get(lease.job);
  }
}
