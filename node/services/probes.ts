/** Probes domains that are down: one node in the cluster takes one waiting message and attempts it; what comes of it is told by the delivery itself. */
import type { Clock, Logger } from '../../ops/telemetry/index.js';
import {
  allShards,
  type ClaimedDestination,
  type Destinations,
  hash32,
  type NodeIdentity,
  type Queue,
} from '../../store/queue/index.js';

export interface ProbesDependencies {
  queue: Pick<Queue, 'lineEntries' | 'claim'>;
  destinations: Destinations;
  node: NodeIdentity;
  clock: Clock;
  logger: Logger;
  take(claimed: readonly ClaimedDestination[]): void;
}

/** Begun in one look. */
const maxProbesPerLook = 10;
/** Asked for in one look, also of those that others turn out to have won: each costs a transaction. */
const maxTriesPerLook = 50;
/** The others leave a probe to the node that comes first for this domain, for so long. */
const courtesySeconds = 5;
/** Waiting messages that are looked at for one that can be claimed. */
const candidates = 5;

/** Begins the probes that are due and this node's to make. `nodeIds`: the members that work the queue. Answers how many it has begun. */
export async function beginProbes(d: ProbesDependencies, nodeIds: readonly string[]): Promise<number> {
  let begun = 0;
  let tries = 0;
  for (const domain of d.destinations.probesDue()) {
    if (begun >= maxProbesPerLook || tries >= maxTriesPerLook) break;
    if (d.destinations.mayAttempt(domain, '') !== 'probe' || !isOurs(d, domain, nodeIds)) continue;
    tries++;
    if (!(await d.destinations.winProbe(domain))) continue;
    begun++;
    const waiting = await d.queue.lineEntries(domain, allShards, candidates);
    if (waiting.length === 0) {
      // Nobody writes to it any more; the next message finds out by itself.
      await d.destinations.forget(domain);
      continue;
    }
    let claimed: ClaimedDestination[] = [];
    for (const entry of waiting) {
      claimed = await d.queue.claim(d.node, [entry]);
      if (claimed.length > 0) break;
    }
    for (const one of claimed) {
      one.isForced = true;
      d.logger.info({ domain, queueId: one.message.id }, 'probing a destination that is down');
    }
    d.take(claimed);
  }
  return begun;
}

function isOurs({ destinations, node, clock }: ProbesDependencies, domain: string, nodeIds: readonly string[]): boolean {
  const { failures = 0, nextProbeAtSeconds: dueAtSeconds = 0 } = destinations.health(domain) ?? {};
  // Another one after each failure: it may be this one node that the domain's hosts can't be reached from, or that they don't want.
  const weightOf = (nodeId: string) => hash32(`${domain}/${failures}/${nodeId}`);
  let first = node.nodeId;
  for (const nodeId of nodeIds) if (weightOf(nodeId) > weightOf(first)) first = nodeId;
  if (first === node.nodeId) return true;
  return clock.nowMs() / 1000 >= dueAtSeconds + courtesySeconds;
}
