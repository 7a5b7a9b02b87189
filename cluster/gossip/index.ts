/** The gossip network's public face. libp2p is loaded when a node is started: one that never gossips never loads it. */
import type { Gossip } from './contract.js';
import { Libp2pGossip } from './libp2p-gossip.js';
import type { GossipOptions } from './options.js';

export * from './contract.js';
export type { GossipOptions } from './options.js';

/** Makes a node that doesn't listen yet. Throws a RangeError when the secret isn't 32 bytes long. */
export function createGossip(options: GossipOptions): Gossip {
  return new Libp2pGossip(options);
}
