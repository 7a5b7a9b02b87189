/** `DIR/cluster.json`: what runs, for people and for whatever drives a cluster from outside. Readers see a whole state or the one before. */
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface ClusterState {
  /** Address of the shared store, without a password. */
  store: string;
  nodes: NodeState[];
}

export interface NodeState {
  index: number;
  /** The node's own, new at each start; null while it is not known. */
  id: string | null;
  /** null when no process runs. */
  pid: number | null;
  portOffset: number;
  /** Absolute path of its data directory, for `starling … --data`. */
  data: string;
  state: 'starting' | 'ready' | 'stopped';
}

export const clusterFileOf = (directory: string) => join(directory, 'cluster.json');

export function writeClusterFile(directory: string, state: ClusterState): void {
  const file = clusterFileOf(directory);
  const temporary = `${file}.${process.pid}.new`;
  writeFileSync(temporary, `${JSON.stringify(state, null, 2)}\n`);
  renameSync(temporary, file);
}
