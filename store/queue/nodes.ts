/**
 * Nodes as the queue sees them: a row, and a fence that stands as long as the node may save. Whoever declares a node dead breaks the fence
 * first; only then are its claims freed, with higher epochs (DESIGN 3.5, TRAPS 11).
 */
import { keyItems } from '../keyspace.js';
import type { KvStore } from '../kv/contract.js';
import { ClaimLost, type NodeIdentity } from './contract.js';
import * as records from './records.js';

/** Destination records are up to 90 kB and are read and written: this many of the largest stay under 10 MB. */
const maxReleasedPerTransaction = 50;

export interface QueueNodes {
  registerNode(node: NodeIdentity): Promise<void>;
  knownNodes(): Promise<string[]>;
  breakFence(nodeId: string): Promise<void>;
  releaseClaimsOf(nodeId: string, nowSeconds: number, limit?: number): Promise<number>;
}

export function createQueueNodes(kv: KvStore, announceDue: () => void): QueueNodes {
  return {
    async registerNode(node) {
      await kv.transact(
        async (tx) => {
          const [row, fence] = await tx.getMany([records.rowKey(node.nodeId), records.fenceKey(node.nodeId)]);
          // A fenced id never comes back: its old claims may not have been freed yet.
          if (row && !fence) throw new ClaimLost(`node ${node.nodeId} has been fenced`);
          if (!row) tx.set(records.rowKey(node.nodeId), records.encodeNodeRow(node));
          if (!fence) tx.set(records.fenceKey(node.nodeId), Buffer.alloc(0));
        },
        { label: 'register-node' },
      );
    },

    async knownNodes() {
      const nodes = await kv.read(async (reads) => {
        const [rows, fences] = [records.rowRange(), records.fenceRange()];
        const found = await Promise.all([reads.getRange(rows.begin, rows.end), reads.getRange(fences.begin, fences.end)]);
        return found.flat().map(({ key }) => keyItems(key)[2] as string);
      });
      return [...new Set(nodes)];
    },

    async breakFence(nodeId) {
      await kv.transact(async (tx) => tx.clear(records.fenceKey(nodeId)), { label: 'break-fence' });
    },

    async releaseClaimsOf(nodeId, nowSeconds, limit = maxReleasedPerTransaction) {
      const released = await kv.transact(
        async (tx) => {
          if (await tx.get(records.fenceKey(nodeId))) throw new Error(`the fence of ${nodeId} still stands`);
          const range = records.claimRange(nodeId);
          const claims = await tx.getRange(range.begin, range.end, { limit: Math.min(limit, maxReleasedPerTransaction) });
          if (claims.length === 0) {
            tx.clear(records.rowKey(nodeId));
            return 0;
          }
          const refs = claims.map(({ key }) => records.claimedRef(key));
          const values = await tx.getMany(refs.map(records.destinationKey));
          for (const [i, ref] of refs.entries()) {
            tx.clear(claims[i]!.key);
            const value = values[i];
            if (!value) continue;
            const destination = records.decodeDestination(ref, value);
            if (destination.state !== 'claimed' || destination.claim?.nodeId !== nodeId) continue;
            const freed = { ...destination, state: 'due' as const, dueAtSeconds: nowSeconds, epoch: destination.epoch + 1 };
            delete freed.claim;
            tx.set(records.destinationKey(ref), records.encodeDestination(freed));
            tx.set(records.dueKey(ref, nowSeconds), Buffer.alloc(0));
          }
          return refs.length;
        },
        { label: 'take-over' },
      );
      if (released > 0) announceDue();
      return released;
    },
  };
}
