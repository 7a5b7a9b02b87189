/** All messages of an account by their ids, for whoever looks at each of them once. */
import { keyAfter } from '../kv/contract.js';
import type { MailContext } from './context.js';
import type { AccountId, EmailId } from './contract.js';

/** At most `limit` ids, ascending, those after `afterId`. New messages come at the end; what is gone by the time it is read is no message any more. */
export function readMessageIds(
  context: MailContext,
  accountId: AccountId,
  options: { afterId?: EmailId; limit: number },
): Promise<EmailId[]> {
  const keys = context.keysOf(accountId);
  const { begin, end } = keys.allMessages;
  const from = options.afterId === undefined ? begin : keyAfter(keys.message(options.afterId));
  return context.kv.read(async (reads) => {
    const rows = await reads.getRange(from, end, { limit: options.limit });
    return rows.map((row) => keys.messageOf(row.key));
  });
}

/** Whether the account has mail rooms: false for one that was never set up, or was removed. */
export async function accountExists(context: MailContext, accountId: AccountId): Promise<boolean> {
  return (await context.kv.read((reads) => reads.get(context.keysOf(accountId).state))) !== undefined;
}
