/**
 * What nodes tell one another beside the store: best effort, authenticated, bounded. Nothing here decides who owns what. libp2p stands behind it in
 * production; the simulator has a network of its own behind the same face.
 */

/** `membership`: suspicions, refutations, comings and goings. `changes`: what has changed in the store. `control`: wishes of operators. */
export type Topic = 'membership' | 'changes' | 'control';
export const topics: readonly Topic[] = ['membership', 'changes', 'control'];

export interface HostAndPort {
  host: string;
  port: number;
}

/** How a node is known and reached on the gossip network; stands in its node row. */
export interface GossipIdentity {
  /** Of a key pair that lives as long as the process. */
  peerId: string;
  /** Where others may dial it: advertised addresses, or those it listens on. Names are resolved by whoever dials. */
  addresses: readonly HostAndPort[];
}

/** A node that may speak, and to which a connection is kept. */
export interface GossipMember extends GossipIdentity {
  nodeId: string;
  incarnation: number;
}

export interface GossipMessage {
  /** Node id of the origin. It is a member, and proven hop by hop: every hop is a member that knows the cluster's secret. */
  from: string;
  /** Of the origin when it spoke; never lower than in what was handed up before (older ones are replays and dropped). */
  incarnation: number;
  /** Per origin, and per topic (direct messages to one receiver count as a topic of their own): 1, 2, 3, … A gap is a loss. */
  sequence: number;
  body: unknown;
}

export interface PeerStatus {
  nodeId: string;
  isConnected: boolean;
  /** Round trip of the last ping that was answered. */
  roundTripMs?: number;
  /** Since when (monotonic) it has been so. */
  sinceMs: number;
}

export const gossipLimits = {
  /** A message with its envelope; larger ones are not sent, and a peer that sends one is cut off. */
  maxMessageBytes: 64 * 1024,
  /** Messages from one peer in a second, with bursts of five times as many; the rest is dropped and counted. */
  maxMessagesPerSecond: 2_000,
  /** Unsent bytes for one peer; beyond it messages to it are dropped and counted. */
  maxOutboundBytes: 8 * 1024 * 1024,
} as const;

export interface Gossip {
  readonly nodeId: string;
  /** Known after `start`. */
  readonly identity: GossipIdentity;
  /** Listens. Throws an Error with a sentence when it cannot (`can't listen for gossip on …`). */
  start(): Promise<void>;
  /** Says nothing any more and hangs up. Never rejects. */
  stop(): Promise<void>;
  /** Goes out with every message from now on. */
  setIncarnation(incarnation: number): void;
  /**
   * Who may speak, this node left out. Connections to them are made and made anew, for ever; who is not among them is not listened to and is hung up on
   * after a while. Cheap to call with the same list again.
   */
  setMembers(members: readonly GossipMember[]): void;
  /** Ids of members with an open connection. */
  connected(): readonly string[];
  peers(): PeerStatus[];
  /** A connection with a member has been opened, or the last one has been lost. */
  onConnection(listener: (nodeId: string, isConnected: boolean) => void): () => void;
  /** Somebody who knows the cluster's secret and is not a member has connected: a look at the store may tell who it is. At most once a second. */
  onStranger(listener: () => void): () => void;
  /** To all members. Never waits, never throws; what can't be sent is dropped and counted. */
  publish(topic: Topic, body: unknown): void;
  subscribe(topic: Topic, listener: (message: GossipMessage) => void): () => void;
  /** To one member, in order. False when there is no connection or it takes no more: the message is dropped then. */
  send(nodeId: string, body: unknown): boolean;
  onDirect(listener: (message: GossipMessage) => void): () => void;
}
