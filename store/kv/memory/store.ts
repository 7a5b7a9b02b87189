/** The memory backend: one store ("node") on a `MemoryDatabase`, with its own faults. For tests and the simulator. */
import { type Clock, type Random, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import type { Attempt, CommitRequest, MaybePromise, Snapshot, SnapshotBackend, TransactionSource } from '../backend.js';
import { KvError, type KvStore, type KvView } from '../contract.js';
import { RetryingStore } from '../retry.js';
import { BufferedTransaction } from '../transaction.js';
import type { Watch } from '../watches.js';
import { MemoryDatabase } from './database.js';
import { type MemoryFaultOptions, MemoryFaults, type MemoryOperation } from './faults.js';
import { MemoryView } from './view.js';

export interface MemoryStoreOptions {
  /** Shared with other stores; a new one when absent. */
  database?: MemoryDatabase;
  clock?: Clock;
  random?: Random;
  faults?: MemoryFaultOptions;
}

/** A `KvStore` whose faults can be changed and whose database can be shared. */
export interface MemoryStore extends KvStore {
  readonly database: MemoryDatabase;
  readonly faults: MemoryFaults;
}

/** Opens a store in memory. Nothing outlives the database object. */
export function openMemoryStore(options: MemoryStoreOptions = {}): MemoryStore {
  const clock = options.clock ?? systemClock;
  const random = options.random ?? systemRandom;
  const database = options.database ?? new MemoryDatabase({ clock });
  const faults = new MemoryFaults(options.faults);
  const source = new MemorySource(database, faults, clock, random);
  return Object.assign(new RetryingStore(source, clock, random), { database, faults });
}

class MemorySource implements TransactionSource, SnapshotBackend {
  readonly backend = 'memory';
  readonly #committing = new Set<Promise<unknown>>();
  readonly #watches = new Set<Watch>();
  #closed = false;

  constructor(
    readonly database: MemoryDatabase,
    readonly faults: MemoryFaults,
    readonly clock: Clock,
    readonly random: Random,
  ) {}

  begin(atLeastVersion: bigint | undefined, mayHaveCommitted: boolean): Attempt {
    this.#assertUsable();
    return new BufferedTransaction(this, this.clock, atLeastVersion, mayHaveCommitted);
  }

  acquire(atLeastVersion: number | undefined): MaybePromise<Snapshot> {
    this.#assertUsable();
    const wait = this.#delay('begin');
    return wait ? wait.then(() => this.#open(atLeastVersion)) : this.#open(atLeastVersion);
  }

  commit(request: CommitRequest): Promise<number> {
    const committing = this.#commit(request);
    this.#committing.add(committing);
    const done = () => this.#committing.delete(committing);
    committing.then(done, done);
    return committing;
  }

  watch(watches: readonly Watch[], readVersion: number): void {
    this.database.watch(watches, readVersion);
    this.#keep(watches);
  }

  async openView(): Promise<KvView> {
    this.#assertUsable();
    await this.#delay('begin');
    this.#assertUsable();
    return new MemoryView(this.database, async () => {
      await this.#delay('read');
      this.#assertUsable();
    });
  }

  async check(): Promise<void> {
    this.#assertUsable();
    await this.#delay('commit');
    this.#assertUsable();
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#committing);
    for (const watch of [...this.#watches]) watch.fail(closedError());
  }

  async #commit(request: CommitRequest): Promise<number> {
    this.#assertUsable();
    const letGo = this.database.hold(request.readVersion);
    try {
      const wait = this.#delay('commit');
      if (wait) await wait;
      if (this.faults.outage) throw new KvError('commit-unknown', 'the store went away during the commit');
      if (request.readVersion !== undefined && this.#happens(this.faults.conflict))
        throw new KvError('conflict', 'injected conflict');
      if (this.faults.takeNextCommit('lost') || this.#happens(this.faults.commitUnknownLost))
        throw new KvError('commit-unknown', 'injected; was not applied');
      const version = this.database.commit(request);
      this.#keep(request.watches);
      if (this.faults.takeNextCommit('applied') || this.#happens(this.faults.commitUnknownApplied))
        throw new KvError('commit-unknown', 'injected; was applied');
      return version;
    } finally {
      letGo();
    }
  }

  #open(atLeastVersion: number | undefined): Snapshot {
    this.#assertUsable();
    if (atLeastVersion !== undefined && atLeastVersion > this.database.version) {
      throw new KvError('unavailable', `version ${atLeastVersion} is above everything that this store has committed`, 'outage');
    }
    return this.#faulty(this.database.openSnapshot());
  }

  /** A snapshot whose reads may take time and meet an outage. */
  #faulty(snapshot: Snapshot): Snapshot {
    const checked = <T>(read: () => MaybePromise<T>): MaybePromise<T> => {
      this.#assertUsable();
      return read();
    };
    const reading = <T>(read: () => MaybePromise<T>): MaybePromise<T> =>
      this.#delay('read')?.then(() => checked(read)) ?? checked(read);
    return {
      version: snapshot.version,
      get: (key) => reading(() => snapshot.get(key)),
      getMany: (keys) => reading(() => snapshot.getMany(keys)),
      getRange: (begin, end, limit, reverse) => reading(() => snapshot.getRange(begin, end, limit, reverse)),
      release: () => snapshot.release(),
    };
  }

  #keep(watches: readonly Watch[]): void {
    for (const watch of watches) {
      if (watch.isSettled) continue;
      this.#watches.add(watch);
      const forget = () => this.#watches.delete(watch);
      watch.fired.then(forget, forget);
    }
  }

  #happens(probability: number): boolean {
    return probability > 0 && this.random.float() < probability;
  }

  #delay(operation: MemoryOperation): Promise<void> | undefined {
    const delayMs = this.faults.delayMs?.(operation) ?? 0;
    return delayMs > 0 ? this.clock.sleep(delayMs) : undefined;
  }

  #assertUsable(): void {
    if (this.#closed) throw closedError();
    if (this.faults.outage) throw new KvError('unavailable', 'injected outage', 'outage');
  }
}

function closedError(): KvError {
  return new KvError('unavailable', 'the store is closed', 'closed');
}
