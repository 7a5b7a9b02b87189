/** What `starling node list --json` says, for scenarios and benchmarks. */
import { join } from 'node:path';
import { askNode } from './control-socket.js';
import type { NodeProcess } from './node-process.js';

export interface NodeRow {
  id: string;
  isThisNode: boolean;
  hostname: string | null;
  state: string;
  verdict: 'alive' | 'isolated' | 'store-less' | 'suspect' | 'dead';
  phi: number | null;
  gossipAgeSeconds: number | null;
  heartbeatAgeSeconds: number;
  shards: number;
  claims: number;
  leases: { job: string; epoch: number }[];
  version: string | null;
  roles: string[];
  addresses: string[];
  gossipAddresses: string[];
}

/** The nodes of the cluster as this one sees them, this one first. */
export async function nodeRows(node: NodeProcess): Promise<NodeRow[]> {
  return (await askNode(join(node.data, 'control.sock'), 'node list', {}, 10_000)) as NodeRow[];
}

export const idOf = async (node: NodeProcess): Promise<string> => (await nodeRows(node))[0]!.id;
