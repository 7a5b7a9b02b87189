/**
 * Judges every commit on mailboxes: UIDs become visible in ascending order, UIDVALIDITY stays, modseqs ascend, counters never go back, and no content
 * comes into an account twice.
 */
import { decodeCounts, decodeEntry, decodeMessage, decodeState } from '../../store/mail/records.js';
import type { Commit, Write } from './observed-database.js';
import type { Story } from './story.js';

interface MailboxPicture {
  uidNext: number;
  uidValidity: number;
  highestModseq: number;
  highestUid: number;
  /** UID to modseq. */
  entries: Map<number, number>;
}

export class MailWatch {
  readonly #story: Story;
  readonly #modseqs = new Map<string, number>();
  readonly #mailboxes = new Map<string, MailboxPicture>();
  /** Account and content to the message it is; messages that were expunged included. */
  readonly #contents = new Map<string, string>();

  /** Whether a client has asked for this message to be removed. */
  mayVanish: (accountId: string, mailboxId: string, uid: number) => boolean = () => true;

  constructor(story: Story) {
    this.#story = story;
  }

  /** Highest modseq of an account. */
  modseqOf(accountId: string): number {
    return this.#modseqs.get(accountId) ?? 0;
  }

  /** Whether content has ever come into an account. */
  hasSeen(accountId: string, blobId: string): boolean {
    return this.#contents.has(`${accountId}/${blobId}`);
  }

  committed(commit: Commit, writes: readonly Write[]): void {
    const accounts = new Set<string>();
    for (const { parts, value } of writes) {
      const [, accountId, table] = parts as [number, string, string];
      accounts.add(accountId);
      if (table === 'state' && value) this.#state(commit, accountId, decodeState(value).modseq, writes);
      else if (table === 'message' && value) this.#message(commit, accountId, parts[3] as string, value);
    }
    for (const { parts, value } of writes) if (parts[2] === 'entry') this.#entry(commit, parts, value);
    for (const { parts, value } of writes) if (parts[2] === 'counts' && value) this.#counts(commit, parts, value);
  }

  #state(commit: Commit, accountId: string, modseq: number, writes: readonly Write[]): void {
    const before = this.#modseqs.get(accountId) ?? 0;
    // Who brings rows up to date with what they have meant all along makes no change, and so has no modseq of its own.
    const isChange = writes.some(({ parts }) => parts[1] === accountId && parts[2] === 'log');
    if (modseq < before || (modseq === before && isChange))
      this.#story.violate('modseq-descends', `${commit.author} took ${accountId} from modseq ${before} to ${modseq}`, [
        accountId,
      ]);
    this.#modseqs.set(accountId, modseq);
  }

  #message(commit: Commit, accountId: string, emailId: string, value: Buffer): void {
    const { blobId } = decodeMessage(emailId, value);
    const name = `${accountId}/${blobId}`;
    const known = this.#contents.get(name);
    if (known === undefined) {
      this.#contents.set(name, emailId);
      this.#story.tell('commit', commit.author, `puts ${blobId.slice(0, 12)} into ${accountId} as ${emailId}`);
    } else if (known !== emailId) {
      const text = `${commit.author} put ${blobId.slice(0, 12)} into ${accountId} again, as ${emailId} besides ${known}`;
      this.#story.violate('local-double', text, [blobId.slice(0, 12), commit.author]);
    }
  }

  #entry(commit: Commit, parts: Write['parts'], value: Buffer | undefined): void {
    const [, accountId, , mailboxId, uid] = parts as [number, string, string, string, number];
    const mailbox = this.#mailbox(accountId, mailboxId);
    const known = mailbox.entries.get(uid);
    if (!value) {
      mailbox.entries.delete(uid);
      if (!this.mayVanish(accountId, mailboxId, uid))
        this.#story.violate(
          'message-vanishes',
          `${commit.author} removed UID ${uid} of ${accountId}/${mailboxId}, which nobody had asked for`,
          [accountId],
        );
      return;
    }
    const { modseq } = decodeEntry(uid, value);
    const where = `${accountId}/${mailboxId}`;
    if (known === undefined && uid <= mailbox.highestUid) {
      const text = `${commit.author} made UID ${uid} of ${where} visible after UID ${mailbox.highestUid}`;
      this.#story.violate('uid-out-of-order', text, [accountId]);
    }
    if (known !== undefined && modseq < known)
      this.#story.violate('modseq-descends', `UID ${uid} of ${where} went from modseq ${known} to ${modseq}`, [accountId]);
    if (modseq > this.modseqOf(accountId))
      this.#story.violate('modseq-ahead', `UID ${uid} of ${where} has modseq ${modseq}, its account has less`, [accountId]);
    mailbox.entries.set(uid, modseq);
    // Of several in one commit each may come in any order.
    mailbox.uidNext = Math.max(mailbox.uidNext, uid + 1);
  }

  #counts(commit: Commit, parts: Write['parts'], value: Buffer): void {
    const [, accountId, , mailboxId] = parts as [number, string, string, string];
    const mailbox = this.#mailbox(accountId, mailboxId);
    const counts = decodeCounts(value);
    const where = `${accountId}/${mailboxId}`;
    if (mailbox.uidValidity !== 0 && mailbox.uidValidity !== counts.uidValidity)
      this.#story.violate('uidvalidity-changes', `${commit.author} changed the UIDVALIDITY of ${where}`, [accountId]);
    if (counts.uidNext < mailbox.uidNext)
      this.#story.violate('uidnext-descends', `UIDNEXT of ${where} went from ${mailbox.uidNext} to ${counts.uidNext}`, [
        accountId,
      ]);
    if (counts.highestModseq < mailbox.highestModseq)
      this.#story.violate('modseq-descends', `highest modseq of ${where} went to ${counts.highestModseq}`, [accountId]);
    if (counts.total !== mailbox.entries.size)
      this.#story.violate('count-wrong', `${where} counts ${counts.total} messages and has ${mailbox.entries.size}`, [accountId]);
    mailbox.uidValidity = counts.uidValidity;
    mailbox.uidNext = counts.uidNext;
    mailbox.highestModseq = counts.highestModseq;
    mailbox.highestUid = Math.max(mailbox.highestUid, counts.uidNext - 1);
  }

  #mailbox(accountId: string, mailboxId: string): MailboxPicture {
    const name = `${accountId}/${mailboxId}`;
    let mailbox = this.#mailboxes.get(name);
    if (!mailbox) {
      mailbox = { uidNext: 0, uidValidity: 0, highestModseq: 0, highestUid: 0, entries: new Map() };
      this.#mailboxes.set(name, mailbox);
    }
    return mailbox;
  }
}
