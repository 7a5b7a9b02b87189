/**
 * Mailbox semantics, once, for IMAP, JMAP, POP3 and delivery. All that a change touches is written in one transaction under one modseq per account.
 * Keywords belong to the message, `\Deleted` to its entry in one mailbox. JMAP state and IMAP MODSEQ are the same number.
 */
import type { BlobId, PreparedBlob } from '../blobs/contract.js';
import type { KvReads, KvTransaction } from '../kv/contract.js';
import type { FlagRange } from './flag-range-contract.js';
import type { CopyBetweenOptions, FlagRights, MailAnnotations, MailboxOf, MailSharing } from './sharing-contract.js';

export * from './flag-range-contract.js';
export * from './sharing-contract.js';

export type AccountId = string;
/** 1 to 20 characters of [a-z0-9]. */
export type MailboxId = string;
/** Time-ordered, so that messages of one time lie together: [a-z0-9], fixed length. */
export type EmailId = string;
export type ThreadId = string;

export type MailboxRole = 'inbox' | 'drafts' | 'sent' | 'trash' | 'junk' | 'archive';

/** Names of the mailboxes every account starts with. */
export const defaultMailboxes: readonly { name: string; role: MailboxRole }[] = [
  { name: 'INBOX', role: 'inbox' },
  { name: 'Drafts', role: 'drafts' },
  { name: 'Sent', role: 'sent' },
  { name: 'Junk', role: 'junk' },
  { name: 'Trash', role: 'trash' },
  { name: 'Archive', role: 'archive' },
];

export const mailLimits = {
  maxMailboxNameBytes: 255,
  maxMailboxDepth: 16,
  maxMailboxes: 10_000,
  maxKeywordsPerMessage: 64,
  maxKeywordBytes: 128,
  /** Messages that one transaction changes; longer lists are split, each part atomic. */
  maxMessagesPerTransaction: 500,
  /** Message ids that tie a message to a thread. */
  maxThreadReferences: 16,
  /** Envelope and structure of one message; under the store's limit of 100 kB a value. */
  maxSummaryBytes: 90_000,
} as const;

export interface Mailbox {
  id: MailboxId;
  /** NFC text without '/'. The top INBOX is always `INBOX`. */
  name: string;
  /** '' at the top. */
  parentId: MailboxId | '';
  /** Names from the top down to this one. */
  path: string[];
  role?: MailboxRole;
  /** 32-bit, never 0, ascending over all mailboxes of an account's life: a name that is made again gets a higher one. */
  uidValidity: number;
  isSubscribed: boolean;
  sortOrder: number;
}

export interface MailboxCounts {
  uidNext: number;
  total: number;
  unseen: number;
  deleted: number;
  bytes: number;
  /** Highest modseq of any entry change or expunge in this mailbox. */
  highestModseq: number;
}

/** One message in one mailbox, with copies of the message's small facts so that flags are listed without reading messages. */
export interface MailboxEntry {
  uid: number;
  emailId: EmailId;
  isDeleted: boolean;
  modseq: number;
  /** Lower case, with `\` changed to `$` for system keywords as in JMAP: `$seen`, `$answered`, `$flagged`, `$draft`, `$forwarded`, `$junk`, others as given. */
  keywords: readonly string[];
  sizeBytes: number;
  receivedAtMs: number;
  savedAtMs: number;
}

export interface Message {
  id: EmailId;
  blobId: BlobId;
  sizeBytes: number;
  receivedAtMs: number;
  threadId: ThreadId;
  keywords: readonly string[];
  /** Where it is, and its UID there. */
  mailboxes: Readonly<Record<MailboxId, number>>;
  /** Absent for 0 (see `NewMessage`), and in messages of releases that did not look. */
  missingLineEndBytes?: number;
}

/** What is put into a mailbox. Chosen before the transaction; the body may run again. */
export interface NewMessage {
  blob: PreparedBlob;
  /** A mailbox must exist; several give one message with several entries. */
  mailboxIds: readonly MailboxId[];
  keywords?: readonly string[];
  /** Whether its entries, in all of `mailboxIds`, are \Deleted from the beginning (IMAP APPEND); default false. */
  isDeleted?: boolean;
  receivedAtMs: number;
  /** Envelope and structure, opaque to the store (protocols/message `encodeSummary`); at most 90,000 bytes. */
  summary: Uint8Array;
  /** Message-ID, In-Reply-To and References, without angle brackets, own first. For threading. */
  messageIds: readonly string[];
  /** Bytes by which it grows when each of its lines ends in CRLF (protocols/message `missingLineEndBytes`); default 0. */
  missingLineEndBytes?: number;
}

export interface InsertedMessage {
  emailId: EmailId;
  threadId: ThreadId;
  /** In the order of `mailboxIds`. */
  uids: { mailboxId: MailboxId; uid: number; uidValidity: number }[];
}

export type MailErrorCode =
  | 'no-mailbox'
  | 'mailbox-exists'
  | 'bad-name'
  | 'has-children'
  | 'not-allowed'
  | 'too-many'
  | 'over-quota'
  | 'no-message';

export class MailError extends Error {
  override readonly name = 'MailError';
  constructor(
    readonly code: MailErrorCode,
    message: string,
  ) {
    super(message);
  }
}

export type Change =
  | { kind: 'entry-added' | 'entry-changed'; mailboxId: MailboxId; entry: MailboxEntry }
  | { kind: 'entry-removed'; mailboxId: MailboxId; uid: number; emailId: EmailId }
  /**
   * Flags of many entries, and with them the keywords of their messages, which are in no other mailbox. Instead of an `entry-changed` and perhaps an
   * `email-updated` for each: who needs to know what they have become reads the entries of these UIDs.
   */
  | { kind: 'flags-changed'; mailboxId: MailboxId; range: FlagRange }
  | { kind: 'email-created' | 'email-updated' | 'email-destroyed'; emailId: EmailId; threadId: ThreadId }
  | { kind: 'mailbox-created' | 'mailbox-updated' | 'mailbox-destroyed'; mailboxId: MailboxId };

export interface ChangeSet {
  modseq: number;
  changes: Change[];
}

/** `undefined` where the log no longer reaches back: the caller must start afresh. */
export type ChangesSince = { sets: ChangeSet[]; upToModseq: number; hasMore: boolean } | undefined;

/** Told in this process after a commit; across nodes the account's state key is watched. A hint: the truth is the change log. */
export interface ChangeNotice {
  accountId: AccountId;
  modseq: number;
}

/** For whoever carries change notices between nodes. Everything works without it, only slower: through the store's watches. */
export interface ChangeHints {
  /**
   * Another node says that it has changed an account. Who listens for it here is told of what the store has, if that is news. Cheap where nobody listens;
   * a forged or outdated hint does no harm.
   */
  heard(notice: ChangeNotice): void;
  /** Hints were lost: looks at all accounts that somebody listens for here, a bounded number per read. */
  recheckWatched(): void;
  /** Calls `listener` at once after each change that this node has made, of any account. Returns the unsubscribe. */
  onLocalChange(listener: (notice: ChangeNotice) => void): () => void;
}

/**
 * All changes that one transaction makes to one account, under one new modseq. State and log are written by `finish`, once. Reads made through it see
 * its own changes.
 */
export interface AccountWriter {
  readonly accountId: AccountId;
  /** The modseq that this transaction's changes get. */
  readonly modseq: number;
  /**
   * Throws `no-mailbox`, `over-quota` (with a limit given), `too-many`; RangeError for a summary that is too long. Any MailError or RangeError
   * comes before this message's first write: the transaction may go on without it. After any other error it must not be committed.
   */
  insertMessage(message: NewMessage, options?: { quotaLimitBytes?: number }): Promise<InsertedMessage>;
  /** Writes account state and change log; call exactly once, last. No changes: writes nothing. */
  finish(): ChangeNotice | undefined;
}

export type FlagMode = 'add' | 'remove' | 'replace';

export interface FlagChange {
  mode: FlagMode;
  keywords: readonly string[];
  /** Whether \Deleted is in the list. */
  deleted: boolean;
  /** Change only entries whose modseq is at most this (CONDSTORE UNCHANGEDSINCE). */
  unchangedSince?: number;
  /** Other flags stay as they are, whatever the mode. Default: all may be changed. */
  allowed?: FlagRights;
}

/** Flags of an entry, and the modseq at which they became so. */
export type FlagState = Pick<MailboxEntry, 'keywords' | 'isDeleted' | 'modseq'>;

export interface FlagResult {
  /** UIDs of entries, changed or not (refused ones too), ascending; expunged UIDs are absent. */
  readonly uids: readonly number[];
  /** Flags of each of `uids` as they are now. Equal ones share an object, as far as that is easy. */
  readonly states: readonly FlagState[];
  /** The same as whole entries, made when asked for; those that have been expunged since may be absent. */
  readonly entries: MailboxEntry[];
  /** UIDs refused because of `unchangedSince`. */
  readonly modified: readonly number[];
}

export interface CopyResult {
  uidValidity: number;
  /** In source UID order; sources that were gone are absent. */
  pairs: { sourceUid: number; targetUid: number }[];
}

/** As much of a new message as decides what its insert reads. */
export type ExpectedMessage = Pick<NewMessage, 'mailboxIds' | 'messageIds'>;

/** Which messages are \\Recent (RFC 3501 2.3.2). */
export interface MailRecent {
  /** First UID that no read-write session was told of, for who only looks; undefined (nothing is recent) in a mailbox of an earlier release. Throws KvError. */
  from(accountId: AccountId, mailboxId: MailboxId): Promise<number | undefined>;
  /**
   * A session has selected the mailbox to read and write: all below `uidNext` are claimed for it, of which those from `from` on are recent. Nobody else is
   * given them. Writes only where there is something new. Throws KvError.
   */
  hold(accountId: AccountId, mailboxId: MailboxId, uidNext: number, asOf?: AsOf): Promise<{ from: number; hold: RecentHold }>;
}

/** What was read together with a mailbox: whoever goes on with that mailbox at once need not read it again. */
export interface AsOf {
  /** The account's state as it is stored; two that are equal mean that nothing has changed between them. */
  readonly state: Uint8Array | undefined;
  /** First UID that no read-write session was told of; undefined in a mailbox of an earlier release. */
  readonly recentFrom: number | undefined;
}

/** To be released when the session leaves the mailbox. */
export interface RecentHold {
  /** The session is told of all below `upTo`: those from the answer on are its own, recent, of which no other session of this node was told. */
  claim(upTo: number): number;
  release(): void;
}

export interface MailStore {
  // --- writing as part of another transaction (delivery) ---
  /** `expected`: what will probably be inserted; what that needs to know is read in the same round trip. */
  openWriter(tx: KvTransaction, accountId: AccountId, expected?: readonly ExpectedMessage[]): Promise<AccountWriter>;
  /** To be called after the commit of a transaction whose writer gave a notice. */
  announce(notice: ChangeNotice | undefined): void;
  /** To be called instead when nobody knows whether the transaction was committed: costs a look at the store, and keeps no true notice back. */
  announcePerhaps(notice: ChangeNotice | undefined): void;

  // --- account ---
  /** Makes state and default mailboxes where absent; harmless to repeat. */
  ensureAccount(accountId: AccountId): Promise<void>;
  usage(accountId: AccountId): Promise<{ usedBytes: number; messages: number; modseq: number }>;
  /** Counts everything anew and compares (TRAPS 10); for tests and `store check`. */
  recount(accountId: AccountId): Promise<{ differences: string[] }>;
  /** Removes all mail of an account in resumable steps. */
  removeAccount(accountId: AccountId): Promise<void>;

  // --- mailboxes ---
  /** All, with their counts, parents before children. */
  mailboxes(accountId: AccountId): Promise<{ mailbox: Mailbox; counts: MailboxCounts }[]>;
  mailboxByPath(
    accountId: AccountId,
    path: readonly string[],
  ): Promise<{ mailbox: Mailbox; counts: MailboxCounts; asOf: AsOf } | undefined>;
  mailboxById(accountId: AccountId, id: MailboxId): Promise<{ mailbox: Mailbox; counts: MailboxCounts } | undefined>;
  /** Makes missing parents too (RFC 9051 6.3.4). Throws `mailbox-exists`, `bad-name`, `too-many`. */
  createMailbox(accountId: AccountId, path: readonly string[], options?: { role?: MailboxRole }): Promise<Mailbox>;
  /** Moves a mailbox with its children. Renaming INBOX moves its messages into a new mailbox (RFC 9051 6.3.6). */
  renameMailbox(accountId: AccountId, from: readonly string[], to: readonly string[]): Promise<void>;
  /** Messages that are nowhere else go with it (in resumable steps after the name is gone). Throws `has-children`, `not-allowed` for INBOX. */
  deleteMailbox(accountId: AccountId, path: readonly string[]): Promise<void>;
  setSubscribed(accountId: AccountId, path: readonly string[], subscribed: boolean): Promise<void>;

  // --- messages ---
  /** One transaction for all (MULTIAPPEND is all or nothing). */
  append(
    accountId: AccountId,
    messages: readonly NewMessage[],
    options?: { quotaLimitBytes?: number },
  ): Promise<InsertedMessage[]>;
  changeFlags(accountId: AccountId, mailboxId: MailboxId, uids: readonly number[], change: FlagChange): Promise<FlagResult>;
  /** Adds entries in `to`; a message that is already there is copied as a new message with the same blob, keywords and thread. */
  copy(
    accountId: AccountId,
    from: MailboxId,
    uids: readonly number[],
    to: MailboxId,
    options?: { quotaLimitBytes?: number; dropsDeleted?: boolean },
  ): Promise<CopyResult>;
  /** `dropsDeleted`, here and in `copy`: what arrives is not \\Deleted. */
  move(
    accountId: AccountId,
    from: MailboxId,
    uids: readonly number[],
    to: MailboxId,
    options?: { dropsDeleted?: boolean },
  ): Promise<CopyResult>;
  /**
   * The new message (in the mailboxes of account `to` that it names) for the one with this UID, in one transaction: both or neither. Throws `no-message`
   * when the old one is gone, and what `append` throws.
   */
  replace(
    from: { accountId: AccountId; mailboxId: MailboxId },
    uid: number,
    to: AccountId,
    message: NewMessage,
    options?: { quotaLimitBytes?: number },
  ): Promise<InsertedMessage>;
  /**
   * Removes entries; `onlyDeleted` (default) leaves those without \Deleted at the moment of the transaction. Answers the UIDs removed. `precondition` is
   * asked in each of its transactions; what it throws is thrown on, and nothing more is removed.
   */
  expunge(
    accountId: AccountId,
    mailboxId: MailboxId,
    uids: readonly number[],
    options?: { onlyDeleted?: boolean; precondition?: (tx: KvTransaction) => Promise<void> },
  ): Promise<number[]>;

  /** Copies (or moves) into a mailbox of another account. In parts, each atomic over both accounts. */
  copyBetween(from: MailboxOf, uids: readonly number[], to: MailboxOf, options: CopyBetweenOptions): Promise<CopyResult>;

  // --- what others may see and do ---
  readonly sharing: MailSharing;
  readonly annotations: MailAnnotations;
  readonly recent: MailRecent;

  // --- reading ---
  entries(
    accountId: AccountId,
    mailboxId: MailboxId,
    range?: { fromUid?: number; toUid?: number; limit?: number },
  ): Promise<MailboxEntry[]>;
  messages(accountId: AccountId, ids: readonly EmailId[]): Promise<(Message | undefined)[]>;
  summaries(accountId: AccountId, ids: readonly EmailId[]): Promise<(Buffer | undefined)[]>;
  /** Messages that lack line ends, few as a rule: by id, ascending, at most `limit` of those after `afterId`. */
  missingLineEnds(
    accountId: AccountId,
    options: { afterId?: EmailId; limit: number },
  ): Promise<{ emailId: EmailId; missingLineEndBytes: number }[]>;
  changesSince(accountId: AccountId, modseq: number, limit?: number): Promise<ChangesSince>;
  /** Drops log entries up to `modseq`, marker in the same transaction. */
  truncateLog(accountId: AccountId, upToModseq: number): Promise<void>;
  /**
   * The node's shared, cached index of one mailbox, with all that is committed by now, or by the time of `asOf`; release it when the session leaves.
   */
  openIndex(accountId: AccountId, mailboxId: MailboxId, asOf?: AsOf): Promise<MailboxIndex>;
  /** Calls `listener` after each change that this node made or saw (other nodes' changes through a store watch). Returns the unsubscribe. */
  onChange(accountId: AccountId, listener: (notice: ChangeNotice) => void): () => void;
  /** Used by tests and purge: what is composable inside other reads. */
  entryAt(reads: KvReads, accountId: AccountId, mailboxId: MailboxId, uid: number): Promise<MailboxEntry | undefined>;
}

/** Ascending UIDs. Never changed once given out. */
export type UidList = Uint32Array;

/**
 * One state of a mailbox in columns, for whoever looks at many messages: no object per message. Positions are those of `uids`. Everything but `uids` holds only
 * until the caller next waits: the columns are the index's own.
 */
export interface IndexView {
  readonly uids: UidList;
  /** Everything up to this modseq is in. */
  readonly modseq: number;
  /** Position of a UID, or -1. */
  positionOf(uid: number): number;
  emailIdAt(position: number): EmailId;
  modseqAt(position: number): number;
  sizeBytesAt(position: number): number;
  receivedAtMsAt(position: number): number;
  savedAtMsAt(position: number): number;
  /** A number that stands for the entry's keywords and \Deleted; equal numbers mean equal flags within this view. Small: fit for an array. */
  flagsAt(position: number): number;
  /** `flagsAt` of all positions, for whoever goes through many at once. Not to be changed, and out of date as soon as the caller waits. */
  allFlags(): Uint16Array | Uint32Array;
  keywordsOf(flags: number): readonly string[];
  /** Keywords that occur, or did so lately, each once, as they were first seen. The list only grows; now and then there is another one. */
  readonly keywords: readonly string[];
  /** Position of the first entry without `$seen`, or -1; does not look at all before it again and again. */
  firstUnseen(): number;
  isDeletedOf(flags: number): boolean;
}

/**
 * The latest view of one mailbox as far as this node has read it, shared by all sessions that have it open. Compact: UIDs in ascending order with their
 * facts. `refresh` reads the change log, never the whole mailbox again (unless the log was truncated).
 */
export interface MailboxIndex {
  readonly mailboxId: MailboxId;
  /** Everything up to this modseq is in. */
  readonly modseq: number;
  readonly size: number;
  /** False once the mailbox was removed. */
  readonly exists: boolean;
  /** Entry of a UID, or undefined when it was expunged. */
  get(uid: number): MailboxEntry | undefined;
  /**
   * UIDs, ascending. Not to be changed by the caller, and never changed once given out: the next change to the mailbox makes another list, so that a
   * holder may go on reading its own, and holders of one state share one list.
   */
  uids(): UidList;
  /** The present state in columns. */
  view(): IndexView;
  /** Entries with a modseq above `modseq`, ascending by UID. */
  changedAfter(modseq: number): MailboxEntry[];
  /** The same as ascending positions of the present `view()`. */
  changedPositionsAfter(modseq: number): number[];
  /** UIDs removed after `modseq`, as far as remembered; undefined when that is too long ago (compare UID lists instead). */
  removedAfter(modseq: number): number[] | undefined;
  /**
   * A modseq that a client remembers, as it can be compared with those of this mailbox: 0 for one of a history that a restore of the store has lost, so that the
   * client is told everything.
   */
  comparableModseq(modseq: number): number;
  /** Brings the index up to what is committed now. Concurrent calls share one read. */
  refresh(): Promise<void>;
  release(): void;
}
