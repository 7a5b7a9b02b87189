/** What a simulated node is put together from, and what it finds around itself. */
import type { LeaderLeases } from '../../cluster/leases/index.js';
import type { SimulatedNetwork } from '../../cluster/testing/network.js';
import type { NodeClock, VirtualTime } from '../../cluster/testing/virtual-time.js';
import type { RunnerLimits } from '../../node/services/index.js';
import type { BlobStore } from '../../store/blobs/index.js';
import type { MemoryOperation } from '../../store/kv/memory/faults.js';
import type { BrokenParts } from './broken.js';
import type { NodeParts } from './node-parts.js';
import type { ObservedDatabase } from './observed-database.js';
import type { SeededRandom } from './random.js';
import type { RemoteHosts } from './remote-hosts.js';
import type { Story } from './story.js';

export interface Surroundings {
  readonly time: VirtualTime;
  readonly database: ObservedDatabase;
  readonly network: SimulatedNetwork;
  readonly remote: RemoteHosts;
  readonly story: Story;
  readonly broken: BrokenParts;
  readonly limits: Partial<RunnerLimits>;
  readonly failureDetection: 'fast' | 'normal';
  /** Of the clock of a node that starts. */
  readonly wallShiftMs: number;
  /** How long an operation of this node's store takes now. */
  storeDelayMs(name: string, operation: MemoryOperation): number;
  /** The same store, which notes what content it has taken in. */
  observedBlobs(blobs: BlobStore): BlobStore;
}

/** As much of a node as its jobs need. */
export interface JobHost {
  readonly name: string;
  readonly nodeId: string;
  readonly clock: NodeClock;
  readonly random: SeededRandom;
  readonly parts: Pick<NodeParts, 'kv'>;
  readonly leases: LeaderLeases;
  readonly world: Pick<Surroundings, 'broken' | 'story'>;
}
