/** A view of a memory database: a copy of everything, made when it is opened, so that the database need not keep old versions for it. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type KeyValue, KvError, type KvView, type RangeOptions } from '../contract.js';
import { keyText, lowerBound } from '../key-text.js';
import type { MemoryDatabase } from './database.js';

export class MemoryView implements KvView {
  readonly version: bigint;
  readonly #beforeRead: () => Promise<void>;
  readonly #keys: string[];
  readonly #values: Buffer[];
  #closed = false;

  /** `beforeRead` waits and throws as the store's faults want it. */
  constructor(database: MemoryDatabase, beforeRead: () => Promise<void>) {
    const snapshot = database.openSnapshot();
    // The database answers at once.
    const rows = snapshot.getRange(Buffer.alloc(0), Buffer.of(0xff), Number.POSITIVE_INFINITY, false) as KeyValue[];
    this.version = BigInt(snapshot.version);
    snapshot.release();
    this.#keys = rows.map(({ key }) => keyText(key));
    this.#values = rows.map(({ value }) => value);
    this.#beforeRead = beforeRead;
  }

  async get(key: Uint8Array): Promise<Buffer | undefined> {
    return (await this.getMany([key]))[0];
  }

  async getMany(keys: readonly Uint8Array[]): Promise<(Buffer | undefined)[]> {
    const texts = keys.map(keyText);
    await this.#mayRead();
    return texts.map((text) => {
      const at = lowerBound(this.#keys, text);
      return this.#keys[at] === text ? Buffer.from(this.#values[at]!) : undefined;
    });
  }

  async getRange(begin: Uint8Array, end: Uint8Array, options: RangeOptions = {}): Promise<KeyValue[]> {
    const [low, high] = [keyText(begin), keyText(end)];
    await this.#mayRead();
    let [from, to] = [lowerBound(this.#keys, low), lowerBound(this.#keys, high)];
    const limit = Math.max(0, options.limit ?? Number.POSITIVE_INFINITY);
    if (options.reverse) from = Math.max(from, to - limit);
    else to = Math.min(to, from + limit);
    const rows: KeyValue[] = [];
    for (let at = from; at < to; at++) {
      rows.push({ key: Buffer.from(this.#keys[at]!, 'latin1'), value: Buffer.from(this.#values[at]!) });
    }
    return options.reverse ? rows.reverse() : rows;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#keys.length = 0;
    this.#values.length = 0;
  }

  async #mayRead(): Promise<void> {
    await this.#beforeRead();
    // Readers of long ranges let others have their turn.
    await nextTurn();
    if (this.#closed) throw new KvError('unavailable', 'the view is closed', 'closed');
  }
}
