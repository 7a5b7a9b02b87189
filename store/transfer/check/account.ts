/**
 * Checks one account: every entry has its message and every message its entries, summary, thread row and blob link; counts and quota are what counting
 * gives; log and floor fit. All of it is read at one version, or from an account that did not change meanwhile.
 */
import type { BlobOwner } from '../../blobs/contract.js';
import { headKey, linkKey } from '../../blobs/keys.js';
import type { KeyRange } from '../../keyspace.js';
import { type KeyValue, type KvReads, type KvTransaction, keyAfter } from '../../kv/contract.js';
import type { MailboxEntry, MailboxId } from '../../mail/contract.js';
import { onlyPlaceOf } from '../../mail/flag-range-reads.js';
import { decodeFlagRanges, decodeFolded, type FlagRangeList, isListed, noFlagRanges } from '../../mail/flag-ranges.js';
import { AccountKeys } from '../../mail/keys.js';
import { isSeen, sameKeywords } from '../../mail/keywords.js';
import {
  type AccountState,
  decodeCounts,
  decodeEntry,
  decodeLogFloor,
  decodeMailbox,
  decodeMessage,
  decodeState,
  encodeCounts,
  encodeState,
  type StoredCounts,
  type StoredMessage,
} from '../../mail/records.js';
import type { RowReader } from '../rows.js';
import type { Inspection } from './inspection.js';
import { checkSharing } from './sharing.js';

const entriesPerPage = 500;
const messagesPerPage = 100;
const area = 'mail';

/** The account is not as it was when this began. */
export class AccountMoved extends Error {}

interface Tally {
  total: number;
  unseen: number;
  deleted: number;
  bytes: number;
  maxUid: number;
  maxModseq: number;
  /** Messages that are in another mailbox as well. */
  shared: number;
}

const emptyTally = (): Tally => ({ total: 0, unseen: 0, deleted: 0, bytes: 0, maxUid: 0, maxModseq: 0, shared: 0 });

export class AccountCheck {
  readonly #inspection: Inspection;
  readonly #reader: RowReader;
  readonly #keys: AccountKeys;
  readonly #tallies = new Map<MailboxId, Tally>();
  readonly #mailboxes = new Set<MailboxId>();
  readonly #removals = new Set<string>();
  readonly #ranges = new Map<MailboxId, FlagRangeList>();
  #stateValue: Buffer | undefined;
  #messages = 0;
  #bytes = 0;

  constructor(inspection: Inspection, reader: RowReader, accountId: string) {
    this.#inspection = inspection;
    this.#reader = reader;
    this.#keys = new AccountKeys(accountId);
  }

  /** The number of messages; undefined where there is no account (any more). Throws `AccountMoved`. */
  async run(): Promise<number | undefined> {
    this.#stateValue = await this.#reader.read((reads) => reads.get(this.#keys.state));
    await this.#each(this.#keys.allRemovals, (rows) => {
      for (const { key } of rows) this.#removals.add(this.#keys.removalOf(key));
    });
    // What is left of an account on its way out goes without any order.
    if (!this.#stateValue && this.#removals.has('')) return undefined;
    await this.#each(this.#keys.allFlagRanges, (rows) => {
      for (const { key, value } of rows) this.#ranges.set(this.#keys.flagRangesMailbox(key), decodeFlagRanges(value));
    });
    await this.#each(this.#keys.allEntries, (rows) => this.#checkEntries(rows));
    await this.#each(this.#keys.allMessages, (rows) => this.#checkMessages(rows), messagesPerPage);
    await this.#each(this.#keys.allSummaries, (rows) => this.#checkSummaries(rows), messagesPerPage);
    await this.#each(this.#keys.allLineEnds, (rows) => this.#checkLineEnds(rows));
    await this.#each(this.#keys.allThreads, (rows) => this.#checkThreads(rows));
    await this.#each(this.#keys.allReferences, (rows) => this.#checkReferences(rows));
    await this.#checkMailboxes();
    await this.#checkIndexes();
    await checkSharing(this.#inspection, this.#keys);
    await this.#checkLog();
    await this.#checkState();
    return this.#stateValue || this.#messages > 0 ? this.#messages : undefined;
  }

  #suspect(
    problem: string,
    isSo: (tx: KvTransaction) => Promise<boolean>,
    mend?: (tx: KvTransaction) => Promise<void> | void,
  ): Promise<void> {
    return this.#inspection.suspect({ area, where: this.#keys.accountId, problem, isSo, ...(mend && { mend }) });
  }

  /** A read at the version of the view; without one, of an account that has not changed. */
  async #read<T>(body: (reads: KvReads) => Promise<T>): Promise<T> {
    if (this.#reader.isConsistent) return this.#reader.read(body);
    const [state, value] = await this.#reader.read((reads) => Promise.all([reads.get(this.#keys.state), body(reads)]));
    const isSame = state && this.#stateValue ? state.equals(this.#stateValue) : state === this.#stateValue;
    if (!isSame) throw new AccountMoved();
    return value;
  }

  async #each(range: KeyRange, visit: (rows: KeyValue[]) => Promise<void> | void, limit = entriesPerPage): Promise<void> {
    for (let begin = range.begin; ; ) {
      const from = begin;
      const rows = await this.#read((reads) => reads.getRange(from, range.end, { limit }));
      if (rows.length > 0) await visit(rows);
      this.#inspection.progress(area, 0);
      if (rows.length < limit) return;
      begin = keyAfter(rows.at(-1)!.key);
    }
  }

  #tally(id: MailboxId): Tally {
    let tally = this.#tallies.get(id);
    if (!tally) this.#tallies.set(id, (tally = emptyTally()));
    return tally;
  }

  #rangesOf(id: MailboxId): FlagRangeList {
    return this.#ranges.get(id) ?? noFlagRanges;
  }

  async #checkEntries(rows: readonly KeyValue[]): Promise<void> {
    const keys = this.#keys;
    const entries = rows.map(({ key, value }) => {
      const { mailboxId, uid } = keys.entryOf(key);
      return { key, mailboxId, entry: decodeFolded(uid, value, this.#rangesOf(mailboxId)) };
    });
    for (const { mailboxId, entry } of entries) {
      const tally = this.#tally(mailboxId);
      tally.total++;
      tally.bytes += entry.sizeBytes;
      if (!isSeen(entry.keywords)) tally.unseen++;
      if (entry.isDeleted) tally.deleted++;
      tally.maxUid = Math.max(tally.maxUid, entry.uid);
      tally.maxModseq = Math.max(tally.maxModseq, entry.modseq);
    }
    const messages = await this.#read((reads) => reads.getMany(entries.map(({ entry }) => keys.message(entry.emailId))));
    for (const [at, { key, mailboxId, entry }] of entries.entries()) {
      const problem = (value: Buffer | undefined) => this.#entryProblem(mailboxId, entry, value);
      const text = problem(messages[at]);
      if (!text) continue;
      await this.#suspect(`entry ${mailboxId}/${entry.uid} ${text}`, async (tx) => {
        const [row, message] = await tx.getMany([key, keys.message(entry.emailId)]);
        return row?.equals(rows[at]!.value) === true && problem(message) !== undefined;
      });
    }
  }

  #entryProblem(mailboxId: MailboxId, entry: MailboxEntry, value: Buffer | undefined): string | undefined {
    if (!value) return `has no message ${entry.emailId}`;
    const message = decodeMessage(entry.emailId, value);
    // Those of a mailbox that is being cleared are not kept up to date any more.
    if (this.#removals.has(mailboxId)) return undefined;
    if (message.mailboxes[mailboxId] !== entry.uid) return `is not one that message ${message.id} knows of`;
    if (entry.sizeBytes !== message.sizeBytes || entry.receivedAtMs !== message.receivedAtMs)
      return `has other facts than message ${message.id}`;
    // Its row is brought up to date later.
    if (onlyPlaceOf(message) && isListed(this.#rangesOf(mailboxId), entry.uid)) return undefined;
    return sameKeywords(entry.keywords, message.keywords) ? undefined : `has other keywords than message ${message.id}`;
  }

  async #checkMessages(rows: readonly KeyValue[]): Promise<void> {
    const messages = rows.map(({ key, value }) => decodeMessage(this.#keys.messageOf(key), value));
    this.#messages += messages.length;
    for (const { sizeBytes } of messages) this.#bytes += sizeBytes;
    await this.#checkPlaces(messages);
    await this.#checkCompanions(messages);
  }

  async #checkPlaces(messages: readonly StoredMessage[]): Promise<void> {
    const keys = this.#keys;
    const places = messages.flatMap((message) =>
      Object.entries(message.mailboxes).map(([mailboxId, uid]) => ({ message, mailboxId, uid, key: keys.entry(mailboxId, uid) })),
    );
    const values = await this.#read((reads) => reads.getMany(places.map(({ key }) => key)));
    for (const [at, { message, mailboxId, uid, key }] of places.entries()) {
      const isThere = (value: Buffer | undefined) => value !== undefined && decodeEntry(uid, value).emailId === message.id;
      if (isThere(values[at])) continue;
      await this.#suspect(`message ${message.id} has no entry ${mailboxId}/${uid}`, async (tx) => {
        const [entry, value] = await tx.getMany([key, keys.message(message.id)]);
        return value !== undefined && decodeMessage(message.id, value).mailboxes[mailboxId] === uid && !isThere(entry);
      });
    }
    for (const { id, mailboxes } of messages) {
      const ids = Object.keys(mailboxes);
      if (ids.length > 1) for (const mailboxId of ids) this.#tally(mailboxId).shared++;
      if (ids.length > 0) continue;
      await this.#suspect(`message ${id} is in no mailbox`, async (tx) => {
        const value = await tx.get(keys.message(id));
        return value !== undefined && Object.keys(decodeMessage(id, value).mailboxes).length === 0;
      });
    }
  }

  async #checkCompanions(messages: readonly StoredMessage[]): Promise<void> {
    const keys = this.#keys;
    const perMessage = messages.map(({ id, blobId, threadId }) => {
      const owner: BlobOwner = { kind: 'message', accountId: keys.accountId, emailId: id };
      const [summary, thread, link, head] = [
        keys.summary(id),
        keys.thread(threadId, id),
        linkKey(blobId, owner),
        headKey(blobId),
      ];
      return { id, blobId, owner, summary, thread, link, head };
    });
    const wanted = perMessage.flatMap(({ summary, thread, link, head }) => [summary, thread, link, head]);
    const values = await this.#read((reads) => reads.getMany(wanted));
    for (const [at, { id, blobId, owner, summary, thread, link, head }] of perMessage.entries()) {
      const [hasSummary, hasThread, hasLink, hasHead] = values.slice(4 * at, 4 * at + 4);
      const lacks = (row: Buffer) => async (tx: KvTransaction) => {
        const [value, message] = await tx.getMany([row, keys.message(id)]);
        return value === undefined && message !== undefined;
      };
      if (!hasSummary) await this.#suspect(`message ${id} has no summary`, lacks(summary));
      if (!hasThread) {
        const write = (tx: KvTransaction) => tx.set(thread, Buffer.alloc(0));
        await this.#suspect(`message ${id} is not in its thread`, lacks(thread), write);
      }
      if (!hasHead) await this.#suspect(`the bytes of message ${id}, blob ${blobId}, are gone`, lacks(head));
      else if (!hasLink) {
        const write = (tx: KvTransaction) => this.#inspection.options.blobs.link(tx, blobId, owner);
        await this.#suspect(`nothing keeps blob ${blobId} of message ${id} from the purge`, lacks(link), write);
      }
    }
  }

  async #checkSummaries(rows: readonly KeyValue[]): Promise<void> {
    // A summary's key is a message's but for the table.
    const ids = rows.map(({ key }) => key.toString('latin1', this.#keys.summary('').length - 1, key.length - 1));
    const messages = await this.#read((reads) => reads.getMany(ids.map((id) => this.#keys.message(id))));
    for (const [at, id] of ids.entries()) {
      if (messages[at]) continue;
      const { key } = rows[at]!;
      await this.#suspect(`there is a summary, but no message ${id}`, async (tx) => {
        const [row, message] = await tx.getMany([key, this.#keys.message(id)]);
        return row !== undefined && message === undefined;
      });
    }
  }

  /** Nodes of a release without these rows leave them behind when they remove a message. */
  async #checkLineEnds(rows: readonly KeyValue[]): Promise<void> {
    const refs = rows.map(({ key }) => ({ key, message: this.#keys.message(this.#keys.lineEndsOf(key)) }));
    const messages = await this.#read((reads) => reads.getMany(refs.map(({ message }) => message)));
    for (const [at, { key, message }] of refs.entries()) {
      if (messages[at]) continue;
      const isSo = async (tx: KvTransaction) => {
        const [row, value] = await tx.getMany([key, message]);
        return row !== undefined && value === undefined;
      };
      const problem = `line ends are kept of message ${this.#keys.lineEndsOf(key)}, which does not exist`;
      await this.#suspect(problem, isSo, (tx) => tx.clear(key));
    }
  }

  async #checkThreads(rows: readonly KeyValue[]): Promise<void> {
    const refs = rows.map(({ key }) => ({ key, ...this.#keys.threadRowOf(key) }));
    const messages = await this.#read((reads) => reads.getMany(refs.map(({ emailId }) => this.#keys.message(emailId))));
    for (const [at, { key, threadId, emailId }] of refs.entries()) {
      const isIn = (value: Buffer | undefined) => value !== undefined && decodeMessage(emailId, value).threadId === threadId;
      if (isIn(messages[at])) continue;
      const isSo = async (tx: KvTransaction) => {
        const [row, message] = await tx.getMany([key, this.#keys.message(emailId)]);
        return row !== undefined && !isIn(message);
      };
      await this.#suspect(`thread ${threadId} names message ${emailId}, which is not in it`, isSo, (tx) => tx.clear(key));
    }
  }

  async #checkReferences(rows: readonly KeyValue[]): Promise<void> {
    const threads = [...new Set(rows.map(({ value }) => value.toString('latin1')))];
    const found = await this.#read((reads) => Promise.all(threads.map((id) => this.#threadExists(reads, id))));
    const gone = new Set(threads.filter((_, at) => !found[at]));
    for (const { key, value } of rows) {
      const threadId = value.toString('latin1');
      if (!gone.has(threadId)) continue;
      const isSo = async (tx: KvTransaction) => {
        const row = await tx.get(key);
        return row?.equals(value) === true && !(await this.#threadExists(tx, threadId));
      };
      await this.#suspect(`a reference leads to thread ${threadId}, which has no message`, isSo, (tx) => tx.clear(key));
    }
  }

  async #threadExists(reads: KvReads, id: string): Promise<boolean> {
    const { begin, end } = this.#keys.threadRange(id);
    return (await reads.getRange(begin, end, { limit: 1 })).length > 0;
  }

  /** Snapshots of indexes are checked by whoever reads them; those of mailboxes that are gone (removed by an earlier release) are of no use to anybody. */
  async #checkIndexes(): Promise<void> {
    const keys = this.#keys;
    const gone = new Set<MailboxId>();
    await this.#each(keys.allIndexes, (rows) => {
      for (const { key } of rows) {
        const id = keys.indexMailboxOf(key);
        if (!this.#mailboxes.has(id)) gone.add(id);
      }
    });
    for (const id of gone) {
      const { begin, end } = keys.indexOf(id);
      const isSo = async (tx: KvTransaction) => {
        const [mailbox, rows] = await Promise.all([tx.get(keys.mailbox(id)), tx.getRange(begin, end, { limit: 1 })]);
        return mailbox === undefined && rows.length > 0;
      };
      await this.#suspect(`there is an index snapshot, but no mailbox ${id}`, isSo, (tx) => tx.clearRange(begin, end));
    }
  }

  async #checkMailboxes(): Promise<void> {
    const keys = this.#keys;
    const names = new Map<MailboxId, Buffer>();
    await this.#each(keys.allNames, (rows) => {
      for (const { key, value } of rows) names.set(value.toString('latin1'), key);
    });
    const parents: { id: string; parentId: string }[] = [];
    await this.#each(keys.allMailboxes, async (rows) => {
      for (const { key, value } of rows) {
        const { id, parentId, name } = decodeMailbox(keys.mailboxOf(key), value);
        this.#mailboxes.add(id);
        if (parentId !== '') parents.push({ id, parentId });
        const nameKey = keys.name(parentId, name);
        if (names.get(id)?.equals(nameKey)) continue;
        const isSo = async (tx: KvTransaction) => {
          const [record, row] = await tx.getMany([key, nameKey]);
          return record?.equals(value) === true && row?.toString('latin1') !== id;
        };
        // Where another mailbox has the name, somebody must choose.
        const isFree = ![...names.values()].some((taken) => taken.equals(nameKey));
        await this.#suspect(
          `mailbox ${id} is not found by its name`,
          isSo,
          isFree ? (tx) => tx.set(nameKey, Buffer.from(id, 'latin1')) : undefined,
        );
      }
    });
    for (const { id, parentId } of parents) {
      if (!this.#mailboxes.has(parentId)) {
        const isSo = async (tx: KvTransaction) => {
          const [record, parent] = await tx.getMany([keys.mailbox(id), keys.mailbox(parentId)]);
          return record !== undefined && parent === undefined;
        };
        await this.#suspect(`mailbox ${id} is in mailbox ${parentId}, which does not exist`, isSo);
      }
    }
    await this.#checkCounts();
    await this.#checkRanges();
  }

  async #checkCounts(): Promise<void> {
    const keys = this.#keys;
    const counted = new Set<MailboxId>();
    await this.#each(keys.allCounts, async (rows) => {
      for (const { key, value } of rows) {
        const id = keys.countsOf(key);
        counted.add(id);
        if (!this.#mailboxes.has(id)) {
          const isSo = async (tx: KvTransaction) => {
            const [row, record] = await tx.getMany([key, keys.mailbox(id)]);
            return row !== undefined && record === undefined;
          };
          await this.#suspect(`there are counts, but no mailbox ${id}`, isSo, (tx) => tx.clear(key));
        } else await this.#compareCounts(id, key, decodeCounts(value));
      }
    });
    for (const id of this.#mailboxes) {
      if (!counted.has(id)) await this.#suspect(`mailbox ${id} has no counts`, async (tx) => !(await tx.get(keys.counts(id))));
    }
    for (const id of this.#tallies.keys()) {
      if (this.#mailboxes.has(id) || this.#removals.has(id)) continue;
      const { begin, end } = keys.entryRange(id);
      await this.#suspect(`there are entries of mailbox ${id}, which does not exist`, async (tx) => {
        const [known, rows] = await Promise.all([
          tx.getMany([keys.mailbox(id), keys.removal(id)]),
          tx.getRange(begin, end, { limit: 1 }),
        ]);
        return rows.length > 0 && known.every((row) => row === undefined);
      });
    }
  }

  async #checkRanges(): Promise<void> {
    const keys = this.#keys;
    for (const [id, ranges] of this.#ranges) {
      const key = keys.flagRanges(id);
      if (!this.#mailboxes.has(id)) {
        const isSo = async (tx: KvTransaction) => {
          const [row, record] = await tx.getMany([key, keys.mailbox(id)]);
          return row !== undefined && record === undefined;
        };
        await this.#suspect(`there are ranges of flags, but no mailbox ${id}`, isSo, (tx) => tx.clear(key));
      } else if (this.#stateValue && ranges.some(({ modseq }) => modseq > decodeState(this.#stateValue!).modseq)) {
        await this.#suspect(`ranges of flags of mailbox ${id} are above the account's modseq`, async (tx) => {
          const [row, state] = await tx.getMany([key, keys.state]);
          const modseq = state ? decodeState(state).modseq : 0;
          return decodeFlagRanges(row).some((range) => range.modseq > modseq);
        });
      }
    }
  }

  async #compareCounts(id: MailboxId, key: Buffer, stored: StoredCounts): Promise<void> {
    const tally = this.#tallies.get(id) ?? emptyTally();
    const wrong = (['total', 'unseen', 'deleted', 'bytes'] as const).filter((what) => stored[what] !== tally[what]);
    const state = this.#stateValue && decodeState(this.#stateValue);
    const { total, unseen, deleted, bytes, shared } = tally;
    const { placesSince } = state ?? {};
    const knowsShared = stored.sharedAt !== undefined && placesSince !== undefined && stored.sharedAt >= placesSince;
    const right: StoredCounts = {
      ...stored,
      total,
      unseen,
      deleted,
      bytes,
      ...(knowsShared && { shared }),
      uidNext: Math.max(stored.uidNext, tally.maxUid + 1),
      highestModseq: Math.max(stored.highestModseq, tally.maxModseq),
    };
    for (const what of wrong) {
      await this.#countIsWrong(
        `${what} of mailbox ${id}: stored ${stored[what]}, counted ${tally[what]}`,
        key,
        encodeCounts(right),
      );
    }
    if (knowsShared && stored.shared !== shared) {
      const problem = `messages of mailbox ${id} that are elsewhere, too: stored ${stored.shared}, counted ${shared}`;
      await this.#countIsWrong(problem, key, encodeCounts(right));
    }
    if (stored.uidNext <= tally.maxUid) {
      await this.#countIsWrong(`UIDNEXT of mailbox ${id} is not above its last UID`, key, encodeCounts(right));
    }
    if (stored.highestModseq < tally.maxModseq) {
      await this.#countIsWrong(`highest modseq of mailbox ${id} is below that of an entry`, key, encodeCounts(right));
    }
    if (stored.highestModseq > (state?.modseq ?? 0)) {
      await this.#suspect(`highest modseq of mailbox ${id} is above the account's`, async (tx) => {
        const [row, account] = await tx.getMany([key, this.#keys.state]);
        return row !== undefined && decodeCounts(row).highestModseq > (account ? decodeState(account).modseq : 0);
      });
    }
  }

  /**
   * A counter that differs from what was counted at one version. It is wrong whatever happened since; it can be mended only while the account still is at
   * that version.
   */
  async #countIsWrong(problem: string, key: Buffer, right: Buffer): Promise<void> {
    const { repair } = this.#inspection.options;
    const isSo = async (tx: KvTransaction) => {
      const [state, row] = await tx.getMany([this.#keys.state, key]);
      const isSame = state && this.#stateValue ? state.equals(this.#stateValue) : state === this.#stateValue;
      if (!isSame && (repair || !this.#reader.isConsistent)) throw new AccountMoved();
      // Another counter of the same row was mended before, and this one with it.
      return row === undefined || !row.equals(right) || tx.mayHaveCommitted;
    };
    await this.#suspect(problem, isSo, (tx) => tx.set(key, right));
  }

  async #checkLog(): Promise<void> {
    const keys = this.#keys;
    const { begin, end } = keys.allLog;
    const [floorValue, [first], [last]] = await this.#read((reads) =>
      Promise.all([
        reads.get(keys.logFloor),
        reads.getRange(begin, end, { limit: 1 }),
        reads.getRange(begin, end, { limit: 1, reverse: true }),
      ]),
    );
    const floor = decodeLogFloor(floorValue).modseq;
    const modseq = this.#stateValue ? decodeState(this.#stateValue).modseq : 0;
    if (first && keys.logModseqOf(first.key) <= floor) {
      const beyond = keys.logAt(floor + 1);
      const isSo = async (tx: KvTransaction) =>
        decodeLogFloor(await tx.get(keys.logFloor)).modseq >= floor &&
        (await tx.getRange(begin, beyond, { limit: 1 })).length > 0;
      await this.#suspect(`the change log has entries below its floor of ${floor}`, isSo, (tx) => tx.clearRange(begin, beyond));
    }
    if (!this.#stateValue) return;
    const newest = last ? keys.logModseqOf(last.key) : floor;
    if (Math.max(newest, floor) === modseq || (modseq === 0 && !last)) return;
    await this.#suspect(`the change log ends at ${Math.max(newest, floor)}, the account is at ${modseq}`, async (tx) => {
      const [state, [row]] = await Promise.all([tx.get(keys.state), tx.getRange(begin, end, { limit: 1, reverse: true })]);
      const floorNow = decodeLogFloor(await tx.get(keys.logFloor)).modseq;
      return state !== undefined && Math.max(row ? keys.logModseqOf(row.key) : 0, floorNow) !== decodeState(state).modseq;
    });
  }

  async #checkState(): Promise<void> {
    const { state: key } = this.#keys;
    if (!this.#stateValue) {
      if (this.#messages === 0) return;
      await this.#suspect(`${this.#messages} messages of an account without a state`, async (tx) => !(await tx.get(key)));
      return;
    }
    const stored = decodeState(this.#stateValue);
    const ranged = [...this.#ranges.keys()].filter((id) => this.#mailboxes.has(id)).length;
    const counted = {
      messages: this.#messages,
      usedBytes: this.#bytes,
      mailboxes: this.#mailboxes.size,
      ranged,
    };
    const right: AccountState = { ...stored, ...counted };
    const names = {
      messages: 'messages',
      usedBytes: 'used bytes',
      mailboxes: 'mailboxes',
      ranged: 'mailboxes with ranges of flags',
    } as const;
    for (const what of ['messages', 'usedBytes', 'mailboxes', 'ranged'] as const) {
      if (stored[what] === counted[what]) continue;
      await this.#countIsWrong(
        `${names[what]} of the account: stored ${stored[what]}, counted ${counted[what]}`,
        key,
        encodeState(right),
      );
      // Mended with all the others of the row.
      if (this.#inspection.options.repair) this.#stateValue = encodeState(right);
    }
  }
}
