/**
 * The selected mailbox as this client has been told about it (TRAPS 28). Sequence numbers mean positions in the announced list of UIDs and
 * nothing else; the shared index says what is true now. `announce` is the only place where the one follows the other.
 */
import type { Mailbox, MailboxEntry, MailboxIndex } from '../../store/mail/contract.js';
import { formatFlags } from './grammar/format.js';
import { lowerBound, type Ranges, resolveRanges, type SequenceSet } from './grammar/sequence-set.js';

export class SelectedMailbox {
  readonly mailbox: Mailbox;
  readonly index: MailboxIndex;
  readonly isReadOnly: boolean;
  /** UIDs that SEARCH RETURN (SAVE) has kept (RFC 5182), ascending. */
  savedResult: readonly number[] = [];
  /** The index's own list of some moment (it never changes a list that it has given out), so that sessions which know the same share it. */
  #uids: readonly number[];
  /** Changes up to this modseq have been announced, expunges in `#gone` apart. */
  #modseq: number;
  /** Announced UIDs that are expunged, and could not be told yet. */
  #gone = new Set<number>();
  /** Own changes that the client knows already: UID → modseq. */
  #known = new Map<number, number>();

  constructor(mailbox: Mailbox, index: MailboxIndex, isReadOnly: boolean) {
    this.mailbox = mailbox;
    this.index = index;
    this.isReadOnly = isReadOnly;
    this.#uids = index.uids();
    this.#modseq = index.modseq;
  }

  /** Announced UIDs by sequence number - 1. Not to be changed. */
  get uids(): readonly number[] {
    return this.#uids;
  }

  /** Whether there may be something that the client has not been told. The index moves on with changes elsewhere in the account too. */
  get #mayHaveNews(): boolean {
    return this.#gone.size > 0 || this.index.modseq !== this.#modseq || (!this.index.exists && this.#uids.length > 0);
  }

  /** Sequence number of an announced UID, else 0. */
  sequenceOf(uid: number): number {
    const at = lowerBound(this.#uids, uid);
    return this.#uids[at] === uid ? at + 1 : 0;
  }

  /** Announced UIDs that a set names, ascending, among them perhaps some that are gone. */
  resolve(set: SequenceSet, byUid: boolean): readonly number[] {
    if (set.kind === 'saved') return this.savedResult.filter((uid) => this.sequenceOf(uid) > 0);
    const uids = this.#uids;
    const largest = byUid ? (uids[uids.length - 1] ?? 0) : uids.length;
    return this.#slices(resolveRanges(set.ends, largest), byUid);
  }

  /**
   * The same as ascending, disjoint ranges of UIDs, both ends inclusive: as small as the set is written, however many messages it names. Says which of
   * the announced UIDs are meant; others may lie in the ranges.
   */
  rangesOf(set: SequenceSet, byUid: boolean): Ranges {
    if (set.kind === 'saved') return this.savedResult.flatMap((uid) => [uid, uid]);
    const uids = this.#uids;
    if (byUid) return resolveRanges(set.ends, uids[uids.length - 1] ?? 0);
    const ranges = resolveRanges(set.ends, uids.length);
    const ofUids: number[] = [];
    for (let i = 0; i < ranges.length; i += 2) {
      const last = Math.min(ranges[i + 1]!, uids.length);
      if (ranges[i]! <= last) ofUids.push(uids[ranges[i]! - 1]!, uids[last - 1]!);
    }
    return ofUids;
  }

  #slices(ranges: Ranges, byUid: boolean): readonly number[] {
    const uids = this.#uids;
    const pieces: (readonly number[])[] = [];
    for (let i = 0; i < ranges.length; i += 2) {
      const from = byUid ? lowerBound(uids, ranges[i]!) : ranges[i]! - 1;
      const to = byUid ? lowerBound(uids, ranges[i + 1]! + 1) : Math.min(ranges[i + 1]!, uids.length);
      if (from === 0 && to === uids.length) return uids;
      if (from < to) pieces.push(uids.slice(from, to));
    }
    return pieces.length === 1 ? pieces[0]! : pieces.flat();
  }

  /** The client has been told (or has itself asked for) this state of an entry. */
  markKnown(entry: MailboxEntry): void {
    this.#known.set(entry.uid, entry.modseq);
  }

  /**
   * Tells the client what has changed since it was last told: EXPUNGE (only where `expunges`; RFC 9051 7.5.1), EXISTS, and FETCH of changed flags.
   * Synchronous: the index can't move on meanwhile. Answers whether there was anything to tell.
   */
  announce(writeLine: (line: string) => void, options: { expunges: boolean; modseqs: boolean }): boolean {
    if (!this.#mayHaveNews) return false;
    let hasTold = false;
    const write = (line: string) => {
      hasTold = true;
      writeLine(line);
    };
    const { index } = this;
    const before = this.#uids;
    const since = this.#modseq;
    this.#collectGone(since);
    const latest = index.uids();
    const lastBefore = before[before.length - 1] ?? 0;
    const firstArrival = lowerBound(latest, lastBefore + 1);
    const arrived = latest.length - firstArrival;
    if (options.expunges && this.#gone.size > 0) {
      // From the end, so that every number still means what the client believes.
      const gone = [...this.#gone].map((uid) => this.sequenceOf(uid)).sort((a, b) => b - a);
      for (const sequence of gone) write(`* ${sequence} EXPUNGE\r\n`);
      // RFC 5182 2.1: what is expunged leaves the saved result too.
      if (this.savedResult.length > 0) this.savedResult = this.savedResult.filter((uid) => !this.#gone.has(uid));
      this.#gone.clear();
    }
    this.#uids = this.#gone.size === 0 ? latest : arrived === 0 ? before : before.concat(latest.slice(firstArrival));
    this.#modseq = index.modseq;
    if (arrived > 0) write(`* ${this.#uids.length} EXISTS\r\n`);
    this.#announceFlags(write, since, lastBefore, options.modseqs);
    this.#known.clear();
    return hasTold;
  }

  #announceFlags(write: (line: string) => void, since: number, lastBefore: number, modseqs: boolean): void {
    for (const entry of this.index.changedAfter(since)) {
      if (entry.uid > lastBefore) break;
      if ((this.#known.get(entry.uid) ?? 0) >= entry.modseq) continue;
      const sequence = this.sequenceOf(entry.uid);
      if (sequence === 0) continue;
      const modseq = modseqs ? ` MODSEQ (${entry.modseq})` : '';
      write(`* ${sequence} FETCH (UID ${entry.uid} FLAGS ${formatFlags(entry.keywords, entry.isDeleted)}${modseq})\r\n`);
    }
  }

  #collectGone(since: number): void {
    const removed = this.index.exists ? this.index.removedAfter(since) : undefined;
    if (removed) {
      for (const uid of removed) if (this.sequenceOf(uid) > 0) this.#gone.add(uid);
      return;
    }
    for (const uid of this.#uids) if (!this.index.get(uid)) this.#gone.add(uid);
  }

  close(): void {
    this.index.release();
  }
}
