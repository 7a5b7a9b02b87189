/**
 * The QRESYNC parameter of SELECT and EXAMINE (RFC 7162 3.2.5): what the client remembers of a mailbox, and the answer that brings it up to date, wherever
 * it was connected before.
 */
import { FetchRun } from './commands/fetch-run.js';
import type { SessionContext } from './context.js';
import type { Cursor } from './grammar/cursor.js';
import { clipRanges, formatRanges } from './grammar/ranges.js';
import { parseSequenceSet, type Ranges, resolveRanges, star } from './grammar/sequence-set.js';
import { bad, Refusal, uidRequired } from './replies.js';
import type { SelectedMailbox } from './selected.js';
import { vanishedSince } from './vanished.js';

export interface KnownState {
  uidValidity: number;
  modseq: number;
  /** Absent: all up to UIDNEXT - 1. */
  uids?: Ranges;
  /** Sequence numbers and the UIDs that they had (3.2.5.2), as ranges of equal total length. */
  match?: { sequences: Ranges; uids: Ranges };
}

/** A set without `*`, as the client wrote it. */
function knownSet(cursor: Cursor): { ranges: Ranges; isAscending: boolean } {
  const set = parseSequenceSet(cursor.setText(), cursor.limits.maxArguments);
  if (set.kind === 'saved' || set.ends.includes(star)) cursor.fail('This set must name its numbers');
  const isAscending = set.ends.every(
    (end, at) => at === 0 || (at % 2 === 0 ? end > set.ends[at - 1]! : end >= set.ends[at - 1]!),
  );
  return { ranges: isAscending ? set.ends : resolveRanges(set.ends, 0), isAscending };
}

function lengthOf(ranges: Ranges): number {
  let length = 0;
  for (let i = 0; i < ranges.length; i += 2) length += ranges[i + 1]! - ranges[i]! + 1;
  return length;
}

function readMatch(context: SessionContext, cursor: Cursor): KnownState['match'] {
  // RFC 9586 3.4: no message numbers, not here either.
  if (context.uidOnly) throw new Refusal(uidRequired);
  cursor.open();
  const sequences = knownSet(cursor);
  cursor.space();
  const uids = knownSet(cursor);
  cursor.close();
  if (!sequences.isAscending || !uids.isAscending) cursor.fail('Sets of a match must ascend');
  if (lengthOf(sequences.ranges) !== lengthOf(uids.ranges)) cursor.fail('Sets of a match must be of equal length');
  return { sequences: sequences.ranges, uids: uids.ranges };
}

/** Reads ` (uidvalidity modseq [known-uids] [(sequences uids)])`. */
export function readKnownState(context: SessionContext, cursor: Cursor): KnownState {
  if (!context.qresync) throw new Refusal(bad('ENABLE QRESYNC first'));
  cursor.space();
  cursor.open();
  const uidValidity = cursor.number();
  if (uidValidity === 0) cursor.fail('Bad UIDVALIDITY');
  cursor.space();
  const known: KnownState = { uidValidity, modseq: cursor.number64() };
  if (cursor.takes(' ')) {
    if (cursor.sees('(')) known.match = readMatch(context, cursor);
    else known.uids = knownSet(cursor).ranges;
    if (known.uids && cursor.takes(' ')) known.match = readMatch(context, cursor);
  }
  cursor.close();
  return known;
}

/**
 * The highest UID up to which the client has missed no expunge: that of the last pair which is still true. Where the Nth message has the same UID on both
 * sides, both have the same messages below it.
 */
export function matchedUpTo(uids: ArrayLike<number>, match: NonNullable<KnownState['match']>): number {
  let matched = 0;
  let s = 0;
  let u = 0;
  let sequence = match.sequences[0] ?? 0;
  let uid = match.uids[0] ?? 0;
  while (s < match.sequences.length && u < match.uids.length) {
    const length = Math.min(match.sequences[s + 1]! - sequence, match.uids[u + 1]! - uid) + 1;
    // uids[n] - n never falls: within a run the pairs that are true lie side by side, and the last of them can be found by halving.
    let low = 0;
    let high = Math.min(length, uids.length - sequence + 1);
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (uids[sequence - 1 + middle]! <= uid + middle) low = middle + 1;
      else high = middle;
    }
    if (low > 0 && uids[sequence - 2 + low] === uid + low - 1) matched = uid + low - 1;
    if (sequence + length > match.sequences[s + 1]!) sequence = match.sequences[(s += 2)] ?? 0;
    else sequence += length;
    if (uid + length > match.uids[u + 1]!) uid = match.uids[(u += 2)] ?? 0;
    else uid += length;
  }
  return matched;
}

/** Tells what has changed since: VANISHED (EARLIER) first, then FETCH with UID, FLAGS and MODSEQ. */
export async function resynchronise(
  context: SessionContext,
  selected: SelectedMailbox,
  known: KnownState,
  uidNext: number,
): Promise<void> {
  // 3.2.5: with another UIDVALIDITY nothing of what the client knows is of use.
  if (known.uidValidity !== selected.mailbox.uidValidity) return;
  // A client that knows more than there is, or of a time that is lost, has seen a store that was put back since: it is told everything.
  const sinceModseq = known.modseq > selected.index.modseq ? 0 : selected.index.comparableModseq(known.modseq);
  const within = clipRanges(known.uids ?? [1, uidNext - 1], 1, uidNext - 1);
  const unmatched = known.match ? clipRanges(within, matchedUpTo(selected.uids, known.match) + 1, uidNext - 1) : within;
  await tellVanishedEarlier(context, selected, sinceModseq, unmatched);
  const changed = selected.resolve({ kind: 'ranges', ends: [...within] }, true);
  const request = { items: new Set(['UID', 'FLAGS', 'MODSEQ'] as const), sections: [] };
  await new FetchRun(context, selected, request).all(changed, sinceModseq);
}

/** The VANISHED (EARLIER) responses for what is gone of `within` (ranges of UIDs). */
export async function tellVanishedEarlier(
  context: SessionContext,
  selected: SelectedMailbox,
  sinceModseq: number,
  within: Ranges,
): Promise<void> {
  const vanished = await vanishedSince(context.services.mail, selected, sinceModseq, within);
  for (const text of formatRanges(vanished)) {
    context.untagged(`VANISHED (EARLIER) ${text}`);
    await context.output.ready();
  }
}
