/**
 * FETCH (RFC 9051 6.4.5; CHANGEDSINCE: RFC 7162 3.1.4). What the index knows is answered without a read, summaries come in batches with the next batch
 * under way while one is written, bodies are read a few messages ahead or streamed. The client's pace sets ours.
 */
import { type Command, withMailbox } from '../command.js';
import type { SessionContext } from '../context.js';
import type { Cursor } from '../grammar/cursor.js';
import { type FetchRequest, readFetchItems } from '../grammar/fetch-items.js';
import { readSequenceSet } from '../grammar/sequence-set.js';
import { no, ok } from '../replies.js';
import { FetchRun } from './fetch-run.js';

function readModifiers(cursor: Cursor, request: FetchRequest): number | undefined {
  if (!cursor.takes(' ')) return undefined;
  let changedSince: number | undefined;
  cursor.list(() => {
    if (cursor.word() !== 'CHANGEDSINCE') cursor.fail('Unknown FETCH modifier');
    cursor.space();
    changedSince = cursor.number64();
  });
  // RFC 7162 3.1.4.1: CHANGEDSINCE implies MODSEQ.
  request.items.add('MODSEQ');
  return changedSince;
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
    const changedSince = readModifiers(cursor, request);
    cursor.end();
    if (byUid) request.items.add('UID');
    if (request.items.has('MODSEQ')) context.enabled.add('CONDSTORE');
    // Also before `resolve`: a UID that has just arrived is announced (EXISTS) before it is answered under a sequence number.
    await context.refreshView();
    const run = new FetchRun(context, context.requireSelected(), request);
    const missing = await run.all(context.resolve(set, byUid), changedSince);
    // RFC 2180 4.1.2: what is left is given, and the client learns that it is not all. Never another message in its place (TRAPS 28).
    if (missing > 0 && !byUid) return no('Some of the messages no longer exist', 'EXPUNGEISSUED');
    return ok('FETCH completed');
  },
};
