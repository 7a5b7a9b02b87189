/**
 * What all parts of the mail store share, and the one way in which they change an account: through the account's gate, in one transaction,
 * with the changes announced after the commit, and made once even where a commit's fate was unknown.
 */
import { type Clock, counter, type Logger, type Random } from '../../ops/telemetry/index.js';
import type { BlobStore } from '../blobs/contract.js';
import { KvError, type KvStore, type KvTransaction } from '../kv/contract.js';
import { AccountChanges } from './account-changes.js';
import { type AccountId, type ChangeNotice, type ExpectedMessage, MailError, mailLimits } from './contract.js';
import type { AccountGate } from './gate.js';
import { newChangeToken } from './ids.js';
import type { AccountKeys } from './keys.js';
import { isWrittenBy } from './log.js';

const changes = counter('starling_mail_changes_total', 'Committed changes of accounts, by operation', ['operation']);
const replays = counter('starling_mail_replayed_changes_total', 'Changes found committed after their commit had been unknown');

export interface MailContext {
  kv: KvStore;
  blobs: BlobStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  gate: AccountGate;
  keysOf(accountId: AccountId): AccountKeys;
  announce(notice: ChangeNotice | undefined): void;
}

export interface ChangeSettings {
  /** By default an account that was never set up is refused. */
  mayBeNew?: boolean;
  /** Whether the caller holds the account's gate. */
  insideGate?: boolean;
  /** Messages that will be inserted: what that needs to know is read in the same round trip as the account. */
  expected?: readonly ExpectedMessage[];
}

/** Opens the changes of one account in a transaction. */
export function openChanges(
  context: MailContext,
  tx: KvTransaction,
  accountId: AccountId,
  token: Buffer,
  expected?: readonly ExpectedMessage[],
) {
  const { blobs, clock, random } = context;
  return AccountChanges.open({ tx, keys: context.keysOf(accountId), blobs, clock, random, token }, expected);
}

/**
 * Runs `body` as one change of one account and commits. The body may run again; a change whose commit was unknown is recognised by its
 * token in the log, and answered with what that attempt answered (TRAPS 2).
 */
export function changeAccount<T>(
  context: MailContext,
  accountId: AccountId,
  operation: string,
  body: (account: AccountChanges) => Promise<T>,
  settings: ChangeSettings = {},
): Promise<T> {
  const token = newChangeToken(context.random);
  const attempts = new Map<number, T>();
  const keys = context.keysOf(accountId);
  const run = async () => {
    const done = await context.kv.transact(
      async (tx) => {
        const account = await openChanges(context, tx, accountId, token, settings.expected);
        const earlier = await committedAttempt(tx, keys, attempts, token);
        if (earlier) return earlier;
        if (!account.exists && !settings.mayBeNew) throw new MailError('no-mailbox', 'the account has no mailboxes yet');
        const value = await body(account);
        const notice = account.finish();
        if (notice) attempts.set(notice.modseq, value);
        return { value, notice };
      },
      { label: `mail-${operation}` },
    );
    if (done.notice) {
      changes.inc({ operation });
      context.announce(done.notice);
    }
    return done.value;
  };
  return settings.insideGate ? run() : context.gate.runExclusive(accountId, run);
}

async function committedAttempt<T>(
  tx: KvTransaction,
  keys: AccountKeys,
  attempts: ReadonlyMap<number, T>,
  token: Buffer,
): Promise<{ value: T; notice: ChangeNotice } | undefined> {
  if (attempts.size === 0) return undefined;
  const modseqs = [...attempts.keys()];
  const values = await tx.snapshot.getMany(modseqs.map((modseq) => keys.logAt(modseq)));
  const place = values.findIndex((value) => value !== undefined && isWrittenBy(value, token));
  if (place < 0) return undefined;
  const modseq = modseqs[place]!;
  replays.inc();
  return { value: attempts.get(modseq)!, notice: { accountId: keys.accountId, modseq } };
}

/** Runs `change` on parts of `items` that fit a transaction, in order; a part that turns out too large is halved. */
export async function inParts<Item, Result>(
  items: readonly Item[],
  change: (part: Item[]) => Promise<Result>,
  partLength: number = mailLimits.maxMessagesPerTransaction,
): Promise<Result[]> {
  const results: Result[] = [];
  for (let at = 0; at < items.length; at += partLength) {
    const part = items.slice(at, at + partLength);
    try {
      results.push(await change(part));
    } catch (error) {
      if (!(error instanceof KvError && error.code === 'too-large' && part.length > 1)) throw error;
      results.push(...(await inParts(part, change, part.length >> 1)));
    }
  }
  return results;
}

/** Ascending, each once. */
export function sortedUids(uids: readonly number[]): number[] {
  if (uids.every((uid, at) => at === 0 || uid > uids[at - 1]!)) return [...uids];
  return [...new Set(uids)].sort((a, b) => a - b);
}
