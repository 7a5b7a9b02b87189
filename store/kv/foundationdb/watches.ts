/**
 * Watches on FoundationDB: each of ours stands for one of the client's from the commit on until it fires, is cancelled, or the store
 * closes. What can't be watched fires at once, which the contract allows, so that nobody sleeps through a change.
 */
import type { NativeTransaction, Watch as NativeWatch } from 'foundationdb/dist/lib/native.js';
import type { Logger } from '../../../ops/telemetry/index.js';
import type { KvError } from '../contract.js';
import { keyBytes } from '../key-text.js';
import type { Watch } from '../watches.js';
import { closedError } from './errors.js';
import type { TransactionHost, WatchedValue, WatchHost } from './host.js';

export class OpenWatches implements WatchHost {
  readonly #host: TransactionHost;
  readonly #logger: Logger;
  readonly #open = new Set<Watch>();

  constructor(host: TransactionHost, logger: Logger) {
    this.#host = host;
    this.#logger = logger;
  }

  set(native: NativeTransaction, watches: readonly Watch[]): void {
    for (const watch of watches) {
      if (watch.isSettled) continue;
      this.#tie(watch, native.watch(keyBytes(watch.key), false));
    }
  }

  /**
   * In a transaction of its own: the client's watch is a read, so in the one that writes it could conflict.
   */
  async setAt(version: bigint, watched: readonly WatchedValue[]): Promise<void> {
    const watches = watched.map(({ watch }) => watch);
    for (const watch of watches) this.#keep(watch, () => {});
    if (this.#host.isClosed) return failAll(watches, closedError());
    const loan = this.#host.lend();
    try {
      const at = Buffer.allocUnsafe(8);
      at.writeBigInt64BE(version);
      loan.native.setReadVersion(at);
      this.#host.limitReads(loan);
      const values = await Promise.all(watched.map(({ watch }) => loan.native.get(keyBytes(watch.key), true)));
      watched.forEach(({ watch, value }, index) => {
        if (!sameValue(value, values[index])) watch.fire();
      });
      this.set(loan.native, watches);
      await loan.native.commit();
    } catch (error) {
      const failure = this.#host.asKvError(error, 'read');
      if (this.#host.isClosed) return failAll(watches, closedError());
      this.#logger.debug({ err: failure }, 'FoundationDB could not watch; the watchers look again');
      for (const watch of watches) watch.fire();
    } finally {
      this.#host.takeBack(loan);
    }
  }

  failAll(error: KvError): void {
    failAll([...this.#open], error);
  }

  #tie(watch: Watch, native: NativeWatch): void {
    let isOver = false;
    this.#keep(watch, () => {
      if (!isOver) native.cancel();
    });
    native.promise.then(
      () => {
        isOver = true;
        watch.fire();
      },
      (error) => {
        isOver = true;
        if (watch.isSettled) return;
        if (this.#host.isClosed) return watch.fail(closedError());
        this.#logger.debug({ err: this.#host.asKvError(error, 'read') }, 'FoundationDB dropped a watch; the watcher looks again');
        watch.fire();
      },
    );
  }

  #keep(watch: Watch, onSettled: () => void): void {
    if (watch.isSettled) {
      onSettled();
      return;
    }
    this.#open.add(watch);
    watch.onSettled = () => {
      this.#open.delete(watch);
      onSettled();
    };
  }
}

function failAll(watches: readonly Watch[], error: KvError): void {
  for (const watch of watches) watch.fail(error);
}

function sameValue(a: Buffer | undefined, b: Buffer | undefined): boolean {
  return a === undefined || b === undefined ? a === b : a.equals(b);
}
