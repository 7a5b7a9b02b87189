/**
 * Clearing what is left of removed mailboxes and accounts, step by step. A row under 'removal' stands from the first step to the last, so that
 * anybody can go on after a crash.
 */
import { KvError } from '../kv/contract.js';
import type { AccountChanges } from './account-changes.js';
import { changeAccount, type MailContext } from './context.js';
import { type AccountId, type ChangeNotice, type MailboxId, MailError, mailLimits } from './contract.js';
import { leaveMailbox } from './expunge.js';
import { decodeEntry, decodeMessage, decodeState, encodeLogFloor, packValue } from './records.js';

const format = 1;
const wholeAccount = '';

/** Notes that the entries of this mailbox are to be cleared. */
export function beginRemoval(account: AccountChanges, mailboxId: MailboxId): void {
  account.tx.set(account.keys.removal(mailboxId), packValue([format, account.nowMs]));
}

/** Clears the entries of a removed mailbox; messages that are nowhere else go with them. Goes on where an earlier run stopped. */
export async function finishMailboxRemoval(context: MailContext, accountId: AccountId, mailboxId: MailboxId): Promise<void> {
  while (await removalStep(context, accountId, mailboxId));
}

/** One transaction of clearing; answers whether there is more to do. */
export async function removalStep(context: MailContext, accountId: AccountId, mailboxId: MailboxId): Promise<boolean> {
  for (let limit: number = mailLimits.maxMessagesPerTransaction; ; limit = limit >> 1) {
    try {
      return await changeAccount(context, accountId, 'clear-mailbox', (account) => clearEntries(account, mailboxId, limit));
    } catch (error) {
      if (limit === 1 || !(error instanceof KvError && error.code === 'too-large')) throw error;
    }
  }
}

async function clearEntries(account: AccountChanges, mailboxId: MailboxId, limit: number): Promise<boolean> {
  const { begin, end } = account.keys.entryRange(mailboxId);
  const [marker, rows] = await Promise.all([
    account.reads.get(account.keys.removal(mailboxId)),
    account.reads.getRange(begin, end, { limit }),
  ]);
  if (!marker) return false;
  for (const row of rows) account.tx.clear(row.key);
  const ids = rows.map((row) => decodeEntry(account.keys.uidOf(mailboxId, row.key), row.value).emailId);
  await leaveMailbox(account, mailboxId, ids);
  if (rows.length === limit) return true;
  account.tx.clear(account.keys.removal(mailboxId));
  return false;
}

/** Mailboxes (or '' for the whole account) whose removal has begun. */
export async function removalsOf(context: MailContext, accountId: AccountId): Promise<(MailboxId | '')[]> {
  const keys = context.keysOf(accountId);
  const { begin, end } = keys.allRemovals;
  const rows = await context.kv.read((reads) => reads.getRange(begin, end));
  return rows.map((row) => keys.removalOf(row.key));
}

/**
 * Removes all mail of an account. The first transaction clears all but the messages, which hold the links to blobs; these go step by
 * step. The log floor stays, so that modseqs and UIDVALIDITYs go on ascending should the account be made again.
 */
export async function removeAccount(context: MailContext, accountId: AccountId): Promise<void> {
  const keys = context.keysOf(accountId);
  let attempted: ChangeNotice | undefined;
  const notice = await context.gate.runExclusive(accountId, () =>
    context.kv.transact(
      async (tx) => {
        const value = await tx.get(keys.state);
        if (!value) return tx.mayHaveCommitted ? attempted : undefined;
        const { modseq, uidValiditySeed } = decodeState(value);
        tx.clear(keys.state);
        for (const { begin, end } of [keys.allMailboxes, keys.allNames, keys.allCounts, keys.allEntries, keys.allSummaries]) {
          tx.clearRange(begin, end);
        }
        for (const { begin, end } of [keys.allLog, keys.allThreads, keys.allReferences, keys.allRemovals]) {
          tx.clearRange(begin, end);
        }
        tx.set(keys.logFloor, encodeLogFloor({ modseq: modseq + 1, uidValiditySeed }));
        tx.set(keys.removal(wholeAccount), packValue([format, Math.floor(context.clock.nowMs())]));
        attempted = { accountId, modseq: modseq + 1 };
        return attempted;
      },
      { label: 'mail-remove-account' },
    ),
  );
  context.announce(notice);
  await finishAccountRemoval(context, accountId);
}

/** Unlinks the messages that are left of a removed account. Does nothing without a removal that has begun. */
export async function finishAccountRemoval(context: MailContext, accountId: AccountId): Promise<void> {
  const keys = context.keysOf(accountId);
  const marker = keys.removal(wholeAccount);
  for (let more = true; more; ) {
    more = await context.kv.transact(
      async (tx) => {
        if (!(await tx.get(marker))) return false;
        if (await tx.get(keys.state))
          throw new MailError('not-allowed', 'the account was made again before its removal was over');
        const { begin, end } = keys.allMessages;
        const rows = await tx.getRange(begin, end, { limit: mailLimits.maxMessagesPerTransaction });
        for (const row of rows) {
          const { id, blobId } = decodeMessage(keys.messageOf(row.key), row.value);
          tx.clear(row.key);
          context.blobs.unlink(tx, blobId, { kind: 'message', accountId, emailId: id });
        }
        if (rows.length === mailLimits.maxMessagesPerTransaction) return true;
        tx.clear(marker);
        return false;
      },
      { label: 'mail-remove-account' },
    );
  }
}

/** Goes on with every removal that has begun in this account. */
export async function resumeAccountRemovals(context: MailContext, accountId: AccountId): Promise<void> {
  for (const mailboxId of await removalsOf(context, accountId)) {
    if (mailboxId === wholeAccount) await finishAccountRemoval(context, accountId);
    else await finishMailboxRemoval(context, accountId, mailboxId);
  }
}
