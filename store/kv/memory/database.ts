/**
 * The state that memory stores share: the stand-in for a cluster's database. Several stores ("nodes") in one process work on one
 * `MemoryDatabase`, as several processes would on one FoundationDB. A commit is one synchronous step, so runs can be replayed.
 */
import { type Clock, systemClock } from '../../../ops/telemetry/index.js';
import type { CommitRequest, Snapshot } from '../backend.js';
import { type KeyValue, KvError, kvLimits } from '../contract.js';
import { CommitHistory, type CommitRecord } from '../history.js';
import { asBuffer, keyText } from '../key-text.js';
import { versionstampText, writtenBy } from '../transaction.js';
import { type Watch, WatchRegistry } from '../watches.js';
import { VersionedMap } from './versions.js';

export class MemoryDatabase {
  readonly #clock: Clock;
  readonly #data = new VersionedMap();
  readonly #history = new CommitHistory();
  readonly #watches = new WatchRegistry();
  /** In the order in which they were opened. */
  readonly #open = new Set<MemorySnapshot>();
  /** Keys written by each kept version, oldest first: what pruning has to look at. */
  #written: { version: number; keys: string[] }[] = [];
  #version = 0;

  constructor(options: { clock?: Clock } = {}) {
    this.#clock = options.clock ?? systemClock;
  }

  /** Version of the last commit. */
  get version(): number {
    return this.#version;
  }

  /** Watches that are waiting; for tests. */
  get watchCount(): number {
    return this.#watches.size;
  }

  /** Keys held, cleared ones included while somebody may still read them; for tests. */
  get keyCount(): number {
    return this.#data.size;
  }

  openSnapshot(): Snapshot {
    const snapshot = new MemorySnapshot(this.#data, this.#version, this.#clock.monotonicMs(), () => {
      this.#open.delete(snapshot);
      this.#history.unpin(snapshot.version);
    });
    this.#open.add(snapshot);
    this.#history.pin(snapshot.version);
    return snapshot;
  }

  /** Keeps what a commit at `version` must be checked against, while it waits. Gives the function that ends that. */
  hold(version: number | undefined): () => void {
    if (version === undefined) return () => {};
    this.#history.pin(version);
    return () => this.#history.unpin(version);
  }

  /** Checks and applies; throws `conflict`. */
  commit(request: CommitRequest): number {
    this.#expireSnapshots();
    this.#history.assertNoConflict(request);
    const version = this.#version + 1;
    const stamp = versionstampText(version, 0);
    const record: CommitRecord = { version, ...writtenBy(request, stamp) };
    this.#apply(request, version, stamp);
    this.#version = version;
    this.#armWatches(request, record);
    this.#history.record(record);
    this.#watches.fire(record.points, record.ranges, record);
    this.#prune();
    return version;
  }

  /** Arms watches of a transaction that read `readVersion` and wrote nothing. */
  watch(watches: readonly Watch[], readVersion: number): void {
    for (const watch of watches) {
      if (this.#history.writerSince(watch.key, readVersion)) watch.fire();
      else this.#watches.add(watch);
    }
  }

  #armWatches(request: CommitRequest, record: CommitRecord): void {
    for (const watch of request.watches) watch.owner = record;
    if (request.watches.length > 0) this.watch(request.watches, request.readVersion ?? this.#version);
  }

  #apply(request: CommitRequest, version: number, stamp: string): void {
    const { writes } = request;
    const keys: string[] = [];
    for (const range of writes.clearedRanges) keys.push(...this.#data.clearRange(range.begin, range.end, version));
    for (const key of writes.points.keys()) {
      // The newest state, not the snapshot: an atomic operation builds on whatever is there.
      this.#data.put(key, version, writes.outcome(key, this.#data.at(key, version)));
      keys.push(key);
    }
    for (const write of writes.stamped) {
      const key = write.prefix + stamp + write.suffix;
      this.#data.put(key, version, write.value);
      keys.push(key);
    }
    this.#written.push({ version, keys });
  }

  /** Bodies that have hung for longer than a transaction may run must not keep old versions alive. */
  #expireSnapshots(): void {
    const oldestMs = this.#clock.monotonicMs() - kvLimits.maxTransactionMs;
    for (const snapshot of this.#open) {
      if (snapshot.openedAtMs >= oldestMs) return;
      snapshot.expire();
    }
  }

  #prune(): void {
    this.#history.prune(this.#version);
    const floor = this.#history.lowestPin ?? this.#version;
    let done = 0;
    // A key that was cleared at a version is looked at again when that version itself is out of everybody's sight.
    for (; done < this.#written.length && this.#written[done]!.version <= floor; done++) {
      for (const key of this.#written[done]!.keys) this.#data.prune(key, floor);
    }
    if (done > 0) this.#written.splice(0, done);
  }
}

class MemorySnapshot implements Snapshot {
  #state: 'open' | 'released' | 'expired' = 'open';

  constructor(
    readonly data: VersionedMap,
    readonly version: number,
    readonly openedAtMs: number,
    readonly onEnd: () => void,
  ) {}

  get(key: Uint8Array): Buffer | undefined {
    this.#assertOpen();
    const value = this.data.at(keyText(key), this.version);
    return value && Buffer.from(value);
  }

  getMany(keys: readonly Uint8Array[]): (Buffer | undefined)[] {
    return keys.map((key) => this.get(key));
  }

  getRange(begin: Uint8Array, end: Uint8Array, limit: number, reverse: boolean): KeyValue[] {
    this.#assertOpen();
    return this.data.range(keyText(asBuffer(begin)), keyText(asBuffer(end)), this.version, limit, reverse);
  }

  release(): void {
    this.#end('released');
  }

  expire(): void {
    this.#end('expired');
  }

  #end(state: 'released' | 'expired'): void {
    if (this.#state !== 'open') return;
    this.#state = state;
    this.onEnd();
  }

  #assertOpen(): void {
    if (this.#state !== 'open') throw new KvError('too-old', 'the versions that this transaction reads are gone');
  }
}
