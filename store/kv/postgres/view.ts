/** One version of the whole store on a connection of its own, for as long as a backup takes. */
import { type KeyValue, KvError, type KvView, type RangeOptions } from '../contract.js';
import type { Link } from './link.js';
import { SharedSnapshot, type SnapshotOwner } from './snapshot.js';
import type { ReadStatements } from './statements.js';

export class PostgresView implements KvView, SnapshotOwner {
  readonly #snapshot: SharedSnapshot;

  private constructor(
    readonly link: Link,
    readonly statements: ReadStatements,
    readonly onClosed: (view: PostgresView) => void,
  ) {
    this.#snapshot = new SharedSnapshot(this);
    this.#snapshot.board();
  }

  /** Takes the snapshot on `link`, which it owns from now on. */
  static async open(link: Link, statements: ReadStatements, onClosed: (view: PostgresView) => void): Promise<PostgresView> {
    const view = new PostgresView(link, statements, onClosed);
    view.#snapshot.begin(link, 0);
    await asUnavailable(view.#snapshot.opened);
    return view;
  }

  get version(): bigint {
    return BigInt(this.#snapshot.version);
  }

  get(key: Uint8Array): Promise<Buffer | undefined> {
    return asUnavailable(this.#snapshot.get(key));
  }

  getMany(keys: readonly Uint8Array[]): Promise<(Buffer | undefined)[]> {
    return asUnavailable(this.#snapshot.getMany(keys));
  }

  async getRange(begin: Uint8Array, end: Uint8Array, options?: RangeOptions): Promise<KeyValue[]> {
    const limit = options?.limit ?? Number.POSITIVE_INFINITY;
    if (limit <= 0 || Buffer.compare(begin, end) >= 0) return [];
    return asUnavailable(this.#snapshot.getRange(begin, end, limit, options?.reverse ?? false));
  }

  async close(): Promise<void> {
    this.link.close();
    this.onClosed(this);
  }

  onVersion(): void {}

  onEnd(): void {}
}

/** There is no second try: another snapshot would be another version. */
async function asUnavailable<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof KvError && error.code === 'unavailable') throw error;
    throw new KvError('unavailable', `the view is gone: ${(error as Error).message}`, 'outage', { cause: error });
  }
}
