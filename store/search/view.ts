/**
 * Answers queries from the segments of one state of an index. What a query demands of the runs of a text is looked for in the terms of each segment; the
 * documents that have such terms are joined; demands that would cost more to read than the texts that they rule out are left to whoever verifies.
 */
import { type Clock, histogram } from '../../ops/telemetry/index.js';
import type { AccountId, EmailId } from '../mail/contract.js';
import type { QueryRuns, StemLanguage } from './analysis/contract.js';
import type { SearchAnalysis } from './build.js';
import { andBits, type Bits, clearBits, countBits, fillBits, hasBit, newBits, orBitsAt, setBit } from './bytes.js';
import type { SearchTerm, SearchView, TermAnswer } from './contract.js';
import type { Dictionary } from './dictionary.js';
import type { DocumentTable } from './documents.js';
import { documentsIn, type SearchHead, type Segment } from './head.js';
import { listedTerms } from './merge.js';
import { maskOf, orPostings } from './postings.js';
import { SegmentGone, type SegmentReader } from './segment-reader.js';

const queriedBytes = histogram(
  'starling_search_query_postings_bytes',
  'Postings that a substring query went through',
  [],
  [1_024, 16_384, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864],
);

/** Beyond this a query is left to the texts: everything may have it. A safeguard, several times what all postings of a hundred thousand messages take. */
const maxQueryBytes = 134_217_728;
/** A text costs as much to look at as this many bytes of postings. */
const bytesPerText = 32_768;

/** Work between two turns of others: what is in memory is gone through without any real waiting. */
const turnMs = 8;

type Kind = 'exact' | 'prefix' | 'suffix' | 'contains';

interface Demand {
  kind: Kind;
  text: string;
}

export interface OpenSegment {
  segment: Segment;
  table: DocumentTable;
  /** The number of its first document in the view. */
  base: number;
}

export interface ViewParts {
  reader: SegmentReader;
  clock: Clock;
  analysis: SearchAnalysis;
  accountId: AccountId;
  head: SearchHead;
  segments: readonly OpenSegment[];
}

/** Which documents of a segment a query surely, or perhaps, means. */
interface Found {
  bits: Bits;
  isSure: boolean;
}

export class SegmentsView implements SearchView {
  readonly documents: number;
  readonly #parts: ViewParts;
  #turnBeganMs: number;

  constructor(parts: ViewParts) {
    this.#parts = parts;
    this.documents = documentsIn(parts.head);
    this.#turnBeganMs = parts.clock.monotonicMs();
  }

  async #giveTurn(): Promise<void> {
    const { clock } = this.#parts;
    if (clock.monotonicMs() - this.#turnBeganMs < turnMs) return;
    await clock.sleep(0);
    this.#turnBeganMs = clock.monotonicMs();
  }

  get parts(): readonly Segment[] {
    return this.#parts.head.segments;
  }

  documentOf(emailId: EmailId, fromPart = 0): number {
    const { segments } = this.#parts;
    for (let part = fromPart; part < segments.length; part++) {
      const { table, base } = segments[part]!;
      const number = table.numberOf(emailId);
      if (number >= 0) return base + number;
    }
    return -1;
  }

  async substring({ fields, text }: SearchTerm): Promise<TermAnswer> {
    const { analysis } = this.#parts;
    const runs = analysis.queryRuns(analysis.foldText(text));
    const demands = demandsOf(runs);
    const mask = maskOf(fields);
    // Several demands may be met by different texts of a document.
    const isWhole = runs.isWhole && demands.length === 1;
    const budget = { bytes: maxQueryBytes };
    const answer = new Answer(this.documents);
    await this.#inAll(async (open) => {
      const found = await this.#find(open, demands, mask, isWhole, budget);
      answer.enter(open, found, mask);
    });
    queriedBytes.observe(maxQueryBytes - budget.bytes);
    return answer.finish();
  }

  /** All segments at once: most of the time goes to waiting for the store. */
  async #inAll(search: (open: OpenSegment) => Promise<void>): Promise<void> {
    await Promise.all(this.#parts.segments.map(search));
  }

  async #find(open: OpenSegment, demands: readonly Demand[], mask: number, isWhole: boolean, budget: Budget): Promise<Found> {
    const { reader, accountId } = this.#parts;
    const { segment } = open;
    const bits = newBits(segment.documents);
    try {
      if (demands.length === 0) throw new TooMuch();
      const terms = await reader.terms(accountId, segment);
      await this.#giveTurn();
      const wanted = demands.map((demand) => measured(terms, termsFor(terms, demand))).sort((a, b) => a.bytes - b.bytes);
      for (const [at, { ordinals, bytes }] of wanted.entries()) {
        if (at === 0) {
          await this.#join(segment, terms, ordinals, mask, bits, budget);
          continue;
        }
        const candidates = countBits(bits);
        if (candidates === 0 || bytes > candidates * bytesPerText) break;
        const others = newBits(segment.documents);
        await this.#join(segment, terms, ordinals, mask, others, budget);
        andBits(bits, others);
      }
      return { bits, isSure: isWhole };
    } catch (error) {
      if (!(error instanceof TooMuch || error instanceof SegmentGone)) throw error;
      fillBits(bits, segment.documents);
      return { bits, isSure: false };
    }
  }

  /** Sets the documents that have any of these terms in one of the fields. Throws TooMuch. */
  async #join(segment: Segment, terms: Dictionary, ordinals: ArrayLike<number>, mask: number, into: Bits, budget: Budget) {
    const { reader, accountId } = this.#parts;
    for await (const { bytes, starts } of reader.postings(accountId, segment, terms, ordinals)) {
      for (let at = 0; at < starts.length; at += 2) {
        orPostings(bytes, starts[at]!, starts[at + 1]!, mask, into);
        budget.bytes -= starts[at + 1]! - starts[at]!;
      }
      if (budget.bytes < 0) throw new TooMuch();
      await this.#giveTurn();
      // Of a letter or two nearly every document has a word: the rest adds nothing.
      if (starts.length > 1_000 && countBits(into) === segment.documents) return;
    }
  }

  async words({ fields, text }: SearchTerm): Promise<TermAnswer> {
    const { analysis, head } = this.#parts;
    const words = new Set(analysis.wordsOf(analysis.foldText(text)));
    const mask = maskOf(fields);
    const answer = new Answer(this.documents);
    const wanted = [...words].map((word) => wantedOf(analysis, word, head.languages));
    await this.#inAll(async (open) => {
      const bits = await this.#withWords(open.segment, wanted, mask);
      answer.enterSure(open, bits);
    });
    return answer.finish();
  }

  async #withWords(segment: Segment, words: readonly WantedWord[], mask: number): Promise<Bits> {
    const { reader, accountId } = this.#parts;
    const budget = { bytes: Number.POSITIVE_INFINITY };
    const bits = newBits(segment.documents);
    if (words.length === 0) return bits;
    const terms = await reader.terms(accountId, segment);
    fillBits(bits, segment.documents);
    for (const { demands, stems } of words) {
      for (const demand of demands) {
        const alternatives = new Set(termsFor(terms, demand));
        await this.#addForms(segment, terms, stems, alternatives);
        const others = newBits(segment.documents);
        await this.#join(
          segment,
          terms,
          [...alternatives].sort((a, b) => a - b),
          mask,
          others,
          budget,
        );
        andBits(bits, others);
      }
    }
    return bits;
  }

  /** Adds the terms (ordinals) that have one of these stems. */
  async #addForms(segment: Segment, terms: Dictionary, stems: readonly string[], to: Set<number>): Promise<void> {
    if (stems.length === 0) return;
    const { reader, accountId } = this.#parts;
    const known = await reader.stems(accountId, segment);
    const lists = known.count > 0 ? await reader.section(accountId, segment, 'stemLists') : undefined;
    for (const stem of stems) {
      const own = terms.ordinalOf(stem);
      if (own >= 0) to.add(own);
      const ordinal = known.ordinalOf(stem);
      if (ordinal >= 0 && lists) for (const term of listedTerms(lists, known, ordinal)) to.add(term);
    }
  }
}

interface Budget {
  bytes: number;
}

/** The index can't narrow this down within its bounds. */
class TooMuch extends Error {}

/** What a text must have for a word of the query. */
interface WantedWord {
  demands: readonly Demand[];
  stems: readonly string[];
}

function wantedOf(analysis: SearchAnalysis, word: string, languages: readonly StemLanguage[]): WantedWord {
  const runs = analysis.queryRuns(word);
  // A word that is one run is meant as a whole, or in another form; of scripts without spaces the word may stand within others.
  if (runs.contains === undefined) return { demands: demandsOf(runs), stems: [] };
  return { demands: [{ kind: 'exact', text: word }], stems: analysis.stemsOf(word, languages) };
}

function demandsOf({ exact, prefix, suffix, contains }: QueryRuns): Demand[] {
  const demands: Demand[] = [...new Set(exact)].map((text) => ({ kind: 'exact', text }));
  for (const [kind, text] of Object.entries({ prefix, suffix, contains })) {
    if (text !== undefined) demands.push({ kind: kind as Kind, text });
  }
  return demands;
}

function termsFor(terms: Dictionary, { kind, text }: Demand): number[] {
  if (kind === 'prefix') return terms.withPrefix(text);
  if (kind === 'suffix') return terms.withSuffix(text);
  if (kind === 'contains') return terms.containing(text);
  const ordinal = terms.ordinalOf(text);
  return ordinal < 0 ? [] : [ordinal];
}

function measured({ valueStarts }: Dictionary, ordinals: number[]): { ordinals: number[]; bytes: number } {
  let bytes = 0;
  for (const ordinal of ordinals) bytes += valueStarts[ordinal + 1]! - valueStarts[ordinal]!;
  return { ordinals, bytes };
}

/** Brings the answers of segments together. */
class Answer {
  readonly #sure: Bits;
  readonly #maybe: Bits;

  constructor(documents: number) {
    this.#sure = newBits(documents);
    this.#maybe = newBits(documents);
  }

  enter({ segment, table, base }: OpenSegment, { bits, isSure }: Found, mask: number): void {
    orBitsAt(isSure ? this.#sure : this.#maybe, bits, base);
    if (table.partial.length === 0) return;
    const partial = newBits(segment.documents);
    for (const { number, fields } of table.partial) if (fields & mask) setBit(partial, number);
    orBitsAt(this.#maybe, partial, base);
  }

  enterSure({ base }: OpenSegment, bits: Bits): void {
    orBitsAt(this.#sure, bits, base);
  }

  finish(): TermAnswer {
    const [sure, maybe] = [this.#sure, this.#maybe];
    clearBits(maybe, sure);
    return {
      has: (document) => document >= 0 && hasBit(sure, document),
      mayHave: (document) => document >= 0 && hasBit(maybe, document),
      tell: (documents, into) => {
        for (let at = 0; at < documents.length; at++) {
          const document = documents[at]!;
          const word = document >>> 5;
          const bit = 1 << (document & 31);
          into[at] = document < 0 ? 2 : sure[word]! & bit ? 1 : maybe[word]! & bit ? 2 : 0;
        }
      },
    };
  }
}
