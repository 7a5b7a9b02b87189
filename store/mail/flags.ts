/** Changing keywords and \Deleted. Keywords belong to the message and are changed in all its entries; \Deleted belongs to the one entry. */
import type { AccountChanges } from './account-changes.js';
import { changeAccount, inParts, type MailContext, sortedUids } from './context.js';
import type { AccountId, EmailId, FlagChange, FlagResult, MailboxEntry, MailboxId } from './contract.js';
import { canonicalKeywords, sameKeywords } from './keywords.js';
import { decodeEntry, type StoredMessage } from './records.js';

interface Plan {
  entry: MailboxEntry;
  keywords: readonly string[];
  isDeleted: boolean;
}

/** In parts of at most `maxMessagesPerTransaction`, each atomic. What stays as it is writes nothing and raises no modseq. */
export async function changeFlags(
  context: MailContext,
  accountId: AccountId,
  mailboxId: MailboxId,
  uids: readonly number[],
  change: FlagChange,
): Promise<FlagResult> {
  const given = canonicalKeywords(change.keywords);
  const parts = await inParts(sortedUids(uids), (part) =>
    changeAccount(context, accountId, 'flags', (account) => changePart(account, mailboxId, part, change, given)),
  );
  return { entries: parts.flatMap((part) => part.entries), modified: parts.flatMap((part) => part.modified) };
}

async function changePart(
  account: AccountChanges,
  mailboxId: MailboxId,
  uids: readonly number[],
  change: FlagChange,
  given: readonly string[],
): Promise<FlagResult> {
  const found = await account.entries(mailboxId, uids);
  const result: FlagResult = { entries: [], modified: [] };
  const plans = new Map<number, Plan>();
  for (const entry of found) {
    // RFC 7162 3.1.3: an entry changed since then is left alone and named.
    if (change.unchangedSince !== undefined && entry.modseq > change.unchangedSince) {
      result.modified.push(entry.uid);
      continue;
    }
    const plan = { entry, keywords: wantedKeywords(entry.keywords, change, given), isDeleted: wantedDeleted(entry, change) };
    if (plan.isDeleted !== entry.isDeleted || !sameKeywords(plan.keywords, entry.keywords)) plans.set(entry.uid, plan);
  }
  const touched = [...plans.values()];
  const otherEntries = await changeMessages(account, mailboxId, touched);
  for (const entry of found) {
    const plan = plans.get(entry.uid);
    result.entries.push(plan ? account.changeEntry(mailboxId, entry, plan) : entry);
  }
  for (const { mailboxId: elsewhere, entry, keywords } of otherEntries) {
    account.changeEntry(elsewhere, entry, { keywords, isDeleted: entry.isDeleted });
  }
  return result;
}

function wantedDeleted(entry: MailboxEntry, change: FlagChange): boolean {
  if (change.mode === 'replace') return change.deleted;
  if (!change.deleted) return entry.isDeleted;
  return change.mode === 'add';
}

function wantedKeywords(now: readonly string[], change: FlagChange, given: readonly string[]): readonly string[] {
  if (change.mode === 'replace') return given;
  if (given.length === 0) return now;
  if (change.mode === 'remove') return canonicalKeywords(now.filter((keyword) => !given.includes(keyword)));
  return given.every((keyword) => now.includes(keyword)) ? now : canonicalKeywords([...now, ...given]);
}

/** Writes the messages whose keywords change, and answers their entries in other mailboxes, which change with them. */
async function changeMessages(account: AccountChanges, mailboxId: MailboxId, plans: readonly Plan[]) {
  const wanted = new Map<EmailId, readonly string[]>();
  for (const plan of plans) {
    if (!sameKeywords(plan.keywords, plan.entry.keywords)) wanted.set(plan.entry.emailId, plan.keywords);
  }
  const messages = (await account.messages([...wanted.keys()])).filter((message) => message !== undefined);
  const others = await otherEntriesOf(account, mailboxId, messages);
  for (const message of messages) account.updateMessage({ ...message, keywords: wanted.get(message.id)! });
  return others.map((other) => ({ ...other, keywords: wanted.get(other.entry.emailId)! }));
}

async function otherEntriesOf(account: AccountChanges, mailboxId: MailboxId, messages: readonly StoredMessage[]) {
  const places = messages
    .flatMap((message) => Object.entries(message.mailboxes))
    .filter(([elsewhere]) => elsewhere !== mailboxId)
    .map(([elsewhere, uid]) => ({ mailboxId: elsewhere, uid }));
  if (places.length === 0) return [];
  const values = await account.load(
    places.map((place) => place.mailboxId),
    places.map((place) => account.keys.entry(place.mailboxId, place.uid)),
  );
  const others: { mailboxId: MailboxId; entry: MailboxEntry }[] = [];
  places.forEach((place, at) => {
    const value = values[at];
    // A mailbox that is being removed has no counts any more; its entries are cleared soon.
    if (value && account.countsOf(place.mailboxId)) {
      others.push({ mailboxId: place.mailboxId, entry: decodeEntry(place.uid, value) });
    }
  });
  return others;
}
