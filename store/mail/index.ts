/**
 * The mail store: mailbox semantics once, for IMAP, JMAP, POP3 and delivery. The contract stands in `contract.ts`; this file puts the parts
 * together.
 */
import type { Clock, Logger, Random } from '../../ops/telemetry/index.js';
import type { BlobStore } from '../blobs/contract.js';
import { KvError, type KvStore } from '../kv/contract.js';
import { ensureAccount, usage } from './account.js';
import { insertOverheadBytes, maxCombinedBytes } from './account-changes.js';
import { mailAnnotations } from './annotations.js';
import { combinedChanges } from './combined-changes.js';
import { type ChangeContext, changeAccount, type MailContext, openChanges } from './context.js';
import {
  type AccountId,
  type ChangeHints,
  type ChangeNotice,
  type EmailId,
  type InsertedMessage,
  type MailboxId,
  MailError,
  type MailStore,
  mailLimits,
  type NewMessage,
} from './contract.js';
import { copyBetween } from './copy-between.js';
import { copyMessages, moveMessages } from './copy-move.js';
import { expunge } from './expunge.js';
import type { FlagRangeWays } from './flag-range-change.js';
import { defaultFlagRangeSettings, type FlagRangeSettings, FlagSettling } from './flag-settling.js';
import { changeFlags } from './flags.js';
import { AccountCombiner, AccountGate, type Outcome } from './gate.js';
import { newChangeToken } from './ids.js';
import { IndexCache } from './index-cache.js';
import { defaultSnapshotSettings, type SnapshotSettings } from './index-snapshots.js';
import { accountKeysCache } from './keys.js';
import { readLineEnds } from './line-ends.js';
import { MailboxGrowth } from './mailbox-growth.js';
import { MailboxPlaces } from './mailbox-places.js';
import { createMailbox, dropMailbox, type MailboxPatch, renameMailbox, setSubscribed, updateMailbox } from './mailboxes.js';
import { accountExists, readMessageIds } from './message-ids.js';
import { ChangeNotices } from './notices.js';
import { readChanges, readEntries, readEntryAt, readMessages, readSummaries, truncateLog } from './reading.js';
import { RecentMarks } from './recent.js';
import { recount } from './recount.js';
import { finishMailboxRemoval, removalStep, removeAccount, resumeAccountRemovals } from './removal.js';
import { replaceMessage } from './replace.js';
import { mailSharing } from './sharing.js';
import { readMailbox } from './tree.js';
import { TreeCache } from './tree-cache.js';

export { effectiveRights, identifiersOf, rightsOf } from './acl.js';
export * from './contract.js';
export { AccountCombiner, AccountGate, type CombinerOptions, type Outcome } from './gate.js';
export type { MailboxPatch } from './mailboxes.js';
export {
  createMaildropLocks,
  type MaildropLock,
  MaildropLockLost,
  type MaildropLocks,
} from './maildrop-lock.js';

/** Appends of several sessions that share one transaction. */
const maxCombinedAppends = 100;
const defaultIndexCacheBytes = 128 * 1024 * 1024;

export interface MailStoreOptions {
  kv: KvStore;
  blobs: BlobStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Memory for mailbox indexes; those that sessions hold count, and stay even where there is no room. May change. Default 128 MiB. */
  indexCacheBytes?: () => number;
  indexSnapshots?: Partial<SnapshotSettings>;
  flagRanges?: Partial<FlagRangeSettings>;
  /** Whether every node that may read this store knows changes of flags by range. Default: yes. */
  mayWriteFlagRanges?: () => boolean;
}

/** The contract, and what a node needs besides. */
export interface OpenMailStore extends MailStore, ChangeHints {
  /** Order among this process' changes to one account; delivery goes through it too, and may combine messages behind it. */
  readonly gate: AccountGate;
  /** Goes on with removals of mailboxes (or of the account) that were begun and not ended, here or by a node that died, and settles flags (`settleFlags`). */
  resumeRemovals(accountId: AccountId): Promise<void>;
  /** Brings all rows up to date that changes of flags have left for later. Nothing changes by that for who reads. */
  settleFlags(accountId: AccountId): Promise<void>;
  /** Role, order and subscription by id. Throws `no-mailbox`, `not-allowed`. */
  updateMailbox(accountId: AccountId, id: MailboxId, patch: MailboxPatch): Promise<void>;
  /** Ids of an account's messages, ascending, at most `limit` of those after `afterId`; for whoever looks at each message once. */
  messageIds(accountId: AccountId, options: { afterId?: EmailId; limit: number }): Promise<EmailId[]>;
  /** False for an account that was never set up, or was removed. */
  exists(accountId: AccountId): Promise<boolean>;
  /** Waits for the removals, and for the snapshots of mailbox indexes, that go on in the background. */
  idle(): Promise<void>;
  /** Lets go of listeners and watches and waits for the background; the store is closed by whoever opened it. */
  close(): Promise<void>;
}

interface Append {
  messages: readonly NewMessage[];
  quotaLimitBytes?: number;
}

/** The mail store on `kv` and `blobs`. */
export function createMailStore(options: MailStoreOptions): OpenMailStore {
  const { kv, blobs, clock, random } = options;
  const logger = options.logger.child({ room: 'mail' });
  const gate = new AccountGate();
  const keysOf = accountKeysCache();
  const notices = new ChangeNotices({ kv, clock, random, logger, keysOf });
  const announce = (notice: ChangeNotice | undefined) => notices.announce(notice);
  const parts: ChangeContext = { kv, blobs, clock, random, logger, gate, keysOf, announce };
  const context: MailContext = { ...parts, changeTogether: combinedChanges(parts) };
  const trees = new TreeCache(context);
  const places = new MailboxPlaces(context);
  const indexes = new IndexCache(context, {
    maxBytes: options.indexCacheBytes ?? (() => defaultIndexCacheBytes),
    snapshots: { ...defaultSnapshotSettings, ...options.indexSnapshots },
  });
  const rangeSettings = { ...defaultFlagRangeSettings, ...options.flagRanges };
  const settling = new FlagSettling(context, rangeSettings);
  const ranges: FlagRangeWays = {
    settings: rangeSettings,
    mayWrite: options.mayWriteFlagRanges ?? (() => true),
    loadedIndex: (accountId, mailboxId) => indexes.loaded(accountId, mailboxId),
    settling,
  };
  const recent = new RecentMarks(context);
  const appends = combinedAppends(context);
  const growth = new MailboxGrowth(context, indexes.minSnapshotChanges, async (accountId, mailboxId) => {
    (await indexes.open(accountId, mailboxId)).release();
  });
  const background = new BackgroundRemovals(context);

  return {
    gate,
    openWriter: (tx, accountId, expected) => openChanges(context, tx, accountId, newChangeToken(random), expected),
    announce,
    announcePerhaps: (notice) => notices.announcePerhaps(notice),

    ensureAccount: (accountId) => ensureAccount(context, accountId),
    usage: (accountId) => usage(context, accountId),
    recount: (accountId) => recount(context, accountId),
    removeAccount: (accountId) => removeAccount(context, accountId),
    settleFlags: (accountId) => settling.settleAccount(accountId),
    resumeRemovals: async (accountId) => {
      await resumeAccountRemovals(context, accountId);
      await settling.settleAccount(accountId);
    },

    mailboxes: (accountId) => trees.read(accountId),
    mailboxByPath: (accountId, path) => places.byPath(accountId, path),
    mailboxById: (accountId, id) => kv.read((reads) => readMailbox(reads, keysOf(accountId), id)),
    createMailbox: async (accountId, path, settings) => createMailbox(context, accountId, path, settings),
    renameMailbox: (accountId, from, to) => renameMailbox(context, accountId, from, to),
    deleteMailbox: async (accountId, path) => background.clear(accountId, await dropMailbox(context, accountId, path)),
    setSubscribed: (accountId, path, subscribed) => setSubscribed(context, accountId, path, subscribed),
    updateMailbox: (accountId, id, patch) => updateMailbox(context, accountId, id, patch),

    append: async (accountId, messages, settings) => {
      const inserted = await append(appends, accountId, { messages, ...settings });
      growth.note(accountId, inserted);
      return inserted;
    },
    changeFlags: (accountId, mailboxId, uids, change) => changeFlags(context, ranges, accountId, mailboxId, uids, change),
    copy: (accountId, from, uids, to, settings) => copyMessages(context, accountId, from, uids, to, settings),
    move: (accountId, from, uids, to, settings) => moveMessages(context, accountId, from, uids, to, settings),
    replace: (from, uid, to, message, settings) => replaceMessage(context, from, uid, to, message, settings),
    expunge: (accountId, mailboxId, uids, settings) => expunge(context, accountId, mailboxId, uids, settings),

    copyBetween: (from, uids, to, settings) => copyBetween(context, from, uids, to, settings),
    sharing: mailSharing(context),
    annotations: mailAnnotations(context),
    recent,

    entries: (accountId, mailboxId, range) => readEntries(context, accountId, mailboxId, range),
    messages: (accountId, ids) => readMessages(context, accountId, ids),
    summaries: (accountId, ids) => readSummaries(context, accountId, ids),
    missingLineEnds: (accountId, settings) => readLineEnds(context, accountId, settings),
    changesSince: (accountId, modseq, limit) => readChanges(context, accountId, modseq, limit),
    truncateLog: (accountId, upToModseq) => truncateLog(context, accountId, upToModseq),
    openIndex: (accountId, mailboxId, asOf) => indexes.open(accountId, mailboxId, asOf),
    onChange: (accountId, listener) => notices.onChange(accountId, listener),
    heard: (notice) => notices.heard(notice),
    recheckWatched: () => notices.recheckWatched(),
    onLocalChange: (listener) => notices.onLocalChange(listener),
    entryAt: (reads, accountId, mailboxId, uid) => readEntryAt(context, reads, accountId, mailboxId, uid),

    messageIds: (accountId, settings) => readMessageIds(context, accountId, settings),
    exists: (accountId) => accountExists(context, accountId),

    idle: async () => {
      await background.idle();
      await settling.idle();
      await indexes.idle();
      await recent.idle();
    },
    close: async () => {
      notices.close();
      await growth.close();
      await recent.close();
      await settling.close();
      await background.idle();
      await indexes.close();
    },
  };
}

async function append(
  appends: AccountCombiner<Append, InsertedMessage[]>,
  accountId: AccountId,
  item: Append,
): Promise<InsertedMessage[]> {
  if (item.messages.length === 0) return [];
  if (item.messages.length > mailLimits.maxMessagesPerTransaction) {
    throw new MailError('too-many', `at most ${mailLimits.maxMessagesPerTransaction} messages are appended at once`);
  }
  return appends.submit(accountId, item);
}

/** Appends that wait for one account go into one transaction; each of them is all or nothing on its own. */
function combinedAppends(context: MailContext): AccountCombiner<Append, InsertedMessage[]> {
  return new AccountCombiner({
    gate: context.gate,
    maxItems: maxCombinedAppends,
    maxBytes: maxCombinedBytes,
    bytesOf: (item) =>
      item.messages.reduce((sum, { blob, summary }) => sum + blob.sizeBytes + summary.length + insertOverheadBytes, 0),
    // What one item did wrong (a lost upload, too many bytes) must not fail the others.
    shouldSplit: (error) => !(error instanceof KvError) || error.code === 'too-large',
    run: (accountId, items) =>
      changeAccount(
        context,
        accountId,
        'append',
        async (account) => {
          const outcomes: Outcome<InsertedMessage[]>[] = [];
          for (const item of items) {
            try {
              outcomes.push({ value: await account.insertAll(item.messages, item) });
            } catch (error) {
              // These come before the first write of their item.
              if (!(error instanceof MailError || error instanceof RangeError)) throw error;
              outcomes.push({ error });
            }
          }
          return outcomes;
        },
        { insideGate: true, expected: items.flatMap(({ messages }) => messages) },
      ),
  });
}

/** Clearing of removed mailboxes that their owner need not wait for. */
class BackgroundRemovals {
  private readonly running = new Set<Promise<void>>();

  constructor(private readonly context: MailContext) {}

  /** Waits for the first step, which clears a small mailbox whole; the rest goes on by itself. The mailbox is gone already, so failures are only noted. */
  async clear(accountId: AccountId, mailboxId: MailboxId): Promise<void> {
    try {
      if (!(await removalStep(this.context, accountId, mailboxId))) return;
    } catch (error) {
      this.note(error, accountId, mailboxId);
      return;
    }
    const run: Promise<void> = finishMailboxRemoval(this.context, accountId, mailboxId)
      .catch((error: unknown) => this.note(error, accountId, mailboxId))
      .finally(() => this.running.delete(run));
    this.running.add(run);
  }

  private note(error: unknown, accountId: AccountId, mailboxId: MailboxId): void {
    this.context.logger.warn({ err: error, accountId, mailboxId }, 'a removed mailbox is not cleared yet');
  }

  async idle(): Promise<void> {
    while (this.running.size > 0) await Promise.all(this.running);
  }
}
