/**
 * A view for backups: one read transaction on a connection and a thread of its own, so that hours of reading, from a cold disk too, hold up neither the
 * event loop nor the writer. (The log can't start anew meanwhile and grows; `writer.ts` does not wait for it.)
 */
import type { Worker } from 'node:worker_threads';
import { type KeyValue, KvError, type KvView, type RangeOptions } from '../contract.js';
import { asBuffer } from '../key-text.js';
import { spawnThread } from './thread.js';

export type ToViewer =
  | { readonly id: number; readonly type: 'many'; readonly keys: Uint8Array[] }
  | {
      readonly id: number;
      readonly type: 'range';
      readonly begin: Uint8Array;
      readonly end: Uint8Array;
      readonly limit: number;
      readonly reverse: boolean;
    }
  | { readonly id: number; readonly type: 'close' };

export type FromViewer =
  | { readonly type: 'ready'; readonly version: number }
  | { readonly type: 'start-failed'; readonly message: string }
  /** Rows end to end (`decodeRows`); `isAll`: the range has no more of them. */
  | { readonly type: 'rows'; readonly id: number; readonly buffer: ArrayBuffer; readonly length: number; readonly isAll: boolean }
  | { readonly type: 'failed'; readonly id: number; readonly message: string }
  | { readonly type: 'closed' };

/** Of a page that the thread hands over. */
export const viewPageBytes = 512 * 1024;
/** In the place of a value's length: there is no such key. */
export const absentValue = 0xffff_ffff;

interface Waiting {
  resolve(answer: FromViewer & { type: 'rows' }): void;
  reject(error: KvError): void;
}

export class EmbeddedView implements KvView {
  readonly version: bigint;
  readonly #worker: Worker;
  readonly #onEnd: ((view: EmbeddedView) => void) | undefined;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #ended: KvError | undefined;
  #closing: Promise<void> | undefined;

  private constructor(worker: Worker, version: number, onEnd?: (view: EmbeddedView) => void) {
    this.#worker = worker;
    this.version = BigInt(version);
    this.#onEnd = onEnd;
    worker.on('message', (message: FromViewer) => this.#onMessage(message));
    worker.on('error', (error) => this.#end(new KvError('unavailable', `the view's thread failed: ${error.message}`, 'io')));
    worker.on('exit', () => this.#end(closedView()));
    worker.unref();
  }

  /** Sees every commit that was acknowledged before. Throws `unavailable` when `file` is no store. */
  static async open(file: string, onEnd?: (view: EmbeddedView) => void): Promise<EmbeddedView> {
    const worker = spawnThread('view-worker', 'kv-view', { file });
    const version = await new Promise<number>((resolve, reject) => {
      const failed = (message: string) => reject(new KvError('unavailable', `${file} can't be read: ${message}`, 'io'));
      // These stay; a promise is settled once.
      worker.on('error', (error) => failed(error.message));
      worker.on('exit', () => failed('its thread ended'));
      worker.once('message', (message: FromViewer) => {
        if (message.type === 'ready') resolve(message.version);
        else failed(message.type === 'start-failed' ? message.message : message.type);
      });
    });
    return new EmbeddedView(worker, version, onEnd);
  }

  async get(key: Uint8Array): Promise<Buffer | undefined> {
    return (await this.getMany([key]))[0];
  }

  async getMany(keys: readonly Uint8Array[]): Promise<(Buffer | undefined)[]> {
    const values: (Buffer | undefined)[] = [];
    // As many as the thread answers in one page.
    while (values.length < keys.length) {
      const rest = keys.slice(values.length).map((key) => Uint8Array.from(key));
      const answer = await this.#ask((id) => ({ id, type: 'many', keys: rest }));
      for (const { value } of decodeRows(answer.buffer, answer.length)) values.push(value);
    }
    return values;
  }

  async getRange(begin: Uint8Array, end: Uint8Array, options: RangeOptions = {}): Promise<KeyValue[]> {
    const limit = options.limit ?? Number.POSITIVE_INFINITY;
    const reverse = options.reverse ?? false;
    let [low, high] = [Uint8Array.from(begin), Uint8Array.from(end)];
    const found: KeyValue[] = [];
    while (found.length < limit) {
      const rest = limit - found.length;
      const answer = await this.#ask((id) => ({ id, type: 'range', begin: low, end: high, limit: rest, reverse }));
      for (const { key, value } of decodeRows(answer.buffer, answer.length)) found.push({ key, value: value! });
      if (answer.isAll) break;
      const last = found.at(-1)!.key;
      if (reverse) high = Uint8Array.from(last);
      else low = Uint8Array.from([...last, 0]);
    }
    return found;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#ended) return;
    this.#worker.ref();
    const exited = new Promise<void>((resolve) => this.#worker.once('exit', () => resolve()));
    this.#worker.postMessage({ id: 0, type: 'close' } satisfies ToViewer);
    await exited;
  }

  #ask(request: (id: number) => ToViewer): Promise<FromViewer & { type: 'rows' }> {
    if (this.#ended || this.#closing) return Promise.reject(this.#ended ?? closedView());
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      if (this.#waiting.size === 0) this.#worker.ref();
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage(request(id));
    });
  }

  #onMessage(message: FromViewer): void {
    if (message.type !== 'rows' && message.type !== 'failed') return;
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (this.#waiting.size === 0 && !this.#closing) this.#worker.unref();
    if (message.type === 'rows') waiting?.resolve(message);
    else waiting?.reject(new KvError('unavailable', `reading the store failed: ${message.message}`, 'io'));
  }

  #end(error: KvError): void {
    if (this.#ended) return;
    this.#ended = error;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
    this.#onEnd?.(this);
  }
}

/** Rows of a page: key length 4 · value length 4 · key · value. They share the page's memory, which is theirs alone. */
function* decodeRows(buffer: ArrayBuffer, length: number): Generator<{ key: Buffer; value: Buffer | undefined }> {
  const page = Buffer.from(buffer, 0, length);
  for (let at = 0; at < length; ) {
    const keyEnd = at + 8 + page.readUInt32LE(at);
    const valueLength = page.readUInt32LE(at + 4);
    const key = page.subarray(at + 8, keyEnd);
    at = keyEnd + (valueLength === absentValue ? 0 : valueLength);
    yield { key, value: valueLength === absentValue ? undefined : page.subarray(keyEnd, at) };
  }
}

/** Gathers rows in one buffer for `decodeRows`. */
export class RowPage {
  #page: Buffer = Buffer.from(new ArrayBuffer(64 * 1024));
  length = 0;

  add(key: Uint8Array, value: Uint8Array | undefined): void {
    const needed = this.length + 8 + key.length + (value?.length ?? 0);
    if (needed > this.#page.length) {
      const grown = Buffer.from(new ArrayBuffer(Math.max(needed, Math.min(2 * this.#page.length, viewPageBytes + 128 * 1024))));
      this.#page.copy(grown, 0, 0, this.length);
      this.#page = grown;
    }
    this.#page.writeUInt32LE(key.length, this.length);
    this.#page.writeUInt32LE(value?.length ?? absentValue, this.length + 4);
    this.#page.set(asBuffer(key), this.length + 8);
    if (value) this.#page.set(asBuffer(value), this.length + 8 + key.length);
    this.length = needed;
  }

  get buffer(): ArrayBuffer {
    return this.#page.buffer as ArrayBuffer;
  }
}

const closedView = () => new KvError('unavailable', 'the view is closed', 'closed');
