/**
 * Who is in the cluster, as one node sees it. The store decides (node rows and fences); what is heard elsewhere may only hurry or hold back. A node
 * lives as long as it raises the counter in its row; who has not for a full term, on the clock of whoever watches, is fenced and its claims are freed.
 */

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

/** `late`: no news for half a term. `freeing`: fenced, or a leftover without a fence; its claims are being freed. */
export type Health = 'alive' | 'late' | 'freeing';

export interface NodeView {
  nodeId: string;
  isSelf: boolean;
  health: Health;
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
   * other nodes have left is freed first. Throws NodeIdTaken, KvError.
   */
  join(options?: { isStoreExclusive?: boolean }): Promise<void>;
  /** Resolves when the others can see it, or the node is not joined any more. */
  setState(state: 'ready' | 'draining'): Promise<void>;
  /** Ids of the nodes that share the work (with `role`: of this role), sorted: those that are ready, and this one unless it drains. */
  members(role?: string): readonly string[];
  /** All nodes that the store knows, this one first. */
  nodes(): NodeView[];
  /** The newest format of this kind of record that every node can read; 0 when one does not say, or can't be read itself. */
  commonFormat(kind: string): number;
  /** Called when `members()` has changed. Answers the way to stop it. */
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
