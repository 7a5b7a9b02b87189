/** libp2p's types under the names used here, taken from what its packages export. */
import type { GossipSub } from '@chainsafe/libp2p-gossipsub';
import type { Identify } from '@libp2p/identify';
import type { Libp2p, Libp2pOptions } from 'libp2p';

export type Services = { pubsub: GossipSub; identify: Identify };
export type Host = Libp2p<Services>;
export type Connection = ReturnType<Host['getConnections']>[number];
export type DialTarget = Parameters<Host['dial']>[0];
export type PeerId = Connection['remotePeer'];
export type Stream = Awaited<ReturnType<Connection['newStream']>>;
export type ConnectionProtector = ReturnType<NonNullable<Libp2pOptions['connectionProtector']>>;
/** A TCP connection before anything has been proven on it. */
export type RawConnection = Parameters<NonNullable<ConnectionGater['denyInboundConnection']>>[0];
export type ConnectionGater = NonNullable<Libp2pOptions['connectionGater']>;

/** What came in one piece from one peer. */
export interface GossipRpc {
  messages: { topic: string; data?: Uint8Array }[];
  control?: { ihave: unknown[]; iwant: unknown[] };
}

/** Gossipsub's way in, public though not in its interface: what happens here happens before it remembers or forwards a message. */
export interface RpcReceiver {
  handleReceivedRpc(from: PeerId, rpc: GossipRpc): Promise<void>;
}
