/** QUIT (RFC 1939 sections 4 and 6): after login the UPDATE state, in which what is marked is removed for good. */
import type { SessionContext } from '../context.js';
import { removedTotal } from '../metrics.js';
import { err, ok, type Reply, replyOfError } from '../replies.js';
import { anyState, type Command } from './command.js';

export const quit: Command = {
  name: 'QUIT',
  states: anyState,
  async run(context) {
    context.isQuitting = true;
    if (context.state === 'authorization') return ok('Bye');
    const reply = await update(context);
    // Whoever has our answer may log in again at once.
    await context.dispose();
    return reply;
  },
};

async function update(context: SessionContext): Promise<Reply> {
  const { maildrop, lock, services } = context;
  const { deletedUids } = maildrop;
  await markSeen(context);
  if (deletedUids.length === 0) return ok('Bye, nothing removed');
  try {
    const removed = await services.mail.expunge(maildrop.accountId, maildrop.mailboxId, deletedUids, {
      onlyDeleted: false,
      precondition: (tx) => lock.assert(tx),
    });
    removedTotal.inc(removed.length);
    // What others have removed meanwhile is gone as well.
    return ok(`Bye, ${deletedUids.length} messages removed`);
  } catch (error) {
    const known = replyOfError(error);
    context.logger[known ? 'warn' : 'error']({ err: error }, 'messages of a maildrop could not be removed');
    return err('Some messages are not removed: the server can not do so now', known?.code ?? 'SYS/TEMP');
  }
}

/** As in IMAP, whoever has read a message has seen it. Not worth a failure. */
async function markSeen(context: SessionContext): Promise<void> {
  const { maildrop, services } = context;
  const uids = services.limits.marksSeen ? maildrop.retrievedUids : [];
  if (uids.length === 0) return;
  try {
    await services.mail.changeFlags(maildrop.accountId, maildrop.mailboxId, uids, {
      mode: 'add',
      keywords: ['$seen'],
      deleted: false,
    });
  } catch (error) {
    context.logger.warn({ err: error }, '\\Seen not set');
  }
}
