/** The search store: opens indexes for queries, adds to them, keeps them tidy and removes them. */
import { type Clock, counter, type Logger, type Random } from '../../ops/telemetry/index.js';
import type { KvStore } from '../kv/contract.js';
import type { AccountId, EmailId } from '../mail/contract.js';
import * as textAnalysis from './analysis/index.js';
import { type SearchAnalysis, SegmentBuilder, StemMemory } from './build.js';
import { type Breathe, type SearchDocument, SearchError, type SearchStore, type SearchView } from './contract.js';
import { isEmailId } from './documents.js';
import { decodeHead, documentsIn, type SearchHead, type Segment } from './head.js';
import { searchKeys, segmentIdOf } from './keys.js';
import type { IsGone } from './merge.js';
import { SegmentGone, SegmentReader } from './segment-reader.js';
import { changeHead, SegmentWriter } from './segment-writer.js';
import { clearLoose, merge, nextMerge, sweep, type TidyContext } from './tidy.js';
import { type OpenSegment, SegmentsView } from './view.js';

const added = counter('starling_search_added_documents_total', 'Messages that were added to search indexes');

const defaultCacheBytes = 67_108_864;
/** A commit of somebody who waits for it may find one of these in front of it. */
const defaultTransactionBytes = 262_144;
/** Of work at one time, where nobody says otherwise. */
const sliceMs = 5;
/** An index that nobody tidies is merged while it is added to: its head must stay small, and queries quick. */
const maxSegments = 64;
/** The head may be older than the segments that were read by it, once or twice in a row. */
const maxOpenings = 4;

export interface SearchStoreOptions {
  kv: KvStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Memory for parts of indexes, all accounts together. Default 64 MB. */
  cacheBytes?: number;
  /** Written in one transaction at most, about. Default 256 kB. */
  transactionBytes?: number;
  /** How texts are divided; by default as in `analysis/`. Whoever changes it must make indexes anew. */
  analysis?: SearchAnalysis;
}

export function createSearchStore(options: SearchStoreOptions): SearchStore {
  return new SegmentedSearchStore(options);
}

interface Opened {
  head: SearchHead;
  view: SegmentsView;
}

const nobodyIsGone: IsGone = async (ids) => ids.map(() => false);

class SegmentedSearchStore implements SearchStore {
  readonly #context: TidyContext;
  readonly #analysis: SearchAnalysis;
  readonly #stems: StemMemory;
  readonly #logger: Logger;

  constructor(options: SearchStoreOptions) {
    const { kv, clock, random, logger, analysis = textAnalysis, transactionBytes = defaultTransactionBytes } = options;
    const reader = new SegmentReader(kv, options.cacheBytes ?? defaultCacheBytes);
    this.#context = { kv, clock, random, transactionBytes, reader, pause: slicedBy(clock) };
    this.#analysis = analysis;
    this.#stems = new StemMemory(analysis);
    this.#logger = logger;
  }

  async #head(accountId: AccountId): Promise<SearchHead | undefined> {
    const value = await this.#context.kv.read((reads) => reads.get(searchKeys.head(accountId)), { label: 'search-head' });
    return value && decodeHead(value);
  }

  async open(accountId: AccountId): Promise<SearchView | undefined> {
    return (await this.#open(accountId))?.view;
  }

  async #open(accountId: AccountId): Promise<Opened | undefined> {
    for (let opening = 1; ; opening++) {
      const head = await this.#head(accountId);
      if (!head) return undefined;
      try {
        const segments = await this.#openSegments(accountId, head.segments);
        const { reader, clock } = this.#context;
        return { head, view: new SegmentsView({ reader, clock, analysis: this.#analysis, accountId, head, segments }) };
      } catch (error) {
        if (!(error instanceof SegmentGone)) throw error;
        if (opening === maxOpenings) throw new SearchError('damaged', error.message, { cause: error });
      }
    }
  }

  async #openSegments(accountId: AccountId, segments: readonly Segment[]): Promise<OpenSegment[]> {
    const { reader } = this.#context;
    const tables = await Promise.all(segments.map((segment) => reader.documents(accountId, segment)));
    let base = 0;
    return segments.map((segment, at) => {
      const open = { segment, table: tables[at]!, base };
      base += segment.documents;
      return open;
    });
  }

  async progress(accountId: AccountId): Promise<{ modseq: number; documents: number } | undefined> {
    const head = await this.#head(accountId);
    return head && { modseq: head.modseq, documents: documentsIn(head) };
  }

  async add(
    accountId: AccountId,
    documents: readonly SearchDocument[],
    { fromModseq, toModseq }: { fromModseq: number; toModseq: number },
    breathe?: Breathe,
  ): Promise<boolean> {
    if (toModseq < fromModseq) throw new RangeError('an index does not go back');
    const foreign = documents.find(({ emailId }) => !isEmailId(emailId));
    if (foreign) throw new RangeError(`no message has the id ${foreign.emailId}`);
    const context = this.#contextWith(breathe);
    const opened = await this.#open(accountId);
    if ((opened?.head.modseq ?? 0) !== fromModseq) return false;
    if (opened && opened.head.segments.length >= maxSegments)
      await this.#mergeOnce(context, accountId, opened.head, nobodyIsGone);
    const fresh = freshDocuments(documents, opened?.view);
    if (fresh.length === 0) return this.#move(accountId, fromModseq, toModseq);
    const builder = new SegmentBuilder(this.#analysis, this.#stems, context.pause);
    for (const document of fresh) await builder.add(document);
    const writer = new SegmentWriter(context, accountId);
    const segment = await builder.write(writer, this.#context.clock.nowMs());
    const additions = opened?.head.additions ?? 0;
    const isDone = await writer.finish((head) => {
      // With other additions at the same modseq, documents might come in twice.
      if ((head?.modseq ?? 0) !== fromModseq || (head?.additions ?? 0) !== additions) return undefined;
      const languages = [...new Set([...(head?.languages ?? []), ...builder.languages])];
      const segments = [...(head?.segments ?? []), segment];
      return { head: { modseq: toModseq, additions: additions + 1, languages, segments }, replaced: [] };
    });
    if (isDone) added.inc(fresh.length);
    return isDone;
  }

  /** Says how far the index is, with nothing added. */
  #move(accountId: AccountId, fromModseq: number, toModseq: number): Promise<boolean> {
    return changeHead(this.#context, accountId, (head, mayHaveCommitted) => {
      if (mayHaveCommitted && head.modseq === toModseq) return head;
      if (head.modseq !== fromModseq) return undefined;
      return { ...head, modseq: toModseq };
    });
  }

  #contextWith(breathe: Breathe | undefined): TidyContext {
    return breathe ? { ...this.#context, pause: breathe } : this.#context;
  }

  async #mergeOnce(context: TidyContext, accountId: AccountId, head: SearchHead, isGone: IsGone): Promise<boolean> {
    const segments = nextMerge(head.segments);
    if (segments.length === 0) return false;
    try {
      await merge(context, accountId, segments, isGone);
    } catch (error) {
      if (!(error instanceof SegmentGone)) throw error;
      const now = await this.#head(accountId);
      const named = new Set(now?.segments.map(({ id }) => id));
      // What a head names is never cleared: without this such segments would be tried again for ever, and stand in the way of all others.
      if (segments.every(({ id }) => named.has(id))) throw new SearchError('damaged', error.message, { cause: error });
      // Another node has merged them long ago.
      this.#logger.debug({ accountId, err: error }, 'search: segments were gone before they were merged');
    }
    return true;
  }

  async tidy(accountId: AccountId, isGone: IsGone, breathe?: Breathe): Promise<boolean> {
    const context = this.#contextWith(breathe);
    await clearLoose(context, accountId);
    const head = await this.#head(accountId);
    if (!head) return false;
    if (!(await this.#mergeOnce(context, accountId, head, isGone))) return sweep(context, accountId, head, isGone);
    const now = await this.#head(accountId);
    // What could not be merged now is left for later: asking again at once would not help.
    const isChanged = now?.segments.length !== head.segments.length;
    return now !== undefined && isChanged && nextMerge(now.segments).length > 0;
  }

  async remove(accountId: AccountId): Promise<void> {
    const { kv } = this.#context;
    const label = { label: 'search-remove' };
    // Without these nobody goes on writing, so nothing comes behind what is cleared now.
    await kv.transact(async (tx) => {
      tx.clear(searchKeys.head(accountId));
      const { begin, end } = searchKeys.allLoose(accountId);
      tx.clearRange(begin, end);
    }, label);
    const { begin, end } = searchKeys.allBlocks(accountId);
    for (;;) {
      const [row] = await kv.read((reads) => reads.getRange(begin, end, { limit: 1 }), label);
      if (!row) break;
      const blocks = searchKeys.blocksOf(accountId, segmentIdOf(row.key));
      await kv.transact(async (tx) => tx.clearRange(blocks.begin, blocks.end), label);
    }
    const all = searchKeys.account(accountId);
    await kv.transact(async (tx) => {
      // What a newer release keeps beside these; unless the index was begun anew meanwhile.
      if (!(await tx.get(searchKeys.head(accountId)))) tx.clearRange(all.begin, all.end);
    }, label);
  }
}

/** Gives others their turn every few milliseconds of work. */
function slicedBy(clock: Clock): Breathe {
  let lastAtMs = clock.monotonicMs();
  return async () => {
    if (clock.monotonicMs() - lastAtMs < sliceMs) return;
    await clock.sleep(0);
    lastAtMs = clock.monotonicMs();
  };
}

/** Those that are not in the index, each once. */
function freshDocuments(documents: readonly SearchDocument[], view: SearchView | undefined): SearchDocument[] {
  const seen = new Set<EmailId>();
  return documents.filter(({ emailId }) => {
    if (seen.has(emailId) || (view && view.documentOf(emailId) >= 0)) return false;
    seen.add(emailId);
    return true;
  });
}
