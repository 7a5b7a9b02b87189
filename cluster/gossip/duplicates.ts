/**
 * Two nodes that dial each other at once, or one that finds a member behind a second address, have two connections. They do no harm, and closing one at the
 * wrong moment would: so only the side with the lower peer id closes, and only what has carried nothing for a while, when the other one has long been proven
 * in both directions. Two that are both in use stay.
 */
import type { Link } from './link.js';
import { gossipTimes } from './options.js';
import type { Peer } from './peers.js';

/** A connection that can be closed without any message being lost; undefined when there is none, or when the peer is the one to close it. */
export function needlessLink(peer: Peer, ownPeerId: string, gossipProtocol: string, nowMs: number): Link | undefined {
  const { current, links } = peer;
  if (links.size < 2 || ownPeerId > peer.peerId || !current?.isProven(gossipTimes.duplicateMs, nowMs)) return undefined;
  for (const link of links) {
    if (link !== current && !link.closedBy && link.isUnused(gossipTimes.duplicateMs, nowMs) && !carries(link, gossipProtocol)) {
      return link;
    }
  }
  return undefined;
}

const carries = ({ connection }: Link, protocol: string): boolean =>
  connection.streams.some((stream) => stream.protocol === protocol);
