/**
 * Which shard a message lies in, and which shards a node works: rendezvous hashing with an upper bound, so that all nodes have as many as any other (64
 * shards are too few for chance to do that) and one that joins or leaves moves little more than its own share. A matter of speed, never of ownership: two
 * nodes that disagree about the members only meet at the same due entries.
 */
import { queueLimits } from './contract.js';

/** A node that works the queue. */
export interface QueueShare {
  nodeId: string;
  /** It is cut off since the members were these: it keeps the shards that it had among them and gets no other. Undefined: it gets its full share. */
  keptAmong?: readonly string[];
}

/** FNV-1a over the characters, then murmur3's finalizer, so that near texts fall far apart. 32 bits. */
export function hash32(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** 0 to 63. */
export function shardOf(queueId: string): number {
  return hash32(queueId) % queueLimits.shards;
}

/** All shards, ascending. */
export const allShards: readonly number[] = Array.from({ length: queueLimits.shards }, (_, shard) => shard);

/** Members whose weights, and memberships whose owners, are remembered: runners ask with every look. */
const maxRememberedMembers = 256;
const maxRememberedOwners = 32;
const weights = new Map<string, Uint32Array>();
const owners = new Map<string, readonly string[]>();

function remember<V>(memory: Map<string, V>, key: string, maxEntries: number, make: () => V): V {
  let value = memory.get(key);
  if (value === undefined) {
    value = make();
    if (memory.size >= maxEntries) memory.clear();
    memory.set(key, value);
  }
  return value;
}

/** Of a member, for each shard. */
const weightsOf = (member: string): Uint32Array =>
  remember(weights, member, maxRememberedMembers, () => Uint32Array.from(allShards, (shard) => hash32(`${shard}/${member}`)));

/**
 * For each shard the node that works it; empty without nodes. A node that is cut off has the shards that it had among the members of then; all others are
 * shared by the nodes with a full share or, where there is none, by all rather than by nobody.
 */
export function shardOwners(shares: readonly QueueShare[]): readonly string[] {
  if (shares.length === 0) return [];
  const key = shares.map(({ nodeId, keptAmong }) => (keptAmong ? `${nodeId}:${keptAmong.join(',')}` : nodeId)).join(' ');
  return remember(owners, key, maxRememberedOwners, () => share(shares));
}

/** The shards that a node works among these (itself included or it gets none), ascending. */
export function shardsOf(nodeId: string, shares: readonly QueueShare[]): number[] {
  const owning = shardOwners(shares);
  return allShards.filter((shard) => owning[shard] === nodeId);
}

function share(shares: readonly QueueShare[]): readonly string[] {
  const taken: (string | undefined)[] = new Array(queueLimits.shards).fill(undefined);
  for (const { nodeId, keptAmong } of shares) {
    if (!keptAmong?.includes(nodeId)) continue;
    const before = shardOwners(keptAmong.map((member) => ({ nodeId: member })));
    for (const shard of allShards) {
      const rival = taken[shard];
      // Two that were cut off at different times may both have had it.
      if (before[shard] === nodeId && (rival === undefined || outweighs(nodeId, rival, shard))) taken[shard] = nodeId;
    }
  }
  const full = shares.filter(({ keptAmong }) => keptAmong === undefined);
  const takers = (full.length === 0 ? shares : full).map(({ nodeId }) => nodeId);
  const left = allShards.filter((shard) => taken[shard] === undefined);
  // The bound of before one was cut off, so that the others keep theirs, too; unless that leaves something lying.
  const bound = Math.max(Math.ceil(queueLimits.shards / shares.length), Math.ceil(left.length / takers.length));
  const counts = new Map<string, number>();
  for (const { shard, member } of pairs(left, takers)) {
    const count = counts.get(member) ?? 0;
    if (taken[shard] !== undefined || count >= bound) continue;
    taken[shard] = member;
    counts.set(member, count + 1);
  }
  return taken as string[];
}

/** Heaviest first: whoever fits best has the first word. */
function pairs(shards: readonly number[], members: readonly string[]) {
  const all = shards.flatMap((shard) => members.map((member) => ({ shard, member, weight: weightsOf(member)[shard]! })));
  return all.sort((a, b) => b.weight - a.weight || a.shard - b.shard || (a.member < b.member ? -1 : 1));
}

function outweighs(one: string, other: string, shard: number): boolean {
  const difference = weightsOf(one)[shard]! - weightsOf(other)[shard]!;
  return difference > 0 || (difference === 0 && one < other);
}
