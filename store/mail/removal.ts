/**
 * Clearing what is left of removed mailboxes and accounts, step by step. A row under 'removal' stands from the first step to the last, so that
 * anybody can go on after a crash.
 */
import { KvError, type KvTransaction } from '../kv/contract.js';
import { notePending } from '../search/pending.js';
import type { AccountChanges } from './account-changes.js';
import { changeAccount, type MailContext } from './context.js';
import { type AccountId, type ChangeNotice, type MailboxId, MailError, mailLimits } from './contract.js';
import { leaveMailbox } from './expunge.js';
import type { AccountKeys } from './keys.js';
import { maildropLockKey } from './maildrop-lock.js';
import { decodeEntry, decodeMessage, decodeState, encodeLogFloor, packValue } from './records.js';
import { sharingRemovalStep } from './sharing.js';

const format = 1;
const wholeAccount = '';

/** Notes that the entries of this mailbox, whose record goes in this transaction, are to be cleared. Its index snapshot goes at once. */
export async function beginRemoval(account: AccountChanges, mailboxId: MailboxId): Promise<void> {
  const index = account.keys.indexOf(mailboxId);
  account.tx.clearRange(index.begin, index.end);
  await account.dropFlagRanges(mailboxId);
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
        if (!value) {
          if (!tx.mayHaveCommitted || !attempted) await beginUnsharing(tx, keys, Math.floor(context.clock.nowMs()));
          return tx.mayHaveCommitted ? attempted : undefined;
        }
        const { modseq, uidValiditySeed } = decodeState(value);
        tx.clear(keys.state);
        tx.clear(maildropLockKey(accountId));
        for (const { begin, end } of [keys.allMailboxes, keys.allNames, keys.allCounts, keys.allEntries, keys.allSummaries]) {
          tx.clearRange(begin, end);
        }
        // In the transaction of the mailbox records: who writes a snapshot conflicts with it.
        tx.clearRange(keys.allIndexes.begin, keys.allIndexes.end);
        for (const { begin, end } of [keys.allLog, keys.allThreads, keys.allReferences, keys.allRemovals]) {
          tx.clearRange(begin, end);
        }
        for (const { begin, end } of [keys.allSubscriptions, keys.allAnnotations, keys.allRecents, keys.allFlagRanges])
          tx.clearRange(begin, end);
        tx.clearRange(keys.allLineEnds.begin, keys.allLineEnds.end);
        tx.set(keys.logFloor, encodeLogFloor({ modseq: modseq + 1, uidValiditySeed }));
        // Its full-text index goes, too.
        notePending(tx, keys.indexing, modseq + 1);
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

/** An account that never had mail (a group, mostly) may still be named in the lists of others, which the next steps take it out of. */
async function beginUnsharing(tx: KvTransaction, keys: AccountKeys, nowMs: number): Promise<void> {
  const { begin, end } = keys.allGranted;
  const notes = await tx.getRange(begin, end, { limit: 1 });
  if (notes.length > 0) tx.set(keys.removal(wholeAccount), packValue([format, nowMs]));
}

/** Unlinks the messages that are left of a removed account. Does nothing without a removal that has begun. */
export async function finishAccountRemoval(context: MailContext, accountId: AccountId): Promise<void> {
  const keys = context.keysOf(accountId);
  const marker = keys.removal(wholeAccount);
  if (!(await context.kv.read((reads) => reads.get(marker)))) return;
  while (await sharingRemovalStep(context, accountId));
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
