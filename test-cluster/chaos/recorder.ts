/** What happens in a run, written down as it happens, on one clock that begins with the run: the timeline for people, and the history for the checker. */
import type {
  Append,
  Death,
  Fault,
  FaultKind,
  FlagChange,
  LeaseSample,
  MailboxObservation,
  Sent,
  Violation,
} from '../checker/history.js';
import type { Life } from '../harness/chaos-node.js';

export interface TimelineEntry {
  atMs: number;
  what: string;
}

const maxEntries = 400;
const maxErrorLength = 160;

export class Recorder {
  readonly timeline: TimelineEntry[] = [];
  readonly faults: Fault[] = [];
  readonly sent: Sent[] = [];
  readonly appends: Append[] = [];
  readonly flagChanges: FlagChange[] = [];
  readonly observations: MailboxObservation[] = [];
  readonly leases: LeaseSample[] = [];
  readonly acknowledgements: { node: number; atMs: number }[] = [];
  /** Fences that went away, by node id. */
  readonly vanished = new Map<string, number>();
  /** Nodes that others say they have declared dead, by node id. */
  readonly declared = new Map<string, number>();
  readonly violations: Violation[] = [];
  readonly #startMs = performance.now();
  readonly #failing = new Map<string, number>();

  nowMs(): number {
    return performance.now() - this.#startMs;
  }

  note(what: string): void {
    if (this.timeline.length < maxEntries) this.timeline.push({ atMs: Math.round(this.nowMs()), what });
  }

  violate(kind: string, what: string): void {
    this.violations.push({ kind, what });
    this.note(`violation: ${kind}: ${what}`);
  }

  /** Answers the way to say that it is over. */
  begin(kind: FaultKind, node?: number, nodeId?: string): () => void {
    const fault: Fault = { kind, fromMs: this.nowMs() };
    if (node !== undefined) fault.node = node;
    if (nodeId !== undefined) fault.nodeId = nodeId;
    this.faults.push(fault);
    return () => {
      fault.untilMs ??= this.nowMs();
    };
  }

  acknowledged(node: number, protocol: string): number {
    const atMs = this.nowMs();
    this.acknowledgements.push({ node, atMs });
    const key = `${protocol} on node ${node}`;
    const failingMs = this.#failing.get(key);
    if (failingMs !== undefined) {
      this.#failing.delete(key);
      this.note(`${key} works again after ${((atMs - failingMs) / 1000).toFixed(1)} s`);
    }
    return atMs;
  }

  failed(node: number, protocol: string, error: unknown): void {
    const key = `${protocol} on node ${node}`;
    if (this.#failing.has(key)) return;
    this.#failing.set(key, this.nowMs());
    this.note(`${key} fails: ${(error as Error).message.replaceAll(/\s+/g, ' ').slice(0, maxErrorLength)}`);
  }

  /** Nodes that others have declared dead; who left by itself has not been. */
  deaths(lives: readonly (Life & { node: number })[]): Death[] {
    return lives.flatMap(({ node, nodeId, end }) => {
      const times = [this.declared.get(nodeId), end?.code === 0 ? undefined : this.vanished.get(nodeId)];
      const known = times.filter((time) => time !== undefined);
      return known.length === 0 ? [] : [{ node, nodeId, atMs: Math.min(...known) }];
    });
  }
}
