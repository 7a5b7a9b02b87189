/**
 * What becomes of a node that has been found dead: its fence is broken, then its claims are freed, then its row goes. Fences are broken first, claims
 * are freed of one node after the other, in bounded transactions, beside the heartbeats. Every step may fail or be done by several nodes at once; whoever
 * looks next goes on where the last one stopped.
 */
import type { Logger } from '../../ops/telemetry/index.js';
import type { KvStore } from '../../store/kv/contract.js';
import { type ClaimTable, NodeFenced } from './contract.js';
import type { Deadline } from './deadline.js';
import { claimsFreed, takeovers } from './metrics.js';
import { breakFence, type Evidence, forget } from './records.js';

export interface BurialDependencies {
  kv: KvStore;
  claims: ClaimTable;
  logger: Logger;
  nodeId: string;
  signal: AbortSignal;
  /** For each step. Not that of the heartbeats, which must not wait for what hangs here. */
  deadline: Deadline;
  /** The fence of this node is broken: it is a member no more. */
  onFenceBroken(nodeId: string): void;
  /** This node itself has been declared dead. */
  onFenced(error: NodeFenced): void;
}

export class Burials {
  readonly #d: BurialDependencies;
  readonly #underWay = new Set<string>();
  #lastFence: Promise<unknown> = Promise.resolve();
  #last: Promise<unknown> = Promise.resolve();

  constructor(dependencies: BurialDependencies) {
    this.#d = dependencies;
  }

  /** Resolves when nothing is under way. */
  idle(): Promise<unknown> {
    return this.#last;
  }

  /** Begins, unless it is under way already. Trouble is logged; the next look finds the node again. */
  begin(evidence: Evidence): void {
    const { nodeId } = evidence;
    if (this.#underWay.has(nodeId)) return;
    this.#underWay.add(nodeId);
    // However long the claims of others take: until its fence is broken it may work on, and nobody can take its leases.
    const breaking = this.#lastFence.then(() => this.#tried(nodeId, () => this.#breakFence(evidence, false)));
    this.#lastFence = breaking;
    const before = this.#last;
    this.#last = breaking.then(async (isBroken) => {
      await before;
      if (isBroken) await this.#tried(nodeId, () => this.#free(evidence, false));
      this.#underWay.delete(nodeId);
    });
  }

  /** To the end, or to the first trouble. `isEarlierLife`: no verdict on another node, but what an earlier process on a store of one's own has left. */
  async bury(evidence: Evidence, isEarlierLife = false): Promise<void> {
    if (await this.#breakFence(evidence, isEarlierLife)) await this.#free(evidence, isEarlierLife);
  }

  async #tried<T>(nodeId: string, step: () => Promise<T>): Promise<T | undefined> {
    try {
      return await step();
    } catch (error) {
      if (error instanceof NodeFenced) this.#d.onFenced(error);
      else if (!this.#d.signal.aborted) this.#d.logger.warn({ err: error, nodeId }, 'a dead node is not freed yet');
      return undefined;
    }
  }

  /** Answers false when the node has changed since. */
  async #breakFence(evidence: Evidence, isEarlierLife: boolean): Promise<boolean> {
    const { kv, logger, signal, deadline } = this.#d;
    const { nodeId, hasFence } = evidence;
    signal.throwIfAborted();
    const outcome = await deadline.bound((over) => breakFence(kv, this.#d.nodeId, evidence, { signal: over }));
    if (!outcome) return false;
    const isDead = hasFence && !isEarlierLife;
    // Of several nodes that come to the same verdict the one that was first counts it and says so.
    const isFirst = outcome === 'broken' || !hasFence;
    if (isFirst) takeovers.inc({ cause: isDead ? 'dead' : 'leftover' });
    if (isFirst && isDead) logger.warn({ deadNodeId: nodeId }, 'a node has been declared dead');
    this.#d.onFenceBroken(nodeId);
    return true;
  }

  async #free({ nodeId, hasFence }: Evidence, isEarlierLife: boolean): Promise<void> {
    const { kv, claims, logger, signal, deadline } = this.#d;
    const freed = await freeClaims(claims, nodeId, deadline, signal);
    await deadline.bound((over) => forget(kv, nodeId, { signal: over }));
    const facts = { deadNodeId: nodeId, claims: freed };
    if (isEarlierLife)
      logger.info(facts, 'this node was not stopped in good order the last time: what it had in hand is taken up again');
    // Claims that can't be read are met again and again.
    else if (hasFence || freed > 0) logger.info(facts, 'the claims of a dead node are free');
  }
}

/** Frees all claims of a node whose fence is broken. Answers how many. */
export async function freeClaims(claims: ClaimTable, nodeId: string, deadline: Deadline, signal?: AbortSignal): Promise<number> {
  let freed = 0;
  for (;;) {
    signal?.throwIfAborted();
    const count = await deadline.bound(() => claims.release(nodeId));
    if (count === 0) return freed;
    freed += count;
    claimsFreed.inc(count);
  }
}
