/** The other nodes as the last look found them: their rows, what is made of them, and how they are shown. */
import type { Clock, Logger } from '../../ops/telemetry/index.js';
import { ClockSkews } from './clock-skew.js';
import type { FailureTiming, Health, NodeRow, NodeView } from './contract.js';
import type { Judge } from './judge.js';
import type { Evidence, FoundNode } from './records.js';
import { decodeRow } from './rows.js';
import type { Candidate } from './shares.js';

interface KnownNode extends FoundNode {
  row?: NodeRow;
}

export class KnownNodes {
  #known = new Map<string, KnownNode>();
  readonly #skews: ClockSkews;

  constructor(
    readonly judge: Judge,
    readonly timing: FailureTiming,
    readonly clock: Clock,
    logger: Logger,
  ) {
    this.#skews = new ClockSkews(logger, timing.heartbeatMs);
  }

  has(nodeId: string): boolean {
    return this.#known.has(nodeId);
  }

  /** A look that was begun at `startMs` and whose answer came at `endMs` (monotonic) has found these. */
  look(found: ReadonlyMap<string, FoundNode>, startMs: number, endMs: number): void {
    const states = new Map(
      [...found].map(([id, { bytes, hasFence }]) => [id, { state: `${hasFence}${bytes?.toString('latin1') ?? ''}`, hasFence }]),
    );
    const changed = new Set(this.judge.look(states, startMs, endMs));
    const before = this.#known;
    this.#known = new Map();
    for (const [nodeId, { bytes, hasFence }] of found) {
      const known = before.get(nodeId);
      const row = changed.has(nodeId) || !known ? bytes && decodeRow(nodeId, bytes) : known.row;
      this.#known.set(nodeId, { bytes, hasFence, row });
      // The first sight of a row, ever or since an outage, says nothing about clocks: it may be old.
      const isFresh = known !== undefined && changed.has(nodeId) && !this.judge.rows.isInterrupted;
      if (isFresh && row && hasFence) this.#skews.sample(nodeId, row.sentAtMs, this.clock.nowMs());
    }
    this.#skews.keep(this.#known);
  }

  fenceBroken(nodeId: string): void {
    const known = this.#known.get(nodeId);
    if (known) known.hasFence = false;
    this.judge.fenceBroken(nodeId);
  }

  /** Rows of those whose fences stand. */
  standing(): NodeRow[] {
    return [...this.#known.values()].flatMap(({ row, hasFence }) => (row && hasFence ? [row] : []));
  }

  /** All rows; undefined for those that can't be read. */
  rows(): (NodeRow | undefined)[] {
    return [...this.#known.values()].map(({ row }) => row);
  }

  /** Who may be buried, after a look. */
  dead(): Evidence[] {
    return this.judge.dead(this.clock.monotonicMs()).map((nodeId) => {
      const { bytes, hasFence } = this.#known.get(nodeId)!;
      return { nodeId, bytes, hasFence };
    });
  }

  /** Those that are ready and whose fences stand. */
  candidates(): Candidate[] {
    const nowMs = this.clock.monotonicMs();
    return this.standing()
      .filter(({ state }) => state === 'ready')
      .map(({ nodeId, roles }) => ({
        nodeId,
        roles,
        verdict: this.judge.verdict(nodeId, nowMs),
        gossip: this.judge.hearing(nodeId, nowMs),
      }));
  }

  /** Sorted by id. */
  views(): NodeView[] {
    const nowMs = this.clock.monotonicMs();
    const { detector } = this.judge;
    const views = [...this.#known].map(([nodeId, { row, hasFence }]): NodeView => {
      const heartbeatAgeMs = this.judge.rowAgeMs(nodeId, nowMs);
      return {
        nodeId,
        isSelf: false,
        health: healthOf(!hasFence, heartbeatAgeMs, this.timing),
        verdict: this.judge.verdict(nodeId, nowMs),
        phi: detector?.phi(nodeId, nowMs),
        gossipAgeMs: detector?.newsAgeMs(nodeId, nowMs),
        row,
        heartbeatAgeMs,
        clockSkewMs: this.#skews.of(nodeId),
      };
    });
    return views.sort((a, b) => (a.nodeId < b.nodeId ? -1 : 1));
  }
}

export function healthOf(isFenced: boolean, ageMs: number, { termMs }: Pick<FailureTiming, 'termMs'>): Health {
  if (isFenced) return 'freeing';
  return ageMs > termMs / 2 ? 'late' : 'alive';
}
