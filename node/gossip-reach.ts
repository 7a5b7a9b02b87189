/** Says so in the log when gossip listens where nodes on other machines can't reach it, and there are some. Nothing breaks: everything is slower. */
import type { Gossip } from '../cluster/gossip/contract.js';
import type { Membership } from '../cluster/membership/index.js';
import type { Clock, Logger, Timer } from '../ops/telemetry/index.js';

/** Nodes on one machine have found each other by then. */
const graceMs = 15_000;

export interface GossipReachOptions {
  gossip: Pick<Gossip, 'identity' | 'connected'>;
  membership: Pick<Membership, 'nodes' | 'onChange'>;
  /** Of this node. */
  hostname: string;
  clock: Clock;
  logger: Logger;
}

export function isLoopback(host: string): boolean {
  return /^(127\.|::1$|::ffff:127\.|localhost\.?$)/i.test(host);
}

/** Warns once in the life of the process. Answers the way to stop. */
export function watchGossipReach({ gossip, membership, hostname, clock, logger }: GossipReachOptions): () => void {
  const addresses = gossip.identity.addresses.map(({ host, port }) => `${host}:${port}`);
  if (!gossip.identity.addresses.every(({ host }) => isLoopback(host))) return () => {};
  let timer: Timer | undefined;
  let isSaid = false;
  /** Nodes that gossip under another name than this one's, and are not connected with it. */
  const unreached = () => {
    const connected = new Set(gossip.connected());
    return membership.nodes().flatMap(({ nodeId, isSelf, verdict, row }) => {
      const isElsewhere = !isSelf && verdict !== 'dead' && row?.gossip !== undefined && row.hostname !== hostname;
      return isElsewhere && !connected.has(nodeId) ? [row.hostname] : [];
    });
  };
  const check = () => {
    timer = undefined;
    const hostnames = unreached();
    if (isSaid || hostnames.length === 0) return;
    isSaid = true;
    logger.warn(
      { addresses, hostnames: hostnames.slice(0, 10) },
      'gossip listens on the loopback address alone, which other machines do not reach: set gossip.host (or gossip.advertise) in the configuration file',
    );
  };
  const look = () => {
    if (!isSaid && !timer && unreached().length > 0) timer = clock.setTimer(graceMs, check, { background: true });
  };
  const unsubscribe = membership.onChange(look);
  look();
  return () => {
    unsubscribe();
    timer?.cancel();
  };
}
