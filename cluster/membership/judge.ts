/**
 * Puts together what rows and gossip say: the verdict on each node, who is dead, and how soon the next look is wanted. Judges only by looks of a node that
 * could write as well; declares nobody dead by itself (burials do, in a transaction).
 */
import { StandstillWatch } from '../standstill.js';
import type { FailureTiming, Verdict } from './contract.js';
import type { Detector } from './detector.js';
import { type Hearing, verdictOf } from './verdict.js';

/** What a look found of one node. */
export interface Looked {
  /** Differs after every heartbeat. */
  state: string;
  hasFence: boolean;
}

/** Of `heartbeatMs`: the pace while somebody has been cut off for long and lives. His row, and one's own, still move within a short standstill. */
const calmShare = 0.4;

export class Judge {
  /** For terms, over looks at the pace of peace. */
  readonly rows: StandstillWatch;
  /**
   * For short standstills. A stall of the store for longer than half of one starts them afresh, so that it takes more than a stall for a row that
   * everybody would have written to look still.
   */
  readonly #quick: StandstillWatch;
  #hasFence = new Map<string, boolean>();

  constructor(
    readonly timing: FailureTiming,
    readonly detector?: Detector,
  ) {
    this.rows = new StandstillWatch(2 * timing.heartbeatMs);
    this.#quick = new StandstillWatch(timing.standstillMs / 2);
  }

  /** As `StandstillWatch.look`. A look counts only when the heartbeat before it came through. Answers the ids that are new or have changed. */
  look(found: ReadonlyMap<string, Looked>, startMs: number, endMs: number): string[] {
    const states = new Map<string, string>();
    this.#hasFence = new Map();
    for (const [nodeId, { state, hasFence }] of found) {
      states.set(nodeId, state);
      this.#hasFence.set(nodeId, hasFence);
    }
    this.#quick.look(states, startMs, endMs);
    return this.rows.look(states, startMs, endMs);
  }

  /** Its fence has been broken. */
  fenceBroken(nodeId: string): void {
    if (this.#hasFence.has(nodeId)) this.#hasFence.set(nodeId, false);
  }

  hearing(nodeId: string, nowMs: number): Hearing {
    return this.detector?.hearing(nodeId, nowMs) ?? 'unknown';
  }

  rowAgeMs(nodeId: string, nowMs: number): number {
    return nowMs - (this.rows.sinceMs(nodeId) ?? nowMs);
  }

  verdict(nodeId: string, nowMs: number): Verdict {
    const hasFence = this.#hasFence.get(nodeId) ?? false;
    return verdictOf({ hasFence, gossip: this.hearing(nodeId, nowMs), rowAgeMs: this.rowAgeMs(nodeId, nowMs) }, this.timing);
  }

  /** Who may be buried, after a look. */
  dead(nowMs: number): string[] {
    return [...this.#hasFence.keys()].filter(
      (nodeId) => this.rows.stoodStillMs(nodeId) >= this.timing.termMs || this.#isGone(nodeId, nowMs),
    );
  }

  /**
   * Gossip has lost it, its row has stood still for the short while, and nobody is left who might hear it still: every other node that gossips is heard
   * freshly (it would have passed on the news), or its own row stands still for so long that its word counts for nothing (`Detector.isVouchedFor`). So
   * the node knew that it might be dead before this.
   */
  #isGone(nodeId: string, nowMs: number): boolean {
    const { detector, timing } = this;
    if (!detector || !this.#hasFence.get(nodeId)) return false;
    if (this.#quick.stoodStillMs(nodeId) < this.#stillMs(nodeId, nowMs)) return false;
    const goneSinceMs = detector.goneSinceMs(nodeId);
    if (goneSinceMs === undefined || goneSinceMs > nowMs) return false;
    return detector.unheard(nowMs).every((id) => id === nodeId || this.#quick.stoodStillMs(id) >= timing.silenceMs);
  }

  /** A node that hurries writes its row once in a round: the next heartbeat must be overdue by `standstillMs`, and a stall of the store gets some room. */
  #stillMs(nodeId: string, nowMs: number): number {
    const isCalm = this.detector?.isCalmAbout(nodeId, nowMs) ?? false;
    return this.timing.standstillMs + 1.5 * (isCalm ? this.#calmRoundMs : this.timing.doubtRoundMs);
  }

  get #calmRoundMs(): number {
    return Math.max(this.timing.heartbeatMs * calmShare, this.timing.doubtRoundMs);
  }

  /** Whether this node looks more often than in peace. */
  isDoubting(nowMs: number): boolean {
    return this.detector !== undefined && this.#doubt(nowMs) !== 'none';
  }

  /** From the beginning of one round to that of the next. */
  roundMs(nowMs: number): number {
    const { heartbeatMs, doubtRoundMs } = this.timing;
    const doubt = this.#doubt(nowMs);
    if (doubt === 'none') return heartbeatMs;
    return doubt === 'calm' ? this.#calmRoundMs : doubtRoundMs;
  }

  /** The next moment at which a look could find somebody dead who is silent; Infinity when there is none. */
  nextVerdictMs(nowMs: number): number {
    let nextMs = Number.POSITIVE_INFINITY;
    for (const [nodeId, hasFence] of this.#hasFence) {
      const goneSinceMs = hasFence ? this.detector?.goneSinceMs(nodeId) : undefined;
      const stillSinceMs = this.#quick.sinceMs(nodeId);
      if (goneSinceMs === undefined || stillSinceMs === undefined) continue;
      const atMs = Math.max(goneSinceMs, stillSinceMs + this.#stillMs(nodeId, nowMs));
      if (atMs > nowMs) nextMs = Math.min(nextMs, atMs);
    }
    return nextMs;
  }

  #doubt(nowMs: number) {
    const isRowMoving = (nodeId: string) => this.rowAgeMs(nodeId, nowMs) < this.timing.standstillMs;
    return this.detector?.doubt(nowMs, isRowMoving) ?? 'none';
  }
}
