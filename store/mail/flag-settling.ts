/**
 * Brings rows of entries and messages up to date with the ranges that name them (`flag-ranges.ts`), in the background, part by part. Nothing changes by that
 * for anybody who reads: no modseq, nothing in the log. Whoever dies in between leaves the rest of the ranges, which everybody goes on folding in.
 */
import { counter, type Timer } from '../../ops/telemetry/index.js';
import { KvError, type KvTransaction } from '../kv/contract.js';
import type { MailContext } from './context.js';
import type { AccountId, MailboxId } from './contract.js';
import { getDense } from './dense-reads.js';
import { decodeFlagRanges, encodeFlagRanges, type FlagRangeList, foldRow, withoutListed } from './flag-ranges.js';
import { EntryFlags, MessageFlags, withMessageBits } from './flag-rows.js';
import type { AccountKeys } from './keys.js';
import { sameKeywords } from './keywords.js';
import type { SharedIndex } from './mailbox-index.js';
import { decodeCounts, decodeEntry, decodeMessage, decodeState, encodeCounts, encodeMessage, encodeState } from './records.js';
import { lowestUids, rangesOf } from './uid-ranges.js';

const settled = counter(
  'starling_mail_flag_ranges_settled_total',
  'Entries named by ranges of flags whose rows were brought up to date',
);
export interface FlagRangeSettings {
  /** Shorter lists of UIDs are changed row by row. */
  minUids: number;
  /** What one mailbox may have that is not written into its rows yet; what would be more is changed row by row. */
  maxRanges: number;
  maxBytes: number;
  /** Rows are brought up to date when a mailbox has had no such change for so long. */
  settleDelayMs: number;
  /** Between two transactions that bring rows up to date. */
  settlePauseMs: number;
}

export const defaultFlagRangeSettings: FlagRangeSettings = {
  minUids: 32,
  maxRanges: 16,
  maxBytes: 16_000,
  settleDelayMs: 20_000,
  settlePauseMs: 50,
};

/** Few, because all else of this node waits meanwhile. */
const entriesPerStep = 250;
const messagesPerRead = 1_000;

/** One transaction; answers whether there is more to do. Harmless to repeat: what is up to date stays as it is. */
export async function settleStep(
  context: Pick<MailContext, 'gate' | 'kv' | 'keysOf'>,
  accountId: AccountId,
  mailboxId: MailboxId,
  maxEntries: number = entriesPerStep,
): Promise<boolean> {
  for (let limit = maxEntries; ; limit = Math.max(1, limit >> 1)) {
    try {
      return await context.gate.runExclusive(accountId, () =>
        context.kv.transact((tx) => settlePart(tx, context.keysOf(accountId), mailboxId, limit), { label: 'mail-settle-flags' }),
      );
    } catch (error) {
      if (limit === 1 || !(error instanceof KvError && error.code === 'too-large')) throw error;
    }
  }
}

async function settlePart(tx: KvTransaction, keys: AccountKeys, mailboxId: MailboxId, limit: number): Promise<boolean> {
  // Read with a conflict and written, as by every change: nothing of the account changes between these reads and the commit.
  const stateValue = await tx.get(keys.state);
  if (!stateValue) return false;
  const state = decodeState(stateValue);
  if (state.ranged === 0) return false;
  const row = await tx.snapshot.get(keys.flagRanges(mailboxId));
  const ranges = decodeFlagRanges(row);
  // All that stands below the last of these goes, in every range: none of them gets into more pieces, so that the row only shrinks.
  const uids = lowestUids(
    ranges.map((range) => range.uids),
    limit,
  );
  await settleRows(tx, keys, mailboxId, uids, ranges);
  const rest = withoutListed(ranges, rangesOf(uids));
  if (rest.length > 0) tx.set(keys.flagRanges(mailboxId), encodeFlagRanges(rest));
  else if (row) {
    tx.clear(keys.flagRanges(mailboxId));
    state.ranged--;
  }
  if (row) tx.set(keys.state, encodeState(state));
  settled.inc(uids.length);
  return rest.length > 0;
}

async function settleRows(
  tx: KvTransaction,
  keys: AccountKeys,
  mailboxId: MailboxId,
  uids: readonly number[],
  ranges: FlagRangeList,
): Promise<void> {
  const entryKeys = uids.map((uid) => keys.entry(mailboxId, uid));
  const rows = await getDense(tx.snapshot, entryKeys, keys.density.entries);
  const entries: { row: Buffer; emailId: string }[] = [];
  rows.forEach((row, at) => {
    if (!row) return;
    const folded = foldRow(uids[at]!, row, ranges);
    if (folded !== row) tx.set(entryKeys[at]!, folded);
    entries.push({ row: folded, emailId: decodeEntry(uids[at]!, folded).emailId });
  });
  const messageKeys = entries.map(({ emailId }) => keys.message(emailId));
  const messages = await getDense(tx.snapshot, messageKeys, keys.density.messages);
  const writer = new MessageWriter(mailboxId);
  messages.forEach((message, at) => {
    const written = message && writer.withFlagsOf(entries[at]!.row, message, entries[at]!.emailId);
    if (written) tx.set(messageKeys[at]!, written);
  });
}

/** The rows of messages with the keywords of their entries. */
class MessageWriter {
  readonly #entry = new EntryFlags();
  readonly #message = new MessageFlags();
  readonly #mailboxId: Buffer;

  constructor(mailboxId: MailboxId) {
    this.#mailboxId = Buffer.from(mailboxId, 'latin1');
  }

  /** Undefined where the row has them already. */
  withFlagsOf(entryRow: Buffer, row: Buffer, emailId: string): Buffer | undefined {
    if (this.#entry.read(entryRow) && this.#message.read(row, this.#mailboxId)) {
      return this.#entry.bits === this.#message.bits ? undefined : withMessageBits(row, this.#message, this.#entry.bits);
    }
    const { keywords } = decodeEntry(0, entryRow);
    const message = decodeMessage(emailId, row);
    return sameKeywords(message.keywords, keywords) ? undefined : encodeMessage({ ...message, keywords });
  }
}

/**
 * Counts the messages of a mailbox that are in another one as well, and notes it with the mailbox's counts: for mailboxes of an earlier release. False where
 * the account changed meanwhile, or nobody waits for it any more.
 */
export async function countShared(
  context: Pick<MailContext, 'gate' | 'kv' | 'keysOf'>,
  accountId: AccountId,
  index: SharedIndex,
  signal?: AbortSignal,
): Promise<boolean> {
  const keys = context.keysOf(accountId);
  const { mailboxId } = index;
  await index.refresh();
  const { modseq } = index;
  const mailbox = Buffer.from(mailboxId, 'latin1');
  const flags = new MessageFlags();
  let shared = 0;
  for (let from = 0; from < index.size; from += messagesPerRead) {
    if (index.modseq !== modseq || signal?.aborted) return false;
    const view = index.columns();
    const ids: string[] = [];
    for (let at = from; at < Math.min(from + messagesPerRead, index.size); at++) ids.push(view.emailIdAt(at));
    const wanted = ids.map((id) => keys.message(id));
    const [rows, stateValue] = await context.kv.read((reads) =>
      Promise.all([getDense(reads, wanted, keys.density.messages), reads.get(keys.state)]),
    );
    // Of another state than this they may be: the rest would be read for nothing.
    if (!stateValue || decodeState(stateValue).modseq !== modseq) return false;
    rows.forEach((row, at) => {
      if (!row || flags.read(row, mailbox)) return;
      if (Object.keys(decodeMessage(ids[at]!, row).mailboxes).length > 1) shared++;
    });
  }
  return context.gate.runExclusive(accountId, () =>
    context.kv.transact(
      async (tx) => {
        const [stateValue, value] = await Promise.all([tx.get(keys.state), tx.snapshot.get(keys.counts(mailboxId))]);
        const state = stateValue && decodeState(stateValue);
        // Of another state than this the rows may have been.
        if (!state || state.modseq !== modseq || !value) return false;
        state.placesSince ??= modseq;
        tx.set(keys.counts(mailboxId), encodeCounts({ ...decodeCounts(value), shared, sharedAt: modseq }));
        tx.set(keys.state, encodeState(state));
        return true;
      },
      { label: 'mail-count-shared' },
    ),
  );
}

/** What this node has begun to settle, or will. */
export class FlagSettling {
  readonly #timers = new Map<string, Timer>();
  /** Mailboxes whose turn has not come yet. */
  readonly #due = new Set<string>();
  readonly #counting = new Set<string>();
  readonly #running = new Set<Promise<void>>();
  readonly #closing = new AbortController();
  #last: Promise<void> = Promise.resolve();

  constructor(
    private readonly context: MailContext,
    private readonly settings: FlagRangeSettings,
  ) {}

  /** When the mailbox has had no more ranges for a while. */
  later(accountId: AccountId, mailboxId: MailboxId): void {
    if (this.#closing.signal.aborted) return;
    const name = `${accountId}/${mailboxId}`;
    this.#timers.get(name)?.cancel();
    const begin = () => {
      this.#timers.delete(name);
      this.now(accountId, mailboxId);
    };
    this.#timers.set(name, this.context.clock.setTimer(this.settings.settleDelayMs, begin, { background: true }));
  }

  now(accountId: AccountId, mailboxId: MailboxId): void {
    const name = `${accountId}/${mailboxId}`;
    if (this.#closing.signal.aborted || this.#due.has(name)) return;
    this.#due.add(name);
    this.#run(accountId, () => {
      this.#due.delete(name);
      return this.#settle(accountId, mailboxId);
    });
  }

  /** See `countShared`; once at a time. */
  countShared(accountId: AccountId, index: SharedIndex): void {
    const name = `${accountId}/${index.mailboxId}`;
    if (this.#closing.signal.aborted || this.#counting.has(name)) return;
    this.#counting.add(name);
    this.#run(accountId, async () => {
      try {
        await countShared(this.context, accountId, index, this.#closing.signal);
      } finally {
        this.#counting.delete(name);
      }
    });
  }

  /** All mailboxes of an account, now. */
  async settleAccount(accountId: AccountId): Promise<void> {
    const keys = this.context.keysOf(accountId);
    const { begin, end } = keys.allFlagRanges;
    const rows = await this.context.kv.read(async (reads) => {
      const state = await reads.get(keys.state);
      return state && decodeState(state).ranged > 0 ? reads.getRange(begin, end) : [];
    });
    for (const { key } of rows) await this.#settle(accountId, keys.flagRangesMailbox(key));
  }

  /** Waits for what runs. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    for (const timer of this.#timers.values()) timer.cancel();
    this.#timers.clear();
    await this.idle();
  }

  /** One after another: this is never urgent. */
  #run(accountId: AccountId, work: () => Promise<void>): void {
    const run: Promise<void> = this.#last
      .then(work)
      .catch((error: unknown) => {
        if (!this.#closing.signal.aborted) this.context.logger.warn({ err: error, accountId }, 'flags were not settled');
      })
      .finally(() => this.#running.delete(run));
    this.#last = run;
    this.#running.add(run);
  }

  async #settle(accountId: AccountId, mailboxId: MailboxId): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted && (await settleStep(this.context, accountId, mailboxId))) {
      // Who closes while this pauses ends it, which is no failure.
      await this.context.clock.sleep(this.settings.settlePauseMs, signal).catch(() => undefined);
    }
  }
}
