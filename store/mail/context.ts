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

export interface ChangeContext {
  kv: KvStore;
  blobs: BlobStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  gate: AccountGate;
  keysOf(accountId: AccountId): AccountKeys;
  announce(notice: ChangeNotice | undefined): void;
}

/** Runs a change of so many messages, perhaps in one transaction with others of the account; what it throws is thrown on, and fails none of those. */
export type ChangeTogether = <T>(accountId: AccountId, operation: string, messages: number, body: ChangeBody<T>) => Promise<T>;

export interface MailContext extends ChangeContext {
  /** As `changeAccount`, for changes of few messages that write nothing of new ones (`combined-changes.ts`). */
  changeTogether: ChangeTogether;
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
  context: ChangeContext,
  tx: KvTransaction,
  accountId: AccountId,
  token: Buffer,
  expected?: readonly ExpectedMessage[],
) {
  const { blobs, clock, random } = context;
  return AccountChanges.open({ tx, keys: context.keysOf(accountId), blobs, clock, random, token }, expected);
}

/** What a change does; `mayHaveCommitted` as of transactions. */
export type ChangeBody<T> = (account: AccountChanges, attempt: { readonly mayHaveCommitted: boolean }) => Promise<T>;

/** A change that is to be made once, however often its body runs. */
export interface PlannedChange<T> {
  operation: string;
  body: ChangeBody<T>;
  token: Buffer;
  /** What attempts that wrote something have answered, by their modseq. */
  attempts: Map<number, T>;
  /** Whether an earlier attempt may stand, one that it made together with others included. */
  mayHaveCommitted: boolean;
}

/** What a change has answered, and its notice if it has changed anything. */
export interface Done<T> {
  value: T;
  notice: ChangeNotice | undefined;
}

export function planChange<T>(context: ChangeContext, operation: string, body: ChangeBody<T>): PlannedChange<T> {
  return { operation, body, token: newChangeToken(context.random), attempts: new Map(), mayHaveCommitted: false };
}

/**
 * Makes a change in a transaction, behind what other changes have written there. One whose commit was unknown is recognised by its token in the log, and answered
 * with what that attempt answered (TRAPS 2).
 */
export async function makeChange<T>(
  context: ChangeContext,
  tx: KvTransaction,
  accountId: AccountId,
  change: PlannedChange<T>,
  settings: ChangeSettings = {},
): Promise<Done<T>> {
  change.mayHaveCommitted ||= tx.mayHaveCommitted;
  const account = await openChanges(context, tx, accountId, change.token, settings.expected);
  const earlier = await committedAttempt(tx, account.keys, change.attempts, change.token);
  if (earlier) return earlier;
  if (!account.exists && !settings.mayBeNew) throw new MailError('no-mailbox', 'the account has no mailboxes yet');
  const value = await change.body(account, change);
  const notice = account.finish();
  if (notice) change.attempts.set(notice.modseq, value);
  return { value, notice };
}

/** After the commit: counts changes that shared it, and tells of them with the last one's notice. */
export function noteChanges(
  context: ChangeContext,
  made: readonly PlannedChange<unknown>[],
  outcomes: readonly Done<unknown>[],
): void {
  let latest: ChangeNotice | undefined;
  outcomes.forEach(({ notice }, place) => {
    if (!notice) return;
    changes.inc({ operation: made[place]!.operation });
    if (!latest || notice.modseq > latest.modseq) latest = notice;
  });
  context.announce(latest);
}

/** Runs `body` as one change of one account and commits. The body may run again. */
export function changeAccount<T>(
  context: ChangeContext,
  accountId: AccountId,
  operation: string,
  body: ChangeBody<T>,
  settings: ChangeSettings = {},
): Promise<T> {
  const change = planChange(context, operation, body);
  const run = async () => {
    const done = await context.kv.transact((tx) => makeChange(context, tx, accountId, change, settings), {
      label: `mail-${operation}`,
    });
    noteChanges(context, [change], [done]);
    return done.value;
  };
  return settings.insideGate ? run() : context.gate.runExclusive(accountId, run);
}

async function committedAttempt<T>(
  tx: KvTransaction,
  keys: AccountKeys,
  attempts: ReadonlyMap<number, T>,
  token: Buffer,
): Promise<Done<T> | undefined> {
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
