/**
 * Gossipsub opens its stream to a peer once, on the first connection, and never again when it is lost while another connection lives on. Here it is made
 * to: identifying the peer anew is what libp2p tells gossipsub of.
 */
import type { Host } from './libp2p-types.js';
import { streamRepairs } from './metrics.js';
import { gossipTimes } from './options.js';
import type { Peer } from './peers.js';

/** A repair waits for streams to other peers that hang, but not for so long. */
const maxVainRepairs = 12;

/** Looks at a connected member. `isSubscribed`: it has told this node what it listens to, so its own stream works. */
export function repairStreams(
  host: Host,
  protocol: string,
  peer: Peer,
  isSubscribed: boolean,
  nowMs: number,
): 'fine' | 'repairing' | 'beyond repair' {
  const connection = peer.current?.connection;
  if (!connection) {
    peer.streamsMissingMs = peer.unsubscribedMs = undefined;
    peer.vainRepairs = 0;
    return 'fine';
  }
  if (isSubscribed) peer.unsubscribedMs = undefined;
  else if ((peer.unsubscribedMs ??= nowMs) + gossipTimes.subscriptionMs < nowMs) {
    peer.unsubscribedMs = undefined;
    return 'beyond repair';
  }
  if (hasStream(peer, protocol)) {
    peer.streamsMissingMs = undefined;
    peer.vainRepairs = 0;
    return 'fine';
  }
  if ((peer.streamsMissingMs ??= nowMs) + gossipTimes.streamRepairMs > nowMs) return 'repairing';
  peer.streamsMissingMs = nowMs;
  // Gossipsub opens none as long as it believes in a stream that is dead: only a new connection helps then.
  if (++peer.vainRepairs > maxVainRepairs) {
    peer.vainRepairs = 0;
    return 'beyond repair';
  }
  streamRepairs.inc();
  // What fails is tried again after a while.
  void host.services.identify.identify(connection).catch(() => undefined);
  return 'repairing';
}

function hasStream(peer: Peer, protocol: string): boolean {
  for (const { connection } of peer.links) {
    if (connection.status !== 'open') continue;
    for (const stream of connection.streams) {
      if (stream.protocol === protocol && stream.direction === 'outbound' && stream.writeStatus === 'writable') return true;
    }
  }
  return false;
}
