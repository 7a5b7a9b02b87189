/**
 * SEARCH (RFC 9051 6.4.4, RFC 3501 6.4.4), with RETURN options (RFC 4731, RFC 9394), SAVE (RFC 5182) and the highest modseq (RFC 7162 3.1.5). Looks at the announced
 * messages as they are now, so that what was just delivered is found (TRAPS 32).
 */
import { type Command, withMailbox } from '../command.js';
import type { SessionContext } from '../context.js';
import type { Cursor } from '../grammar/cursor.js';
import { ImapSyntaxError } from '../grammar/limits.js';
import { readCriteria, type SearchCriteria } from '../grammar/search-keys.js';
import { readReturns, returnAll, type SearchReturns } from '../grammar/search-returns.js';
import { repliedWithinLimit } from '../message-limit.js';
import { bad, ok, Refusal, uidRequired } from '../replies.js';
import { answerExtended, answerPlainly, savedOf } from '../search/answer.js';
import { openAhead } from '../search/full-text.js';
import type { ResolvedSets } from '../search/program.js';
import { type Found, resolveSets, runSearch } from '../search/run.js';
import { follow, isFollowed } from '../search/updates.js';
import type { SelectedMailbox } from '../selected.js';

/**
 * Reads the criteria of SEARCH, SORT and THREAD up to the end of the command. RFC 5182 2.1: a SEARCH with SAVE that is refused with NO leaves nothing saved, one
 * that is refused with BAD changes nothing.
 */
export function readProgram(
  context: SessionContext,
  cursor: Cursor,
  options: { charset: 'optional' | 'mandatory'; saves: boolean; byUid: boolean },
): SearchCriteria {
  try {
    const criteria = readCriteria(cursor, options.charset, context.enabled.has('UTF8=ACCEPT'));
    // RFC 9586 section 3: neither in the command nor in the answer.
    // RFC 7162 3.2.10.2: no VANISHED while numbers mean something.
    if (criteria.usesSequences) context.usesNumbers = true;
    if (context.uidOnly && (criteria.usesSequences || !options.byUid)) throw new Refusal(uidRequired);
    if (criteria.usesModseq) context.enabled.add('CONDSTORE');
    return criteria;
  } catch (error) {
    if (options.saves && error instanceof ImapSyntaxError && error.status === 'NO') forgetSaved(context.requireSelected());
    throw error;
  }
}

function forgetSaved(selected: SelectedMailbox): void {
  selected.savedResult = new Uint32Array(0);
}

/** Runs the search; one that has to be `whole` is refused where it would not be (RFC 9738 3.3). With SAVE nothing stays saved if it fails, and `$` in the program itself is the result before this one (RFC 5182 2.1). */
export async function find(
  context: SessionContext,
  { key }: SearchCriteria,
  saves: boolean,
  whole = false,
): Promise<{ found: Found; sets: ResolvedSets }> {
  const opening = openAhead(context, context.requireSelected().accountId, key);
  await context.refreshView();
  const selected = context.requireSelected();
  const sets = resolveSets(selected, key);
  if (saves) forgetSaved(selected);
  return { found: await runSearch(context, selected, key, sets, whole, opening), sets };
}

export const search: Command = {
  name: 'SEARCH',
  states: withMailbox,
  takesUid: true,
  holdsExpunges: true,
  async run(context, cursor, { byUid, tag }) {
    cursor.space();
    const asked = readReturns(cursor);
    const saves = asked?.save === true;
    const criteria = readProgram(context, cursor, { charset: 'optional', saves, byUid });
    // Before anything that may be running for the other one is told as part of this one.
    if (asked?.update && isFollowed(context, tag)) throw new Refusal(bad('This tag is in use'));
    const { found, sets } = await find(context, criteria, saves);
    // RFC 9051 6.4.4: with IMAP4rev2 the answer is ESEARCH, as if RETURN (ALL) had been asked.
    const returns: SearchReturns | undefined = asked ?? (context.enabled.has('IMAP4REV2') ? returnAll : undefined);
    if (asked?.update) follow(context, tag, { key: criteria.key, sets, byUid, found });
    if (saves) context.requireSelected().savedResult = savedOf(asked, found);
    if (returns) await answerExtended(context, returns, found, { byUid, tag, modseq: criteria.usesModseq });
    else await answerPlainly(context, 'SEARCH', found, { byUid, modseq: criteria.usesModseq });
    return repliedWithinLimit(context, ok('SEARCH completed'), found.lowestUid);
  },
};
