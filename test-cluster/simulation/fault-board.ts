/**
 * What is wrong with whom at the moment and was before, so that a verdict can be asked for its cause: a node may be declared dead when its process is gone or
 * stood still for too long, or when its store kept it from writing, and for nothing else.
 */
import type { FailureTiming } from '../../cluster/membership/contract.js';
import type { VirtualTime } from '../../cluster/testing/virtual-time.js';
import type { MemoryOperation } from '../../store/kv/memory/faults.js';
import type { SimulatedNode } from './node.js';
import type { SeededRandom } from './random.js';
import type { Story } from './story.js';

export type VerdictCause = 'dead' | 'paused' | 'store' | 'leaving';

interface Trouble {
  cause: 'paused' | 'store';
  sinceMs: number;
  untilMs: number;
}

/** Of one operation, milliseconds. */
export interface Slowness {
  minMs: number;
  maxMs: number;
}

export interface FaultBoardOptions {
  readonly time: Pick<VirtualTime, 'nowMs'>;
  readonly timing: FailureTiming;
  readonly random: SeededRandom;
  readonly story: Story;
  /** All that ever were. */
  readonly nodes: readonly SimulatedNode[];
}

export class FaultBoard {
  readonly #world: FaultBoardOptions;
  readonly #random: SeededRandom;
  readonly #troubles = new Map<string, Trouble[]>();
  /** By the name of a node. */
  readonly slow = new Map<string, Slowness>();
  /** Why a node's store is out, by its name. */
  readonly #outages = new Map<string, Set<string>>();
  /** Also for whoever starts meanwhile. */
  #isDownForAll = false;
  #gossipTroubles = 0;
  #gossipWellSinceMs = Number.NEGATIVE_INFINITY;
  readonly verdicts: Record<VerdictCause, number> = { dead: 0, paused: 0, store: 0, leaving: 0 };
  readonly faults: Record<string, number> = {};

  constructor(world: FaultBoardOptions) {
    this.#world = world;
    this.#random = world.random.fork('store-delays');
  }

  /** A pause that is shorter must kill nobody whom gossip can reach (2 s at the `normal` timing, where silence takes 2.4 s). */
  get harmlessPauseMs(): number {
    return (this.#world.timing.silenceMs * 2) / 2.4;
  }

  storeDelayMs(name: string, operation: MemoryOperation): number {
    const slow = this.slow.get(name);
    if (slow) return this.#random.between(slow.minMs, slow.maxMs);
    if (operation === 'read') return this.#random.chance(0.15) ? this.#random.between(0.1, 1) : 0;
    // Never nothing: a process that stands still must not get anything done.
    return operation === 'begin' ? this.#random.between(0.05, 0.4) : this.#random.between(0.3, 2);
  }

  /** The store is out for this node for as long as there is a reason. */
  setOutage(node: SimulatedNode, reason: string, isOut: boolean): void {
    const reasons = this.#outages.get(node.name) ?? new Set();
    this.#outages.set(node.name, reasons);
    isOut ? reasons.add(reason) : reasons.delete(reason);
    node.parts.kv.faults.outage = reasons.size > 0;
  }

  setOutageOfAll(isOut: boolean): void {
    this.#isDownForAll = isOut;
    for (const node of this.#world.nodes) this.setOutage(node, 'all', isOut);
  }

  /** A process begins in a world that is as it is. */
  greet(node: SimulatedNode): void {
    if (this.#isDownForAll) this.setOutage(node, 'all', true);
  }

  /** From now on. Answers how to say that it is over. */
  trouble(node: SimulatedNode, cause: Trouble['cause']): () => void {
    const trouble: Trouble = { cause, sinceMs: this.#world.time.nowMs, untilMs: Number.POSITIVE_INFINITY };
    const list = this.#troubles.get(node.name) ?? [];
    list.push(trouble);
    this.#troubles.set(node.name, list);
    return () => {
      trouble.untilMs = this.#world.time.nowMs;
    };
  }

  judgeVerdict(deadId: string, by: string): void {
    const { story } = this.#world;
    const node = this.#world.nodes.find(({ nodeId }) => nodeId === deadId);
    const cause = node && this.#causeOf(node);
    if (cause) {
      this.verdicts[cause]++;
      story.tell('verdict', by, `${node.name} is dead because: ${cause}`);
    } else {
      const name = node?.name ?? deadId;
      story.violate('dead-without-cause', `${by} declared ${name} dead, which was well`, [name, by]);
    }
  }

  /** Gossip does not reach everybody from now on. Answers how to say that it is over. */
  gossipTrouble(): () => void {
    this.#gossipTroubles++;
    return () => {
      this.#gossipTroubles--;
      this.#gossipWellSinceMs = this.#world.time.nowMs;
    };
  }

  /** Where gossip has said no already, a row need only stand still for its own time; the last heartbeat may have been a round ago. */
  get #deadlyPauseMs(): number {
    const { time, timing } = this.#world;
    const isSilent = this.#gossipTroubles > 0 || time.nowMs - this.#gossipWellSinceMs < 2 * timing.silenceMs;
    return isSilent ? timing.standstillMs - 2 * timing.doubtRoundMs : this.harmlessPauseMs;
  }

  #causeOf(node: SimulatedNode): VerdictCause | undefined {
    if (node.isDead) return 'dead';
    const { time, timing } = this.#world;
    // A verdict is in order as long as the row may still stand as it stood in the trouble.
    const graceMs = timing.heartbeatMs + 1_500;
    for (const { cause, sinceMs, untilMs } of this.#troubles.get(node.name) ?? []) {
      if (untilMs < time.nowMs - graceMs) continue;
      const lastedMs = Math.min(untilMs, time.nowMs) - sinceMs;
      if (lastedMs > (cause === 'paused' ? this.#deadlyPauseMs : timing.standstillMs / 2)) return cause;
    }
    return node.stage === 'draining' || node.stage === 'gone' || node.stage === 'starting' ? 'leaving' : undefined;
  }
}
