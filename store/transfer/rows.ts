/**
 * Reads all rows of a store in pages of bounded size, the next one while the caller works on this one: from a view where the engine gives one, otherwise
 * read by read.
 */
import { type KeyValue, type KvReads, type KvStore, type KvView, keyAfter } from '../kv/contract.js';
import { isTransferred, wholeSpace } from './spaces.js';

const firstPageRows = 64;
/** Values may have 100 kB: this many of the largest still fit in memory when a page of small rows is followed by one of large ones. */
const maxPageRows = 512;
const pageBytes = 1024 * 1024;

/** What a walk over a store reads through. */
export interface RowReader {
  read<T>(body: (reads: KvReads) => Promise<T>): Promise<T>;
  /** Whether all reads see the same version. */
  readonly isConsistent: boolean;
  close(): Promise<void>;
}

/** A view when the store can give one. */
export async function openReader(kv: KvStore): Promise<RowReader> {
  return kv.openView ? viewReader(await kv.openView()) : plainReader(kv);
}

/** Each read sees the newest state. */
export function plainReader(kv: Pick<KvStore, 'read'>): RowReader {
  return { read: (body) => kv.read(body, { label: 'transfer-read' }), isConsistent: false, close: async () => {} };
}

export function viewReader(view: KvView): RowReader {
  return { read: (body) => body(view), isConsistent: true, close: () => view.close() };
}

/** Pages of `[begin, end)`, in order; never an empty one. */
export async function* pagesOf(
  reader: RowReader,
  begin: Uint8Array,
  end: Uint8Array,
): AsyncGenerator<KeyValue[], void, undefined> {
  let limit = firstPageRows;
  const pageFrom = (from: Uint8Array, rows: number) => reader.read((reads) => reads.getRange(from, end, { limit: rows }));
  let next: Promise<KeyValue[]> | undefined = pageFrom(begin, limit);
  while (next) {
    const page: KeyValue[] = await next;
    if (page.length === 0) return;
    if (page.length < limit) next = undefined;
    else {
      const bytes = page.reduce((sum, { key, value }) => sum + key.length + value.length, 0);
      limit = Math.max(8, Math.min(maxPageRows, 2 * limit, Math.floor((pageBytes * page.length) / Math.max(bytes, 1))));
      next = pageFrom(keyAfter(page.at(-1)!.key), limit);
      // Whoever stops early leaves this promise behind.
      next.catch(() => {});
    }
    yield page;
  }
}

/** All rows that go with the installation, after `after` or from the beginning. */
export async function* installationRows(reader: RowReader, after?: Buffer): AsyncGenerator<KeyValue[], void, undefined> {
  for await (const page of pagesOf(reader, after ? keyAfter(after) : wholeSpace.begin, wholeSpace.end)) {
    const rows = page.filter(({ key }) => isTransferred(key));
    if (rows.length > 0) yield rows;
  }
}
