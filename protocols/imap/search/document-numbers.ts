/**
 * Which messages of a mailbox are which documents of the full-text index. Looking up an id costs more than anything else in a search, and the answer hardly ever
 * changes: it is kept beside the mailbox's list of UIDs (4 bytes for each message), grows with that list, and goes with it.
 */
import type { IndexView, MailboxIndex, UidList } from '../../../store/mail/contract.js';
import type { SearchView } from '../../../store/search/contract.js';
import type { Turns } from './turns.js';

interface Known {
  /** The parts of the index in which all of `numbers` were looked for. */
  parts: readonly string[];
  numbers: Int32Array;
}

/** By the memory of lists of UIDs: a list that was given out never changes, a longer one in the same memory begins with the same messages. */
const knownOf = new WeakMap<ArrayBufferLike, Known>();
/** Ids that are looked up between two looks at the clock. */
const lookupsPerTurn = 2_000;

/** Whether the first messages of `list` are those of `of`, without looking at each. */
export function beginsWith(list: UidList, of: UidList): boolean {
  return list.buffer === of.buffer && list.byteOffset === of.byteOffset && list.length >= of.length;
}

/** How many of `parts` a view begins with, if it begins with all of them; else -1. */
function sharedParts(view: SearchView, parts: readonly string[]): number {
  if (parts.length > view.parts.length) return -1;
  return parts.every((id, at) => view.parts[at]!.id === id) ? parts.length : -1;
}

/** The numbers of all messages in a view of a mailbox, by position, where they are known for just this state of the index; else undefined. */
export function knownNumbers(search: SearchView, view: IndexView): Int32Array | undefined {
  const known = knownOf.get(view.uids.buffer);
  if (!known || known.numbers.length < view.uids.length) return undefined;
  return known.parts.length === search.parts.length && sharedParts(search, known.parts) >= 0 ? known.numbers : undefined;
}

/** Makes the numbers of the mailbox's present messages known: looks up those that were not in the index before, or are new in the mailbox. */
export async function learnNumbers(search: SearchView, index: MailboxIndex, turns: Turns): Promise<void> {
  let view = index.view();
  if (knownNumbers(search, view)) return;
  const before = knownOf.get(view.uids.buffer);
  const shared = before ? sharedParts(search, before.parts) : -1;
  const numbers = new Int32Array(view.uids.length);
  const old = shared >= 0 ? before!.numbers.subarray(0, numbers.length) : numbers.subarray(0, 0);
  numbers.set(old);
  for (let at = 0; at < numbers.length; ) {
    const end = Math.min(numbers.length, at + lookupsPerTurn);
    for (; at < end; at++) {
      if (at < old.length && numbers[at]! >= 0) continue;
      numbers[at] = search.documentOf(view.emailIdAt(at), at < old.length ? shared : 0);
    }
    await turns.give(at, numbers.length);
    const now = index.view();
    // Positions mean other messages now: whoever searches looks up each.
    if (!beginsWith(now.uids, view.uids)) return;
    view = now;
  }
  knownOf.set(view.uids.buffer, { parts: search.parts.map(({ id }) => id), numbers });
}
