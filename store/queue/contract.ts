/**
 * The distributed queue. A message record, and per destination (domain, in parts of at most `maxRecipientsPerPart`) one destination record with its
 * recipients. A destination is either due (one due entry in one of 64 shards) or claimed (one claim entry under its owner), never both, so a scan
 * meets no work in progress and a dead node's work is found at once. Every save asserts the claim's epoch and the owner's fence in its own transaction.
 */
import type { BlobId, PreparedBlob } from '../blobs/contract.js';
import type { KvTransaction } from '../kv/contract.js';

export const queueLimits = {
  shards: 64,
  maxRecipientsPerPart: 100,
  maxRecipientsPerMessage: 10_000,
  /** Destinations of one message that are born claimed by the accepting node; the others become due, so that every node can help. */
  maxBornClaimed: 32,
  /** What is kept of a reply's text, per recipient. */
  maxReplyTextBytes: 480,
  /** A destination record with all its replies stays below this. */
  maxRecordBytes: 90_000,
} as const;

/** [a-z0-9], time-ordered, chosen before the transaction; the id that follows a message through logs. */
export type QueueId = string;

/** One process's life. */
export interface NodeIdentity {
  /** 32 lower-case hex digits, random per process start. */
  nodeId: string;
  incarnation: number;
}

export type RecipientStatus = 'pending' | 'delivered' | 'relayed' | 'failed' | 'expanded' | 'cancelled';

export interface QueueRecipient {
  /** As given in RCPT TO. */
  address: string;
  /** RFC 3461. */
  orcpt?: string;
  notify?: ('NEVER' | 'SUCCESS' | 'FAILURE' | 'DELAY')[];
  status: RecipientStatus;
  /** Of the last attempt: three digits, enhanced code, one line of text, which host said so. */
  lastReply?: { code: number; enhanced: string; text: string; host?: string };
  /** A delay DSN has been sent. */
  isDelayNotified?: boolean;
}

export interface QueueMessage {
  id: QueueId;
  blobId: BlobId;
  sizeBytes: number;
  /** Bytes at the front of the blob that are for local delivery only (Return-Path) and are skipped when it is relayed. */
  relayOffsetBytes: number;
  /** Reverse-path, '' for bounces. */
  from: string;
  receivedAtMs: number;
  expiresAtMs: number;
  /** RFC 3461. */
  ret?: 'FULL' | 'HDRS';
  envid?: string;
  isUtf8: boolean;
  body: '7BIT' | '8BITMIME' | 'BINARYMIME';
  priority: number;
  /** For the log and `explain`: where it came from. */
  source: {
    protocol: 'smtp' | 'submission' | 'lmtp' | 'imap' | 'jmap' | 'local';
    remoteAddress?: string;
    accountId?: string;
    helo?: string;
  };
  /** How many destination records it was born with; the last one that is done removes the message. */
  partCount: number;
}

export type DestinationState = 'due' | 'claimed' | 'held';

export interface Claim extends NodeIdentity {
  epoch: number;
}

export interface Destination {
  queueId: QueueId;
  /** Lower-case ASCII domain; local domains too. */
  domain: string;
  part: number;
  isLocal: boolean;
  state: DestinationState;
  recipients: QueueRecipient[];
  attempts: number;
  /** Of the next attempt, wall-clock seconds. */
  dueAtSeconds: number;
  lastAttemptAtMs?: number;
  claim?: Claim;
  /** Raised by every claim and takeover, never lowered: a claim with an older one saves nothing. */
  epoch: number;
}

export interface NewQueueMessage extends Omit<QueueMessage, 'blobId' | 'sizeBytes' | 'partCount'> {
  blob: PreparedBlob;
  destinations: { domain: string; isLocal: boolean; recipients: Omit<QueueRecipient, 'status'>[] }[];
}

/** What a claimed destination is worked on with. */
export interface ClaimedDestination {
  message: QueueMessage;
  destination: Destination;
  claim: Claim;
}

/** The claim is no longer ours (fenced, taken over, cancelled, already done): drop the work, save nothing, do not back off. */
export class ClaimLost extends Error {
  override readonly name = 'ClaimLost';
}

export interface DueEntry {
  shard: number;
  dueAtSeconds: number;
  queueId: QueueId;
  domain: string;
  part: number;
}

/** What became of one attempt; recipients absent from `results` keep their status. */
export interface SaveInput {
  results: { address: string; status: RecipientStatus; lastReply?: QueueRecipient['lastReply']; isDelayNotified?: boolean }[];
  /** Required while a recipient is still pending and the claim is given up: when to try again. */
  nextDueAtSeconds?: number;
  /** Keep the claim (more of this destination is still being worked on). */
  keepClaim?: boolean;
  /** This transaction links the message's blob to another owner as well. */
  isLinkedElsewhere?: boolean;
  attempted?: { atMs: number };
  /** What `current` or `currentAll` answered in this same run of the transaction body; spares reading it again. */
  current?: Destination;
}

export interface SaveOutcome {
  /** All recipients of this destination are final; its record is gone. */
  isDestinationDone: boolean;
  /** That was the message's last destination: record and blob link are gone. */
  isMessageDone: boolean;
}

export interface Queue {
  /** A new id, to be chosen before the transaction that enqueues under it. */
  newId(): QueueId;
  /**
   * Frees up to `limit` claims of a node whose fence is broken (each becomes due now or as it was, epoch raised); 0 when none is left. Throws while the fence stands:
   * raising and breaking fences is the cluster's business (`cluster/membership`).
   */
  releaseClaimsOf(nodeId: string, nowSeconds: number, limit?: number): Promise<number>;
  /** Ids of the nodes that hold claims. */
  claimHolders(): Promise<string[]>;
  /** Claims that a node holds, counted up to `limit`. */
  countClaimsOf(nodeId: string, limit: number): Promise<number>;

  /**
   * Writes message, destinations and blob link in `tx`. With `claimFor`, up to `queueLimits`-bounded destinations are born claimed by this node and
   * handed back, so that the accepting node delivers without a claim transaction; others become due now. Asserts the fence in that case (throws ClaimLost).
   * Throws KvError `too-large` when the envelope can't be written in one transaction.
   */
  enqueue(
    tx: KvTransaction,
    message: NewQueueMessage,
    options: { nowSeconds: number; claimFor?: NodeIdentity },
  ): Promise<ClaimedDestination[]>;
  /** Due entries of these shards, earliest first within each shard, at most `limit`; with the time of the next one that is not yet due. */
  due(shards: readonly number[], nowSeconds: number, limit: number): Promise<{ entries: DueEntry[]; nextDueAtSeconds?: number }>;
  /** Claims; answers those that were won. A stale entry is removed (TRAPS 13), a lost race passed over. Throws ClaimLost when the node is fenced. */
  claim(node: NodeIdentity, entries: readonly DueEntry[]): Promise<ClaimedDestination[]>;
  /** In the caller's transaction: asserts claim and fence (throws ClaimLost), applies results, releases or removes. */
  save(tx: KvTransaction, claimed: ClaimedDestination, input: SaveInput): Promise<SaveOutcome>;
  /** As `save`, also answers the destination as it is now in the store: for bodies that must decide by what is still pending (local delivery). */
  current(tx: KvTransaction, claimed: ClaimedDestination): Promise<Destination>;
  /** `current` for many in one round trip; undefined for those that are lost. */
  currentAll(tx: KvTransaction, claimed: readonly ClaimedDestination[]): Promise<(Destination | undefined)[]>;
  /**
   * Claims that the store holds under this node, at most `limit`. After an outage some may be there that the node was never told of (a commit that
   * was unknown to the end); the runner releases them. Those that `isKnown` says yes to are passed over unread and don't count.
   */
  claimsOf(
    node: NodeIdentity,
    limit: number,
    isKnown?: (ref: { queueId: QueueId; domain: string; part: number }) => boolean,
  ): Promise<ClaimedDestination[]>;
  /** Hands claims back, due at `dueAtSeconds`. Lost ones are passed over. */
  release(claimed: readonly ClaimedDestination[], dueAtSeconds: number): Promise<void>;

  // --- operators ---
  list(options?: { afterQueueId?: QueueId; limit?: number }): Promise<{ message: QueueMessage; destinations: Destination[] }[]>;
  show(id: QueueId): Promise<{ message: QueueMessage; destinations: Destination[] } | undefined>;
  retryNow(id: QueueId, nowSeconds: number): Promise<number>;
  hold(id: QueueId): Promise<number>;
  unhold(id: QueueId, nowSeconds: number): Promise<number>;
  /** Removes the message without a bounce; running claims lose. */
  cancel(id: QueueId): Promise<boolean>;
  /** Cheap counts for metrics, bounded in time: due now, due later, claimed by each known node. */
  counts(
    nowSeconds: number,
    limitPerShard?: number,
  ): Promise<{ dueNow: number; scheduled: number; claimed: number; isComplete: boolean }>;
  /** Woken in this process whenever an enqueue or release made something due; the runner's hint. */
  onDue(listener: () => void): () => void;
  /** To be called after the commit of a transaction that enqueued without claim. */
  announceDue(): void;
  /**
   * Forgets receipts that are older than an hour: of enqueues without a claim, of claims by birth that were taken away or given back, of cancelled messages.
   * A receipt is what tells an enqueue that is run again after an unknown commit that its message was there, even when it has been delivered meanwhile.
   * `assert` is called in the same transaction, and may throw.
   */
  forgetReceipts(nowSeconds: number, assert?: (tx: KvTransaction) => Promise<void>): Promise<void>;
}
