/**
 * Who is in the cluster, as one node sees it. The store decides (node rows and fences); what is heard elsewhere may only hurry or hold back. A node
 * lives as long as it raises the counter in its row; who has not for a full term, on the clock of whoever watches, is fenced and its claims are freed.
 */

import type { GossipIdentity } from '../gossip/contract.js';

/** `draining` nodes finish what they have and get no new share. */
export type NodeState = 'starting' | 'ready' | 'draining';

/** Where a node listens. */
export interface NodeAddress {
  name: string;
  protocol: string;
  host: string;
  port: number;
}

/** What a node says of itself, for as long as it lives. */
export interface NodeDescription {
  hostname: string;
  addresses: readonly NodeAddress[];
  roles: readonly string[];
  /** Of the software. */
  version: string;
  /** The newest format of each kind of record that it can read (TRAPS 23). */
  formats: Readonly<Record<string, number>>;
  /** Absent where the node does not gossip. */
  gossip?: GossipIdentity;
}

/** A node row as it stands in the store. */
export interface NodeRow extends NodeDescription {
  nodeId: string;
  incarnation: number;
  /** Random per process start: tells a process's own row from another's under the same id. */
  startToken: string;
  state: NodeState;
  /** Wall clock of the node. */
  startedAtMs: number;
  /** Raised by every heartbeat. */
  heartbeat: number;
  /** The node's wall clock at this heartbeat; for reports about clocks, never for a decision. */
  sentAtMs: number;
}

/**
 * `joined`: heartbeats come through. `storeless`: none has for a full term, so others may have declared this node dead; it takes on nothing new until
 * one comes through again. `fenced`: another node has declared it dead; it can save nothing any more. `left`: gone by its own will.
 */
export type Standing = 'new' | 'joined' | 'storeless' | 'fenced' | 'left';

/**
 * What one node makes of another (DESIGN 4). `alive`: gossip hears it and its row moves. `isolated`: only its row moves; it keeps its work and gets no new
 * share. `store-less`: gossip hears it, its row stands still; it steps down by itself, and loses claims and leases after a full term. `suspect`: neither,
 * but the time is not up or a probe through others still reaches it. `dead`: its fence is broken, its claims are being freed.
 */
export type Verdict = 'alive' | 'isolated' | 'store-less' | 'suspect' | 'dead';

/** All nodes of a cluster should have the same. Milliseconds. */
export interface FailureTiming {
  /** Between two rounds of row heartbeat and look, in peace. */
  heartbeatMs: number;
  /** The same while this node doubts another, or hears that it can't be heard itself. */
  doubtRoundMs: number;
  /** Between two gossip heartbeats to each of the few peers that watch this node. */
  gossipHeartbeatMs: number;
  /** Nobody has heard it for so long, and probes fail: gossip says no. Longer than any pause that must not kill. */
  silenceMs: number;
  /** The row must have stood still for so long as well, when gossip says no. */
  standstillMs: number;
  /** Without word from gossip (it says yes, or there is none), a row that stands still for so long is dead. */
  termMs: number;
}

export const failureTimings = {
  normal: {
    heartbeatMs: 2_000,
    doubtRoundMs: 250,
    gossipHeartbeatMs: 300,
    silenceMs: 2_400,
    standstillMs: 2_000,
    termMs: 10_000,
  },
  /** For tests, and for networks and stores that never stall. */
  fast: { heartbeatMs: 500, doubtRoundMs: 100, gossipHeartbeatMs: 100, silenceMs: 700, standstillMs: 500, termMs: 3_000 },
  /** For nodes far apart, or on machines that stall. */
  patient: {
    heartbeatMs: 3_000,
    doubtRoundMs: 1_000,
    gossipHeartbeatMs: 1_000,
    silenceMs: 10_000,
    standstillMs: 8_000,
    termMs: 30_000,
  },
} as const satisfies Record<string, FailureTiming>;

/** A node that shares the work. */
export interface Share {
  nodeId: string;
  /** It is isolated since the members were these: it keeps what it had among them and gets nothing new. Undefined: it gets its full share. */
  keptAmong?: readonly string[];
}

/** `late`: no news for half a term. `freeing`: fenced, or a leftover without a fence; its claims are being freed. */
export type Health = 'alive' | 'late' | 'freeing';

export interface NodeView {
  nodeId: string;
  isSelf: boolean;
  health: Health;
  verdict: Verdict;
  /** Of the gossip heartbeats; undefined for oneself and where none ever came. */
  phi?: number;
  /** How long ago gossip last heard of it, directly or through others. */
  gossipAgeMs?: number;
  /** Undefined when this software can't read the row, or there is none. */
  row?: NodeRow;
  /** How long ago this node last saw a change of the row; of itself: how long ago its last successful heartbeat began. */
  heartbeatAgeMs: number;
  /** The other's wall clock minus ours, as far as heartbeats tell it (to about half of their interval). */
  clockSkewMs?: number;
}

/** The work that nodes hold, which has to be freed when one dies (the queue's claims). */
export interface ClaimTable {
  /** Frees a transaction's worth of claims of a node whose fence is broken, raising their epochs. Answers how many; 0 when none is left. */
  release(nodeId: string): Promise<number>;
  /** Ids of nodes that hold claims. */
  holders(): Promise<string[]>;
}

export interface Membership {
  readonly nodeId: string;
  readonly standing: Standing;
  /** How long ago the last successful heartbeat began. */
  readonly heartbeatAgeMs: number;
  /**
   * Writes row and fence in one transaction, takes a first look, and begins to send heartbeats. With `isStoreExclusive` (one process per store) whatever
   * other nodes have left is freed first. Throws NodeIdTaken, KvError; an Error when the node is stopped or leaves meanwhile, and takes back what it
   * wrote.
   */
  join(options?: { isStoreExclusive?: boolean }): Promise<void>;
  /** Resolves when the others can see it, another state has been set since, or the node is not joined any more. */
  setState(state: 'ready' | 'draining'): Promise<void>;
  /** Ids of the nodes that share the work (with `role`: of this role), sorted: those that are ready, and this one unless it drains. */
  members(role?: string): readonly string[];
  /** `members(role)` as shares: who is isolated (this node too, where it hears only the smaller part of the members) keeps what it had. */
  shares(role?: string): readonly Share[];
  /** Writes down in the store that this node is wanted to drain; it hears of it by gossip or at its next round. Answers false when there is no such node. */
  requestDrain(nodeId: string): Promise<boolean>;
  /** Somebody wants this node to drain. Answers the way to stop listening. */
  onDrainRequested(listener: () => void): () => void;
  /** All nodes that the store knows, this one first. */
  nodes(): NodeView[];
  /** The newest format of this kind of record that every node can read; 0 when one does not say, or can't be read itself. */
  commonFormat(kind: string): number;
  /** Called when `members()` or `shares()` has changed. Answers the way to stop it. */
  onChange(listener: () => void): () => void;
  /** Called when `standing` has changed. Answers the way to stop it. */
  onStanding(listener: (standing: Standing) => void): () => void;
  /** Gives back row, fence and claims; the others see it leave at once. What fails is left to them. Never rejects. */
  leave(): Promise<void>;
  /** Ends all activity and leaves row and fence for the others to find. */
  stop(): Promise<void>;
}

/** Another process is, or was, in the store under this id. */
export class NodeIdTaken extends Error {
  override readonly name = 'NodeIdTaken';
}

/** The fence of this node has been broken, or its row is not its own: it may save nothing any more. */
export class NodeFenced extends Error {
  override readonly name = 'NodeFenced';
}
