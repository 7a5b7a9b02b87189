/** Removing entries, and messages whose last entry went. */
import type { AccountChanges } from './account-changes.js';
import { changeAccount, inParts, type MailContext, sortedUids } from './context.js';
import type { AccountId, EmailId, MailboxId } from './contract.js';
import type { StoredMessage } from './records.js';

/** In parts of at most `maxMessagesPerTransaction`, each atomic. Answers the UIDs removed, ascending. */
export async function expunge(
  context: MailContext,
  accountId: AccountId,
  mailboxId: MailboxId,
  uids: readonly number[],
  options: { onlyDeleted?: boolean } = {},
): Promise<number[]> {
  const onlyDeleted = options.onlyDeleted ?? true;
  const parts = await inParts(sortedUids(uids), (part) =>
    changeAccount(context, accountId, 'expunge', async (account) => {
      const found = await account.entries(mailboxId, part);
      const leaving = onlyDeleted ? found.filter((entry) => entry.isDeleted) : found;
      for (const entry of leaving) account.removeEntry(mailboxId, entry);
      const ids = leaving.map((entry) => entry.emailId);
      await leaveMailbox(account, mailboxId, ids);
      return leaving.map((entry) => entry.uid);
    }),
  );
  return parts.flat();
}

/** Takes a mailbox out of message records whose entries there are gone; destroys what is in no mailbox any more. */
export async function leaveMailbox(account: AccountChanges, mailboxId: MailboxId, ids: readonly EmailId[]): Promise<void> {
  const destroyed: StoredMessage[] = [];
  for (const message of await account.messages(ids)) {
    if (!message) continue;
    delete message.mailboxes[mailboxId];
    if (Object.keys(message.mailboxes).length === 0) destroyed.push(message);
    else account.updateMessage(message);
  }
  await account.destroyMessages(destroyed);
}
