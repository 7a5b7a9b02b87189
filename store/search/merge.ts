/** Makes one segment of several, without the documents that are gone. Goes through them term by term, so that memory does not grow with the postings. */
import type { AccountId, EmailId } from '../mail/contract.js';
import { StemsWriter, type StoredStems, writeSections } from './build.js';
import { ByteCursor, ByteSink } from './bytes.js';
import { type Breathe, SearchError } from './contract.js';
import { compareTerms, type Dictionary, DictionaryWriter } from './dictionary.js';
import { type DocumentTable, encodeDocuments, type IndexedDocument } from './documents.js';
import { blockBytes, type Segment } from './head.js';
import { copyPostings, PostingsEncoder } from './postings.js';
import type { SegmentReader } from './segment-reader.js';
import type { SegmentWriter } from './segment-writer.js';

export type IsGone = (ids: readonly EmailId[]) => Promise<readonly boolean[]>;

const idsPerQuestion = 1_000;
/** Postings of one source that are read at once. */
const windowBytes = 32 * blockBytes;
/** Written to the new segment at once; also what is done between two turns of others. */
const lotBytes = 8 * blockBytes;
/** Terms without a turn for others. */
const termsPerTurn = 512;

interface Source {
  segment: Segment;
  documents: DocumentTable;
  /** The number of each document in the new segment; negative for one that is gone. */
  newNumbers: Int32Array;
  terms: Dictionary;
  postings: PostingsWindow;
  /** The ordinal of each term in the new segment; negative where nothing is left of it. */
  newOrdinals: Int32Array;
}

/** The postings of one source, read in order. */
class PostingsWindow {
  bytes: Buffer = Buffer.alloc(0);
  #from = 0;

  constructor(
    private readonly read: (from: number, to: number) => Promise<Buffer>,
    private readonly length: number,
  ) {}

  covers(to: number): boolean {
    return to <= this.#from + this.bytes.length;
  }

  async move(from: number, to: number): Promise<void> {
    this.bytes = await this.read(from, Math.min(this.length, Math.max(to, from + windowBytes)));
    this.#from = from;
  }

  /** The place in `bytes`. */
  place(at: number): number {
    return at - this.#from;
  }
}

/** Which of a segment's documents are gone. */
export async function goneDocuments(documents: DocumentTable, isGone: IsGone): Promise<Uint8Array> {
  const gone = new Uint8Array(documents.count);
  for (let from = 0; from < documents.count; from += idsPerQuestion) {
    const count = Math.min(idsPerQuestion, documents.count - from);
    const answers = await isGone(Array.from({ length: count }, (_, at) => documents.emailId(from + at)));
    for (let at = 0; at < count; at++) gone[from + at] = answers[at] ? 1 : 0;
  }
  return gone;
}

export interface Merge {
  reader: SegmentReader;
  accountId: AccountId;
  segments: readonly Segment[];
  isGone: IsGone;
  to: SegmentWriter;
  nowMs: number;
  /** Lets others have a turn when it is time for that. */
  pause: Breathe;
}

/** Writes all sections but does not finish the writer; undefined when no document is left. */
export async function mergeSegments(merge: Merge): Promise<Segment | undefined> {
  const { sources, documents } = await openSources(merge);
  if (documents.length === 0) return undefined;
  const terms = await mergeTerms(merge, sources);
  const stems = await mergeStems(merge, sources);
  return writeSections(merge.to, {
    documents: encodeDocuments(documents),
    terms,
    stems,
    count: documents.length,
    sweptAtMs: merge.nowMs,
  });
}

async function openSources({ reader, accountId, segments, isGone }: Merge) {
  const documents: IndexedDocument[] = [];
  const sources: Source[] = [];
  for (const segment of segments) {
    const table = await reader.documents(accountId, segment);
    const gone = await goneDocuments(table, isGone);
    const newNumbers = new Int32Array(table.count);
    const partial = new Map(table.partial.map(({ number, fields }) => [number, fields]));
    for (let number = 0; number < table.count; number++) {
      newNumbers[number] = gone[number] ? -1 : documents.length;
      if (!gone[number]) documents.push({ emailId: table.emailId(number), partialFields: partial.get(number) ?? 0 });
    }
    const terms = await reader.terms(accountId, segment);
    const length = segment.sectionBytes[0]!;
    const read = (from: number, to: number) => reader.postingBytes(accountId, segment, from, to);
    const newOrdinals = new Int32Array(terms.count).fill(-1);
    sources.push({ segment, documents: table, newNumbers, terms, postings: new PostingsWindow(read, length), newOrdinals });
  }
  return { sources, documents };
}

/** Goes through several dictionaries at once, term by term in ascending order. */
class InOrder {
  /** Which dictionaries have the term that it stands at; the term's ordinal in each of these is in `ordinals`. */
  readonly having: number[] = [];
  readonly ordinals: number[];
  readonly #dictionaries: readonly Dictionary[];

  constructor(dictionaries: readonly Dictionary[]) {
    this.#dictionaries = dictionaries;
    this.ordinals = dictionaries.map(() => 0);
  }

  /** On to the next term; false behind the last one. */
  advance(): boolean {
    const { having, ordinals } = this;
    const dictionaries = this.#dictionaries;
    for (let at = 0; at < having.length; at++) ordinals[having[at]!]!++;
    having.length = 0;
    for (let nth = 0; nth < dictionaries.length; nth++) {
      const dictionary = dictionaries[nth]!;
      if (ordinals[nth] === dictionary.count) continue;
      const least = having[0];
      const order = least === undefined ? -1 : compareTerms(dictionary, ordinals[nth]!, dictionaries[least]!, ordinals[least]!);
      if (order < 0) having.length = 0;
      if (order <= 0) having.push(nth);
    }
    return having.length > 0;
  }
}

async function mergeTerms({ to, pause }: Merge, sources: readonly Source[]) {
  const dictionary = new DictionaryWriter();
  const encoder = new PostingsEncoder();
  const sink = new ByteSink();
  let terms = 0;
  const order = new InOrder(sources.map((source) => source.terms));
  const { having, ordinals } = order;
  while (order.advance()) {
    for (const nth of having) {
      const { terms: own, postings, newNumbers } = sources[nth]!;
      const ordinal = ordinals[nth]!;
      const from = own.valueStarts[ordinal]!;
      const end = own.valueStarts[ordinal + 1]!;
      if (!postings.covers(end)) await postings.move(from, end);
      copyPostings(postings.bytes, postings.place(from), postings.place(end), newNumbers, encoder);
    }
    const bytes = encoder.finish(sink);
    if (bytes > 0) {
      for (const nth of having) sources[nth]!.newOrdinals[ordinals[nth]!] = dictionary.count;
      const ordinal = ordinals[having[0]!]!;
      const { bytes: text, starts } = sources[having[0]!]!.terms;
      dictionary.addBytes(text, starts[ordinal]!, starts[ordinal + 1]! - 1, bytes);
    }
    if (sink.length >= lotBytes) await to.write(sink.take());
    if (++terms % termsPerTurn === 0) await pause();
  }
  await to.write(sink.take());
  return dictionary.finish();
}

async function mergeStems({ reader, accountId, pause }: Merge, sources: readonly Source[]): Promise<StoredStems> {
  const writer = new StemsWriter();
  const own = await Promise.all(sources.map(({ segment }) => reader.stems(accountId, segment)));
  const lists = await Promise.all(sources.map(({ segment }) => reader.section(accountId, segment, 'stemLists')));
  let stems = 0;
  const order = new InOrder(own);
  while (order.advance()) {
    const terms = new Set<number>();
    for (const nth of order.having) {
      for (const term of listedTerms(lists[nth]!, own[nth]!, order.ordinals[nth]!)) {
        const renumbered = sources[nth]!.newOrdinals[term] ?? -1;
        if (renumbered >= 0) terms.add(renumbered);
      }
    }
    const nth = order.having[0]!;
    const ordinal = order.ordinals[nth]!;
    const { bytes, starts } = own[nth]!;
    const stem = bytes.subarray(starts[ordinal]!, starts[ordinal + 1]! - 1);
    if (terms.size > 0)
      writer.add(
        stem,
        [...terms].sort((a, b) => a - b),
      );
    if (++stems % termsPerTurn === 0) await pause();
  }
  return writer.finish();
}

/** The ordinals of the terms that have this stem, ascending. Throws SearchError `damaged`. */
export function listedTerms(lists: Buffer, stems: Dictionary, ordinal: number): number[] {
  const terms: number[] = [];
  let term = -1;
  const end = stems.valueStarts[ordinal + 1]!;
  if (end > lists.length) throw new SearchError('damaged', 'the terms of a stem are cut off');
  for (const cursor = new ByteCursor(lists, stems.valueStarts[ordinal]!, end); cursor.at < cursor.end; ) {
    terms.push((term += cursor.varint() + 1));
  }
  return terms;
}
