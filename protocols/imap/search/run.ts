/**
 * One running search: the columns of the index decide first, in slices that leave the event loop free, then the full-text index where texts are asked for, then
 * the summaries of what is left, and last the messages themselves.
 */
import { type BlobId, BlobMissing, type BlobStore } from '../../../store/blobs/contract.js';
import type { MailboxEntry, Message, UidList } from '../../../store/mail/contract.js';
import type { SearchView } from '../../../store/search/contract.js';
import type { SessionContext } from '../context.js';
import type { SearchKey } from '../grammar/search-keys.js';
import { lowerBound, type Ranges } from '../grammar/sequence-set.js';
import { messageLimit, refusedByLimit } from '../message-limit.js';
import type { SelectedMailbox } from '../selected.js';
import { knownFacts } from '../sorting/facts-cache.js';
import { readSummaries } from '../summaries.js';
import { beginsWith, learnNumbers } from './document-numbers.js';
import { evaluate, type Facts, needsThreadId } from './evaluation.js';
import { askIndex } from './full-text.js';
import { asksForSentDate, CompiledSearch, type ResolvedSets, type Surroundings, unknown, yes } from './program.js';
import { Turns } from './turns.js';

/** Messages whose summaries are read at one time. */
const summaryBatch = 250;
/** Summaries that are looked at between two looks at the clock: a program may have thousands of texts. */
const messagesPerTurn = 16;
/** Tests between two looks at the clock. */
const testsPerTurn = 1_000_000;
/** Bytes of messages that are read at one time, unless a single one is larger. */
const maxBytesAtOnce = 4_194_304;
/** One in so many messages of a mailbox has to be asked about before the documents of all are looked up. */
const learnShare = 8;
/** So few messages are read sooner than the full-text index is asked. */
const readsCheaperThanIndex = 8;

/** What a search has found among the announced messages. */
export interface Found {
  /** The announced UIDs that were looked through. */
  announced: UidList;
  /** Positions in `announced` (sequence numbers - 1), ascending. */
  positions: Uint32Array;
  /** The lowest UID that was looked at, where the limit for one command left out others. */
  lowestUid?: number;
}

/**
 * Sets of the program as ranges of UIDs, and `$` once for all its occurrences: a command can name a large mailbox thousands of times. A sequence number beyond
 * the mailbox names no message, and so finds none.
 */
export function resolveSets(selected: SelectedMailbox, program: SearchKey): ResolvedSets {
  const sets = new Map<SearchKey, Ranges>();
  let saved: Ranges | undefined;
  const visit = (key: SearchKey): void => {
    if (key.kind === 'sequence' || key.kind === 'uid') {
      if (key.set.kind === 'saved') saved ??= selected.rangesOf(key.set, true);
      sets.set(key, key.set.kind === 'saved' ? saved! : selected.rangesOf(key.set, key.kind === 'uid'));
    } else if (key.kind === 'recent') sets.set(key, selected.recent?.ranges ?? []);
    else if (key.kind === 'and') for (const inner of key.keys) visit(inner);
    else if (key.kind === 'not') visit(key.key);
    else if (key.kind === 'or') {
      visit(key.left);
      visit(key.right);
    }
  };
  visit(program);
  return sets;
}

/**
 * Looks through the announced messages as they are now; of more than one command may work on, through the last ones (RFC 9738), or with `whole` not at all: then
 * throws a refusal. Throws ConnectionClosed, KvError.
 */
export function runSearch(
  context: SessionContext,
  selected: SelectedMailbox,
  key: SearchKey,
  sets: ResolvedSets,
  whole: boolean,
  opening?: Promise<SearchView | undefined>,
): Promise<Found> {
  return new SearchRun(context, selected, key, sets, undefined, opening).run({ maxMessages: messageLimit(context), whole });
}

/** The same for these UIDs alone (ascending, announced). */
export function matching(
  context: SessionContext,
  selected: SelectedMailbox,
  key: SearchKey,
  sets: ResolvedSets,
  uids: UidList,
): Promise<Found> {
  return new SearchRun(context, selected, key, sets, uids).run();
}

/** Undefined for a message that was expunged, and purged, since we looked. */
async function readOrMissing(blobs: BlobStore, id: BlobId): Promise<Buffer | undefined> {
  try {
    return await blobs.read(id);
  } catch (error) {
    if (error instanceof BlobMissing) return undefined;
    throw error;
  }
}

class SearchRun {
  readonly #context: SessionContext;
  readonly #selected: SelectedMailbox;
  readonly #key: SearchKey;
  #around: Surroundings;
  readonly #uids: UidList;
  readonly #verdicts: Uint8Array;
  readonly #needsThreadId: boolean;
  readonly #turns: Turns;
  readonly #opening: Promise<SearchView | undefined> | undefined;

  /** `opening`: the full-text index, where it was asked for before. */
  constructor(
    context: SessionContext,
    selected: SelectedMailbox,
    key: SearchKey,
    sets: ResolvedSets,
    uids: UidList = selected.uids,
    opening?: Promise<SearchView | undefined>,
  ) {
    this.#context = context;
    this.#opening = opening;
    this.#selected = selected;
    this.#key = key;
    const comparableModseq = (modseq: number) => selected.index.comparableModseq(modseq);
    this.#around = { sets, nowMs: context.services.clock.nowMs(), comparableModseq };
    this.#uids = uids;
    this.#verdicts = new Uint8Array(uids.length);
    this.#needsThreadId = needsThreadId(key);
    this.#turns = new Turns(context);
  }

  async run(limit?: { maxMessages: number; whole: boolean }): Promise<Found> {
    const compiled = new CompiledSearch(this.#key, this.#around);
    let slices = slicesOf(this.#uids, compiled.bounds);
    const first = limit ? firstWithin(slices, limit.maxMessages) : 0;
    const lowestUid = first > 0 ? this.#uids[first]! : undefined;
    if (lowestUid !== undefined && limit?.whole) throw refusedByLimit(this.#context);
    if (first === 0 && !compiled.bounds) {
      const all = this.#ofFlags(compiled);
      if (all) return { announced: this.#uids, positions: all };
    }
    slices = slicesFrom(slices, first);
    for (let i = 0; i < slices.length; i += 2) await this.#scan(compiled, slices[i]!, slices[i + 1]!);
    let undecided = this.#positionsOf(unknown);
    if (undecided.length > readsCheaperThanIndex && asksForSentDate(this.#key)) {
      // SORT has perhaps left them behind; they are not worth reading all for this.
      const facts = knownFacts(this.#context, this.#selected);
      if (facts) {
        this.#around = { ...this.#around, sentDayOf: (uid) => facts.sentDayOf(uid) };
        await this.#rescan(new CompiledSearch(this.#key, this.#around), undecided);
        undecided = this.#positionsOf(unknown);
      }
    }
    if (undecided.length > readsCheaperThanIndex) {
      const { index, accountId } = this.#selected;
      const prepare = async (view: SearchView) => {
        // For a few of many it is not worth it.
        if (undecided.length * learnShare >= index.size) await learnNumbers(view, index, this.#turns);
      };
      const answers = await askIndex(this.#context, accountId, this.#key, prepare, this.#opening);
      if (answers) {
        await this.#rescan(new CompiledSearch(this.#key, { ...this.#around, answers }), undecided);
        undecided = this.#positionsOf(unknown);
      }
    }
    for (let from = 0; from < undecided.length; from += summaryBatch) {
      await this.#decide(undecided.subarray(from, from + summaryBatch));
      await this.#turns.give(from, undecided.length);
    }
    const found: Found = { announced: this.#uids, positions: this.#positionsOf(yes) };
    return lowestUid === undefined ? found : { ...found, lowestUid };
  }

  /** All that match, where the columns are those of the announced messages and nothing but flags is asked for. */
  #ofFlags(compiled: CompiledSearch): Uint32Array | undefined {
    const view = this.#selected.index.view();
    if (!beginsWith(view.uids, this.#uids)) return undefined;
    compiled.use(view);
    return compiled.matchingFlags(this.#uids.length);
  }

  /** The columns decide about the positions [from, to). */
  async #scan(compiled: CompiledSearch, from: number, to: number): Promise<void> {
    const { index } = this.#selected;
    const uids = this.#uids;
    const verdicts = this.#verdicts;
    const slice = Math.max(64, Math.floor(testsPerTurn / compiled.cost));
    for (let start = from; start < to; start += slice) {
      const view = index.view();
      compiled.use(view);
      if (start === 0 && to === uids.length && beginsWith(view.uids, uids) && compiled.testAll(verdicts)) return;
      const end = Math.min(start + slice, to);
      let at = -1;
      for (let i = start; i < end; i++) {
        const uid = uids[i]!;
        // Both lists ascend: the next one mostly stands at the next position.
        if (view.uids[++at] !== uid && (at = view.positionOf(uid)) < 0) continue;
        verdicts[i] = compiled.test(at, uid);
      }
      await this.#turns.give(end, uids.length);
    }
  }

  /** The same for some positions. */
  async #rescan(compiled: CompiledSearch, positions: Uint32Array): Promise<void> {
    const slice = Math.max(64, Math.floor(testsPerTurn / 8 / compiled.cost));
    const isOfAll = positions.length === this.#uids.length;
    for (let start = 0; start < positions.length; start += slice) {
      const view = this.#selected.index.view();
      compiled.use(view);
      if (isOfAll && start === 0 && beginsWith(view.uids, this.#uids) && compiled.testAll(this.#verdicts)) return;
      let at = -1;
      for (const i of positions.subarray(start, start + slice)) {
        const uid = this.#uids[i]!;
        if (view.uids[++at] !== uid) at = view.positionOf(uid);
        this.#verdicts[i] = at < 0 ? 0 : compiled.test(at, uid);
      }
      await this.#turns.give(start, positions.length);
    }
  }

  #positionsOf(verdict: number): Uint32Array {
    const verdicts = this.#verdicts;
    const first = verdicts.indexOf(verdict);
    if (first < 0) return new Uint32Array(0);
    const positions = new Uint32Array(verdicts.length - first);
    let count = 0;
    for (let i = first; i < verdicts.length; i++) if (verdicts[i] === verdict) positions[count++] = i;
    return positions.slice(0, count);
  }

  /** Summaries decide, and where they can't, messages. */
  async #decide(positions: Uint32Array): Promise<void> {
    const { index, accountId } = this.#selected;
    const undecided: { position: number; entry: MailboxEntry }[] = [];
    for (const position of positions) {
      this.#verdicts[position] = 0;
      const entry = index.get(this.#uids[position]!);
      if (entry) undecided.push({ position, entry });
    }
    const ids = undecided.map(({ entry }) => entry.emailId);
    const [summaries, messages] = await Promise.all([
      readSummaries(this.#context, accountId, ids),
      this.#needsThreadId ? this.#context.services.mail.messages(accountId, ids) : undefined,
    ]);
    const unread: { position: number; facts: Facts; message: Message | undefined }[] = [];
    for (const [i, { position, entry }] of undecided.entries()) {
      const summary = summaries[i];
      if (!summary) continue;
      const facts: Facts = { entry, summary };
      // A message that is gone has no thread; '' matches no id.
      if (messages) facts.threadId = messages[i]?.threadId ?? '';
      const verdict = evaluate(this.#key, facts, this.#around);
      if (verdict === undefined) unread.push({ position, facts, message: messages?.[i] });
      else if (verdict) this.#verdicts[position] = yes;
      if (i % messagesPerTurn === messagesPerTurn - 1) await this.#turns.give();
    }
    if (unread.length > 0) await this.#decideByText(unread);
  }

  /** Reads the messages that nothing less could decide, a few at a time. */
  async #decideByText(unread: { position: number; facts: Facts; message: Message | undefined }[]): Promise<void> {
    const { mail, blobs, limits } = this.#context.services;
    const ids = unread.map(({ facts }) => facts.entry.emailId);
    const messages = this.#needsThreadId
      ? unread.map(({ message }) => message)
      : await mail.messages(this.#selected.accountId, ids);
    for (let from = 0; from < unread.length; ) {
      let to = from;
      for (let bytes = 0; to < unread.length && to < from + limits.searchConcurrency; to++) {
        bytes += unread[to]!.facts.entry.sizeBytes;
        if (to > from && bytes > maxBytesAtOnce) break;
      }
      const texts = await Promise.all(messages.slice(from, to).map((message) => message && readOrMissing(blobs, message.blobId)));
      for (const [i, bytes] of texts.entries()) {
        const { position, facts } = unread[from + i]!;
        if (bytes && evaluate(this.#key, { ...facts, bytes }, this.#around)) this.#verdicts[position] = yes;
        await this.#turns.give();
      }
      from = to;
    }
  }
}

/** The positions [from, to) of UIDs within these ranges; all without ranges. */
function slicesOf(uids: UidList, bounds: Ranges | undefined): number[] {
  if (!bounds) return [0, uids.length];
  const slices: number[] = [];
  for (let i = 0; i < bounds.length; i += 2) {
    const from = lowerBound(uids, bounds[i]!);
    const to = lowerBound(uids, bounds[i + 1]! + 1);
    if (from < to) slices.push(from, to);
  }
  return slices;
}

/** Where the last `maxCount` positions of these slices begin; 0 if there are no more. */
function firstWithin(slices: readonly number[], maxCount: number): number {
  let left = maxCount;
  for (let i = slices.length - 2; i >= 0; i -= 2) {
    const length = slices[i + 1]! - slices[i]!;
    if (length > left) return slices[i + 1]! - left;
    left -= length;
  }
  return 0;
}

/** What of these slices lies at `first` and behind it. */
function slicesFrom(slices: readonly number[], first: number): number[] {
  const kept: number[] = [];
  for (let i = 0; i < slices.length; i += 2) if (slices[i + 1]! > first) kept.push(Math.max(first, slices[i]!), slices[i + 1]!);
  return kept;
}
