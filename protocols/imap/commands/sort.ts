/** SORT (RFC 5256, criteria of RFC 5957), with RETURN options (RFC 5267 section 3; PARTIAL as in SEARCH). */
import { type Command, withMailbox } from '../command.js';
import { readReturns } from '../grammar/search-returns.js';
import { readSortCriteria } from '../grammar/sort-keys.js';
import { ok } from '../replies.js';
import { answerExtended, answerPlainly, savedOf } from '../search/answer.js';
import { refuseToFollow } from '../search/updates.js';
import { sorted } from '../sorting/order.js';
import { find, readProgram } from './search.js';

export const sort: Command = {
  name: 'SORT',
  states: withMailbox,
  takesUid: true,
  holdsExpunges: true,
  async run(context, cursor, { byUid, tag }) {
    cursor.space();
    const returns = readReturns(cursor);
    const order = readSortCriteria(cursor);
    cursor.space();
    const saves = returns?.save === true;
    const criteria = readProgram(context, cursor, { charset: 'mandatory', saves, byUid });
    const { found: matching } = await find(context, criteria, saves, true);
    const found = await sorted(context, matching, order);
    // RFC 5267 4.3.1; CONTEXT=SORT is not announced.
    if (returns?.update) refuseToFollow(context, tag);
    if (saves) context.requireSelected().savedResult = savedOf(returns, found);
    if (returns) await answerExtended(context, returns, found, { byUid, tag, modseq: criteria.usesModseq });
    else await answerPlainly(context, 'SORT', found, { byUid, modseq: criteria.usesModseq });
    return ok('SORT completed');
  },
};
