/** Claims without row and fence, as a restored store has them: nobody can save under them, and nobody's heartbeat would stop for them. */
import type { Clock, Logger } from '../../ops/telemetry/index.js';
import type { KvStore } from '../../store/kv/contract.js';
import type { Burials } from './burials.js';
import type { ClaimTable } from './contract.js';
import type { Deadline } from './deadline.js';
import { readNodes } from './records.js';

export class Leftovers {
  /** Nodes that hold claims and have neither row nor fence, and since when (monotonic) that has been seen. */
  #holders = new Map<string, number>();
  #lookedAtMs: number;

  constructor(
    readonly claims: ClaimTable,
    readonly clock: Clock,
    readonly logger: Logger,
    readonly termMs: number,
  ) {
    this.#lookedAtMs = clock.monotonicMs();
  }

  /** Once in a term; who has been seen for a term is buried. `isKnown`: has a row or a fence, or is this node. */
  async look(isKnown: (nodeId: string) => boolean, deadline: Deadline, burials: Burials): Promise<void> {
    const nowMs = this.clock.monotonicMs();
    if (nowMs - this.#lookedAtMs < this.termMs) return;
    this.#lookedAtMs = nowMs;
    try {
      const holders = await deadline.bound(() => this.claims.holders());
      const strangers = holders.filter((nodeId) => !isKnown(nodeId));
      this.#holders = new Map(strangers.map((nodeId) => [nodeId, this.#holders.get(nodeId) ?? nowMs]));
    } catch (error) {
      this.logger.debug({ err: error }, 'the holders of claims could not be read');
      return;
    }
    for (const [nodeId, sinceMs] of this.#holders) {
      if (nowMs - sinceMs >= this.termMs) burials.begin({ nodeId, hasFence: false });
    }
  }
}

/** Frees whatever anybody but `ownId` has left, at once. Only where no other process can be using the store. */
export async function freeEverything(kv: KvStore, claims: ClaimTable, burials: Burials, ownId: string): Promise<void> {
  const found = await readNodes(kv);
  for (const nodeId of await claims.holders()) if (!found.has(nodeId)) found.set(nodeId, { hasFence: false });
  found.delete(ownId);
  for (const [nodeId, node] of found) await burials.bury({ nodeId, ...node }, true);
}
