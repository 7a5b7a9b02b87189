/**
 * Reads ranges of blobs: only the chunks that a range touches, in reads short enough for any backend. A blob that was purged and stored anew meanwhile
 * has the same bytes under another storage id, perhaps in another place; reading goes on there.
 */
import type { KvReads, KvStore } from '../kv/contract.js';
import { decodeChunk } from './chunk.js';
import { BlobCorrupt, type BlobId, BlobMissing } from './contract.js';
import { ExternalMissing } from './external.js';
import { externalContents } from './external-reader.js';
import { chunkKey, headKey } from './keys.js';
import { type BlobHead, type ChunkedHead, decodeHead, type ExternalHead } from './records.js';
import { type BlobSettings, maxReadBytes } from './settings.js';

export interface BlobRange {
  start?: number;
  end?: number;
}

/** Chunks per round trip of `read`. */
const chunksPerRead = 16;
/** Chunks per round trip of `stream`; two rounds are in memory at most. */
const chunksPerStreamRead = 4;

interface Span {
  start: number;
  end: number;
}

/** The stored values of chunks `first` … of one snapshot, with the head they belong to. */
interface Fetched {
  head: BlobHead;
  first: number;
  values: Buffer[];
}

type Source = Pick<BlobSettings, 'kv' | 'external'>;

/** The bytes of `range` (clamped to the blob) as one Buffer. Throws `BlobMissing`, `BlobCorrupt`, RangeError over `maxReadBytes`. */
export async function readBlob(source: Source, id: BlobId, range: BlobRange): Promise<Buffer> {
  const { kv } = source;
  let fetched = await fetchAt(kv, id, range, 0, chunksPerRead);
  const span = clamp(range, fetched.head.sizeBytes);
  const length = span.end - span.start;
  if (length > maxReadBytes) throw new RangeError(`a read has at most ${maxReadBytes} bytes; stream what is longer`);
  if (fetched.head.layout === 'external') return gather(streamFrom(source, id, range, Promise.resolve(fetched)), length);
  const parts = [...contents(id, fetched, span)];
  if (parts.length === 1 && parts[0]!.length === length) return parts[0]!;
  const bytes = Buffer.allocUnsafe(length);
  let filled = 0;
  for (;;) {
    for (const part of parts) {
      bytes.set(part, filled);
      filled += part.length;
    }
    if (filled === length) return bytes;
    const rest = { start: span.start + filled, end: span.end };
    fetched = await fetchAt(kv, id, range, rest.start, chunksPerRead);
    parts.length = 0;
    if (fetched.head.layout !== 'external') parts.push(...contents(id, fetched, rest));
    else parts.push(await gather(streamFrom(source, id, rest, Promise.resolve(fetched)), length - filled));
  }
}

async function gather(stream: AsyncIterable<Buffer>, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length);
  let filled = 0;
  for await (const part of stream) {
    bytes.set(part, filled);
    filled += part.length;
  }
  return bytes;
}

/** The bytes of `range` chunk by chunk; the next round is fetched while the consumer works on this one. */
export async function* streamBlob(source: Source, id: BlobId, range: BlobRange): AsyncGenerator<Buffer, void, undefined> {
  yield* streamFrom(source, id, range, fetchAt(source.kv, id, range, 0, chunksPerStreamRead));
}

async function* streamFrom(
  source: Source,
  id: BlobId,
  range: BlobRange,
  first: Promise<Fetched>,
): AsyncGenerator<Buffer, void, undefined> {
  let next: Promise<Fetched> | undefined = first;
  let position: number | undefined;
  while (next) {
    const fetched: Fetched = await next;
    const span = clamp(range, fetched.head.sizeBytes);
    position ??= span.start;
    if (fetched.head.layout === 'external') {
      try {
        for await (const part of externalContents(source.external, id, fetched.head, { start: position, end: span.end })) {
          position += part.length;
          yield part;
        }
        return;
      } catch (error) {
        if (!(error instanceof ExternalMissing)) throw error;
        next = anew(source.kv, id, range, position, fetched.head);
        continue;
      }
    }
    const after = endOf(fetched, span);
    next = after < span.end ? fetchAt(source.kv, id, range, after, chunksPerStreamRead) : undefined;
    // Whoever stops early leaves this promise behind.
    next?.catch(() => {});
    for (const part of contents(id, fetched, { start: position, end: span.end })) yield part;
    position = after;
  }
}

/** An external object was not there: was the blob purged meanwhile, or stored anew elsewhere? Otherwise its bytes are lost. */
async function anew(kv: KvStore, id: BlobId, range: BlobRange, position: number, before: ExternalHead): Promise<Fetched> {
  const fetched = await fetchAt(kv, id, range, position, chunksPerStreamRead);
  const { head } = fetched;
  if (head.layout === 'external' && head.storageId.equals(before.storageId))
    throw new BlobCorrupt(id, `its bytes are missing from ${before.place}`);
  return fetched;
}

/** Reads the head and, from the same snapshot, up to `maxChunks` chunks of `range` from `position` on (0: from its start). */
function fetchAt(kv: KvStore, id: BlobId, range: BlobRange, position: number, maxChunks: number): Promise<Fetched> {
  return kv.read(
    async (reads: KvReads) => {
      const value = await reads.get(headKey(id));
      if (!value) throw new BlobMissing(id);
      const head = decodeHead(id, value);
      const span = clamp(range, head.sizeBytes);
      const start = Math.max(position, span.start);
      if (head.layout !== 'chunked' || start >= span.end) return { head, first: 0, values: [] };
      const first = Math.floor(start / head.chunkBytes);
      const end = Math.min(Math.ceil(span.end / head.chunkBytes), first + maxChunks);
      return { head, first, values: await fetchChunks(reads, id, head, first, end) };
    },
    { label: 'blob-read' },
  );
}

async function fetchChunks(reads: KvReads, id: BlobId, head: ChunkedHead, first: number, end: number): Promise<Buffer[]> {
  const keys: Buffer[] = [];
  for (let index = first; index < end; index++) keys.push(chunkKey(head.storageId, index));
  const values = await reads.getMany(keys);
  const missing = values.indexOf(undefined);
  if (missing >= 0) throw new BlobCorrupt(id, `chunk ${first + missing} is missing`);
  return values as Buffer[];
}

/** What a round gives of `span`, piece by piece. */
function* contents(id: BlobId, fetched: Fetched, span: Span): Generator<Buffer, void, undefined> {
  const { head } = fetched;
  if (span.start >= span.end) return;
  if (head.layout === 'external') throw new Error('external content has its own reader');
  if (head.layout === 'inline') {
    yield decodeChunk(id, head.encoded, head.sizeBytes).subarray(span.start, span.end);
    return;
  }
  for (const [index, value] of fetched.values.entries()) {
    const chunkStart = (fetched.first + index) * head.chunkBytes;
    const content = decodeChunk(id, value, Math.min(head.chunkBytes, head.sizeBytes - chunkStart));
    yield content.subarray(Math.max(0, span.start - chunkStart), span.end - chunkStart);
  }
}

/** Where in the blob a round ends. */
function endOf(fetched: Fetched, span: Span): number {
  const { head, first, values } = fetched;
  if (head.layout !== 'chunked' || values.length === 0) return span.end;
  return Math.min(span.end, (first + values.length) * head.chunkBytes);
}

function clamp(range: BlobRange, sizeBytes: number): Span {
  const start = Math.min(Math.max(0, range.start ?? 0), sizeBytes);
  return { start, end: Math.max(start, Math.min(range.end ?? sizeBytes, sizeBytes)) };
}
