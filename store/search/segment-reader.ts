/** Reads segments, and keeps what was read of them within a bound of bytes: segments never change. */
import { counter, gauge } from '../../ops/telemetry/index.js';
import { KvError, type KvStore } from '../kv/contract.js';
import { S3Fifo } from '../limits/s3-fifo.js';
import type { AccountId } from '../mail/contract.js';
import { SearchError } from './contract.js';
import { Dictionary } from './dictionary.js';
import { DocumentTable } from './documents.js';
import { blockBytes, blockCount, bytesOf, placeOf, type Section, type Segment } from './head.js';
import { searchKeys } from './keys.js';

const cached = gauge('starling_search_cache_bytes', 'Parts of search indexes in memory');
const blockReads = counter('starling_search_blocks_read_total', 'Blocks of search indexes that were read from the store');

/** Blocks in one read of the store: a megabyte. */
const blocksPerRead = 64;
/** What an entry costs beside its bytes. */
const entryBytes = 200;

/** A block is not there (any more). */
export class SegmentGone extends SearchError {
  constructor(segmentId: string) {
    super('changed', `segment ${segmentId} of a search index is not there any more`);
  }
}

type Part = { bytes: number } & ({ block: Buffer } | { table: DocumentTable } | { dictionary: Dictionary });

/** Postings of some terms, in the order of the terms. */
export interface PostingsRun {
  bytes: Buffer;
  /** Two for each term: where its postings begin in `bytes`, and where they end. */
  starts: readonly number[];
}

export class SegmentReader {
  readonly #cache: S3Fifo<Part>;
  readonly #loading = new Map<string, Promise<Part>>();

  constructor(
    private readonly kv: KvStore,
    cacheBytes: number,
  ) {
    this.#cache = new S3Fifo<Part>(cacheBytes, ({ bytes }) => bytes);
  }

  /** Throws SegmentGone, SearchError `damaged`. */
  async documents(accountId: AccountId, segment: Segment): Promise<DocumentTable> {
    const part = await this.#part(`d${segment.id}`, async () => {
      const stored = await this.section(accountId, segment, 'documents');
      const table = readable(segment, () => new DocumentTable(stored, segment.documents));
      return { table, bytes: table.memoryBytes + entryBytes };
    });
    return (part as { table: DocumentTable }).table;
  }

  /** The terms of the segment; the values are their postings. */
  terms(accountId: AccountId, segment: Segment): Promise<Dictionary> {
    return this.#dictionary(accountId, segment, `t${segment.id}`, 'terms', 'lengths');
  }

  /** The stems of the segment; the values are lists of the terms that have them. */
  stems(accountId: AccountId, segment: Segment): Promise<Dictionary> {
    return this.#dictionary(accountId, segment, `s${segment.id}`, 'stems', 'stemLengths');
  }

  async #dictionary(
    accountId: AccountId,
    segment: Segment,
    name: string,
    terms: 'terms' | 'stems',
    lengths: 'lengths' | 'stemLengths',
  ): Promise<Dictionary> {
    const part = await this.#part(name, async () => {
      const [termSection, lengthSection] = await Promise.all([
        this.section(accountId, segment, terms),
        this.section(accountId, segment, lengths),
      ]);
      const dictionary = readable(
        segment,
        () => new Dictionary({ terms: termSection, lengths: lengthSection, ...segment[terms] }),
      );
      return { dictionary, bytes: dictionary.memoryBytes + entryBytes };
    });
    return (part as { dictionary: Dictionary }).dictionary;
  }

  async #part(name: string, load: () => Promise<Part>): Promise<Part> {
    const known = this.#cache.get(name);
    if (known) return known;
    let loading = this.#loading.get(name);
    if (!loading) {
      loading = load().finally(() => this.#loading.delete(name));
      this.#loading.set(name, loading);
      loading.then(
        (part) => this.#keep(name, part),
        () => undefined,
      );
    }
    return loading;
  }

  #keep(name: string, part: Part): void {
    this.#cache.set(name, part);
    cached.set(this.#cache.weight);
  }

  /** All bytes of a section. */
  section(accountId: AccountId, segment: Segment, section: Section): Promise<Buffer> {
    const { from, to } = placeOf(segment, section);
    return this.#bytes(accountId, segment, from, to);
  }

  /** Bytes of a segment that are read once. */
  async #bytes(accountId: AccountId, segment: Segment, from: number, to: number): Promise<Buffer> {
    if (from === to) return Buffer.alloc(0);
    const first = Math.floor(from / blockBytes);
    const numbers = Array.from({ length: Math.floor((to - 1) / blockBytes) - first + 1 }, (_, at) => first + at);
    const blocks = await this.#blocks(accountId, segment, numbers, blockCount(segment) === 1);
    const all = blocks.length === 1 ? blocks[0]! : Buffer.concat(blocks);
    return all.subarray(from - first * blockBytes, to - first * blockBytes);
  }

  /** Bytes of the postings; for whoever goes through all of them. */
  postingBytes(accountId: AccountId, segment: Segment, from: number, to: number): Promise<Buffer> {
    const { from: base } = placeOf(segment, 'postings');
    return this.#bytes(accountId, segment, base + from, base + to);
  }

  /**
   * The postings of these terms (ordinals, ascending), some at a time so that neither memory nor pauses grow with their number. Blocks are kept, and those that
   * are not in memory are read a megabyte at a time.
   */
  async *postings(
    accountId: AccountId,
    segment: Segment,
    terms: Dictionary,
    ordinals: ArrayLike<number>,
  ): AsyncGenerator<PostingsRun, void, undefined> {
    // Postings are the first section: places in it are places in the segment.
    const { valueStarts } = terms;
    for (let at = 0; at < ordinals.length; ) {
      const numbers: number[] = [];
      let to = at;
      for (; to < ordinals.length; to++) {
        const last = Math.floor((valueStarts[ordinals[to]! + 1]! - 1) / blockBytes);
        let next = Math.max(Math.floor(valueStarts[ordinals[to]!]! / blockBytes), (numbers.at(-1) ?? -1) + 1);
        if (to > at && numbers.length + (last - next + 1) > blocksPerRead) break;
        for (; next <= last; next++) numbers.push(next);
      }
      const blocks = await this.#blocks(accountId, segment, numbers, true);
      yield runOf(valueStarts, ordinals, at, to, numbers, blocks);
      at = to;
    }
  }

  async #blocks(accountId: AccountId, segment: Segment, numbers: readonly number[], isKept: boolean): Promise<Buffer[]> {
    const blocks: (Buffer | undefined)[] = numbers.map((nth) => {
      const part = this.#cache.get(`${segment.id}/${nth}`);
      return part && (part as { block: Buffer }).block;
    });
    const missing = numbers.flatMap((_, at) => (blocks[at] ? [] : [at]));
    for (let done = 0; done < missing.length; done += blocksPerRead) {
      const places = missing.slice(done, done + blocksPerRead);
      const keys = places.map((at) => searchKeys.block(accountId, segment.id, numbers[at]!));
      const read = await this.kv.read((reads) => reads.getMany(keys), { label: 'search-read' });
      blockReads.inc(places.length);
      for (const [at, block] of read.entries()) {
        const nth = numbers[places[at]!]!;
        const length = Math.min(blockBytes, bytesOf(segment) - nth * blockBytes);
        if (!block) throw new SegmentGone(segment.id);
        if (block.length !== length) throw new SearchError('damaged', `a block of segment ${segment.id} has a wrong length`);
        blocks[places[at]!] = block;
        if (isKept) this.#keep(`${segment.id}/${nth}`, { block, bytes: block.length + entryBytes });
      }
    }
    return blocks as Buffer[];
  }
}

/** Where the postings of the terms lie in the blocks, joined. */
function runOf(
  valueStarts: Uint32Array,
  ordinals: ArrayLike<number>,
  from: number,
  to: number,
  numbers: readonly number[],
  blocks: readonly Buffer[],
): PostingsRun {
  const placeOfBlock = new Map(numbers.map((nth, at) => [nth, at]));
  const bytes = blocks.length === 1 ? blocks[0]! : Buffer.concat(blocks as Buffer[]);
  const starts: number[] = [];
  for (let at = from; at < to; at++) {
    const start = valueStarts[ordinals[at]!]!;
    const nth = Math.floor(start / blockBytes);
    // Blocks of one term lie side by side in `bytes`, and all but the last of a segment are full.
    const place = placeOfBlock.get(nth)! * blockBytes + (start - nth * blockBytes);
    starts.push(place, place + valueStarts[ordinals[at]! + 1]! - start);
  }
  return { bytes, starts };
}

function readable<T>(segment: Segment, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    if (error instanceof KvError) throw error;
    throw new SearchError('damaged', `segment ${segment.id} of a search index can not be read`, { cause: error });
  }
}
