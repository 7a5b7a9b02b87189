/** What a node's membership is made of. */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { KvReads, KvStore } from '../../store/kv/contract.js';
import type { Gossip } from '../gossip/contract.js';
import type { ClaimTable, FailureTiming, NodeDescription } from './contract.js';

export interface MembershipOptions {
  kv: KvStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** 32 lower-case hex digits, random per process start. */
  nodeId: string;
  incarnation: number;
  self: NodeDescription;
  claims: ClaimTable;
  /**
   * Started before `join`, and stopped by whoever started it; its identity goes into the node row. Without it, rows alone decide.
   */
  gossip?: Gossip;
  /** The same on all nodes of a cluster. Default `failureTimings.normal`. */
  timing?: FailureTiming;
  /** Asked in the transaction that makes this process a member: throws when no node may run on this store. */
  precondition?: (reads: KvReads) => Promise<void>;
  /** Another node has declared this one dead: the process should leave. Called at most once. */
  onFenced?: () => void;
}
