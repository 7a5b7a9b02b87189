/**
 * What messages lack of CRLF at the ends of their lines. POP3 sends the line ends, and has to know the sizes of all messages beforehand: the few that become longer
 * have a row each, beside the same number in their record, which says that there is a row to be cleared with the message.
 */
import { keyAfter } from '../kv/contract.js';
import type { MailContext } from './context.js';
import type { AccountId, EmailId } from './contract.js';
import { decodeLineEnds } from './records.js';

export async function readLineEnds(
  context: MailContext,
  accountId: AccountId,
  { afterId, limit }: { afterId?: EmailId; limit: number },
): Promise<{ emailId: EmailId; missingLineEndBytes: number }[]> {
  const keys = context.keysOf(accountId);
  const { begin, end } = keys.allLineEnds;
  const from = afterId === undefined ? begin : keyAfter(keys.lineEnds(afterId));
  const rows = await context.kv.read((reads) => reads.getRange(from, end, { limit }));
  return rows.map(({ key, value }) => ({ emailId: keys.lineEndsOf(key), missingLineEndBytes: decodeLineEnds(value) }));
}
