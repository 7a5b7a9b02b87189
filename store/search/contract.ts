/**
 * The full-text index of an account: which messages contain which words, as far as the background has got. Whoever searches looks at the rest itself: what was
 * just delivered is found all the same (TRAPS 32). Kept in the store in immutable segments that are merged; correctness never depends on how far it is.
 */
import type { AccountId, EmailId } from '../mail/contract.js';
import type { StemLanguage } from './analysis/contract.js';

/** Where a word stands. `header`: any header field, names included; `body`: texts, names of attachments, embedded messages. */
export type SearchField = 'from' | 'to' | 'cc' | 'bcc' | 'subject' | 'header' | 'body';

export const searchFields: readonly SearchField[] = ['from', 'to', 'cc', 'bcc', 'subject', 'header', 'body'];

/** One message as it is indexed. Texts are Unicode, as IMAP SEARCH compares them before `foldText`. */
export interface SearchDocument {
  emailId: EmailId;
  texts: readonly { field: SearchField; text: string }[];
  /** Not all of the message's text is in `texts` (limits, unreadable parts): it stays a candidate of every search of these fields; `true` means all of them. */
  isPartial?: boolean | readonly SearchField[];
  /** By its stemmer `words` finds other forms of the words of this message. */
  language?: StemLanguage;
}

/** Why an index can't answer. Whoever searches goes on as if there were none. */
export type SearchErrorCode =
  /** A newer release has written it; it will be read again when all nodes are of that release. */
  | 'unknown-format'
  /** Blocks are missing or can't be read: it is to be removed and made anew. */
  | 'damaged'
  /** The view is older than the parts that it was made of, or the index was removed meanwhile: to be opened again. */
  | 'changed';

export class SearchError extends Error {
  override readonly name = 'SearchError';
  constructor(
    readonly code: SearchErrorCode,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}

/** A text that must occur in one of the fields. */
export interface SearchTerm {
  fields: readonly SearchField[];
  /** Any text; compared after `foldText`. */
  text: string;
}

/** What the index knows of a term. Documents have numbers from 0 to below `documents` of their view. */
export interface TermAnswer {
  /** The term surely occurs. */
  has(document: number): boolean;
  /** It may occur: only the message's text can tell. Never true where `has` is. */
  mayHave(document: number): boolean;
  /** The same for many documents at once, into the same places: 0 for neither, 1 for `has`, 2 for `mayHave`, and for -1, which the index does not know. */
  tell(documents: Int32Array, into: Uint8Array): void;
}

/**
 * One state of an account's index; immutable, for one search: parts of it may be cleared a minute after others have replaced them (what is asked of them then
 * is answered with `mayHave`). Released by the garbage collector.
 */
export interface SearchView {
  readonly documents: number;
  /** The number of a message, or -1 where it is not in the index: then it has to be looked at. */
  documentOf(emailId: EmailId, fromPart?: number): number;
  /**
   * What the index consists of, each with how many documents it brings. Another view of the account whose parts begin with the same ones gives their
   * documents the same numbers; `fromPart` leaves out what parts before that place have.
   */
  readonly parts: readonly { id: string; documents: number }[];
  /** Substring semantics of IMAP (RFC 9051 6.4.4): after `foldText` on both sides, `text` occurs somewhere in the field. No false negatives. */
  substring(term: SearchTerm): Promise<TermAnswer>;
  /** All of the words in any order, stems of any of the account's languages included (JMAP); `has` only, nothing is verified. Throws `changed`. */
  words(term: SearchTerm): Promise<TermAnswer>;
}

/** Awaited between small pieces of background work, about every millisecond; must not throw. */
export type Breathe = () => Promise<void>;

export interface SearchStore {
  /** The index as it is now; undefined for an account that has none. Throws KvError, SearchError. */
  open(accountId: AccountId): Promise<SearchView | undefined>;
  /**
   * How far the index is: all messages created up to this modseq are in it (those that were destroyed since are not missed). Throws `unknown-format`: then the
   * index is to be left alone.
   */
  progress(accountId: AccountId): Promise<{ modseq: number; documents: number } | undefined>;
  /**
   * Adds a segment, and says up to which modseq all is in now, in one transaction that asserts that the index still stood at `fromModseq` (another node may have
   * been faster: then `false`, and nothing is written); 0 where there is no index yet. Documents that are in it already are left alone. Some hundred messages
   * (or a few megabytes of text) at a time keep memory small. `breathe`: by default others get their turn every few milliseconds. Throws RangeError for an id
   * that is none of a message.
   */
  add(
    accountId: AccountId,
    documents: readonly SearchDocument[],
    step: { fromModseq: number; toModseq: number },
    breathe?: Breathe,
  ): Promise<boolean>;
  /**
   * Merges small segments, drops documents that `isGone` (asked in batches) says are destroyed, and clears what crashed writers and earlier merges left behind;
   * bounded work per call; true when there is more to do at once. Wants to be called after each `add`, and now and then (hourly will do).
   */
  tidy(
    accountId: AccountId,
    isGone: (ids: readonly EmailId[]) => Promise<readonly boolean[]>,
    breathe?: Breathe,
  ): Promise<boolean>;
  /** Removes the index of an account, of any format, in resumable steps; the background makes it anew if the account still has mail. */
  remove(accountId: AccountId): Promise<void>;
}
