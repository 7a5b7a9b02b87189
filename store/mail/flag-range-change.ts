/**
 * One change of flags for many messages of a mailbox: written as one range and one item of the log, planned over the columns of the mailbox's index instead of
 * its rows. Only where the index is in memory and exactly of the state that the transaction reads, and where no message concerned can be in another mailbox as
 * well (keywords are the message's). Everything else goes the way of `flags.ts`.
 */
import { counter } from '../../ops/telemetry/index.js';
import type { AccountChanges } from './account-changes.js';
import { changeAccount, type MailContext } from './context.js';
import type { AccountId, FlagResult, FlagState, MailboxEntry, MailboxId } from './contract.js';
import { type AskedFlags, wantedDeleted, wantedKeywords } from './flag-plan.js';
import {
  changedDeleted,
  changedKeywords,
  deletedBit,
  encodeFlagRanges,
  type FlagRange,
  keywordBits,
  type RangeChange,
  withRange,
} from './flag-ranges.js';
import type { FlagRangeSettings, FlagSettling } from './flag-settling.js';
import { encodeKeywords, isSeen, sameKeywords } from './keywords.js';
import type { SharedIndex } from './mailbox-index.js';
import { sameCounts } from './records.js';
import { rangesOf } from './uid-ranges.js';

const ways = counter('starling_mail_flag_ranges_total', 'Changes of many flags: written as a range, or why not', ['outcome']);

/** What changes by ranges need besides. */
export interface FlagRangeWays {
  settings: FlagRangeSettings;
  /** Whether every node that may read this store knows ranges. */
  mayWrite(): boolean;
  /** The index of a mailbox, where it is in memory already. */
  loadedIndex(accountId: AccountId, mailboxId: MailboxId): SharedIndex | undefined;
  settling: FlagSettling;
}

/** Why it has to be done row by row. */
export type Obstacle = 'few' | 'not-allowed' | 'no-index' | 'unknown-places' | 'shared' | 'other-state' | 'too-many' | 'unusual';

/** An obstacle, with nothing changed, where it has to be done row by row; `clearObstacle` is to be called after that. Throws `no-mailbox`. */
export async function changeByRange(
  context: MailContext,
  how: FlagRangeWays,
  accountId: AccountId,
  mailboxId: MailboxId,
  uids: readonly number[],
  asked: AskedFlags,
): Promise<FlagResult | Obstacle> {
  if (uids.length < how.settings.minUids) return 'few';
  if (!how.mayWrite()) return 'not-allowed';
  const index = how.loadedIndex(accountId, mailboxId);
  if (!index) return 'no-index';
  const done = await changeAccount(context, accountId, 'flags', (account) =>
    changeInOne(account, index, mailboxId, uids, asked, how.settings),
  );
  if (typeof done === 'string') {
    ways.inc({ outcome: done });
    return done;
  }
  ways.inc({ outcome: done.hasChanged ? 'range' : 'same' });
  if (done.hasChanged) how.settling.later(accountId, mailboxId);
  return done;
}

/** Begins in the background what may help the next change of the mailbox. */
export function clearObstacle(how: FlagRangeWays, accountId: AccountId, mailboxId: MailboxId, obstacle: Obstacle): void {
  if (obstacle === 'too-many') how.settling.now(accountId, mailboxId);
  const index = obstacle === 'unknown-places' ? how.loadedIndex(accountId, mailboxId) : undefined;
  if (index) how.settling.countShared(accountId, index);
}

async function changeInOne(
  account: AccountChanges,
  index: SharedIndex,
  mailboxId: MailboxId,
  uids: readonly number[],
  asked: AskedFlags,
  settings: FlagRangeSettings,
): Promise<RangeOutcome | Obstacle> {
  const [counts] = await account.load([mailboxId], [account.keys.counts(mailboxId)]);
  account.needMailbox(mailboxId);
  const shared = account.sharedIn(mailboxId);
  if (shared !== 0) return shared === undefined ? 'unknown-places' : 'shared';
  const before = await account.flagRanges(mailboxId);
  const isSameState = () => {
    const known = index.exists && index.modseq === account.state.modseq ? index.counts : undefined;
    return known !== undefined && counts !== undefined && sameCounts(known, counts);
  };
  if (!isSameState()) await index.refresh();
  // From here on nothing is waited for: the columns are those of the state that this transaction reads, or it will fail.
  if (!isSameState()) return 'other-state';
  const change = rangeChangeOf(asked);
  const outcome = new RangeOutcome(index);
  const plan = planOver(index, uids, asked, change, account.modseq, outcome);
  if (!plan) return 'unusual';
  if (plan.changed.length === 0) return outcome;
  const range: FlagRange = { modseq: account.modseq, uids: rangesOf(plan.changed), change };
  const ranges = withRange(before, range);
  if (ranges.length > settings.maxRanges) return 'too-many';
  if (encodeFlagRanges(ranges).length > settings.maxBytes) return 'too-many';
  account.changeRange(mailboxId, range, ranges, plan.unseen, plan.deleted);
  outcome.hasChanged = true;
  return outcome;
}

/** The change without the present flags in it. */
export function rangeChangeOf({ mode, keywords, deleted, allowed }: AskedFlags): RangeChange {
  const encoded = encodeKeywords(keywords);
  const seen = encodeKeywords(['$seen']).bits;
  const mask = allowed ? (allowed.seen ? seen : 0) | (allowed.others ? keywordBits & ~seen : 0) : keywordBits;
  const mayOthers = allowed?.others ?? true;
  const mayDeleted = allowed?.deleted ?? true;
  const others = mayOthers && encoded.others !== 0 ? encoded.others : [];
  const given = (encoded.bits & mask) | (deleted && mayDeleted ? deletedBit : 0);
  if (mode === 'add') return { set: given, clear: 0, adds: others, removes: [], clearsOthers: false };
  if (mode === 'remove') return { set: 0, clear: given, adds: [], removes: others, clearsOthers: false };
  const clear = mask | (mayDeleted ? deletedBit : 0);
  return { set: given, clear, adds: others, removes: [], clearsOthers: mayOthers };
}

interface RangePlan {
  /** UIDs whose flags really change, ascending. */
  changed: number[];
  /** Differences of the counts. */
  unseen: number;
  deleted: number;
}

/** What becomes of entries with equal flags. */
interface NextFlags {
  isSame: boolean;
  state: FlagState;
  unseen: number;
  deleted: number;
}

/** Fills in the outcome. Undefined where the change does not do to some entry what the request asks for. */
function planOver(
  index: SharedIndex,
  uids: readonly number[],
  asked: AskedFlags,
  change: RangeChange,
  modseq: number,
  outcome: RangeOutcome,
): RangePlan | undefined {
  const view = index.columns();
  const { unchangedSince = Number.POSITIVE_INFINITY } = asked;
  const plan: RangePlan = { changed: [], unseen: 0, deleted: 0 };
  const nextByFlags = new Map<number, NextFlags | undefined>();
  const nextOf = (flags: number): NextFlags | undefined => {
    const [keywords, isDeleted] = [view.keywordsOf(flags), view.isDeletedOf(flags)];
    const state = { keywords: changedKeywords(keywords, change), isDeleted: changedDeleted(isDeleted, change), modseq };
    const wanted = wantedKeywords(keywords, asked);
    if (!sameKeywords(state.keywords, wanted) || state.isDeleted !== wantedDeleted(isDeleted, asked)) return undefined;
    return {
      isSame: state.isDeleted === isDeleted && sameKeywords(state.keywords, keywords),
      state,
      unseen: Number(isSeen(keywords)) - Number(isSeen(state.keywords)),
      deleted: Number(state.isDeleted) - Number(isDeleted),
    };
  };
  let lastFlags = -1;
  let next: NextFlags | undefined;
  for (let at = 0, place = 0; at < uids.length; at++) {
    const uid = uids[at]!;
    // As a rule the next one is the next one there as well.
    if (view.uids[place] !== uid) place = view.positionOf(uid);
    if (place < 0) {
      place = 0;
      continue;
    }
    const flags = view.flagsAt(place);
    if (flags !== lastFlags) {
      if (!nextByFlags.has(flags)) nextByFlags.set(flags, nextOf(flags));
      next = nextByFlags.get(flags);
      lastFlags = flags;
    }
    const isRefused = unchangedSince !== Number.POSITIVE_INFINITY && view.modseqAt(place) > unchangedSince;
    if (isRefused) outcome.modified.push(uid);
    else if (!next) return undefined;
    if (isRefused || next!.isSame) {
      outcome.add(uid, outcome.unchanged(flags, view.modseqAt(place), view));
    } else {
      outcome.add(uid, next!.state);
      plan.changed.push(uid);
      plan.unseen += next!.unseen;
      plan.deleted += next!.deleted;
    }
    place++;
  }
  return plan;
}

class RangeOutcome implements FlagResult {
  readonly uids: number[] = [];
  readonly states: FlagState[] = [];
  readonly modified: number[] = [];
  hasChanged = false;
  private last: FlagState | undefined;
  private lastFlags = -1;

  constructor(private readonly index: SharedIndex) {}

  /** Flags are as they were when this was made; what has been expunged since is passed over. */
  get entries(): MailboxEntry[] {
    return this.uids.flatMap((uid, at) => {
      const entry = this.index.get(uid);
      return entry ? [{ ...entry, ...this.states[at]! }] : [];
    });
  }

  add(uid: number, state: FlagState): void {
    this.uids.push(uid);
    this.states.push(state);
  }

  unchanged(flags: number, modseq: number, view: ReturnType<SharedIndex['columns']>): FlagState {
    if (!this.last || flags !== this.lastFlags || modseq !== this.last.modseq) {
      this.last = { keywords: view.keywordsOf(flags), isDeleted: view.isDeletedOf(flags), modseq };
      this.lastFlags = flags;
    }
    return this.last;
  }
}
