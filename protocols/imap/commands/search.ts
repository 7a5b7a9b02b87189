/**
 * SEARCH (RFC 9051 6.4.4, RFC 3501 6.4.4), with RETURN options, SAVE (RFC 5182) and the highest modseq (RFC 7162 3.1.5). Looks at the announced messages as they
 * are now, so that what was just delivered is found (TRAPS 32).
 */
import { type BlobId, BlobMissing, type BlobStore } from '../../../store/blobs/contract.js';
import type { MailboxEntry, Message } from '../../../store/mail/contract.js';
import { type Command, withMailbox } from '../command.js';
import { type SessionContext, yieldEventLoop } from '../context.js';
import { formatString } from '../grammar/format.js';
import { readSearch, type SearchKey, type SearchProgram } from '../grammar/search-keys.js';
import { formatNumbers, type Ranges } from '../grammar/sequence-set.js';
import { ok } from '../replies.js';
import type { SelectedMailbox } from '../selected.js';
import { readSummaries } from '../summaries.js';
import { type Evaluation, evaluate, type Facts, needsOf, type ResolvedSets } from './search-evaluation.js';

/** Messages whose summaries are read at one time. */
const summaryBatch = 250;
/** Messages that the index alone decides, between two looks at the clock. A program may have thousands of keys. */
const indexBatch = 64;
/** Bytes of messages that are read at one time, unless a single one is larger. */
const maxBytesAtOnce = 4_194_304;
const turnMs = 10;

export const search: Command = {
  name: 'SEARCH',
  states: withMailbox,
  takesUid: true,
  holdsExpunges: true,
  async run(context, cursor, { byUid, tag }) {
    const program = readSearch(cursor, context.enabled.has('UTF8=ACCEPT'));
    if (program.usesModseq) context.enabled.add('CONDSTORE');
    await context.refreshView();
    const selected = context.requireSelected();
    const run = new SearchRun(context, selected, program.key);
    // RFC 5182 2.1: a failure from here on leaves nothing saved; `$` in the program itself is the result before this one.
    if (program.returns?.has('SAVE')) selected.savedResult = [];
    const found = await run.run();
    respond(context, selected, program, found, byUid, tag);
    return ok('SEARCH completed');
  },
};

interface Undecided {
  place: number;
  facts: Facts;
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
  readonly #evaluation: Evaluation;
  readonly #needsThreadId: boolean;
  #turnStartMs: number;

  constructor(context: SessionContext, selected: SelectedMailbox, key: SearchKey) {
    this.#context = context;
    this.#selected = selected;
    this.#key = key;
    this.#evaluation = { sets: resolveSets(context, key), nowMs: context.services.clock.nowMs() };
    this.#needsThreadId = needsOf(key).threadId;
    this.#turnStartMs = context.services.clock.monotonicMs();
  }

  /** Matching entries, ascending by UID. */
  async run(): Promise<MailboxEntry[]> {
    const verdicts: (MailboxEntry | undefined)[] = [];
    const undecided: { place: number; entry: MailboxEntry }[] = [];
    const { uids, index } = this.#selected;
    for (let i = 0; i < uids.length; i++) {
      const entry = index.get(uids[i]!);
      const verdict = entry && evaluate(this.#key, { entry }, this.#evaluation);
      verdicts.push(verdict ? entry : undefined);
      if (entry && verdict === undefined) undecided.push({ place: i, entry });
      if (i % indexBatch === indexBatch - 1) await this.#giveTurn();
    }
    for (let from = 0; from < undecided.length; from += summaryBatch) {
      const batch = undecided.slice(from, from + summaryBatch);
      const matches = await this.#decide(batch.map(({ entry }) => entry));
      for (const [i, { place, entry }] of batch.entries()) if (matches[i]) verdicts[place] = entry;
      await this.#giveTurn();
    }
    return verdicts.filter((entry) => entry !== undefined);
  }

  async #decide(entries: MailboxEntry[]): Promise<boolean[]> {
    const { mail } = this.#context.services;
    const ids = entries.map((entry) => entry.emailId);
    const [summaries, messages] = await Promise.all([
      readSummaries(this.#context, ids),
      this.#needsThreadId ? mail.messages(this.#context.accountId, ids) : undefined,
    ]);
    const matches: boolean[] = entries.map(() => false);
    const unread: Undecided[] = [];
    for (const [place, entry] of entries.entries()) {
      const summary = summaries[place];
      if (!summary) continue;
      const facts: Facts = { entry, summary };
      // A message that is gone has no thread; '' matches no id.
      if (messages) facts.threadId = messages[place]?.threadId ?? '';
      const verdict = evaluate(this.#key, facts, this.#evaluation);
      matches[place] = verdict === true;
      if (verdict === undefined) unread.push({ place, facts });
    }
    if (unread.length > 0) await this.#decideByText(unread, messages, matches);
    return matches;
  }

  /** Reads the messages that nothing less could decide, a few at a time. */
  async #decideByText(
    unread: Undecided[],
    known: readonly (Message | undefined)[] | undefined,
    matches: boolean[],
  ): Promise<void> {
    const { mail, blobs, limits } = this.#context.services;
    const ids = unread.map(({ facts }) => facts.entry.emailId);
    const messages = known ? unread.map(({ place }) => known[place]) : await mail.messages(this.#context.accountId, ids);
    for (let from = 0; from < unread.length; ) {
      let to = from;
      for (let bytes = 0; to < unread.length && to < from + limits.searchConcurrency; to++) {
        bytes += unread[to]!.facts.entry.sizeBytes;
        if (to > from && bytes > maxBytesAtOnce) break;
      }
      const texts = await Promise.all(messages.slice(from, to).map((message) => message && readOrMissing(blobs, message.blobId)));
      for (const [i, bytes] of texts.entries()) {
        const { place, facts } = unread[from + i]!;
        if (bytes) matches[place] = evaluate(this.#key, { ...facts, bytes }, this.#evaluation) === true;
        await this.#giveTurn();
      }
      from = to;
    }
  }

  async #giveTurn(): Promise<void> {
    if (this.#context.output.isClosed) await this.#context.output.ready();
    const { clock } = this.#context.services;
    if (clock.monotonicMs() - this.#turnStartMs < turnMs) return;
    await yieldEventLoop();
    this.#turnStartMs = clock.monotonicMs();
  }
}

/** As ranges, and `$` once for all its occurrences: a command can name a large mailbox thousands of times. */
function resolveSets(context: SessionContext, program: SearchKey): ResolvedSets {
  const sets = new Map<SearchKey, Ranges>();
  let saved: Ranges | undefined;
  const visit = (key: SearchKey): void => {
    if (key.kind === 'sequence' || key.kind === 'uid') {
      const byUid = key.kind === 'uid';
      if (key.set.kind === 'saved') saved ??= context.resolveRanges(key.set, byUid);
      sets.set(key, key.set.kind === 'saved' ? saved! : context.resolveRanges(key.set, byUid));
    } else if (key.kind === 'and') for (const inner of key.keys) visit(inner);
    else if (key.kind === 'not') visit(key.key);
    else if (key.kind === 'or') {
      visit(key.left);
      visit(key.right);
    }
  };
  visit(program);
  return sets;
}

function respond(
  context: SessionContext,
  selected: SelectedMailbox,
  program: SearchProgram,
  found: readonly MailboxEntry[],
  byUid: boolean,
  tag: string,
): void {
  const { returns } = program;
  const numbers = found.map((entry) => (byUid ? entry.uid : selected.sequenceOf(entry.uid)));
  if (!returns && !context.enabled.has('IMAP4REV2')) {
    const modseq = program.usesModseq && found.length > 0 ? ` (MODSEQ ${highestModseq(found)})` : '';
    context.untagged(`SEARCH${numbers.map((number) => ` ${number}`).join('')}${modseq}`);
    return;
  }
  // RFC 9051 6.4.4: with IMAP4rev2 the answer is ESEARCH, as if RETURN (ALL) had been asked.
  const wanted = returns ?? new Set(['ALL'] as const);
  if (wanted.has('SAVE')) selected.savedResult = savedOf(wanted, found);
  if (wanted.size === 1 && wanted.has('SAVE')) return;
  const parts = [`ESEARCH (TAG ${formatString(tag)})`];
  if (byUid) parts.push('UID');
  const told: MailboxEntry[] = [];
  if (found.length > 0) {
    if (wanted.has('MIN')) {
      parts.push(`MIN ${numbers[0]}`);
      told.push(found[0]!);
    }
    if (wanted.has('MAX')) {
      parts.push(`MAX ${numbers.at(-1)}`);
      told.push(found.at(-1)!);
    }
    if (wanted.has('ALL')) parts.push(`ALL ${formatNumbers(numbers)}`);
  }
  if (wanted.has('COUNT')) parts.push(`COUNT ${found.length}`);
  if (program.usesModseq && found.length > 0) {
    // RFC 7162 3.1.5: of MIN and MAX only, if nothing else is told.
    const ofAll = wanted.has('ALL') || wanted.has('COUNT') || told.length === 0;
    parts.push(`MODSEQ ${highestModseq(ofAll ? found : told)}`);
  }
  context.untagged(parts.join(' '));
}

/** RFC 5182 2.4: with MIN or MAX alone only those messages are kept, with ALL or COUNT (or nothing) all. */
function savedOf(wanted: ReadonlySet<string>, found: readonly MailboxEntry[]): number[] {
  const onlyEnds = (wanted.has('MIN') || wanted.has('MAX')) && !wanted.has('ALL') && !wanted.has('COUNT');
  if (!onlyEnds) return found.map((entry) => entry.uid);
  const ends = new Set<number>();
  if (found.length > 0 && wanted.has('MIN')) ends.add(found[0]!.uid);
  if (found.length > 0 && wanted.has('MAX')) ends.add(found.at(-1)!.uid);
  return [...ends];
}

function highestModseq(entries: readonly MailboxEntry[]): number {
  let highest = 0;
  for (const { modseq } of entries) if (modseq > highest) highest = modseq;
  return highest;
}
