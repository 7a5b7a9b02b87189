/** Removing entries, and messages whose last entry went. */
import type { KvTransaction } from '../kv/contract.js';
import type { AccountChanges } from './account-changes.js';
import { maxCombinedMessages } from './combined-changes.js';
import { changeAccount, inParts, type MailContext, sortedUids } from './context.js';
import type { AccountId, EmailId, MailboxId } from './contract.js';
import type { StoredMessage } from './records.js';
import { rangesOf } from './uid-ranges.js';

/** In parts of at most `maxMessagesPerTransaction`, each atomic. Answers the UIDs removed, ascending. */
export async function expunge(
  context: MailContext,
  accountId: AccountId,
  mailboxId: MailboxId,
  uids: readonly number[],
  options: { onlyDeleted?: boolean; precondition?: (tx: KvTransaction) => Promise<void> } = {},
): Promise<number[]> {
  const onlyDeleted = options.onlyDeleted ?? true;
  const parts = await inParts(sortedUids(uids), (part) => {
    const body = async (account: AccountChanges) => {
      await options.precondition?.(account.tx);
      const found = await account.entries(mailboxId, part);
      const leaving = onlyDeleted ? found.filter((entry) => entry.isDeleted) : found;
      for (const entry of leaving) account.removeEntry(mailboxId, entry);
      const ids = leaving.map((entry) => entry.emailId);
      await leaveMailbox(account, mailboxId, ids);
      const gone = leaving.map((entry) => entry.uid);
      if (gone.length > 0) await account.settled(mailboxId, rangesOf(gone));
      return gone;
    };
    // What must hold for this change alone is looked up in a transaction of its own.
    const isAlone = options.precondition !== undefined || part.length > maxCombinedMessages;
    if (isAlone) return changeAccount(context, accountId, 'expunge', body);
    return context.changeTogether(accountId, 'expunge', part.length, body);
  });
  return parts.flat();
}

/** Takes a mailbox out of message records whose entries there are gone; destroys what is in no mailbox any more. */
export async function leaveMailbox(account: AccountChanges, mailboxId: MailboxId, ids: readonly EmailId[]): Promise<void> {
  const destroyed: StoredMessage[] = [];
  const messages = (await account.messages(ids)).filter((message) => message !== undefined);
  const shared = messages.filter((message) => Object.keys(message.mailboxes).length > 1);
  await account.load(shared.flatMap((message) => Object.keys(message.mailboxes)));
  for (const message of messages) {
    const before = Object.keys(message.mailboxes);
    delete message.mailboxes[mailboxId];
    const after = Object.keys(message.mailboxes);
    if (after.length === 0) destroyed.push(message);
    else {
      account.placesChanged(before, after);
      account.updateMessage(message);
    }
  }
  await account.destroyMessages(destroyed);
}
