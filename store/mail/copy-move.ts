/** COPY and MOVE (RFC 9051 6.4.7, 6.4.8). Flags and dates of the entry go along. */
import type { AccountChanges } from './account-changes.js';
import { changeAccount, inParts, type MailContext, sortedUids } from './context.js';
import type { AccountId, CopyResult, MailboxEntry, MailboxId } from './contract.js';
import type { StoredMessage } from './records.js';
import { rangesOf } from './uid-ranges.js';

interface Source {
  entry: MailboxEntry;
  message: StoredMessage;
  /** Read only where a new message has to be made. */
  summary?: Buffer;
  arrivesUndeleted?: boolean;
}

/** In parts of at most `maxMessagesPerTransaction`, each atomic; the quota is checked part by part. */
export async function copyMessages(
  context: MailContext,
  accountId: AccountId,
  from: MailboxId,
  uids: readonly number[],
  to: MailboxId,
  options: { quotaLimitBytes?: number; dropsDeleted?: boolean } = {},
): Promise<CopyResult> {
  return joined(
    await inPartsOrOnce(sortedUids(uids), (part) =>
      changeAccount(context, accountId, 'copy', async (account) => {
        const { sources, uidValidity } = await readSources(account, from, part, to);
        if (options.dropsDeleted) undelete(sources);
        const newBytes = sources.reduce((sum, source) => sum + (source.summary ? source.message.sizeBytes : 0), 0);
        account.checkQuota(newBytes, options.quotaLimitBytes);
        const pairs: CopyResult['pairs'] = [];
        for (const source of sources) {
          pairs.push({ sourceUid: source.entry.uid, targetUid: await place(account, source, to) });
        }
        return { uidValidity, pairs };
      }),
    ),
  );
}

/**
 * In parts of at most `maxMessagesPerTransaction`, each atomic: the new entry and the removal of the old one have the same modseq. A message
 * that is in the target already stays there and comes a second time, as with COPY. Within one mailbox it gets a new UID.
 */
export async function moveMessages(
  context: MailContext,
  accountId: AccountId,
  from: MailboxId,
  uids: readonly number[],
  to: MailboxId,
  options: { dropsDeleted?: boolean } = {},
): Promise<CopyResult> {
  return joined(
    await inPartsOrOnce(sortedUids(uids), (part) =>
      changeAccount(context, accountId, 'move', (account) => movePart(account, from, part, to, options.dropsDeleted ?? false)),
    ),
  );
}

/** What arrives is not \Deleted: who copies it has no right to set that flag there. */
function undelete(sources: readonly Source[]): void {
  for (const source of sources) source.arrivesUndeleted = true;
}

async function movePart(
  account: AccountChanges,
  from: MailboxId,
  uids: readonly number[],
  to: MailboxId,
  dropsDeleted: boolean,
): Promise<CopyResult> {
  const { sources, uidValidity } = await readSources(account, from, uids, to, true);
  // Mailboxes that they are in as well.
  await account.load(sources.flatMap(({ message }) => Object.keys(message.mailboxes)));
  if (dropsDeleted) undelete(sources);
  const pairs: CopyResult['pairs'] = [];
  for (const source of sources) {
    const { message, entry } = source;
    const before = Object.keys(message.mailboxes);
    delete message.mailboxes[from];
    account.placesChanged(before, Object.keys(message.mailboxes));
    pairs.push({ sourceUid: entry.uid, targetUid: await place(account, source, to, true) });
    account.removeEntry(from, entry);
  }
  if (sources.length > 0) await account.settled(from, rangesOf(sources.map(({ entry }) => entry.uid)));
  return { uidValidity, pairs };
}

/** Puts one message into the target and writes its record. */
async function place(account: AccountChanges, source: Source, to: MailboxId, leavesSource = false): Promise<number> {
  const { entry, message, summary } = source;
  const isDeleted = entry.isDeleted && !source.arrivesUndeleted;
  if (summary) {
    if (leavesSource) account.updateMessage(message);
    return account.duplicate(message, summary, to, isDeleted);
  }
  const { keywords, sizeBytes, receivedAtMs } = message;
  const uid = account.addEntry(to, { emailId: message.id, isDeleted, keywords, sizeBytes, receivedAtMs });
  const before = Object.keys(message.mailboxes);
  message.mailboxes[to] = uid;
  account.placesChanged(before, Object.keys(message.mailboxes));
  account.updateMessage(message);
  return uid;
}

async function readSources(
  account: AccountChanges,
  from: MailboxId,
  uids: readonly number[],
  to: MailboxId,
  leavesSource = false,
): Promise<{ sources: Source[]; uidValidity: number }> {
  await account.load([from, to]);
  const { uidValidity } = account.needMailbox(to);
  const entries = await account.entries(from, uids);
  const messages = await account.messages(entries.map((entry) => entry.emailId));
  const sources: Source[] = [];
  entries.forEach((entry, at) => {
    const message = messages[at];
    // Those of its own row may be older (see `AccountChanges.messages`).
    if (message) sources.push({ entry, message: { ...message, keywords: entry.keywords } });
  });
  const doubled = sources.filter(({ message }) => message.mailboxes[to] !== undefined && !(leavesSource && from === to));
  const summaries = await account.summaries(doubled.map(({ message }) => message.id));
  doubled.forEach((source, at) => {
    source.summary = summaries[at] ?? Buffer.alloc(0);
  });
  return { sources, uidValidity };
}

/** With an empty list too, so that a missing mailbox is told. */
function inPartsOrOnce<R>(uids: readonly number[], change: (part: number[]) => Promise<R>): Promise<R[]> {
  return uids.length === 0 ? change([]).then((result) => [result]) : inParts(uids, change);
}

function joined(parts: readonly CopyResult[]): CopyResult {
  return { uidValidity: parts[0]!.uidValidity, pairs: parts.flatMap((part) => part.pairs) };
}
