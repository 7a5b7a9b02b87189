/**
 * COPY and MOVE from one account's mailbox to another's. A message there is another message: same bytes (one more link to the blob), same summary and date,
 * flags as far as they may be carried, a thread of the target's own. A MOVE changes both accounts in one transaction, so that nothing is ever lost or doubled.
 */
import type { AccountChanges } from './account-changes.js';
import { changeAccount, inParts, type MailContext, openChanges, sortedUids } from './context.js';
import { type ChangeNotice, type CopyResult, type MailboxEntry, type MailboxId, MailError, type NewMessage } from './contract.js';
import { leaveMailbox } from './expunge.js';
import { newChangeToken } from './ids.js';
import { decodeMessage } from './records.js';
import type { CopyBetweenOptions, MailboxOf } from './sharing-contract.js';

/** Two accounts share the transaction, and each message brings its summary along. */
const messagesPerPart = 100;

/** In parts, each atomic. Sources that are gone are passed over. Throws `no-mailbox`, `over-quota`, `too-many`. */
export async function copyBetween(
  context: MailContext,
  from: MailboxOf,
  uids: readonly number[],
  to: MailboxOf,
  options: CopyBetweenOptions,
): Promise<CopyResult> {
  if (from.accountId === to.accountId) throw new MailError('not-allowed', 'both mailboxes belong to one account');
  const parts = await inParts(sortedUids(uids), (part) => copyPart(context, from, part, to, options), messagesPerPart);
  if (parts.length === 0) parts.push(await copyPart(context, from, [], to, options));
  return { uidValidity: parts[0]!.uidValidity, pairs: parts.flatMap((part) => part.pairs) };
}

interface Source {
  entry: MailboxEntry;
  message: NewMessage;
}

async function copyPart(
  context: MailContext,
  from: MailboxOf,
  uids: readonly number[],
  to: MailboxOf,
  options: CopyBetweenOptions,
): Promise<CopyResult> {
  const sourceToken = newChangeToken(context.random);
  const change = () =>
    changeAccount(
      context,
      to.accountId,
      options.leavesSource ? 'move-between' : 'copy-between',
      async (target) => {
        const source = await openChanges(context, target.tx, from.accountId, sourceToken);
        await target.load([to.mailboxId]);
        const { uidValidity } = target.needMailbox(to.mailboxId);
        const sources = await readSources(context, source, from.mailboxId, uids, to.mailboxId, options);
        const inserted = await target.insertAll(
          sources.map(({ message }) => message),
          options.quotaLimitBytes === undefined ? {} : { quotaLimitBytes: options.quotaLimitBytes },
        );
        const pairs = sources.map(({ entry }, at) => ({ sourceUid: entry.uid, targetUid: inserted[at]!.uids[0]!.uid }));
        let notice: ChangeNotice | undefined;
        if (options.leavesSource) {
          for (const { entry } of sources) source.removeEntry(from.mailboxId, entry);
          await leaveMailbox(
            source,
            from.mailboxId,
            sources.map(({ entry }) => entry.emailId),
          );
          notice = source.finish();
        }
        return { result: { uidValidity, pairs }, notice };
      },
      { insideGate: true },
    );
  const inOrder = [from.accountId, to.accountId].sort();
  const { result, notice } = await context.gate.runExclusive(inOrder[0]!, () => context.gate.runExclusive(inOrder[1]!, change));
  context.announce(notice);
  return result;
}

async function readSources(
  context: MailContext,
  source: AccountChanges,
  mailboxId: MailboxId,
  uids: readonly number[],
  targetId: MailboxId,
  { carries, messageIdsOf }: CopyBetweenOptions,
): Promise<Source[]> {
  const { keys, reads } = source;
  // The source's state was read with a conflict: what is read as a snapshot here is what stands when this commits.
  const entries = await source.entries(mailboxId, uids);
  if (entries.length === 0) return [];
  const rows = await reads.getMany(entries.flatMap(({ emailId }) => [keys.message(emailId), keys.summary(emailId)]));
  const sources: Source[] = [];
  entries.forEach((entry, at) => {
    const [value, summary] = [rows[2 * at], rows[2 * at + 1]];
    if (!value) return;
    const { blobId, sizeBytes, missingLineEndBytes } = decodeMessage(entry.emailId, value);
    const keywords = entry.keywords.filter((keyword) => (keyword === '$seen' ? carries.seen : carries.others));
    const message: NewMessage = {
      blob: context.blobs.stored({ id: blobId, sizeBytes }),
      mailboxIds: [targetId],
      keywords,
      isDeleted: entry.isDeleted && carries.deleted,
      receivedAtMs: entry.receivedAtMs,
      summary: summary ?? Buffer.alloc(0),
      messageIds: summary ? messageIdsOf(summary) : [],
      ...(missingLineEndBytes !== undefined && { missingLineEndBytes }),
    };
    sources.push({ entry, message });
  });
  return sources;
}
