/** Reading messages, entries and the change log. Long lists are read in several transactions, each within the store's limits. */
import type { KvReads } from '../kv/contract.js';
import type { MailContext } from './context.js';
import type { AccountId, ChangesSince, EmailId, MailboxEntry, MailboxId, Message } from './contract.js';
import { getDense } from './dense-reads.js';
import { foldMessages } from './flag-range-reads.js';
import { decodeFlagRanges, decodeFolded } from './flag-ranges.js';
import { readLog } from './log.js';
import { comparableModseq } from './lost-history.js';
import { decodeLogFloor, decodeMessage, decodeState, encodeLogFloor } from './records.js';

const entriesPerRead = 5_000;
const messagesPerRead = 1_000;
const summariesPerRead = 500;
const defaultSets = 1_000;

export async function readEntries(
  context: MailContext,
  accountId: AccountId,
  mailboxId: MailboxId,
  range: { fromUid?: number; toUid?: number; limit?: number } = {},
): Promise<MailboxEntry[]> {
  const keys = context.keysOf(accountId);
  const limit = range.limit ?? Number.POSITIVE_INFINITY;
  const entries: MailboxEntry[] = [];
  for (let fromUid = range.fromUid ?? 0; entries.length < limit; ) {
    const { begin, end } = keys.entryRange(mailboxId, fromUid, range.toUid);
    const wanted = Math.min(entriesPerRead, limit - entries.length);
    if (begin.compare(end) >= 0) break;
    const [[counts, rangesRow], rows] = await context.kv.read((reads) =>
      Promise.all([
        reads.getMany([keys.counts(mailboxId), keys.flagRanges(mailboxId)]),
        reads.getRange(begin, end, { limit: wanted }),
      ]),
    );
    // A removed mailbox is gone at once, though its entries are cleared later.
    if (!counts) break;
    const ranges = decodeFlagRanges(rangesRow);
    for (const row of rows) entries.push(decodeFolded(keys.uidOf(mailboxId, row.key), row.value, ranges));
    if (rows.length < wanted) break;
    fromUid = entries.at(-1)!.uid + 1;
  }
  return entries;
}

export async function readEntryAt(
  context: MailContext,
  reads: KvReads,
  accountId: AccountId,
  mailboxId: MailboxId,
  uid: number,
): Promise<MailboxEntry | undefined> {
  const keys = context.keysOf(accountId);
  const wanted = [keys.counts(mailboxId), keys.entry(mailboxId, uid), keys.flagRanges(mailboxId)];
  const [counts, value, ranges] = await reads.getMany(wanted);
  return counts && value ? decodeFolded(uid, value, decodeFlagRanges(ranges)) : undefined;
}

async function inPages<T>(ids: readonly EmailId[], perRead: number, read: (page: EmailId[]) => Promise<T[]>): Promise<T[]> {
  if (ids.length <= perRead) return ids.length === 0 ? [] : read([...ids]);
  const all: T[] = [];
  for (let at = 0; at < ids.length; at += perRead) {
    for (const item of await read(ids.slice(at, at + perRead))) all.push(item);
  }
  return all;
}

/** Mailboxes that are being cleared do not appear; a message that is only there is gone. */
export function readMessages(
  context: MailContext,
  accountId: AccountId,
  ids: readonly EmailId[],
): Promise<(Message | undefined)[]> {
  const keys = context.keysOf(accountId);
  const { begin, end } = keys.allRemovals;
  return inPages(ids, messagesPerRead, async (page) => {
    const [messages, removalRows] = await context.kv.read(async (reads) => {
      const wanted = page.map((id) => keys.message(id));
      const [values, rows, state] = await Promise.all([
        getDense(reads, wanted, keys.density.messages),
        reads.getRange(begin, end),
        reads.get(keys.state),
      ]);
      const messages = values.map((value, at) => value && decodeMessage(page[at]!, value));
      if (state && decodeState(state).ranged > 0) await foldMessages(reads, keys, messages);
      return [messages, rows] as const;
    });
    const removals = removalRows.map((row) => keys.removalOf(row.key));
    return messages.map((message) => message && visibleMessage(message, removals));
  });
}

function visibleMessage(message: Message, removals: readonly string[]): Message | undefined {
  if (removals.length === 0) return message;
  // '' stands for the whole account.
  if (removals.includes('')) return undefined;
  const places = Object.entries(message.mailboxes).filter(([id]) => !removals.includes(id));
  return places.length === 0 ? undefined : { ...message, mailboxes: Object.fromEntries(places) };
}

export function readSummaries(
  context: MailContext,
  accountId: AccountId,
  ids: readonly EmailId[],
): Promise<(Buffer | undefined)[]> {
  const keys = context.keysOf(accountId);
  return inPages(ids, summariesPerRead, (page) => {
    const wanted = page.map((id) => keys.summary(id));
    return context.kv.read((reads) => getDense(reads, wanted, keys.density.summaries));
  });
}

/** At most `limit` sets and about 4 MB of them; `undefined` for a modseq that the log does not reach back to, or that never was. */
export function readChanges(
  context: MailContext,
  accountId: AccountId,
  modseq: number,
  limit: number = defaultSets,
): Promise<ChangesSince> {
  const keys = context.keysOf(accountId);
  return context.kv.read(async (reads) => {
    const [[stateValue, floor], log] = await Promise.all([
      reads.getMany([keys.state, keys.logFloor]),
      readLog(reads, keys, modseq, limit),
    ]);
    const current = stateValue ? decodeState(stateValue).modseq : decodeLogFloor(floor).modseq;
    const { modseq: floorModseq, lost } = decodeLogFloor(floor);
    if (modseq < floorModseq || modseq > current || comparableModseq(modseq, lost) !== modseq) return undefined;
    const upToModseq = log.hasMore ? log.sets.at(-1)!.modseq : current;
    return { sets: log.sets, upToModseq, hasMore: log.hasMore };
  });
}

/** The marker goes in with the removal (TRAPS 9). Leave the last minutes: attempts with an unknown commit look themselves up there. */
export async function truncateLog(context: MailContext, accountId: AccountId, upToModseq: number): Promise<void> {
  const keys = context.keysOf(accountId);
  await context.kv.transact(
    async (tx) => {
      // The state only ascends, so that a snapshot of it is a safe bound; the floor must not go back.
      const [state, floorValue] = await Promise.all([tx.snapshot.get(keys.state), tx.get(keys.logFloor)]);
      const before = decodeLogFloor(floorValue);
      const modseq = Math.min(upToModseq, state ? decodeState(state).modseq : 0);
      if (modseq <= before.modseq) return;
      // Modseqs that a restore has passed over are no changes: until there are enough above them, all below are kept.
      if (comparableModseq(modseq, before.lost) !== modseq) return;
      tx.clearRange(keys.allLog.begin, keys.logAt(modseq + 1));
      tx.set(keys.logFloor, encodeLogFloor({ ...before, modseq }));
    },
    { label: 'mail-truncate-log' },
  );
}
