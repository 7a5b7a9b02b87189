/**
 * Counting an account anew and comparing: entries with counts, messages with entries, state, threads, summaries and blob links. Page by page
 * within the store's limits; starts again when the account changes meanwhile.
 */
import { linkKey } from '../blobs/keys.js';
import type { KeyRange } from '../keyspace.js';
import { type KeyValue, type KvReads, keyAfter } from '../kv/contract.js';
import type { MailContext } from './context.js';
import { type AccountId, type MailboxEntry, type MailboxId, MailError, type ThreadId } from './contract.js';
import { onlyPlaceOf } from './flag-range-reads.js';
import { decodeFlagRanges, decodeFolded, type FlagRangeList, isListed, noFlagRanges } from './flag-ranges.js';
import type { AccountKeys } from './keys.js';
import { isSeen, sameKeywords } from './keywords.js';
import { type AccountState, decodeCounts, decodeMailbox, decodeMessage, decodeState, type StoredMessage } from './records.js';
import { hashesOf } from './threads.js';

const rowsPerPage = 2_000;
/** Fewer, because each is followed by reads of its entries, summary and link. */
const messagesPerPage = 100;
const maxRuns = 20;

class AccountChanged extends Error {}

interface Tally {
  total: number;
  unseen: number;
  deleted: number;
  bytes: number;
  maxUid: number;
  maxModseq: number;
  /** Places in message records that name this mailbox. */
  places: number;
  /** Those of messages that are in another one as well. */
  shared: number;
}

const emptyTally = (): Tally => ({ total: 0, unseen: 0, deleted: 0, bytes: 0, maxUid: 0, maxModseq: 0, places: 0, shared: 0 });

/** Holds the account's gate, so that this process' own writers wait. Throws when others keep changing the account. */
export function recount(context: MailContext, accountId: AccountId): Promise<{ differences: string[] }> {
  return context.gate.runExclusive(accountId, async () => {
    for (let run = 0; run < maxRuns; run++) {
      try {
        return { differences: await new Recount(context, context.keysOf(accountId)).run() };
      } catch (error) {
        if (!(error instanceof AccountChanged)) throw error;
      }
    }
    throw new MailError('not-allowed', 'the account keeps changing and can not be counted');
  });
}

class Recount {
  private readonly differences: string[] = [];
  private readonly tallies = new Map<MailboxId, Tally>();
  private readonly mailboxes = new Set<MailboxId>();
  private readonly removals = new Set<string>();
  private readonly threads = new Set<ThreadId>();
  private readonly ranges = new Map<MailboxId, FlagRangeList>();
  private stateValue: Buffer | undefined;

  constructor(
    private readonly context: MailContext,
    private readonly keys: AccountKeys,
  ) {}

  async run(): Promise<string[]> {
    this.stateValue = await this.context.kv.read((reads) => reads.get(this.keys.state));
    const state = this.stateValue && decodeState(this.stateValue);
    await this.each(this.keys.allRemovals, (row) => void this.removals.add(this.keys.removalOf(row.key)));
    await this.each(this.keys.allFlagRanges, (row) => {
      this.ranges.set(this.keys.flagRangesMailbox(row.key), decodeFlagRanges(row.value));
    });
    await this.countEntries();
    const { messages, bytes } = await this.countMessages();
    await this.countThreads(messages);
    await this.compareMailboxes(state);
    this.compare('messages of the account', state?.messages ?? 0, messages);
    this.compare('used bytes of the account', state?.usedBytes ?? 0, bytes);
    return this.differences;
  }

  private compare(what: string, stored: unknown, counted: unknown): void {
    if (stored !== counted) this.differences.push(`${what}: stored ${String(stored)}, counted ${String(counted)}`);
  }

  private tally(mailboxId: MailboxId): Tally {
    let tally = this.tallies.get(mailboxId);
    if (!tally) this.tallies.set(mailboxId, (tally = emptyTally()));
    return tally;
  }

  /** A range page by page; `visit` is called outside of the read, which may be made again. */
  private async pages(range: KeyRange, limit: number, visit: (rows: KeyValue[]) => Promise<void> | void): Promise<void> {
    for (let begin = range.begin; ; ) {
      const from = begin;
      const rows = await this.read((reads) => reads.getRange(from, range.end, { limit }));
      await visit(rows);
      if (rows.length < limit) return;
      begin = keyAfter(rows.at(-1)!.key);
    }
  }

  /** A read that fails when the account is not as it was at the beginning. */
  private async read<T>(body: (reads: KvReads) => Promise<T>): Promise<T> {
    const [state, value] = await this.context.kv.read((reads) => Promise.all([reads.get(this.keys.state), body(reads)]));
    const same = state && this.stateValue ? state.equals(this.stateValue) : state === this.stateValue;
    if (!same) throw new AccountChanged();
    return value;
  }

  private rangesOf(mailboxId: MailboxId): FlagRangeList {
    return this.ranges.get(mailboxId) ?? noFlagRanges;
  }

  private each(range: KeyRange, visit: (row: KeyValue) => void): Promise<void> {
    return this.pages(range, rowsPerPage, (rows) => rows.forEach(visit));
  }

  private countEntries(): Promise<void> {
    return this.each(this.keys.allEntries, (row) => {
      const { mailboxId, uid } = this.keys.entryOf(row.key);
      const entry = decodeFolded(uid, row.value, this.rangesOf(mailboxId));
      const tally = this.tally(mailboxId);
      tally.total++;
      tally.bytes += entry.sizeBytes;
      if (!isSeen(entry.keywords)) tally.unseen++;
      if (entry.isDeleted) tally.deleted++;
      tally.maxUid = Math.max(tally.maxUid, uid);
      tally.maxModseq = Math.max(tally.maxModseq, entry.modseq);
    });
  }

  private async countMessages(): Promise<{ messages: number; bytes: number }> {
    let messages = 0;
    let bytes = 0;
    let lackLineEnds = 0;
    await this.pages(this.keys.allMessages, messagesPerPage, async (rows) => {
      const page = rows.map((row) => decodeMessage(this.keys.messageOf(row.key), row.value));
      await this.comparePlaces(page);
      await this.compareCompanions(page);
      messages += page.length;
      for (const message of page) {
        bytes += message.sizeBytes;
        if (message.missingLineEndBytes !== undefined) lackLineEnds++;
      }
    });
    let lineEndRows = 0;
    await this.each(this.keys.allLineEnds, () => void lineEndRows++);
    this.compare('rows of missing line ends', lineEndRows, lackLineEnds);
    return { messages, bytes };
  }

  private async comparePlaces(page: readonly StoredMessage[]): Promise<void> {
    const places = page.flatMap((message) =>
      Object.entries(message.mailboxes).map(([mailboxId, uid]) => ({ message, mailboxId, uid })),
    );
    const values = await this.read((reads) => reads.getMany(places.map((place) => this.keys.entry(place.mailboxId, place.uid))));
    places.forEach(({ message, mailboxId, uid }, at) => {
      const tally = this.tally(mailboxId);
      tally.places++;
      const isShared = !onlyPlaceOf(message);
      if (isShared) tally.shared++;
      const value = values[at];
      const ranges = this.rangesOf(mailboxId);
      const entry = value && decodeFolded(uid, value, ranges);
      const mayBeOlder = !isShared && isListed(ranges, uid);
      if (!entry || !isEntryOf(entry, message))
        this.differences.push(`entry ${mailboxId}/${uid} is not that of message ${message.id}`);
      // Entries of a mailbox that is being cleared are not kept up to date any more.
      else if (!this.removals.has(mailboxId) && !mayBeOlder && !sameKeywords(entry.keywords, message.keywords)) {
        this.differences.push(`entry ${mailboxId}/${uid} has other keywords than message ${message.id}`);
      }
    });
    for (const message of page) {
      if (Object.keys(message.mailboxes).length === 0) this.differences.push(`message ${message.id} is in no mailbox`);
    }
  }

  private async compareCompanions(page: readonly StoredMessage[]): Promise<void> {
    const { accountId } = this.keys;
    const wanted = page.flatMap(({ id, blobId, threadId }) => [
      { what: `summary of message ${id}`, key: this.keys.summary(id) },
      { what: `thread row of message ${id}`, key: this.keys.thread(threadId, id) },
      { what: `blob link of message ${id}`, key: linkKey(blobId, { kind: 'message', accountId, emailId: id }) },
    ]);
    const values = await this.read((reads) => reads.getMany(wanted.map((item) => item.key)));
    wanted.forEach(({ what }, at) => {
      if (!values[at]) this.differences.push(`${what} is missing`);
    });
  }

  /** As many thread rows and summaries as messages, and no reference to a thread that is gone. */
  private async countThreads(messages: number): Promise<void> {
    let rows = 0;
    let answeredFor = 0;
    await this.each(this.keys.allThreads, (row) => {
      rows++;
      answeredFor += hashesOf(row.value).length;
      this.threads.add(this.keys.threadRowOf(row.key).threadId);
    });
    this.compare('thread rows', rows, messages);
    let references = 0;
    await this.each(this.keys.allReferences, (row) => {
      references++;
      const threadId = row.value.toString('latin1');
      if (!this.threads.has(threadId)) this.differences.push(`a reference leads to thread ${threadId}, which has no message`);
    });
    this.compare('references', references, answeredFor);
    let summaries = 0;
    await this.pages(this.keys.allSummaries, messagesPerPage, (page) => {
      summaries += page.length;
    });
    this.compare('summaries', summaries, messages);
  }

  private async compareMailboxes(state: AccountState | undefined): Promise<void> {
    const names = new Map<MailboxId, Buffer>();
    await this.each(this.keys.allNames, (row) => void names.set(row.value.toString('latin1'), row.key));
    const parents: string[] = [];
    await this.each(this.keys.allMailboxes, (row) => {
      const record = decodeMailbox(this.keys.mailboxOf(row.key), row.value);
      this.mailboxes.add(record.id);
      if (record.parentId !== '') parents.push(record.parentId);
      const named = names.get(record.id)?.equals(this.keys.name(record.parentId, record.name)) ?? false;
      this.compare(`name of mailbox ${record.id}`, named, true);
    });
    for (const id of parents) if (!this.mailboxes.has(id)) this.differences.push(`parent mailbox ${id} is missing`);
    this.compare('names', names.size, this.mailboxes.size);
    this.compare('mailboxes of the account', state?.mailboxes ?? 0, this.mailboxes.size);
    await this.compareCounts(state);
    for (const [id, tally] of this.tallies) {
      this.compare(`entries of mailbox ${id} that messages name`, tally.places, tally.total);
      if (!this.mailboxes.has(id) && !this.removals.has(id)) this.differences.push(`entries of the unknown mailbox ${id}`);
    }
  }

  private async compareCounts(state: AccountState | undefined): Promise<void> {
    let rows = 0;
    await this.each(this.keys.allCounts, (row) => {
      rows++;
      const id = this.keys.countsOf(row.key);
      const counts = decodeCounts(row.value);
      const tally = this.tallies.get(id) ?? emptyTally();
      for (const what of ['total', 'unseen', 'deleted', 'bytes'] as const) {
        this.compare(`${what} of mailbox ${id}`, counts[what], tally[what]);
      }
      const { shared, sharedAt } = counts;
      if (sharedAt !== undefined && state?.placesSince !== undefined && sharedAt >= state.placesSince) {
        this.compare(`messages of mailbox ${id} that are elsewhere, too`, shared, tally.shared);
      }
      if (counts.uidNext <= tally.maxUid) this.differences.push(`UIDNEXT of mailbox ${id} is not above its last UID`);
      const highest = counts.highestModseq >= tally.maxModseq && counts.highestModseq <= (state?.modseq ?? 0);
      if (!highest) this.differences.push(`highest modseq of mailbox ${id} does not fit its entries and the account`);
      if (!this.mailboxes.has(id)) this.differences.push(`counts of the unknown mailbox ${id}`);
    });
    this.compare('counts', rows, this.mailboxes.size);
    this.compare('mailboxes with ranges of flags', state?.ranged ?? 0, this.ranges.size);
    for (const [id, ranges] of this.ranges) {
      if (!this.mailboxes.has(id)) this.differences.push(`ranges of flags of the unknown mailbox ${id}`);
      const ascends = ranges.every(({ modseq }, at) => modseq > (ranges[at - 1]?.modseq ?? 0) && modseq <= (state?.modseq ?? 0));
      if (!ascends || ranges.length === 0)
        this.differences.push(`ranges of flags of mailbox ${id} do not ascend up to the account's modseq`);
    }
  }
}

function isEntryOf(entry: MailboxEntry, message: StoredMessage): boolean {
  return entry.emailId === message.id && entry.sizeBytes === message.sizeBytes && entry.receivedAtMs === message.receivedAtMs;
}
