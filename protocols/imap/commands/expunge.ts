/** EXPUNGE (RFC 9051 6.4.3) and UID EXPUNGE (6.4.9). */
import { type Command, withMailbox } from '../command.js';
import { readSequenceSet } from '../grammar/sequence-set.js';
import { repliedWithinLimit, withinLimit } from '../message-limit.js';
import { requireRights } from '../places.js';
import { ok } from '../replies.js';

export const expunge: Command = {
  name: 'EXPUNGE',
  states: withMailbox,
  takesUid: true,
  looksForNews: true,
  async run(context, cursor, { byUid }) {
    let set: ReturnType<typeof readSequenceSet> | undefined;
    if (byUid) {
      cursor.space();
      set = readSequenceSet(cursor);
    }
    cursor.end();
    const selected = context.requireWritable();
    await context.refresh();
    requireRights(selected.place.rights, 'e');
    context.announce(true);
    const candidates = set ? selected.resolve(set, true) : selected.uids;
    const deleted: number[] = [];
    for (const uid of candidates) if (selected.index.get(uid)?.isDeleted) deleted.push(uid);
    // The store looks at \Deleted again in its transaction: what another client has undeleted stays (TRAPS 30).
    if (deleted.length === 0) return ok('EXPUNGE completed');
    // RFC 9738 3.1: UID EXPUNGE has a limit, EXPUNGE must have none.
    const { uids, lowestUid } = set ? withinLimit(context, deleted) : { uids: deleted };
    await context.services.mail.expunge(selected.accountId, selected.mailbox.id, uids);
    return { ...repliedWithinLimit(context, ok('EXPUNGE completed'), lowestUid), hasRemoved: true };
  },
};
