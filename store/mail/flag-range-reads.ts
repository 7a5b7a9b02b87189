/** Rows with the changes that are not written into them yet (`flag-ranges.ts`). */
import type { KvReads } from '../kv/contract.js';
import type { MailboxId } from './contract.js';
import { getDense } from './dense-reads.js';
import { decodeFlagRanges, decodeFolded, type FlagRangeList, isListed } from './flag-ranges.js';
import type { AccountKeys } from './keys.js';
import type { StoredMessage } from './records.js';

/** The ranges of each of these mailboxes that has any. */
export async function flagRangesOf(
  reads: KvReads,
  keys: AccountKeys,
  mailboxIds: Iterable<MailboxId>,
): Promise<Map<MailboxId, FlagRangeList>> {
  const ids = [...new Set(mailboxIds)];
  const rows = ids.length === 0 ? [] : await reads.getMany(ids.map((id) => keys.flagRanges(id)));
  const ranges = new Map<MailboxId, FlagRangeList>();
  rows.forEach((row, at) => {
    if (row) ranges.set(ids[at]!, decodeFlagRanges(row));
  });
  return ranges;
}

/** The one place of a message that is in one mailbox. A message in several has its keywords in its row: such are never changed by ranges. */
export function onlyPlaceOf({ mailboxes }: Pick<StoredMessage, 'mailboxes'>): { mailboxId: MailboxId; uid: number } | undefined {
  let only: { mailboxId: MailboxId; uid: number } | undefined;
  for (const mailboxId in mailboxes) {
    if (only) return undefined;
    only = { mailboxId, uid: mailboxes[mailboxId]! };
  }
  return only;
}

/** Gives messages the keywords of their entries where a range names those. To be called only where the account has ranges at all. */
export async function foldMessages(
  reads: KvReads,
  keys: AccountKeys,
  messages: readonly (StoredMessage | undefined)[],
): Promise<void> {
  const places = messages.flatMap((message) => {
    const place = message && onlyPlaceOf(message);
    return place ? [{ message, ...place }] : [];
  });
  const ranges = await flagRangesOf(
    reads,
    keys,
    places.map(({ mailboxId }) => mailboxId),
  );
  const listed = places.filter(({ mailboxId, uid }) => isListed(ranges.get(mailboxId) ?? [], uid));
  const rows = await getDense(
    reads,
    listed.map(({ mailboxId, uid }) => keys.entry(mailboxId, uid)),
    keys.density.entries,
  );
  listed.forEach(({ message, mailboxId, uid }, at) => {
    const row = rows[at];
    if (row) message.keywords = decodeFolded(uid, row, ranges.get(mailboxId)!).keywords;
  });
}
