/**
 * All changes that one transaction makes to one account, under one modseq: entries, counts, quota, threads, log. The account's state is read
 * with a conflict and written by every change, so everything else of the account may be read as a snapshot.
 */
import type { Clock, Random } from '../../ops/telemetry/index.js';
import type { BlobStore } from '../blobs/contract.js';
import { type KvReads, type KvTransaction, kvLimits } from '../kv/contract.js';
import { notePending } from '../search/pending.js';
import {
  type AccountId,
  type AccountWriter,
  type Change,
  type ChangeNotice,
  type EmailId,
  type ExpectedMessage,
  type InsertedMessage,
  type MailboxEntry,
  type MailboxId,
  MailError,
  mailLimits,
  type NewMessage,
  type ThreadId,
} from './contract.js';
import { getDense } from './dense-reads.js';
import {
  decodeFlagRanges,
  decodeFolded,
  encodeFlagRanges,
  type FlagRange,
  type FlagRangeList,
  noFlagRanges,
  withoutListed,
} from './flag-ranges.js';
import { newEmailId, referenceHash } from './ids.js';
import type { AccountKeys } from './keys.js';
import { canonicalKeywords, isSeen } from './keywords.js';
import { encodeLog, maxLogValueBytes } from './log.js';
import { LogRows } from './log-rows.js';
import {
  type AccountState,
  decodeCounts,
  decodeLogFloor,
  decodeMessage,
  decodeState,
  encodeCounts,
  encodeEntry,
  encodeLineEnds,
  encodeMessage,
  encodeState,
  type LogFloor,
  type StoredCounts,
  type StoredMessage,
} from './records.js';
import { findThread, removeFromThreads, threadRowValue } from './threads.js';
import type { UidRanges } from './uid-ranges.js';

/** The last UID that IMAP can name. */
const maxUid = 0xffff_ffff;
/** Of a mailbox's ranges that UIDs were taken out of here and there: far below the store's limit for one value. */
const maxTrimmedBytes = 20_000;

export interface ChangesOptions {
  tx: KvTransaction;
  keys: AccountKeys;
  blobs: BlobStore;
  clock: Clock;
  random: Random;
  /** Names this change in the log, the same on every attempt. */
  token: Buffer;
}

export class AccountChanges implements AccountWriter {
  readonly accountId: AccountId;
  readonly modseq: number;
  readonly keys: AccountKeys;
  readonly tx: KvTransaction;
  /** Reads without conflicts; this transaction's own writes are seen. */
  readonly reads: KvReads;
  readonly state: AccountState;
  /** False for an account that was never set up, or was removed. */
  readonly exists: boolean;
  readonly nowMs: number;
  readonly log: Change[] = [];
  private readonly loaded = new Map<MailboxId, StoredCounts | undefined>();
  private readonly dirty = new Set<MailboxId>();
  /** Thread of each reference hash looked up or written here. */
  private readonly threadsByHash = new Map<string, ThreadId | undefined>();
  private logRows: LogRows | undefined;
  private readonly ranges = new Map<MailboxId, FlagRangeList>();
  private hasNewMessages = false;
  private finished = false;

  private constructor(
    private readonly options: ChangesOptions,
    state: AccountState | undefined,
    last: LogFloor = { modseq: 0, uidValiditySeed: 0 },
  ) {
    this.tx = options.tx;
    this.reads = options.tx.snapshot;
    this.keys = options.keys;
    this.accountId = options.keys.accountId;
    this.exists = state !== undefined;
    this.state = state ?? { ...last, usedBytes: 0, messages: 0, mailboxes: 0, ranged: 0 };
    this.modseq = this.state.modseq + 1;
    this.state.placesSince ??= this.modseq;
    this.nowMs = Math.floor(options.clock.nowMs());
  }

  /** `expected`: messages that will probably be inserted; what that needs to know is read in the same round trip. */
  static async open(options: ChangesOptions, expected: readonly ExpectedMessage[] = []): Promise<AccountChanges> {
    const { tx, keys } = options;
    const mailboxIds = [...new Set(expected.flatMap((message) => message.mailboxIds))];
    const hashes = expected.flatMap(({ messageIds }) => referenceHashes(messageIds));
    const ahead = [...mailboxIds.map((id) => keys.counts(id)), ...hashes.map((hash) => keys.reference(hash))];
    const [state, values] = await Promise.all([tx.get(keys.state), ahead.length > 0 ? tx.snapshot.getMany(ahead) : []]);
    const changes = state
      ? new AccountChanges(options, decodeState(state))
      : // An account made again goes on with the modseqs and UIDVALIDITYs of the one that was removed.
        new AccountChanges(options, undefined, decodeLogFloor(await tx.get(keys.logFloor)));
    changes.noteCounts(mailboxIds, values);
    changes.noteThreads(hashes, values.slice(mailboxIds.length));
    return changes;
  }

  // --- counts ---

  /** Makes the counts of these mailboxes known, with further keys read in the same round trip. */
  async load(ids: Iterable<MailboxId>, alsoRead: readonly Buffer[] = []): Promise<(Buffer | undefined)[]> {
    const missing = [...new Set(ids)].filter((id) => !this.loaded.has(id));
    if (missing.length + alsoRead.length === 0) return [];
    const values = await this.reads.getMany([...missing.map((id) => this.keys.counts(id)), ...alsoRead]);
    this.noteCounts(missing, values);
    return values.slice(missing.length);
  }

  private noteCounts(ids: readonly MailboxId[], values: readonly (Buffer | undefined)[]): void {
    ids.forEach((id, place) => {
      const value = values[place];
      if (!this.loaded.has(id)) this.loaded.set(id, value && decodeCounts(value));
    });
  }

  private noteThreads(hashes: readonly Buffer[], values: readonly (Buffer | undefined)[]): void {
    hashes.forEach((hash, place) => {
      const text = hash.toString('latin1');
      if (!this.threadsByHash.has(text)) this.threadsByHash.set(text, values[place]?.toString('latin1'));
    });
  }

  /** Counts of a mailbox that was loaded; undefined when there is no such mailbox (any more). */
  countsOf(id: MailboxId): Readonly<StoredCounts> | undefined {
    return this.loaded.get(id);
  }

  /** Counts of a loaded mailbox. Throws `no-mailbox`. */
  needMailbox(id: MailboxId): Readonly<StoredCounts> {
    const counts = this.loaded.get(id);
    if (!counts) throw new MailError('no-mailbox', 'there is no such mailbox');
    return counts;
  }

  /** The counts to change; they get this transaction's modseq and are written at the end. */
  private touch(id: MailboxId): StoredCounts {
    const counts = this.needMailbox(id) as StoredCounts;
    counts.highestModseq = this.modseq;
    this.dirty.add(id);
    return counts;
  }

  /** A new mailbox's counts. */
  addCounts(id: MailboxId, uidValidity: number): void {
    const highestModseq = this.modseq;
    const shares = { shared: 0, sharedAt: this.modseq };
    this.loaded.set(id, { uidNext: 1, total: 0, unseen: 0, deleted: 0, bytes: 0, highestModseq, uidValidity, ...shares });
    this.dirty.add(id);
  }

  /** The counts of a mailbox that is removed in this transaction. */
  removeCounts(id: MailboxId): void {
    this.loaded.set(id, undefined);
    this.dirty.delete(id);
    this.tx.clear(this.keys.counts(id));
  }

  /** Higher than any given before in this account. */
  nextUidValidity(): number {
    const seconds = Math.min(Math.floor(this.nowMs / 1000), 0xffff_0000);
    this.state.uidValiditySeed = Math.max(this.state.uidValiditySeed + 1, seconds, 1);
    return this.state.uidValiditySeed;
  }

  /** Messages of a loaded mailbox that are in another one as well; undefined where that is not known. */
  sharedIn(id: MailboxId): number | undefined {
    const { shared, sharedAt } = this.needMailbox(id);
    return sharedAt !== undefined && sharedAt >= this.state.placesSince! ? shared : undefined;
  }

  /**
   * To be told whenever the mailboxes of a message change. Those that it comes into or leaves must be loaded, and the one that it then is, or was, in alone.
   */
  placesChanged(before: readonly MailboxId[], after: readonly MailboxId[]): void {
    for (const id of before) {
      if (before.length > 1 && !(after.length > 1 && after.includes(id))) this.addShared(id, -1);
    }
    for (const id of after) {
      if (after.length > 1 && !(before.length > 1 && before.includes(id))) this.addShared(id, 1);
    }
  }

  private addShared(id: MailboxId, more: number): void {
    if (!this.loaded.has(id)) throw new Error('the counts of a mailbox were not loaded');
    const counts = this.loaded.get(id);
    // A mailbox that is being removed has none any more. What is unknown stays so.
    if (!counts || this.sharedIn(id) === undefined) return;
    counts.shared = counts.shared! + more;
    this.dirty.add(id);
  }

  // --- changes of flags that are not written into all rows yet ---

  async flagRanges(mailboxId: MailboxId): Promise<FlagRangeList> {
    if (this.state.ranged === 0) return noFlagRanges;
    let ranges = this.ranges.get(mailboxId);
    if (!ranges) {
      ranges = decodeFlagRanges(await this.reads.get(this.keys.flagRanges(mailboxId)));
      this.ranges.set(mailboxId, ranges);
    }
    return ranges;
  }

  /** Changes flags of many entries without writing their rows. `ranges`: those of the mailbox, this one among them; the counts change by the differences. */
  changeRange(mailboxId: MailboxId, range: FlagRange, ranges: FlagRangeList, unseen: number, deleted: number): void {
    const counts = this.touch(mailboxId);
    counts.unseen += unseen;
    counts.deleted += deleted;
    this.putFlagRanges(mailboxId, ranges);
    this.log.push({ kind: 'flags-changed', mailboxId, range });
  }

  /**
   * Rows of these UIDs, and of their messages, are up to date, or gone. To be called only where something is changed. Ranges that would be in too many pieces
   * then stay as they are: rows tell that they are newer, and those that are gone are missed by nobody.
   */
  async settled(mailboxId: MailboxId, uids: UidRanges): Promise<void> {
    const before = await this.flagRanges(mailboxId);
    if (before.length === 0) return;
    const rest = withoutListed(before, uids);
    if (encodeFlagRanges(rest).length <= maxTrimmedBytes) this.putFlagRanges(mailboxId, rest);
  }

  /** For a mailbox that is removed. */
  async dropFlagRanges(mailboxId: MailboxId): Promise<void> {
    if ((await this.flagRanges(mailboxId)).length > 0) this.putFlagRanges(mailboxId, noFlagRanges);
  }

  private putFlagRanges(mailboxId: MailboxId, ranges: FlagRangeList): void {
    const hadAny = (this.ranges.get(mailboxId)?.length ?? 0) > 0;
    if (hadAny && ranges.length === 0) this.state.ranged--;
    if (!hadAny && ranges.length > 0) this.state.ranged++;
    this.ranges.set(mailboxId, ranges);
    if (ranges.length === 0) this.tx.clear(this.keys.flagRanges(mailboxId));
    else this.tx.set(this.keys.flagRanges(mailboxId), encodeFlagRanges(ranges));
  }

  // --- entries and messages ---

  /** Adds an entry at the mailbox's next UID. The mailbox must be loaded and must exist. */
  addEntry(mailboxId: MailboxId, facts: Omit<MailboxEntry, 'uid' | 'modseq' | 'savedAtMs'>): number {
    const counts = this.touch(mailboxId);
    if (counts.uidNext > maxUid) throw new MailError('too-many', 'the mailbox has given all its UIDs');
    const entry: MailboxEntry = { ...facts, uid: counts.uidNext++, modseq: this.modseq, savedAtMs: this.nowMs };
    counts.total++;
    counts.bytes += entry.sizeBytes;
    if (!isSeen(entry.keywords)) counts.unseen++;
    if (entry.isDeleted) counts.deleted++;
    this.tx.set(this.keys.entry(mailboxId, entry.uid), encodeEntry(entry));
    this.log.push({ kind: 'entry-added', mailboxId, entry });
    return entry.uid;
  }

  /** Writes an entry anew with other flags; answers it as it is now. */
  changeEntry(mailboxId: MailboxId, before: MailboxEntry, flags: Pick<MailboxEntry, 'keywords' | 'isDeleted'>): MailboxEntry {
    const counts = this.touch(mailboxId);
    const entry: MailboxEntry = { ...before, ...flags, modseq: this.modseq };
    counts.unseen += Number(isSeen(before.keywords)) - Number(isSeen(entry.keywords));
    counts.deleted += Number(entry.isDeleted) - Number(before.isDeleted);
    this.tx.set(this.keys.entry(mailboxId, entry.uid), encodeEntry(entry));
    this.log.push({ kind: 'entry-changed', mailboxId, entry });
    return entry;
  }

  /** The log for changed flags of one mailbox, whose new rows the caller writes; the counts change by these differences. */
  flagsChanged(mailboxId: MailboxId, unseen: number, deleted: number): LogRows {
    const counts = this.touch(mailboxId);
    counts.unseen += unseen;
    counts.deleted += deleted;
    if (this.logRows && this.logRows.mailboxId !== mailboxId) throw new Error('rows of one mailbox were logged already');
    this.logRows ??= new LogRows(mailboxId, maxLogValueBytes);
    return this.logRows;
  }

  removeEntry(mailboxId: MailboxId, entry: MailboxEntry): void {
    const counts = this.touch(mailboxId);
    counts.total--;
    counts.bytes -= entry.sizeBytes;
    if (!isSeen(entry.keywords)) counts.unseen--;
    if (entry.isDeleted) counts.deleted--;
    this.tx.clear(this.keys.entry(mailboxId, entry.uid));
    this.log.push({ kind: 'entry-removed', mailboxId, uid: entry.uid, emailId: entry.emailId });
  }

  /** Entries of these UIDs that are there, in the order asked. Throws `no-mailbox`. */
  async entries(mailboxId: MailboxId, uids: readonly number[]): Promise<MailboxEntry[]> {
    const wanted = uids.map((uid) => this.keys.entry(mailboxId, uid));
    const [values, ranges] = await Promise.all([
      getDense(this.reads, wanted, this.keys.density.entries),
      this.flagRanges(mailboxId),
      this.load([mailboxId]),
    ]);
    this.needMailbox(mailboxId);
    const entries: MailboxEntry[] = [];
    values.forEach((value, place) => {
      if (value) entries.push(decodeFolded(uids[place]!, value, ranges));
    });
    return entries;
  }

  async summaries(ids: readonly EmailId[]): Promise<(Buffer | undefined)[]> {
    return ids.length === 0 ? [] : this.reads.getMany(ids.map((id) => this.keys.summary(id)));
  }

  /** As their rows are: the keywords of one that is in a single mailbox may be older than those of its entry there. */
  async messages(ids: readonly EmailId[]): Promise<(StoredMessage | undefined)[]> {
    if (ids.length === 0) return [];
    const wanted = ids.map((id) => this.keys.message(id));
    const values = await getDense(this.reads, wanted, this.keys.density.messages);
    return values.map((value, place) => value && decodeMessage(ids[place]!, value));
  }

  /** Writes a message that was there before. */
  updateMessage(message: StoredMessage): void {
    this.tx.set(this.keys.message(message.id), encodeMessage(message));
    this.log.push({ kind: 'email-updated', emailId: message.id, threadId: message.threadId });
  }

  /** Removes messages whose last entry went: record, summary, thread row, blob link, quota. */
  async destroyMessages(messages: readonly StoredMessage[]): Promise<void> {
    for (const message of messages) {
      this.tx.clear(this.keys.message(message.id));
      this.tx.clear(this.keys.summary(message.id));
      if (message.missingLineEndBytes) this.tx.clear(this.keys.lineEnds(message.id));
      this.options.blobs.unlink(this.tx, message.blobId, this.ownerOf(message.id));
      this.state.messages--;
      this.state.usedBytes -= message.sizeBytes;
      this.log.push({ kind: 'email-destroyed', emailId: message.id, threadId: message.threadId });
    }
    this.threadsByHash.clear();
    await removeFromThreads(this.tx, this.keys, messages);
  }

  /** Writes a new message's rows. Its blob must be linked besides. */
  createMessage(message: StoredMessage, summary: Uint8Array, answersFor: readonly Buffer[]): void {
    this.tx.set(this.keys.message(message.id), encodeMessage(message));
    this.tx.set(this.keys.summary(message.id), summary);
    if (message.missingLineEndBytes) this.tx.set(this.keys.lineEnds(message.id), encodeLineEnds(message.missingLineEndBytes));
    this.tx.set(this.keys.thread(message.threadId, message.id), threadRowValue(answersFor));
    this.state.messages++;
    this.state.usedBytes += message.sizeBytes;
    this.log.push({ kind: 'email-created', emailId: message.id, threadId: message.threadId });
    this.hasNewMessages = true;
  }

  newEmailId(): EmailId {
    return newEmailId(this.options.clock, this.options.random);
  }

  /** A message with the same blob, keywords and thread, for a mailbox that has this one already. */
  async duplicate(message: StoredMessage, summary: Uint8Array, mailboxId: MailboxId, isDeleted: boolean): Promise<number> {
    const { sizeBytes, receivedAtMs, keywords } = message;
    const id = this.newEmailId();
    const uid = this.addEntry(mailboxId, { emailId: id, isDeleted, keywords, sizeBytes, receivedAtMs });
    this.createMessage({ ...message, id, mailboxes: { [mailboxId]: uid } }, summary, []);
    await this.options.blobs.link(this.tx, message.blobId, this.ownerOf(id));
    return uid;
  }

  /** Throws `over-quota` when `moreBytes` would exceed the limit. */
  checkQuota(moreBytes: number, limitBytes: number | undefined): void {
    if (limitBytes !== undefined && moreBytes > 0 && this.state.usedBytes + moreBytes > limitBytes) {
      throw new MailError('over-quota', 'the account has no room for this');
    }
  }

  // --- inserting ---

  async insertMessage(message: NewMessage, options?: { quotaLimitBytes?: number }): Promise<InsertedMessage> {
    const [inserted] = await this.insertAll([message], options);
    return inserted!;
  }

  /** All or none: what is wrong with any of them is thrown before the first write. */
  async insertAll(messages: readonly NewMessage[], options: { quotaLimitBytes?: number } = {}): Promise<InsertedMessage[]> {
    const plans = messages.map((message) => {
      if (message.mailboxIds.length === 0) throw new MailError('no-mailbox', 'a message needs a mailbox');
      if (message.summary.length > mailLimits.maxSummaryBytes) {
        throw new RangeError(`a summary has at most ${mailLimits.maxSummaryBytes} bytes`);
      }
      return { message, keywords: canonicalKeywords(message.keywords ?? []), hashes: referenceHashes(message.messageIds) };
    });
    const hashes = plans.flatMap((plan) => plan.hashes).filter((hash) => !this.threadsByHash.has(hash.toString('latin1')));
    const mailboxIds = messages.flatMap((message) => [...message.mailboxIds]);
    const known = await this.load(
      mailboxIds,
      hashes.map((hash) => this.keys.reference(hash)),
    );
    this.noteThreads(hashes, known);
    for (const id of mailboxIds) {
      // Each insert takes at most one UID of a mailbox.
      if (this.needMailbox(id).uidNext + messages.length - 1 > maxUid) {
        throw new MailError('too-many', 'the mailbox has given all its UIDs');
      }
    }
    const bytes = messages.reduce((sum, message) => sum + message.blob.sizeBytes, 0);
    this.checkQuota(bytes, options.quotaLimitBytes);
    const inserted = plans.map((plan) => this.insertPlanned(plan));
    await this.linkAll(inserted.map(({ emailId }, place) => ({ emailId, blob: messages[place]!.blob })));
    return inserted;
  }

  /** Side by side, so that what is read of the blobs shares a round trip; links to one content one after another, because the first may store it. */
  private async linkAll(links: readonly { emailId: EmailId; blob: NewMessage['blob'] }[]): Promise<void> {
    const latest = new Map<string, Promise<void>>();
    for (const { emailId, blob } of links) {
      const link = () => this.options.blobs.linkPrepared(this.tx, blob, this.ownerOf(emailId));
      const earlier = latest.get(blob.id);
      latest.set(blob.id, earlier ? earlier.then(link) : link());
    }
    await Promise.all(latest.values());
  }

  private insertPlanned(plan: { message: NewMessage; keywords: readonly string[]; hashes: Buffer[] }): InsertedMessage {
    const { message, keywords, hashes } = plan;
    const emailId = this.newEmailId();
    const { threadId, missing } = findThread(this.threadsByHash, hashes, emailId);
    for (const hash of missing) {
      this.tx.set(this.keys.reference(hash), Buffer.from(threadId, 'latin1'));
      this.threadsByHash.set(hash.toString('latin1'), threadId);
    }
    const { sizeBytes } = message.blob;
    const isDeleted = message.isDeleted ?? false;
    const receivedAtMs = Math.floor(message.receivedAtMs);
    const mailboxes: Record<MailboxId, number> = {};
    for (const mailboxId of message.mailboxIds) {
      if (mailboxes[mailboxId] !== undefined) continue;
      mailboxes[mailboxId] = this.addEntry(mailboxId, { emailId, isDeleted, keywords, sizeBytes, receivedAtMs });
    }
    this.placesChanged([], Object.keys(mailboxes));
    const { missingLineEndBytes } = message;
    const record: StoredMessage = {
      id: emailId,
      blobId: message.blob.id,
      sizeBytes,
      receivedAtMs,
      threadId,
      keywords,
      mailboxes,
    };
    if (missingLineEndBytes) record.missingLineEndBytes = missingLineEndBytes;
    this.createMessage(record, message.summary, missing);
    const uids = message.mailboxIds.map((mailboxId) => {
      return { mailboxId, uid: mailboxes[mailboxId]!, uidValidity: this.needMailbox(mailboxId).uidValidity };
    });
    return { emailId, threadId, uids };
  }

  private ownerOf(emailId: EmailId) {
    return { kind: 'message', accountId: this.accountId, emailId } as const;
  }

  // --- the end ---

  finish(): ChangeNotice | undefined {
    if (this.finished) throw new Error('the changes of this transaction are finished already');
    this.finished = true;
    if (this.log.length === 0 && !this.logRows) return undefined;
    this.state.modseq = this.modseq;
    for (const id of this.dirty) {
      const counts = this.loaded.get(id);
      if (counts) this.tx.set(this.keys.counts(id), encodeCounts(counts));
    }
    encodeLog(this.log, this.options.token, this.logRows).forEach((value, part) => {
      this.tx.set(this.keys.logAt(this.modseq, part), value);
    });
    this.tx.set(this.keys.state, encodeState(this.state));
    if (this.hasNewMessages) notePending(this.tx, this.keys.indexing, this.modseq);
    return { accountId: this.accountId, modseq: this.modseq };
  }
}

/** Of the message ids that decide about the thread. */
function referenceHashes(messageIds: readonly string[]): Buffer[] {
  return [...new Set(messageIds)].slice(0, mailLimits.maxThreadReferences).map(referenceHash);
}

/** About what one insert writes beside its blob; for those who combine several. */
export const insertOverheadBytes = 2_000;
/** Leaves room for rows and conflict ranges beside the blobs. */
export const maxCombinedBytes = kvLimits.maxTransactionBytes / 4;
