/**
 * The selected mailbox as this client has been told about it (TRAPS 28). Sequence numbers mean positions in the announced list of UIDs and
 * nothing else; the shared index says what is true now. `announce` is the only place where the one follows the other.
 */
import type { AccountId, Mailbox, MailboxIndex, UidList } from '../../store/mail/contract.js';
import { type AnnouncementKey, shareAnnouncement, sharedAnnouncement } from './announcements.js';
import { ToldKeywords } from './flag-lists.js';
import { formatFlags } from './grammar/format.js';
import { formatRanges, rangesOf } from './grammar/ranges.js';
import { lowerBound, type Ranges, resolveRanges, type SequenceSet } from './grammar/sequence-set.js';
import { KnownUids } from './known-uids.js';
import type { MailboxPlace } from './places.js';
import type { RecentMessages } from './recent.js';

function joined(pieces: readonly UidList[]): UidList {
  if (pieces.length === 1) return pieces[0]!;
  const whole = new Uint32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** Longer announcements are made for each session anew. */
const maxSharedChars = 65_536;

/** What of the news may be told, and in which words. */
export interface AnnounceOptions {
  /** EXPUNGE or VANISHED may come now. */
  expunges: boolean;
  /** With MODSEQ (RFC 7162 3.2.4). */
  modseqs: boolean;
  /** VANISHED instead of EXPUNGE. */
  vanished: boolean;
  /** UIDFETCH instead of FETCH. */
  uidOnly: boolean;
  /** Changed flags wait for the next announcement. */
  holdsFlags?: boolean;
  /** What the client does not want to hear of at all (NOTIFY). */
  without?: { arrivals: boolean; flags: boolean } | undefined;
}

export class SelectedMailbox {
  readonly place: MailboxPlace;
  readonly index: MailboxIndex;
  readonly isReadOnly: boolean;
  /** Undefined for IMAP4rev2, which has no \\Recent. */
  readonly recent: RecentMessages | undefined;
  readonly #keywords: ToldKeywords;
  /** UIDs that SEARCH RETURN (SAVE) has kept (RFC 5182), ascending. */
  savedResult: UidList = new Uint32Array(0);
  /** The index's own list of some moment (it never changes a list that it has given out), so that sessions which know the same share it. */
  #uids: UidList;
  /** Changes up to this modseq have been announced, expunges in `#gone` apart. */
  #modseq: number;
  /** Flags changed up to this modseq have been announced; behind `#modseq` only while they are held back. */
  #flagsModseq: number;
  /** The client has been told everything up to this modseq, expunges included. */
  #completeModseq: number;
  /** Announced UIDs that are expunged, and could not be told yet. */
  #gone = new Set<number>();
  #toldExpunges = 0;
  /** Something has arrived that the client did not want to hear of. */
  #hidesArrivals = false;
  /** Flags have changed that the client did not want to hear of: when it comes back, it must be told. */
  #hidesFlags = false;
  /** Messages that this client has itself put here, as long as they are new to it. */
  #own = new Set<number>();
  /** States of entries that the client knows already, of its own changes as a rule: modseq → UIDs. A change of many messages has one modseq. */
  #known = new Map<number, KnownUids>();
  /** Where the last one of them was noted: the next is of the same change as a rule. */
  #lastKnown: KnownUids | undefined;
  #lastKnownModseq = 0;

  constructor(place: MailboxPlace, index: MailboxIndex, isReadOnly: boolean, recent?: RecentMessages) {
    this.place = place;
    this.recent = recent;
    this.#keywords = new ToldKeywords(index.view().keywords);
    this.index = index;
    this.isReadOnly = isReadOnly;
    this.#uids = index.uids();
    this.#modseq = this.#flagsModseq = this.#completeModseq = index.modseq;
  }

  get mailbox(): Mailbox {
    return this.place.mailbox;
  }

  /** Who holds it: perhaps another account than the session's. */
  get accountId(): AccountId {
    return this.place.accountId;
  }

  /** Announced UIDs by sequence number - 1. Not to be changed. */
  get uids(): UidList {
    return this.#uids;
  }

  /**
   * A modseq up to which the client knows everything about this mailbox: what it may go on from when it comes back (RFC 7162 3.2). Of the account, so perhaps
   * above the highest of the mailbox.
   */
  get completeModseq(): number {
    return this.#completeModseq;
  }

  /** How many announcements have told expunges so far. */
  get toldExpunges(): number {
    return this.#toldExpunges;
  }

  /** Expunges wait for a command that may tell them. */
  get holdsExpunges(): boolean {
    return this.#gone.size > 0;
  }

  /** Whether there may be something that the client has not been told. The index moves on with changes elsewhere in the account too. */
  get #mayHaveNews(): boolean {
    if (this.#gone.size > 0 || this.#flagsModseq !== this.#modseq || this.#hidesArrivals) return true;
    return this.index.modseq !== this.#modseq || (!this.index.exists && this.#uids.length > 0);
  }

  isRecent(uid: number): boolean {
    return this.recent?.has(uid) === true;
  }

  /** FLAGS and PERMANENTFLAGS as they are now, each without `* ` and line end. */
  flagResponses(): readonly string[] {
    return this.#keywords.responses(this.place, this.isReadOnly);
  }

  /**
   * To be called before a FETCH shows flags: tells what keywords there are, if some are new to the client. `shown` are those of entries that the index may not
   * have yet.
   */
  tellKeywords(write: (line: string) => void, shown: readonly { keywords: readonly string[] }[] = []): void {
    if (!this.index.exists) return;
    const names = new Set<string>();
    let last: readonly string[] | undefined;
    for (let at = 0; at < shown.length; at++) {
      const { keywords } = shown[at]!;
      // Mostly they share a list.
      if (keywords !== last) for (const keyword of keywords) names.add(keyword);
      last = keywords;
    }
    if (!this.#keywords.follow(this.index.view().keywords, names)) return;
    for (const response of this.flagResponses()) write(`* ${response}\r\n`);
  }

  /** Sequence number of an announced UID, else 0. */
  sequenceOf(uid: number): number {
    const at = lowerBound(this.#uids, uid);
    return this.#uids[at] === uid ? at + 1 : 0;
  }

  /** Announced UIDs that a set names, ascending, among them perhaps some that are gone. */
  resolve(set: SequenceSet, byUid: boolean): UidList {
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
    if (set.kind === 'saved') return rangesOf(this.savedResult);
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

  #slices(ranges: Ranges, byUid: boolean): UidList {
    const uids = this.#uids;
    const pieces: UidList[] = [];
    for (let i = 0; i < ranges.length; i += 2) {
      const from = byUid ? lowerBound(uids, ranges[i]!) : ranges[i]! - 1;
      const to = byUid ? lowerBound(uids, ranges[i + 1]! + 1) : Math.min(ranges[i + 1]!, uids.length);
      if (from === 0 && to === uids.length) return uids;
      if (from < to) pieces.push(uids.subarray(from, to));
    }
    return joined(pieces);
  }

  /** The client has been told (or has itself asked for) this state of an entry. */
  markKnown(uid: number, modseq: number): void {
    let uids = modseq === this.#lastKnownModseq ? this.#lastKnown : this.#known.get(modseq);
    if (!uids) {
      uids = new KnownUids();
      this.#known.set(modseq, uids);
    }
    this.#lastKnownModseq = modseq;
    this.#lastKnown = uids;
    uids.add(uid);
  }

  /** The client has itself put these messages here: it knows what is in them. */
  markOwn(uids: readonly number[]): void {
    const last = this.#uids[this.#uids.length - 1] ?? 0;
    for (const uid of this.#own) if (uid <= last) this.#own.delete(uid);
    for (const uid of uids) this.#own.add(uid);
  }

  isOwn(uid: number): boolean {
    return this.#own.has(uid);
  }

  /**
   * Tells the client what has changed since it was last told: EXPUNGE or VANISHED (only where `expunges`; RFC 9051 7.5.1), EXISTS, and FETCH of changed
   * flags. Synchronous: the index can't move on meanwhile. Answers whether there was anything to tell.
   */
  announce(write: (line: string) => void, options: AnnounceOptions): boolean {
    if (!this.#mayHaveNews) return false;
    const latest = this.index.uids();
    this.tellKeywords(write);
    const lastBefore = this.#uids[this.#uids.length - 1] ?? 0;
    const last = latest[latest.length - 1] ?? 0;
    if (last > lastBefore && !options.without?.arrivals) this.recent?.arrived(lastBefore + 1, last + 1);
    const key = this.#sharedKey(options);
    const shared = key && sharedAnnouncement(latest, key);
    if (shared) {
      this.#uids = shared.uids;
      this.#modseq = this.#flagsModseq = this.#completeModseq = key.modseq;
      if (shared.toldExpunges) this.#toldExpunges++;
      if (shared.text !== '') write(shared.text);
      return shared.text !== '';
    }
    let text = '';
    const expungesBefore = this.#toldExpunges;
    const hasTold = this.#tell(latest, options, (line) => {
      if (key && text.length <= maxSharedChars) text += line;
      write(line);
    });
    if (key && this.#gone.size === 0 && text.length <= maxSharedChars) {
      const toldExpunges = this.#toldExpunges > expungesBefore;
      shareAnnouncement(latest, key, { text, uids: this.#uids, toldExpunges });
    }
    return hasTold;
  }

  /** What the announcement depends on, if it is the same for all who know the same as this client: where nothing is its own. */
  #sharedKey(options: AnnounceOptions): AnnouncementKey | undefined {
    const { expunges, holdsFlags, without, modseqs, vanished, uidOnly } = options;
    if (!expunges || holdsFlags || without || !this.index.exists) return undefined;
    if (
      this.#hidesArrivals ||
      this.#hidesFlags ||
      this.#gone.size > 0 ||
      this.#known.size > 0 ||
      this.savedResult.length > 0 ||
      (this.recent && this.recent.ranges.length > 0) ||
      this.#flagsModseq !== this.#modseq
    )
      return undefined;
    const dialect = (modseqs ? 1 : 0) | (vanished ? 2 : 0) | (uidOnly ? 4 : 0) | (this.recent ? 8 : 0);
    return { before: this.#uids, sinceModseq: this.#modseq, modseq: this.index.modseq, dialect };
  }

  #tell(latest: UidList, options: AnnounceOptions, writeLine: (line: string) => void): boolean {
    let hasTold = false;
    const write = (line: string) => {
      hasTold = true;
      writeLine(line);
    };
    const { index } = this;
    const before = this.#uids;
    const lastBefore = before[before.length - 1] ?? 0;
    this.#collectGone(this.#modseq);
    if (options.expunges && this.#gone.size > 0) this.#tellGone(write, options.vanished);
    const firstArrival = lowerBound(latest, lastBefore + 1);
    const arrived = options.without?.arrivals ? 0 : latest.length - firstArrival;
    this.#hidesArrivals = arrived < latest.length - firstArrival;
    this.#uids = this.#followed(before, latest, firstArrival, arrived);
    this.#modseq = index.modseq;
    if (arrived > 0) {
      write(`* ${this.#uids.length} EXISTS\r\n`);
      // RFC 3501 7.3.2.
      if (this.recent) write(`* ${this.recent.countIn(this.#uids)} RECENT\r\n`);
    }
    if (!options.holdsFlags) {
      this.#announceFlags(write, lastBefore, options);
      this.#flagsModseq = index.modseq;
      this.#known.clear();
      this.#lastKnown = undefined;
      if (this.#gone.size === 0 && !this.#hidesArrivals && !this.#hidesFlags) this.#completeModseq = index.modseq;
    }
    return hasTold;
  }

  /** The numbering after this announcement: what is gone and untold keeps its place, what has arrived and may not be told gets none. */
  #followed(before: UidList, latest: UidList, firstArrival: number, arrived: number): UidList {
    if (this.#gone.size > 0) return arrived === 0 ? before : joined([before, latest.subarray(firstArrival)]);
    return arrived === latest.length - firstArrival ? latest : latest.subarray(0, firstArrival);
  }

  #tellGone(write: (line: string) => void, vanished: boolean): void {
    this.#toldExpunges++;
    const gone = Uint32Array.from(this.#gone).sort();
    if (vanished) for (const text of formatRanges(rangesOf(gone))) write(`* VANISHED ${text}\r\n`);
    // From the end, so that every number still means what the client believes.
    else for (let i = gone.length - 1; i >= 0; i--) write(`* ${this.sequenceOf(gone[i]!)} EXPUNGE\r\n`);
    // RFC 5182 2.1: what is expunged leaves the saved result too.
    if (this.savedResult.length > 0) this.savedResult = this.savedResult.filter((uid) => !this.#gone.has(uid));
    this.#gone.clear();
  }

  #announceFlags(write: (line: string) => void, lastBefore: number, { modseqs, uidOnly, without }: AnnounceOptions): void {
    const view = this.index.view();
    const isKnown = this.#knownStates();
    for (const at of this.index.changedPositionsAfter(this.#flagsModseq)) {
      const uid = view.uids[at]!;
      if (uid > lastBefore) break;
      const modseq = view.modseqAt(at);
      if (isKnown(uid, modseq)) continue;
      const sequence = this.sequenceOf(uid);
      if (sequence === 0) continue;
      if (without?.flags) {
        this.#hidesFlags = true;
        return;
      }
      const head = uidOnly ? `* ${uid} UIDFETCH (` : `* ${sequence} FETCH (UID ${uid} `;
      const flags = view.flagsAt(at);
      const tail = modseqs ? ` MODSEQ (${modseq})` : '';
      write(`${head}FLAGS ${formatFlags(view.keywordsOf(flags), view.isDeletedOf(flags), this.isRecent(uid))}${tail})\r\n`);
    }
  }

  /** Tells whether the client knows this state of a message, or a later one (where the index is behind its own changes). */
  #knownStates(): (uid: number, modseq: number) => boolean {
    const later = [...this.#known].filter(([modseq]) => modseq > this.index.modseq);
    let lastModseq = 0;
    let last: KnownUids | undefined;
    return (uid, modseq) => {
      if (modseq !== lastModseq) {
        last = this.#known.get(modseq);
        lastModseq = modseq;
      }
      return last?.has(uid) === true || (later.length > 0 && later.some(([, uids]) => uids.has(uid)));
    };
  }

  #collectGone(since: number): void {
    const removed = this.index.exists ? this.index.removedAfter(since) : undefined;
    if (removed) {
      for (const uid of removed) if (this.sequenceOf(uid) > 0) this.#gone.add(uid);
      return;
    }
    const view = this.index.view();
    for (const uid of this.#uids) if (view.positionOf(uid) < 0) this.#gone.add(uid);
  }

  close(): void {
    this.recent?.close();
    this.index.release();
  }
}
