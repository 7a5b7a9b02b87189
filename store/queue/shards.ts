/**
 * Which shard a message lies in, and which shards a node works: rendezvous hashing, so that a member that joins or leaves moves only its own
 * share. A matter of speed, never of ownership: two nodes that disagree about the members only meet at the same due entries.
 */
import { queueLimits } from './contract.js';

/** FNV-1a over the characters, then murmur3's finalizer, so that near texts fall far apart. 32 bits. */
function hash32(text: string): number {
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

/** The member that works a shard: the one with the highest hash of both. Undefined without members. */
export function ownerOf(shard: number, members: readonly string[]): string | undefined {
  let owner: string | undefined;
  let highest = -1;
  for (const member of members) {
    const weight = hash32(`${shard}/${member}`);
    if (weight > highest || (weight === highest && owner !== undefined && member < owner)) {
      highest = weight;
      owner = member;
    }
  }
  return owner;
}

/** The shards that a node works among these members (node ids; itself included or it gets none), ascending. */
export function shardsOf(nodeId: string, members: readonly string[]): number[] {
  return allShards.filter((shard) => ownerOf(shard, members) === nodeId);
}
