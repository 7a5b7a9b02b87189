/**
 * INBOX as it was at login: message numbers, sizes and unique-ids never change during a session, whatever others do to the mailbox meanwhile (RFC 1939
 * section 5). Columns, not objects: 13 bytes per message.
 */
import type { Message } from '../../store/mail/contract.js';
import type { AccountId, EmailId, MailboxId, MailboxIndex, MailStore, UidList } from '../../store/mail/index.js';
import { yieldEventLoop } from '../imap/context.js';
import { err, Refusal } from './replies.js';

/** What is known at one time of messages whose sizes are not those in the store. */
const maxLineEndsHeld = 50_000;
const lineEndsPerRead = 5_000;
/** Messages that are looked through before others get a turn. */
const messagesPerTurn = 20_000;
/** Message records that one read fetches ahead: clients go through a maildrop in order, from either end. */
const recordsAhead = 64;

export class Maildrop {
  /** How many of `uids` are marked as deleted, and their octets. */
  #deletedCount = 0;
  #deletedBytes = 0;
  readonly #isDeleted: Uint8Array;
  readonly #isRetrieved: Uint8Array;
  readonly #sizes: Float64Array;
  #totalBytes: number;
  /** By UID, of the last read ahead. */
  #records = new Map<number, Message>();
  #lastRead = -1;

  private constructor(
    readonly mail: MailStore,
    readonly accountId: AccountId,
    readonly mailboxId: MailboxId,
    readonly uidValidity: number,
    readonly index: MailboxIndex,
  ) {
    const view = index.view();
    this.uids = view.uids;
    this.#sizes = new Float64Array(view.uids.length);
    let totalBytes = 0;
    for (let at = 0; at < view.uids.length; at++) {
      const bytes = view.sizeBytesAt(at);
      this.#sizes[at] = bytes;
      totalBytes += bytes;
    }
    this.#totalBytes = totalBytes;
    this.#isDeleted = new Uint8Array(view.uids.length);
    this.#isRetrieved = new Uint8Array(view.uids.length);
  }

  /** By message number - 1. */
  readonly uids: UidList;

  /** Throws KvError. */
  static async open(mail: MailStore, accountId: AccountId): Promise<Maildrop> {
    await mail.ensureAccount(accountId);
    const found = await mail.mailboxByPath(accountId, ['INBOX']);
    if (!found) throw new Refusal(err('There is no INBOX', 'SYS/TEMP'));
    const { id, uidValidity } = found.mailbox;
    const maildrop = new Maildrop(mail, accountId, id, uidValidity, await mail.openIndex(accountId, id));
    try {
      await maildrop.#countLineEnds();
    } catch (error) {
      maildrop.close();
      throw error;
    }
    return maildrop;
  }

  /** RFC 1939 section 5: sizes are those of the messages as they are sent. Read after the index, so that no message of it is missed. */
  async #countLineEnds(): Promise<void> {
    let held = new Map<EmailId, number>();
    for (let afterId: EmailId | undefined; ; ) {
      const from = afterId === undefined ? {} : { afterId };
      const rows = await this.mail.missingLineEnds(this.accountId, { ...from, limit: lineEndsPerRead });
      for (const { emailId, missingLineEndBytes } of rows) held.set(emailId, missingLineEndBytes);
      const isLast = rows.length < lineEndsPerRead;
      if (held.size > 0 && (isLast || held.size >= maxLineEndsHeld)) {
        await this.#addLineEnds(held);
        held = new Map();
      }
      if (isLast) return;
      afterId = rows.at(-1)!.emailId;
    }
  }

  async #addLineEnds(missing: ReadonlyMap<EmailId, number>): Promise<void> {
    for (let from = 0; from < this.size; from += messagesPerTurn) {
      if (from > 0) await yieldEventLoop();
      // What is not there any more keeps the size that it had.
      const view = this.index.view();
      for (let at = from; at < Math.min(from + messagesPerTurn, this.size); at++) {
        const position = view.positionOf(this.uids[at]!);
        const bytes = position < 0 ? undefined : missing.get(view.emailIdAt(position));
        if (bytes === undefined) continue;
        this.#sizes[at]! += bytes;
        this.#totalBytes += bytes;
      }
    }
  }

  /** Messages at login, those marked as deleted included: the highest number. */
  get size(): number {
    return this.uids.length;
  }

  /** Messages and octets that are not marked as deleted. */
  get left(): { count: number; bytes: number } {
    return { count: this.size - this.#deletedCount, bytes: this.#totalBytes - this.#deletedBytes };
  }

  isDeleted(at: number): boolean {
    return this.#isDeleted[at] === 1;
  }

  sizeBytes(at: number): number {
    return this.#sizes[at]!;
  }

  /**
   * UID and UIDVALIDITY, 8 hex digits each: what Dovecot gives by default, so that a client which knows a maildrop from there does not fetch it again.
   * The same message has the same one for ever; no other message of the account ever gets it.
   */
  uniqueId(at: number): string {
    return hex(this.uids[at]!) + hex(this.uidValidity);
  }

  markDeleted(at: number): void {
    this.#isDeleted[at] = 1;
    this.#deletedCount++;
    this.#deletedBytes += this.#sizes[at]!;
  }

  /** RSET. */
  unmarkAll(): void {
    this.#isDeleted.fill(0);
    this.#deletedCount = 0;
    this.#deletedBytes = 0;
  }

  markRetrieved(at: number): void {
    this.#isRetrieved[at] = 1;
  }

  get deletedUids(): number[] {
    return this.#deletedCount === 0 ? [] : Array.from(this.uids.filter((_, at) => this.#isDeleted[at] === 1));
  }

  /** Of what stays. */
  get retrievedUids(): number[] {
    return Array.from(this.uids.filter((_, at) => this.#isRetrieved[at] === 1 && this.#isDeleted[at] === 0));
  }

  /** Record of a message; undefined when it was expunged before its record was read. */
  async message(at: number): Promise<Message | undefined> {
    const uid = this.uids[at]!;
    if (!this.#records.has(uid)) await this.#readAhead(at);
    return this.#records.get(uid);
  }

  async #readAhead(from: number): Promise<void> {
    const uids: number[] = [];
    const ids: string[] = [];
    const step = from < this.#lastRead ? -1 : 1;
    this.#lastRead = from;
    for (let at = from; at >= 0 && at < this.size && uids.length < recordsAhead; at += step) {
      const entry = this.#isDeleted[at] === 1 ? undefined : this.index.get(this.uids[at]!);
      if (!entry) continue;
      uids.push(entry.uid);
      ids.push(entry.emailId);
    }
    const records = new Map<number, Message>();
    const messages = await this.mail.messages(this.accountId, ids);
    for (const [i, message] of messages.entries()) if (message) records.set(uids[i]!, message);
    this.#records = records;
  }

  close(): void {
    this.index.release();
  }
}

const hex = (value: number): string => value.toString(16).padStart(8, '0');
