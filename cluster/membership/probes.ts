/**
 * Questions whether a node lives, asked directly and through others (SWIM, Das et al. 2002), and those of others that this node passes on. A helper that
 * gets no answer says so, which tells a dead target from a deaf asker (Lifeguard).
 */
import type { DirectMessage } from './messages.js';
import { probes } from './metrics.js';

interface Probe {
  target: string;
  deadlineMs: number;
  /** Helpers that have said nothing yet; of a probe of this node's own. */
  unanswered: Set<string>;
  helpers: number;
  /** For whom it is passed on, and under which number there. */
  asker?: { nodeId: string; probe: number };
}

/** How a probe of this node's own has ended without an answer. */
export interface FailedProbe {
  target: string;
  /** Not even a helper has answered. */
  isUnheard: boolean;
}

/** Passed on at the same time; more are not. */
const maxRelayed = 256;

export class Probes {
  readonly #underWay = new Map<number, Probe>();
  #last = 0;

  constructor(readonly send: (nodeId: string, message: DirectMessage) => boolean) {}

  /** Asks the target, and the helpers to ask it. */
  begin(target: string, helpers: readonly string[], nowMs: number, timeoutMs: number): void {
    const probe = ++this.#last;
    this.#underWay.set(probe, { target, deadlineMs: nowMs + timeoutMs, unanswered: new Set(helpers), helpers: helpers.length });
    probes.inc({ result: 'sent' });
    this.send(target, { kind: 'probe', probe });
    for (const helper of helpers) this.send(helper, { kind: 'probe-request', probe, target, timeoutMs });
  }

  /** Passes on what `asker` wants to know; answers in good time before it stops waiting. */
  relay(asker: string, { probe, target, timeoutMs }: { probe: number; target: string; timeoutMs: number }, nowMs: number): void {
    if (this.#underWay.size >= maxRelayed) return;
    const own = ++this.#last;
    const deadlineMs = nowMs + Math.min(timeoutMs, 60_000) * 0.7;
    this.#underWay.set(own, { target, deadlineMs, unanswered: new Set(), helpers: 0, asker: { nodeId: asker, probe } });
    this.send(target, { kind: 'probe', probe: own });
  }

  /** An answer has come: the target lives. */
  answered({ probe, target, beat }: { probe: number; target: string; beat: number }): void {
    const found = this.#underWay.get(probe);
    if (found?.target !== target) return;
    this.#underWay.delete(probe);
    if (found.asker) this.send(found.asker.nodeId, { kind: 'ack', probe: found.asker.probe, target, beat });
    else probes.inc({ result: 'answered' });
  }

  /** A helper has asked in vain. */
  denied(helper: string, probe: number): void {
    this.#underWay.get(probe)?.unanswered.delete(helper);
  }

  /** Ends what has waited long enough. */
  expire(nowMs: number): FailedProbe[] {
    const failed: FailedProbe[] = [];
    for (const [probe, { target, deadlineMs, unanswered, helpers, asker }] of this.#underWay) {
      if (deadlineMs > nowMs) continue;
      this.#underWay.delete(probe);
      if (asker) this.send(asker.nodeId, { kind: 'nack', probe: asker.probe, target });
      else {
        probes.inc({ result: 'failed' });
        failed.push({ target, isUnheard: helpers >= 2 && unanswered.size === helpers });
      }
    }
    return failed;
  }

  /** When `expire` has something to do; Infinity when nothing is under way. */
  get nextMs(): number {
    let nextMs = Number.POSITIVE_INFINITY;
    for (const { deadlineMs } of this.#underWay.values()) nextMs = Math.min(nextMs, deadlineMs);
    return nextMs;
  }
}
