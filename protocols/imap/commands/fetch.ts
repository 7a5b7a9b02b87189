/**
 * FETCH (RFC 9051 6.4.5; CHANGEDSINCE and VANISHED: RFC 7162 3.1.4, 3.2.6). What the index knows is answered without a read, summaries come in batches with the next batch
 * under way while one is written, bodies are read a few messages ahead or streamed. The client's pace sets ours.
 */
import { type Command, withMailbox } from '../command.js';
import type { SessionContext } from '../context.js';
import type { Cursor } from '../grammar/cursor.js';
import { type FetchRequest, readFetchItems } from '../grammar/fetch-items.js';
import { type PartialRange, partOf, readPartialRange } from '../grammar/search-returns.js';
import { readSequenceSet, resolveRanges, type SequenceSet } from '../grammar/sequence-set.js';
import { messageLimit, refusedByLimit, repliedWithinLimit, withinLimit } from '../message-limit.js';
import { tellVanishedEarlier } from '../qresync.js';
import { bad, no, ok, Refusal } from '../replies.js';
import { FetchRun } from './fetch-run.js';

interface Modifiers {
  changedSince?: number;
  /** Tell what is gone as well (RFC 7162 3.2.6). */
  vanished?: true;
  /** Of the messages named only this page (RFC 9394 3.3), chosen before `changedSince` is looked at (3.4). */
  partial?: PartialRange;
}

function readModifiers(cursor: Cursor, request: FetchRequest): Modifiers {
  const modifiers: Modifiers = {};
  if (!cursor.takes(' ')) return modifiers;
  cursor.list(() => {
    const name = cursor.word();
    if (name === 'VANISHED') modifiers.vanished = true;
    else if (name === 'CHANGEDSINCE') {
      cursor.space();
      modifiers.changedSince = cursor.number64();
    } else if (name === 'PARTIAL' && !modifiers.partial) {
      cursor.space();
      modifiers.partial = readPartialRange(cursor);
    } else cursor.fail('Unknown FETCH modifier');
  });
  // RFC 7162 3.1.4.1: CHANGEDSINCE implies MODSEQ.
  if (modifiers.changedSince !== undefined) request.items.add('MODSEQ');
  return modifiers;
}

/** RFC 7162 3.2.6: with UID, with CHANGEDSINCE, and after ENABLE QRESYNC only. */
function checkVanished(context: SessionContext, { vanished, changedSince }: Modifiers, byUid: boolean): void {
  if (!vanished) return;
  if (!byUid) throw new Refusal(bad('VANISHED goes with UID FETCH only'));
  if (!context.qresync) throw new Refusal(bad('ENABLE QRESYNC first'));
  if (changedSince === undefined) throw new Refusal(bad('VANISHED needs CHANGEDSINCE'));
}

/** Brings the view up to date so that VANISHED (EARLIER) comes in front of any FETCH: what has changed is told at the end. */
async function tellVanished(context: SessionContext, set: SequenceSet, sinceModseq: number): Promise<void> {
  await context.refresh();
  context.announce(true, { holdsFlags: true });
  // `*` reaches to the end of all UIDs here: the last messages may be the ones that are gone.
  const within = set.kind === 'ranges' ? resolveRanges(set.ends, 0xffff_ffff) : context.resolveRanges(set, true);
  await tellVanishedEarlier(context, context.requireSelected(), sinceModseq, within);
}

export const fetch: Command = {
  name: 'FETCH',
  states: withMailbox,
  takesUid: true,
  holdsExpunges: true,
  async run(context: SessionContext, cursor, { byUid }) {
    cursor.space();
    const set = readSequenceSet(cursor);
    cursor.space();
    const request = readFetchItems(cursor);
    const modifiers = readModifiers(cursor, request);
    cursor.end();
    checkVanished(context, modifiers, byUid);
    if (modifiers.partial && !byUid) throw new Refusal(bad('PARTIAL goes with UID FETCH only'));
    if (byUid) request.items.add('UID');
    if (request.items.has('MODSEQ')) context.enabled.add('CONDSTORE');
    // Also before `resolve`: a UID that has just arrived is announced (EXISTS) before it is answered under a sequence number.
    const { index } = context.requireSelected();
    const since = modifiers.changedSince === undefined ? undefined : index.comparableModseq(modifiers.changedSince);
    if (modifiers.vanished) await tellVanished(context, set, since!);
    else await context.refreshView();
    const run = new FetchRun(context, context.requireSelected(), request);
    const named = context.resolve(set, byUid);
    const page = modifiers.partial && partOf(named, modifiers.partial);
    // RFC 9738 3.1: a page comes whole or not at all.
    if (page && page.length > messageLimit(context)) throw refusedByLimit(context);
    const { uids, lowestUid } = withinLimit(context, page ?? named);
    const missing = await run.all(uids, since);
    // RFC 2180 4.1.2: what is left is given, and the client learns that it is not all. Never another message in its place (TRAPS 28).
    const isMissing = missing > 0 && !byUid;
    const reply = isMissing ? no('Some of the messages no longer exist', 'EXPUNGEISSUED') : ok('FETCH completed');
    return repliedWithinLimit(context, reply, lowestUid);
  },
};
