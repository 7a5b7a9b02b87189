/**
 * Mailbox semantics, once, for IMAP, JMAP, POP3 and delivery. All that a change touches is written in one transaction under one modseq per account.
 * Keywords belong to the message, `\Deleted` to its entry in one mailbox. JMAP state and IMAP MODSEQ are the same number.
 */
import type { BlobId, PreparedBlob } from '../blobs/contract.js';
import type { KvReads, KvTransaction } from '../kv/contract.js';

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
}

export interface FlagResult {
  /** Entries as they are now, changed or not; expunged UIDs are absent. */
  entries: MailboxEntry[];
  /** UIDs refused because of `unchangedSince`. */
  modified: number[];
}

export interface CopyResult {
  uidValidity: number;
  /** In source UID order; sources that were gone are absent. */
  pairs: { sourceUid: number; targetUid: number }[];
}

/** As much of a new message as decides what its insert reads. */
export type ExpectedMessage = Pick<NewMessage, 'mailboxIds' | 'messageIds'>;

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
  mailboxByPath(accountId: AccountId, path: readonly string[]): Promise<{ mailbox: Mailbox; counts: MailboxCounts } | undefined>;
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
    options?: { quotaLimitBytes?: number },
  ): Promise<CopyResult>;
  move(accountId: AccountId, from: MailboxId, uids: readonly number[], to: MailboxId): Promise<CopyResult>;
  /** Removes entries; `onlyDeleted` (default) leaves those without \Deleted at the moment of the transaction. Answers the UIDs removed. */
  expunge(
    accountId: AccountId,
    mailboxId: MailboxId,
    uids: readonly number[],
    options?: { onlyDeleted?: boolean },
  ): Promise<number[]>;

  // --- reading ---
  entries(
    accountId: AccountId,
    mailboxId: MailboxId,
    range?: { fromUid?: number; toUid?: number; limit?: number },
  ): Promise<MailboxEntry[]>;
  messages(accountId: AccountId, ids: readonly EmailId[]): Promise<(Message | undefined)[]>;
  summaries(accountId: AccountId, ids: readonly EmailId[]): Promise<(Buffer | undefined)[]>;
  changesSince(accountId: AccountId, modseq: number, limit?: number): Promise<ChangesSince>;
  /** Drops log entries up to `modseq`, marker in the same transaction. */
  truncateLog(accountId: AccountId, upToModseq: number): Promise<void>;
  /** The node's shared, cached index of one mailbox; release it when the session leaves. */
  openIndex(accountId: AccountId, mailboxId: MailboxId): Promise<MailboxIndex>;
  /** Calls `listener` after each change that this node made or saw (other nodes' changes through a store watch). Returns the unsubscribe. */
  onChange(accountId: AccountId, listener: (notice: ChangeNotice) => void): () => void;
  /** Used by tests and purge: what is composable inside other reads. */
  entryAt(reads: KvReads, accountId: AccountId, mailboxId: MailboxId, uid: number): Promise<MailboxEntry | undefined>;
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
  uids(): readonly number[];
  /** Entries with a modseq above `modseq`, ascending by UID. */
  changedAfter(modseq: number): MailboxEntry[];
  /** UIDs removed after `modseq`, as far as remembered; undefined when that is too long ago (compare UID lists instead). */
  removedAfter(modseq: number): number[] | undefined;
  /** Brings the index up to what is committed now. Concurrent calls share one read. */
  refresh(): Promise<void>;
  release(): void;
}
