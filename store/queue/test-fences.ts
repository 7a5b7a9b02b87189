/** Fences for tests of the queue alone, where no membership raises and breaks them. */
import { nodeKeys } from '../keyspace.js';
import type { KvStore } from '../kv/contract.js';
import type { NodeIdentity } from './contract.js';

/** From now on this node may claim and save. */
export function raiseFence(kv: KvStore, { nodeId }: Pick<NodeIdentity, 'nodeId'>): Promise<void> {
  return kv.transact(async (tx) => tx.set(nodeKeys.fence(nodeId), Buffer.alloc(0)));
}

/** From now on it saves nothing. */
export function breakFence(kv: KvStore, nodeId: string): Promise<void> {
  return kv.transact(async (tx) => tx.clear(nodeKeys.fence(nodeId)));
}
