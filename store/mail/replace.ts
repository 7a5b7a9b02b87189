/** REPLACE (RFC 8508): a new message in, the one that it stands for out, in one transaction, also where the two belong to different accounts. */
import type { AccountChanges } from './account-changes.js';
import { changeAccount, type MailContext, openChanges } from './context.js';
import { type AccountId, type ChangeNotice, type InsertedMessage, MailError, type NewMessage } from './contract.js';
import { leaveMailbox } from './expunge.js';
import { newChangeToken } from './ids.js';
import type { StoredMessage } from './records.js';
import type { MailboxOf } from './sharing-contract.js';

export interface ReplaceOptions {
  /** Of the account that gets the new message. */
  quotaLimitBytes?: number;
}

/** The new one is written first, so that it stays in the thread of the old one. What the old one gives back counts for the quota. */
export async function replaceMessage(
  context: MailContext,
  from: MailboxOf,
  uid: number,
  to: AccountId,
  message: NewMessage,
  options: ReplaceOptions = {},
): Promise<InsertedMessage> {
  const { accountId } = from;
  if (accountId === to)
    return changeAccount(context, to, 'replace', (account) => exchange(account, account, from, uid, message, options));
  const sourceToken = newChangeToken(context.random);
  const change = () =>
    changeAccount(
      context,
      to,
      'replace-between',
      async (target) => {
        const source = await openChanges(context, target.tx, accountId, sourceToken);
        const inserted = await exchange(target, source, from, uid, message, options);
        return { inserted, notice: source.finish() };
      },
      { insideGate: true },
    );
  const [first, second] = [accountId, to].sort() as [AccountId, AccountId];
  const run = () => context.gate.runExclusive(second, change);
  const { inserted, notice }: { inserted: InsertedMessage; notice: ChangeNotice | undefined } = await context.gate.runExclusive(
    first,
    run,
  );
  context.announce(notice);
  return inserted;
}

async function exchange(
  target: AccountChanges,
  source: AccountChanges,
  { mailboxId }: MailboxOf,
  uid: number,
  message: NewMessage,
  { quotaLimitBytes }: ReplaceOptions,
): Promise<InsertedMessage> {
  const [entry] = await source.entries(mailboxId, [uid]);
  if (!entry) throw new MailError('no-message', 'the message to be replaced is gone');
  const [old] = await source.messages([entry.emailId]);
  const freedBytes = target === source ? freedBy(old) : 0;
  const limits = quotaLimitBytes === undefined ? {} : { quotaLimitBytes: quotaLimitBytes + freedBytes };
  const [inserted] = await target.insertAll([message], limits);
  source.removeEntry(mailboxId, entry);
  await leaveMailbox(source, mailboxId, [entry.emailId]);
  return inserted!;
}

/** Nothing, while it is in another mailbox as well. */
const freedBy = (old: StoredMessage | undefined): number => (old && Object.keys(old.mailboxes).length === 1 ? old.sizeBytes : 0);
