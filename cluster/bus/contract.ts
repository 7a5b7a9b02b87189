/**
 * What one node has changed, told to the others: mailbox changes, and generations of what every node keeps in memory (directory, settings, bans,
 * certificates). A message is a hint that hurries; what was missed is made up for from the store (TRAPS 18).
 */
import type { KvReads } from '../../store/kv/contract.js';

/** An account has changed. */
export interface AccountChange {
  accountId: string;
  modseq: number;
  /** Of the store's commit, where the backend tells it; decimal. */
  commitVersion?: string;
}

/** Something that all nodes keep in memory, with a counter in the store that every change raises. */
export interface GenerationSource {
  /** [a-z-]: `directory`, `settings`, `bans`, `certificates`, … */
  name: string;
  /** The generation in the store now, as text that differs after each change. All sources are read in one transaction. */
  read(reads: KvReads): Promise<string>;
  /**
   * It is not what was last seen; also told after the first comparison, because what changed between loading and that can't be known. Not called again
   * before it has ended. What it throws is logged, and it is told again with the next comparison.
   */
  onChanged(generation: string): void | Promise<void>;
}

export interface BusStatus {
  /** Messages that never came, told by gaps in the numbers of each origin. */
  missed: number;
  /** Since the last complete comparison with the store began; undefined before the first. */
  comparedAgeMs?: number;
  /**
   * A connection to every live member, no gap since the last comparison, and that one went well. A node alone is healthy; one with other members and no
   * gossip never is.
   */
  isHealthy: boolean;
}

/** Milliseconds, unless named otherwise. */
export const busLimits = {
  /** Changes in so short a time go out together; longer where there are many members (a millisecond for each). The first after a silence goes out at once. */
  coalesceMs: 5,
  /** Of a message's body, in octets, as reckoned beforehand. */
  maxBodyBytes: 48 * 1024,
  /** Accounts that wait to be told. Beyond it the others are told that they have missed something. */
  maxPendingAccounts: 10_000,
  maxAccountIdBytes: 512,
  /** A message may be overtaken by others for so long before it counts as missed. */
  reorderMs: 250,
  /** Numbers that are waited for, per origin; more are given up at once. */
  maxAwaited: 1_024,
  /** So long after the last message an empty one shows those who lost it that there was one. */
  trailingMs: 1_000,
  /** And once more, for those to whom nothing could be told for a moment (a stream of gossip is made anew within seconds). */
  trailingAgainMs: 6_000,
  /** Between two comparisons that hints or gaps ask for. */
  minComparisonGapMs: 100,
  /** Between two times that listeners are told of missed messages. */
  minMissedGapMs: 2_000,
  /** After a gap or a new connection each node waits up to so long, at random, so that not all of them read at once. */
  jitterMs: 250,
  healthyIntervalMs: 10_000,
  unhealthyIntervalMs: 2_000,
  /** Origins whose numbers are remembered. */
  maxOrigins: 1_024,
} as const;

export interface Bus {
  /** Listens, and compares once with the store. */
  start(): void;
  /** Tells what waits to be told, and ends. Resolves when no comparison goes on any more. */
  stop(): Promise<void>;
  /** To be called after a commit of this node. Many in a short time go out together, the highest modseq of each account. */
  announceChange(change: AccountChange): void;
  /** A change on another node. Also forged or outdated ones: a hint. */
  onChange(listener: (change: AccountChange) => void): () => void;
  /** Messages were lost, or this node was cut off: whoever watches accounts should look at the store now. At most every 2 s. */
  onMissed(listener: () => void): () => void;
  /**
   * Compared with the store at the beginning, on a timer (2 s while the bus is not healthy, else 10 s), and when another node raises it. Throws an Error for
   * a second source of the same name.
   */
  follow(source: GenerationSource): () => void;
  /** To be called after a commit that raised a generation; tells the other nodes to compare it now, and compares it here too. */
  raised(name: string): void;
  readonly status: BusStatus;
}
