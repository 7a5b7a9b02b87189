/**
 * The distributed queue. A message record, and per destination (domain, in parts of at most `maxRecipientsPerPart`) one destination record with its
 * recipients. A destination is either due (one due entry in one of 64 shards) or claimed (one claim entry under its owner), never both, so a scan
 * meets no work in progress and a dead node's work is found at once. Every save asserts the claim's epoch and the owner's fence in its own transaction.
 * What is due but can't be worked yet (its domain is down or paused, or has its share of this node already) waits in a *line*: one entry under the
 * line's name, and its due entry moved to the moment at which something must happen in any case.
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
  /** -9 to 9 (RFC 6710), 0 is normal: higher ones are claimed first. */
  priority: number;
  /** RFC 8689: relayed only over verified TLS to hosts that promise the same, else returned. */
  requiresTls?: boolean;
  /** RFC 2852. */
  deliverBy?: { untilMs: number; mode: 'return' | 'notify'; isTraced: boolean };
  /** The virtual queue that its remote destinations wait in; absent: `default`. Chosen when it is accepted. */
  queueName?: string;
  /** For the log and `explain`: where it came from. */
  source: {
    protocol: 'smtp' | 'submission' | 'lmtp' | 'imap' | 'jmap' | 'local';
    remoteAddress?: string;
    accountId?: string;
    helo?: string;
  };
  /** How many destination records it was born with; the last one that is done removes the message. */
  partCount: number;
  /** Names of the usage counters (`Queue.usage`) that it was added to and is taken off when it is done. */
  countedUnder?: string[];
  /** Not to be delivered before (FUTURERELEASE); nothing is born claimed then. Wall clock, seconds. */
  notBeforeSeconds?: number;
}

export type DestinationState = 'due' | 'claimed' | 'held';

/** Where an operator has sent a destination instead of where its domain's mail goes. */
export interface RouteOverride {
  /** A host name or address, or the domain whose mail exchangers take it when `isDomain`. */
  host: string;
  port?: number;
  isDomain?: boolean;
}

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
  /** Due ones only: the line that it waits in. `dueAtSeconds` is then when something must happen in any case (a delay notice, its end). */
  line?: string;
  /** Of its message, for whoever has only this record at hand. */
  traits?: EntryTraits;
  /** Not for nodes that don't know of it: such a record is written in format 2. */
  route?: RouteOverride;
  /** An operator has cancelled it and wants its sender told: it is failed with this reply instead of being tried. Format 2. */
  cancelReply?: NonNullable<QueueRecipient['lastReply']>;
}

/** What decides who is served first, known without reading the message. */
export interface EntryTraits {
  isLocal: boolean;
  /** Priority above 0: found before all others that are due. */
  isExpress: boolean;
  /** 32 bits that stand for the sender. */
  senderHash: number;
  /** '' for `default` */
  queueName: string;
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
  /** An operator wants an attempt even though its domain is known to be down; or it is the probe that finds out. */
  isForced?: boolean;
  /** It is not to be attempted: only settled with this. */
  untried?: NotAttempted;
}

/**
 * A claimed destination is not to be attempted, and yet something must come of it: its time is over or a notice is due while its domain is down or
 * paused (`deferred`: settled as an attempt that was not made), or it was cancelled with a report (`failed`). Handed to the runner's `putOff`.
 */
export class NotAttempted extends Error {
  override readonly name = 'NotAttempted';
  constructor(
    readonly verdict: 'deferred' | 'failed',
    readonly reply: NonNullable<QueueRecipient['lastReply']>,
  ) {
    super(reply.text);
  }
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
  /** Undefined where a node of an earlier release wrote it. */
  traits?: EntryTraits;
  isForced?: boolean;
}

/** A place in a line. */
export interface LineEntry {
  line: string;
  shard: number;
  queueId: QueueId;
  domain: string;
  part: number;
  traits?: EntryTraits;
  /** It goes elsewhere than its domain's mail (`Destination.route`): whether that domain is down does not concern it. */
  isForced?: boolean;
}

/**
 * Decides what may not be worked at once, set by the runner. Lines are named by what stands in the way: a domain, `queue:NAME`, `*`, or `from:` and the
 * sender's hash.
 */
export interface Admission {
  /** The line that a new destination begins in instead of being claimed or due; undefined: none. */
  lineFor(domain: string, traits: EntryTraits): string | undefined;
  /** When something must happen to a waiting destination in any case: a delay notice, the message's end. Wall clock, seconds. */
  deadlineSecondsOf(message: QueueMessage, destination: Destination): number;
}

/** Which messages an operator means; all conditions hold together, for one destination where they concern destinations. */
export interface QueueFilter {
  /** An address, or `@domain`. */
  sender?: string;
  /** An address. */
  recipient?: string;
  domain?: string;
  /** `waiting`: due, in a line. */
  state?: DestinationState | 'waiting';
  queueName?: string;
  receivedBeforeMs?: number;
  /** Part of a recipient's last reply (code, enhanced code, text, host), in any case. */
  replyText?: string;
}

export type OperatorAction =
  /**
   * Due now. Of one message: attempted even though its domain is down. Of all that a filter means: what waits in a line stays there, next in turn as soon as
   * nothing is in the way (`Destinations.forget`).
   */
  | { kind: 'retry' }
  | { kind: 'hold' }
  | { kind: 'unhold' }
  /** With a reply, senders get a report that says so; else the message is removed without a word. Running claims lose. */
  | { kind: 'cancel'; reply?: NonNullable<QueueRecipient['lastReply']> }
  /** Due now, past what is known of its domain. Undefined: back to where it belongs. Running ones keep to their way, and go the new one when tried again. */
  | { kind: 'reroute'; route: RouteOverride | undefined };

export interface QueuedMessage {
  message: QueueMessage;
  destinations: Destination[];
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
   * handed back, so that the accepting node delivers without a claim transaction; others become due now (or at `notBeforeSeconds`), or begin in the line
   * that `admitBy` names. Asserts the fence in that case (throws ClaimLost).
   * Throws KvError `too-large` when the envelope can't be written in one transaction.
   */
  enqueue(
    tx: KvTransaction,
    message: NewQueueMessage,
    options: { nowSeconds: number; claimFor?: NodeIdentity },
  ): Promise<ClaimedDestination[]>;
  /** From now on new destinations are asked about, so that what can't be delivered at once is not born claimed. Undefined: as without. */
  admitBy(admission: Admission | undefined): void;
  /**
   * Due entries of these shards, at most `limit`, express ones first (of which three quarters of `limit` at most), then earliest first within each shard; with the
   * time of the next one that is not yet due.
   */
  due(shards: readonly number[], nowSeconds: number, limit: number): Promise<{ entries: DueEntry[]; nextDueAtSeconds?: number }>;
  /** Claims; answers those that were won. A stale entry is removed (TRAPS 13), a lost race passed over. Throws ClaimLost when the node is fenced. */
  claim(node: NodeIdentity, entries: readonly (DueEntry | LineEntry)[]): Promise<ClaimedDestination[]>;
  /**
   * Moves due destinations out of the way of those that can be worked: into a line, until somebody takes them out of it or their deadline comes (`Admission`).
   * Answers how many were moved, and the entries that are overdue: their deadline has come, so they must be claimed and settled.
   */
  park(
    entries: readonly (DueEntry | LineEntry)[],
    lineOf: (entry: DueEntry | LineEntry) => string,
  ): Promise<{
    parked: number;
    overdue: (DueEntry | LineEntry)[];
  }>;
  /** Names of lines that have entries, in order, after `after`; at most `limit`. */
  lines(after: string | undefined, limit: number): Promise<string[]>;
  /** The first entries of a line in these shards, at most `limit`. */
  lineEntries(line: string, shards: readonly number[], limit: number): Promise<LineEntry[]>;
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
  /** In the order of their arrival. What this node can't read is left out. */
  list(options?: { afterQueueId?: QueueId; limit?: number }): Promise<QueuedMessage[]>;
  /** As `list`, of those that `filter` means; reads `maxRead` messages at most (default 1,000). `readOnAfter`: there may be more after this one. */
  search(options: { filter: QueueFilter; afterQueueId?: QueueId; limit?: number; maxRead?: number }): Promise<{
    found: QueuedMessage[];
    readOnAfter?: QueueId;
  }>;
  /**
   * Does something to all that `filter` means, in transactions of bounded size, reading `maxRead` messages at most (default 1,000): to be called again with
   * `readOnAfter` until there is none. Harmless to do twice.
   */
  changeAll(options: {
    filter: QueueFilter;
    action: OperatorAction;
    nowSeconds: number;
    by?: string;
    note?: string;
    afterQueueId?: QueueId;
    maxRead?: number;
  }): Promise<{ changed: number; readOnAfter?: QueueId }>;
  /** To one message; `domain`: only that destination. Answers how many destinations were changed. `by` and `note` go into its history. */
  change(
    id: QueueId,
    action: OperatorAction,
    options: { nowSeconds: number; by?: string; note?: string; domain?: string },
  ): Promise<number>;
  show(id: QueueId): Promise<QueuedMessage | undefined>;
  /** As `change` with `retry`, `hold`, `unhold`. */
  retryNow(id: QueueId, nowSeconds: number): Promise<number>;
  hold(id: QueueId): Promise<number>;
  unhold(id: QueueId, nowSeconds: number): Promise<number>;
  /** Removes the message without a bounce; running claims lose. */
  cancel(id: QueueId): Promise<boolean>;
  /** What is queued under this name of `countedUnder`, up to a second old. Approximate while nodes of an earlier release are at work: they don't take off. */
  usage(name: string): Promise<{ messages: number; bytes: number }>;
  /** Cheap counts for metrics, bounded in time: due now, due later (`waiting` in a line among them), claimed by each known node. */
  counts(
    nowSeconds: number,
    limitPerShard?: number,
  ): Promise<{ dueNow: number; scheduled: number; waiting: number; claimed: number; isComplete: boolean }>;
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
