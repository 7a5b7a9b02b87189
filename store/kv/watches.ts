/**
 * Watches inside one process: who waits for which key, and who is told after a commit. Firing too often is allowed, missing a change
 * is not: a watch stands in the registry from the moment its own transaction is ordered among the others.
 */
import { KvError, type KvWatch } from './contract.js';
import { type KeyRange, rangeHolds } from './key-text.js';

/** One watch; made by its transaction, armed when that commits. */
export class Watch implements KvWatch {
  readonly fired: Promise<void>;
  /** The commit of the transaction that set the watch; its own writes do not fire it. */
  owner: object | undefined;
  onSettled: (() => void) | undefined;
  #resolve!: () => void;
  #reject!: (error: unknown) => void;
  #settled = false;

  constructor(readonly key: string) {
    this.fired = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Nobody need look at a watch whose transaction failed.
    this.fired.catch(() => {});
  }

  get isSettled(): boolean {
    return this.#settled;
  }

  fire(): void {
    if (this.#settle()) this.#resolve();
  }

  cancel(): void {
    this.fire();
  }

  fail(error: unknown): void {
    if (this.#settle()) this.#reject(error);
  }

  #settle(): boolean {
    if (this.#settled) return false;
    this.#settled = true;
    this.onSettled?.();
    this.onSettled = undefined;
    return true;
  }
}

export class WatchRegistry {
  readonly #byKey = new Map<string, Set<Watch>>();

  /** Watches that are waiting. */
  get size(): number {
    let size = 0;
    for (const watches of this.#byKey.values()) size += watches.size;
    return size;
  }

  add(watch: Watch): void {
    if (watch.isSettled) return;
    let watches = this.#byKey.get(watch.key);
    if (!watches) this.#byKey.set(watch.key, (watches = new Set()));
    watches.add(watch);
    watch.onSettled = () => {
      watches.delete(watch);
      if (watches.size === 0 && this.#byKey.get(watch.key) === watches) this.#byKey.delete(watch.key);
    };
  }

  /** Tells the watches of every key that a durable commit wrote. `commit` is spared its own. */
  fire(points: readonly string[], ranges: readonly KeyRange[], commit: object): void {
    if (this.#byKey.size === 0) return;
    for (const key of points) this.#fireKey(key, commit);
    if (ranges.length === 0) return;
    for (const key of [...this.#byKey.keys()]) {
      if (ranges.some((range) => rangeHolds(range, key))) this.#fireKey(key, commit);
    }
  }

  failAll(error: KvError): void {
    for (const watches of [...this.#byKey.values()]) for (const watch of [...watches]) watch.fail(error);
  }

  #fireKey(key: string, commit: object): void {
    const watches = this.#byKey.get(key);
    if (!watches) return;
    for (const watch of [...watches]) if (watch.owner !== commit) watch.fire();
  }
}

/** The error of watches whose transaction did not commit. */
export function watchLost(cause: unknown): KvError {
  return new KvError('unavailable', 'the transaction that set this watch did not commit', undefined, { cause });
}
