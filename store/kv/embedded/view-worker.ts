/** The entry of a view's thread: holds one read transaction and answers with pages of rows. */
import { existsSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { type Database, DatabaseSync, type Statement } from './sqlite.js';
import { type FromViewer, RowPage, type ToViewer, viewPageBytes } from './view.js';

const port = parentPort!;
const { file } = workerData as { file: string };
const busyTimeoutMs = 5_000;
/** Read once from begin to end: a large cache would only cost memory. */
const cacheKiB = 2_048;

const answer = (message: FromViewer, transfer: ArrayBuffer[] = []) => port.postMessage(message, transfer);
const textOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

class Reader {
  readonly #get: Statement;
  readonly #forward: Statement;
  readonly #backward: Statement;
  readonly version: number;

  constructor(readonly db: Database) {
    const rows = (sql: string) => {
      const statement = db.prepare(sql);
      statement.setReturnArrays(true);
      return statement;
    };
    db.exec(`PRAGMA cache_size = -${cacheKiB}; PRAGMA query_only = ON; BEGIN`);
    // The snapshot is taken by the first read.
    this.version = (rows('SELECT version FROM meta').get() as unknown as [number])[0];
    this.#get = rows('SELECT v FROM kv WHERE k = ?');
    this.#forward = rows('SELECT k, v FROM kv WHERE k >= ? AND k < ? ORDER BY k LIMIT ?');
    this.#backward = rows('SELECT k, v FROM kv WHERE k >= ? AND k < ? ORDER BY k DESC LIMIT ?');
  }

  many(id: number, keys: readonly Uint8Array[]): void {
    const page = new RowPage();
    let at = 0;
    for (; at < keys.length && page.length < viewPageBytes; at++) {
      const row = this.#get.get(keys[at]!) as unknown as [Uint8Array] | undefined;
      page.add(keys[at]!, row?.[0]);
    }
    this.#send(id, page, at === keys.length);
  }

  range(id: number, begin: Uint8Array, end: Uint8Array, limit: number, reverse: boolean): void {
    const page = new RowPage();
    let isAll = true;
    const statement = reverse ? this.#backward : this.#forward;
    for (const row of statement.iterate(begin, end, Number.isFinite(limit) ? limit : -1)) {
      if (page.length >= viewPageBytes) {
        isAll = false;
        break;
      }
      const [key, value] = row as unknown as [Uint8Array, Uint8Array];
      page.add(key, value);
    }
    this.#send(id, page, isAll);
  }

  #send(id: number, { buffer, length }: RowPage, isAll: boolean): void {
    answer({ type: 'rows', id, buffer, length, isAll }, [buffer]);
  }
}

function serve(reader: Reader, message: ToViewer): void {
  if (message.type === 'close') {
    reader.db.close();
    port.close();
    return;
  }
  try {
    if (message.type === 'many') reader.many(message.id, message.keys);
    else reader.range(message.id, message.begin, message.end, message.limit, message.reverse);
  } catch (error) {
    answer({ type: 'failed', id: message.id, message: textOf(error) });
  }
}

try {
  if (!existsSync(file)) throw new Error('there is no store');
  const reader = new Reader(new DatabaseSync(file, { readOnly: true, timeout: busyTimeoutMs }));
  port.on('message', (message: ToViewer) => serve(reader, message));
  answer({ type: 'ready', version: reader.version });
} catch (error) {
  answer({ type: 'start-failed', message: textOf(error) });
}
