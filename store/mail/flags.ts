/** Changing keywords and \Deleted. Keywords belong to the message and are changed in all its entries; \Deleted belongs to the one entry. */
import { KvError } from '../kv/contract.js';
import type { AccountChanges } from './account-changes.js';
import { maxCombinedMessages } from './combined-changes.js';
import { type ChangeBody, changeAccount, type MailContext, sortedUids } from './context.js';
import type { AccountId, EmailId, FlagChange, FlagResult, MailboxEntry, MailboxId } from './contract.js';
import { FlagOutcome } from './flag-outcome.js';
import { type AskedFlags, type PartRows, readPart, wantedDeleted, wantedKeywords } from './flag-plan.js';
import { changeByRange, clearObstacle, type FlagRangeWays } from './flag-range-change.js';
import { decodeFolded, type FlagRangeList, isListed } from './flag-ranges.js';
import { EntryFlags, entryMiddle, flagsOffset, MessageFlags, threadIdOf, withEntryMiddle, withMessageBits } from './flag-rows.js';
import { canonicalKeywords, sameKeywords } from './keywords.js';
import { decodeEntry, decodeState, type StoredMessage } from './records.js';
import { rangesOf } from './uid-ranges.js';

/** More than of other changes, because rows are small and each commit costs its round trip. */
const entriesPerTransaction = 2_000;
/** Fewer UIDs that a range had named are left in it: their rows tell that they are newer. */
const minSettled = 100;
/** After so many conflicts a part is halved. */
const maxRunsOfPart = 4;

interface Plan {
  entry: MailboxEntry;
  keywords: readonly string[];
  isDeleted: boolean;
}

/** What a part has done; `modseq` is that of its change, 0 where nothing changed. */
interface PartDone {
  outcome: FlagOutcome;
  modseq: number;
}

/** Rows read before the transaction that changes them, and the modseq of the account at which they were read. */
interface RowsAhead {
  rows: PartRows;
  modseq: number;
}

/** In one range (`flag-range-change.ts`) or in parts, each atomic. What stays as it is writes nothing and raises no modseq. */
export async function changeFlags(
  context: MailContext,
  ranges: FlagRangeWays,
  accountId: AccountId,
  mailboxId: MailboxId,
  uids: readonly number[],
  change: FlagChange,
): Promise<FlagResult> {
  const asked: AskedFlags = { ...change, keywords: canonicalKeywords(change.keywords) };
  const sorted = sortedUids(uids);
  const byRange = await changeByRange(context, ranges, accountId, mailboxId, sorted, asked);
  if (typeof byRange !== 'string') return byRange;
  const byRows = await changeRows(context, accountId, mailboxId, sorted, asked);
  clearObstacle(ranges, accountId, mailboxId, byRange);
  return byRows;
}

async function changeRows(
  context: MailContext,
  accountId: AccountId,
  mailboxId: MailboxId,
  sorted: readonly number[],
  asked: AskedFlags,
): Promise<FlagResult> {
  const outcome = new FlagOutcome();
  // Modseqs of the parts that are done: what was read before them is still true of the other parts' rows.
  const own = new Set<number>();
  let reading: Promise<RowsAhead | undefined> | undefined;
  for (let from = 0; from < sorted.length; from += entriesPerTransaction) {
    const part = sorted.slice(from, from + entriesPerTransaction);
    const next = sorted.slice(from + entriesPerTransaction, from + 2 * entriesPerTransaction);
    const ahead = await reading;
    reading = undefined;
    const run = (some: readonly number[], known?: RowsAhead) => {
      let runs = 0;
      const body: ChangeBody<PartDone> = async (account, attempt) => {
        // Only while none of the runs can have been committed: the halves must not find it done.
        if (++runs > maxRunsOfPart && some.length > 1 && !attempt.mayHaveCommitted) throw new Crowded();
        const rows = known && isStillTrue(known.modseq, account.state.modseq, own) ? known.rows : undefined;
        const done = await changePart(account, mailboxId, some, asked, rows);
        // While this part is on its way to the disk, the next one is read.
        if (done.modseq > 0 && next.length > 0) reading ??= readAhead(context, accountId, mailboxId, next, asked);
        return done;
      };
      if (sorted.length > maxCombinedMessages) return changeAccount(context, accountId, 'flags', body);
      return context.changeTogether(accountId, 'flags', some.length, body);
    };
    for (const done of await wholeOrHalves(part, run, ahead)) {
      own.add(done.modseq);
      outcome.append(done.outcome);
    }
  }
  return outcome;
}

/** A part lost against other writers of the account again and again; a smaller one is faster than they are. */
class Crowded extends Error {}

async function wholeOrHalves(
  part: readonly number[],
  run: (some: readonly number[], ahead?: RowsAhead) => Promise<PartDone>,
  ahead?: RowsAhead,
): Promise<PartDone[]> {
  try {
    return [await run(part, ahead)];
  } catch (error) {
    const isTooMuch = error instanceof Crowded || (error instanceof KvError && error.code === 'too-large');
    if (!isTooMuch || part.length === 1) throw error;
    const middle = part.length >> 1;
    return [...(await wholeOrHalves(part.slice(0, middle), run)), ...(await wholeOrHalves(part.slice(middle), run))];
  }
}

/** Undefined where it fails: the transaction reads for itself then. */
async function readAhead(
  context: MailContext,
  accountId: AccountId,
  mailboxId: MailboxId,
  uids: readonly number[],
  asked: AskedFlags,
): Promise<RowsAhead | undefined> {
  const keys = context.keysOf(accountId);
  const read = async () =>
    context.kv.read(
      async (reads) => {
        const state = await reads.get(keys.state);
        if (!state) return undefined;
        const { modseq, ranged } = decodeState(state);
        return { modseq, rows: await readPart(reads, keys, mailboxId, uids, asked, ranged > 0) };
      },
      { maxAttempts: 1, label: 'mail-flags-ahead' },
    );
  return read().catch(() => undefined);
}

/** Every change of an account raises its modseq: rows are as they were where nothing but other parts of the same change came since. */
function isStillTrue(readAtModseq: number, modseq: number, own: ReadonlySet<number>): boolean {
  if (readAtModseq > modseq) return false;
  for (let between = readAtModseq + 1; between <= modseq; between++) if (!own.has(between)) return false;
  return true;
}

async function changePart(
  account: AccountChanges,
  mailboxId: MailboxId,
  uids: readonly number[],
  asked: AskedFlags,
  known: PartRows | undefined,
): Promise<PartDone> {
  const [rows] = await Promise.all([
    known ?? readPart(account.reads, account.keys, mailboxId, uids, asked, account.state.ranged > 0),
    account.load([mailboxId]),
  ]);
  account.needMailbox(mailboxId);
  const outcome = new FlagOutcome();
  const unusual = await changeUnusual(account, mailboxId, rows, asked);
  const patch = new Patch(account, mailboxId, asked, outcome);
  for (let at = 0; at < uids.length; at++) {
    const kind = rows.kinds[at]!;
    if (kind === 'absent') continue;
    if (kind === 'refused') outcome.modified.push(uids[at]!);
    const decoded = unusual.get(uids[at]!);
    if (decoded) outcome.add(decoded.uid, decoded, decoded);
    else patch.run(rows, at);
  }
  patch.end();
  if (patch.settled.length >= minSettled) await account.settled(mailboxId, rangesOf(patch.settled));
  return { outcome, modseq: patch.hasWritten || account.log.length > 0 ? account.modseq : 0 };
}

/** Changes rows of the usual form byte by byte. */
class Patch {
  hasWritten = false;
  /** UIDs that a range had named, ascending. */
  readonly settled: number[] = [];
  private unseen = 0;
  private deleted = 0;
  private readonly entry = new EntryFlags();
  private readonly message = new MessageFlags();
  private readonly mailboxIdBytes: Buffer;
  /** By keyword bits and \Deleted. */
  private readonly middles = new Map<number, Buffer>();

  constructor(
    private readonly account: AccountChanges,
    private readonly mailboxId: MailboxId,
    private readonly asked: AskedFlags,
    private readonly outcome: FlagOutcome,
  ) {
    this.mailboxIdBytes = Buffer.from(mailboxId, 'latin1');
  }

  run(rows: PartRows, at: number): void {
    const account = this.account;
    const entry = this.entry;
    const outcome = this.outcome;
    const row = rows.entries[at]!;
    const uid = rows.uids[at]!;
    entry.read(row);
    if (rows.kinds[at] !== 'patched') {
      outcome.add(uid, row, outcome.stateOf(entry.bits, entry.isDeleted, entry.modseq));
      return;
    }
    const bits = rows.bits[at]!;
    const isDeleted = wantedDeleted(entry.isDeleted, this.asked);
    const middle = this.middle(bits, isDeleted);
    const written = withEntryMiddle(row, entry.tail, middle);
    account.tx.set(rows.entryKeys[at]!, written);
    const isListedHere = rows.ranges.length > 0 && rows.messages[at] !== undefined && isListed(rows.ranges, uid);
    if (isListedHere) this.settled.push(uid);
    const threadId = this.changeMessage(rows, at, bits, entry.bits !== bits);
    const log = account.flagsChanged(this.mailboxId, 0, 0);
    log.add(uid, written, flagsOffset + middle.length, isDeleted, bits, threadId);
    this.unseen += (entry.bits & 1) - (bits & 1);
    this.deleted += Number(isDeleted) - Number(entry.isDeleted);
    this.hasWritten = true;
    outcome.add(uid, written, outcome.stateOf(bits, isDeleted, account.modseq));
  }

  /** Notes how the mailbox's counts have changed. */
  end(): void {
    if (this.hasWritten) this.account.flagsChanged(this.mailboxId, this.unseen, this.deleted);
  }

  /** Writes the message's row, if it is there. The thread of the message ('' where it is its own), if its keywords change. */
  private changeMessage(rows: PartRows, at: number, bits: number, areOthers: boolean): string | undefined {
    const row = rows.messages[at];
    if (!row) return undefined;
    this.message.read(row, this.mailboxIdBytes);
    this.account.tx.set(rows.messageKeys[at]!, withMessageBits(row, this.message, bits));
    return areOthers ? threadIdOf(row, this.message) : undefined;
  }

  private middle(bits: number, isDeleted: boolean): Buffer {
    const flags = bits * 2 + (isDeleted ? 1 : 0);
    let middle = this.middles.get(flags);
    if (!middle) {
      middle = entryMiddle(isDeleted, this.account.modseq, bits);
      this.middles.set(flags, middle);
    }
    return middle;
  }
}

/** The entries of rows that can't be patched as they are now, by UID; of those changed since, as they stay. */
async function changeUnusual(
  account: AccountChanges,
  mailboxId: MailboxId,
  rows: PartRows,
  asked: AskedFlags,
): Promise<Map<number, MailboxEntry>> {
  const result = new Map<number, MailboxEntry>();
  const touched: Plan[] = [];
  rows.kinds.forEach((kind, at) => {
    if (kind !== 'unusual' && kind !== 'refused') return;
    const entry = decodeEntry(rows.uids[at]!, rows.entries[at]!);
    if (kind === 'refused') {
      result.set(entry.uid, entry);
      return;
    }
    const plan = { entry, keywords: wantedKeywords(entry.keywords, asked), isDeleted: wantedDeleted(entry.isDeleted, asked) };
    if (plan.isDeleted === entry.isDeleted && sameKeywords(plan.keywords, entry.keywords)) result.set(entry.uid, entry);
    else touched.push(plan);
  });
  if (touched.length === 0) return result;
  const otherEntries = await changeMessages(account, mailboxId, touched);
  for (const { entry, keywords, isDeleted } of touched) {
    result.set(entry.uid, account.changeEntry(mailboxId, entry, { keywords, isDeleted }));
  }
  for (const { mailboxId: elsewhere, entry, keywords } of otherEntries) {
    account.changeEntry(elsewhere, entry, { keywords, isDeleted: entry.isDeleted });
  }
  return result;
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
  // They may have been changed by a range while they were in one mailbox only.
  const ranges = new Map<MailboxId, FlagRangeList>();
  for (const { mailboxId: elsewhere } of places) ranges.set(elsewhere, await account.flagRanges(elsewhere));
  const others: { mailboxId: MailboxId; entry: MailboxEntry }[] = [];
  places.forEach((place, at) => {
    const value = values[at];
    // A mailbox that is being removed has no counts any more; its entries are cleared soon.
    if (value && account.countsOf(place.mailboxId)) {
      const entry = decodeFolded(place.uid, value, ranges.get(place.mailboxId)!);
      others.push({ mailboxId: place.mailboxId, entry });
    }
  });
  return others;
}
