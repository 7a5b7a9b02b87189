/** Makes a segment of documents: which runs stand where, sorted; and, of documents whose language is known, which stems the words have. */

import type { QueryRuns, StemLanguage, StemsOf } from './analysis/contract.js';
import { ByteSink } from './bytes.js';
import type { Breathe, SearchDocument } from './contract.js';
import { DictionaryWriter, type StoredDictionary, sortedLots } from './dictionary.js';
import { encodeDocuments, type IndexedDocument } from './documents.js';
import { blockBytes, type Section, type Segment, sections } from './head.js';
import { allFields, maskOf, PostingsEncoder } from './postings.js';
import type { SegmentWriter } from './segment-writer.js';

/** What the index asks of the analysis of texts (`analysis/`). */
export interface SearchAnalysis {
  foldText(text: string): string;
  /** Runs of one text; without the texts around it, so that a part of a text has the runs of the text but at its ends. */
  splitRuns(folded: string): Iterable<string>;
  queryRuns(folded: string): QueryRuns;
  wordsOf(folded: string): string[];
  stemsOf: StemsOf;
}

/** Postings are handed to the writer in lots of about this size. */
const lotBytes = 16 * blockBytes;
/** Text that is split before others get their turn, about, UTF-16 units. */
const maxTextAtOnce = 8_192;
/** Terms that are written before others get their turn; words that are stemmed meanwhile cost several times as much. */
const termsPerTurn = 512;
const stemsPerTurn = 64;
/** Of each language, twice: in a young and an old generation. */
const maxRememberedStems = 32_768;
/** No word of any language: numbers, codes, encoded data. */
const isNoWord = /\p{N}|^.{33}/su;

/** Stems of words, of which the usual ones come again and again: stemming takes much longer than all else that is done with a word. */
export class StemMemory {
  readonly #known = new Map<StemLanguage, { young: Map<string, readonly string[]>; old: Map<string, readonly string[]> }>();

  constructor(private readonly analysis: Pick<SearchAnalysis, 'stemsOf'>) {}

  /** The stems that differ from the word, which is looked for anyhow. */
  otherStems(word: string, language: StemLanguage): readonly string[] {
    if (isNoWord.test(word)) return none;
    let memory = this.#known.get(language);
    if (!memory) this.#known.set(language, (memory = { young: new Map(), old: new Map() }));
    const known = memory.young.get(word);
    if (known) return known;
    const stems = memory.old.get(word) ?? this.#make(word, language);
    if (memory.young.size >= maxRememberedStems) {
      memory.old = memory.young;
      memory.young = new Map();
    }
    memory.young.set(word, stems);
    return stems;
  }

  #make(word: string, language: StemLanguage): readonly string[] {
    const stems = this.analysis.stemsOf(word, [language]).filter((stem) => stem !== word && stem !== '' && !stem.includes('\n'));
    return stems.length > 0 ? stems : none;
  }
}

const none: readonly string[] = [];

const betweenRuns = /[ \n]/g;

/** A text in pieces that are cut behind spaces and line ends: these part runs, and nothing is composed over them, so that the pieces have the text's runs. */
function* slicesOf(text: string): Generator<string, void, undefined> {
  for (let from = 0; from < text.length; ) {
    betweenRuns.lastIndex = from + maxTextAtOnce;
    const end = betweenRuns.exec(text) ? betweenRuns.lastIndex : text.length;
    yield from === 0 && end === text.length ? text : text.slice(from, end);
    from = end;
  }
}

/** Collects documents. */
export class SegmentBuilder {
  readonly #documents: IndexedDocument[] = [];
  readonly #ids = new Map<string, number>();
  /** By number of the run: in which fields of the last document that has it, and which one that is (plus 1). */
  #masks = new Uint8Array(4_096);
  #lastDocuments = new Uint32Array(4_096);
  /** One place for each run of a document: the run's number, and the document with its fields. */
  #terms = new Uint32Array(4_096);
  #places = new Float64Array(4_096);
  #length = 0;
  /** Runs (their numbers) of documents of each language. */
  readonly #languages = new Map<StemLanguage, Set<number>>();
  #charsSincePause = 0;

  constructor(
    private readonly analysis: SearchAnalysis,
    private readonly stems: StemMemory,
    private readonly pause: Breathe,
  ) {}

  get count(): number {
    return this.#documents.length;
  }

  get languages(): StemLanguage[] {
    return [...this.#languages.keys()];
  }

  async add({ emailId, texts, isPartial, language }: SearchDocument): Promise<void> {
    const number = this.#documents.length;
    const runs: number[] = [];
    for (const { field, text } of texts) {
      const mask = maskOf([field]);
      for (const slice of slicesOf(text)) {
        for (const run of this.analysis.splitRuns(this.analysis.foldText(slice))) {
          const id = this.#idOf(run);
          if (this.#lastDocuments[id] !== number + 1) {
            this.#lastDocuments[id] = number + 1;
            this.#masks[id] = 0;
            runs.push(id);
          }
          this.#masks[id]! |= mask;
        }
        this.#charsSincePause += slice.length;
        if (this.#charsSincePause > maxTextAtOnce) {
          this.#charsSincePause = 0;
          await this.pause();
        }
      }
    }
    const partialFields = isPartial === true ? allFields : maskOf(isPartial || []);
    this.#documents.push({ emailId, partialFields });
    const ofLanguage = language && this.#runsOf(language);
    for (const id of runs) {
      ofLanguage?.add(id);
      this.#push(id, number * (allFields + 1) + this.#masks[id]!);
    }
  }

  #runsOf(language: StemLanguage): Set<number> {
    let runs = this.#languages.get(language);
    if (!runs) this.#languages.set(language, (runs = new Set()));
    return runs;
  }

  #idOf(run: string): number {
    const known = this.#ids.get(run);
    if (known !== undefined) return known;
    if (run === '' || run.includes('\n')) throw new TypeError('a run of text is empty or has a line feed in it');
    const id = this.#ids.size;
    this.#ids.set(run, id);
    if (id === this.#masks.length) {
      const [masks, lastDocuments] = [new Uint8Array(id * 2), new Uint32Array(id * 2)];
      masks.set(this.#masks);
      lastDocuments.set(this.#lastDocuments);
      this.#masks = masks;
      this.#lastDocuments = lastDocuments;
    }
    return id;
  }

  #push(term: number, place: number): void {
    if (this.#length === this.#terms.length) {
      const terms = new Uint32Array(this.#length * 2);
      const places = new Float64Array(this.#length * 2);
      terms.set(this.#terms);
      places.set(this.#places);
      this.#terms = terms;
      this.#places = places;
    }
    this.#terms[this.#length] = term;
    this.#places[this.#length++] = place;
  }

  /** Writes all sections but does not finish the writer. */
  async write(to: SegmentWriter, nowMs: number): Promise<Segment> {
    const { starts, places } = this.#placesByTerm();
    const dictionary = new DictionaryWriter();
    const encoder = new PostingsEncoder();
    const sink = new ByteSink();
    const ordinals = new Uint32Array(this.#ids.size);
    const terms: string[] = [];
    for (const lot of sortedLots(this.#ids.keys())) {
      for (const term of lot) {
        const id = this.#ids.get(term)!;
        ordinals[id] = terms.push(term) - 1;
        for (let at = starts[id]!; at < starts[id + 1]!; at++) {
          const place = places[at]!;
          const number = Math.floor(place / (allFields + 1));
          encoder.add(place - number * (allFields + 1), number);
        }
        dictionary.add(term, encoder.finish(sink));
        if (sink.length >= lotBytes) await to.write(sink.take());
        if (terms.length % termsPerTurn === 0) await this.pause();
      }
    }
    await to.write(sink.take());
    const stems = await this.#stems(terms, ordinals);
    const documents = encodeDocuments(this.#documents);
    return writeSections(to, { documents, terms: dictionary.finish(), stems, count: this.count, sweptAtMs: nowMs });
  }

  /** Places sorted by the number of their run; those of one run stay in the order of documents. */
  #placesByTerm(): { starts: Uint32Array; places: Float64Array } {
    const starts = new Uint32Array(this.#ids.size + 1);
    for (let at = 0; at < this.#length; at++) starts[this.#terms[at]! + 1]!++;
    for (let id = 0; id < this.#ids.size; id++) starts[id + 1]! += starts[id]!;
    const next = starts.slice();
    const places = new Float64Array(this.#length);
    for (let at = 0; at < this.#length; at++) places[next[this.#terms[at]!]!++] = this.#places[at]!;
    return { starts, places };
  }

  async #stems(terms: readonly string[], ordinals: Uint32Array): Promise<StoredStems> {
    let done = 0;
    const byStem = new Map<string, number[]>();
    for (const [language, runs] of this.#languages) {
      for (const id of runs) {
        const ordinal = ordinals[id]!;
        if (++done % stemsPerTurn === 0) await this.pause();
        for (const stem of this.stems.otherStems(terms[ordinal]!, language)) {
          const list = byStem.get(stem);
          if (list) list.push(ordinal);
          else byStem.set(stem, [ordinal]);
        }
      }
    }
    const writer = new StemsWriter();
    for (const lot of sortedLots(byStem.keys())) {
      for (const stem of lot) {
        const list = byStem.get(stem)!;
        // Words of two languages may have one stem in both.
        if (list.length > 1) list.sort((a, b) => a - b);
        writer.add(
          Buffer.from(stem, 'utf8'),
          list.filter((ordinal, at) => ordinal !== list[at - 1]),
        );
        if (++done % termsPerTurn === 0) await this.pause();
      }
    }
    return writer.finish();
  }
}

export interface StoredStems {
  dictionary: StoredDictionary;
  lists: Buffer;
}

/** Takes stems in ascending order, each with the terms (ordinals, ascending) that have it. */
export class StemsWriter {
  readonly #dictionary = new DictionaryWriter();
  readonly #lists = new ByteSink();

  add(stem: Buffer, ordinals: readonly number[]): void {
    const from = this.#lists.length;
    let before = -1;
    for (const ordinal of ordinals) {
      this.#lists.varint(ordinal - before - 1);
      before = ordinal;
    }
    this.#dictionary.addBytes(stem, 0, stem.length, this.#lists.length - from);
  }

  finish(): StoredStems {
    return { dictionary: this.#dictionary.finish(), lists: this.#lists.take() };
  }
}

/** Appends what comes behind the postings, which are written already. */
export async function writeSections(
  to: SegmentWriter,
  parts: { documents: Buffer; terms: StoredDictionary; stems: StoredStems; count: number; sweptAtMs: number },
): Promise<Segment> {
  const { documents, terms, stems } = parts;
  const bytes: Record<Exclude<Section, 'postings'>, Buffer> = {
    documents,
    terms: terms.terms,
    lengths: terms.lengths,
    stems: stems.dictionary.terms,
    stemLengths: stems.dictionary.lengths,
    stemLists: stems.lists,
  };
  const sectionBytes = [to.length];
  for (const section of sections) {
    if (section === 'postings') continue;
    sectionBytes.push(bytes[section].length);
    await to.write(bytes[section]);
  }
  return {
    id: to.id,
    documents: parts.count,
    sectionBytes,
    terms: { count: terms.count, termBytes: terms.termBytes },
    stems: { count: stems.dictionary.count, termBytes: stems.dictionary.termBytes },
    sweptAtMs: parts.sweptAtMs,
  };
}
