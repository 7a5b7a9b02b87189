/** Whether nodes run on a store: their rows move (the heartbeat in them does). */
import type { Clock } from '../../ops/telemetry/index.js';
import { key, keyItems, keysUnder, subspace } from '../keyspace.js';
import type { KvReads, KvStore } from '../kv/contract.js';

/** A node may save for 10 s after its last heartbeat, which comes every 2 s: one that is silent for longer than that and two heartbeats may no more. */
const standStillMs = 15_000;

/** Ids of nodes whose rows moved while this looked at them (15 s, where there are any). An embedded store that is open here has none. */
export async function liveNodes(kv: KvStore, clock: Clock, signal?: AbortSignal): Promise<string[]> {
  if (kv.backend === 'embedded' || kv.backend === 'memory') return [];
  const before = await kv.read(rowsOf);
  if (before.size === 0) return [];
  await clock.sleep(standStillMs, signal);
  const after = await kv.read(rowsOf);
  return [...after].filter(([nodeId, row]) => before.get(nodeId) !== row).map(([nodeId]) => nodeId);
}

async function rowsOf(reads: KvReads): Promise<Map<string, string>> {
  const { begin, end } = keysUnder(subspace.node);
  const nodes = new Map<string, string>();
  for (const { key: packed, value } of await reads.getRange(begin, end)) {
    const nodeId = String(keyItems(packed)[2] ?? '');
    nodes.set(nodeId, `${nodes.get(nodeId) ?? ''}${packed.toString('hex')}:${value.toString('hex')};`);
  }
  return nodes;
}

/** A name for the installation that a store holds: the digest of a secret that every node makes at its first start. */
export const identityKey: Buffer = key(subspace.meta, 'secret', 'scram-fake-salt');
