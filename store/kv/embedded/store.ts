/**
 * The embedded backend: one node, no server. SQLite in one directory, read on the main thread from snapshots, written by a thread of
 * its own that makes many commits durable at once.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Clock, type Logger, type Random, silentLogger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import type { Attempt, CommitRequest, MaybePromise, Snapshot, SnapshotBackend, TransactionSource } from '../backend.js';
import { KvError, type KvStore, type KvView } from '../contract.js';
import { RetryingStore } from '../retry.js';
import { BufferedTransaction } from '../transaction.js';
import type { Watch } from '../watches.js';
import { Committer, closedError } from './committer.js';
import { lockDirectory } from './lock.js';
import { SnapshotPool } from './snapshots.js';
import { EmbeddedView } from './view.js';

export interface EmbeddedStoreOptions {
  /** Made when it does not exist (mode 0700). */
  directory: string;
  clock?: Clock;
  random?: Random;
  logger?: Logger;
  /** `none` does not wait for the disk: for tests only. Default `full`. */
  durability?: 'full' | 'none';
  /** The database file grows no larger; a commit that needs more fails with `no-space`. Default: what the disk gives. */
  maxFileBytes?: number;
}

/** Opens the store of a directory. Throws `unavailable` when another process has it, or the file can't be used. */
export async function openEmbeddedStore(options: EmbeddedStoreOptions): Promise<KvStore> {
  const { directory, clock = systemClock, random = systemRandom, logger = silentLogger } = options;
  makeDirectory(directory);
  const unlock = lockDirectory(directory);
  const file = join(directory, 'kv.sqlite');
  const settings = { file, durability: options.durability ?? 'full', maxFileBytes: options.maxFileBytes ?? 0 } as const;
  const committer = new Committer(settings, clock, logger);
  try {
    await committer.start();
  } catch (error) {
    unlock();
    throw error;
  }
  const snapshots = new SnapshotPool(file, clock, committer.history, committer.cache);
  return new RetryingStore(new EmbeddedSource(committer, snapshots, clock, unlock), clock, random);
}

class EmbeddedSource implements TransactionSource, SnapshotBackend {
  readonly backend = 'embedded';
  readonly #views = new Set<EmbeddedView>();
  #closing: Promise<void> | undefined;

  constructor(
    readonly committer: Committer,
    readonly snapshots: SnapshotPool,
    readonly clock: Clock,
    readonly unlock: () => void,
  ) {}

  begin(atLeastVersion: bigint | undefined, mayHaveCommitted: boolean): Attempt {
    if (this.#closing) throw closedError();
    return new BufferedTransaction(this, this.clock, atLeastVersion, mayHaveCommitted);
  }

  acquire(atLeastVersion: number | undefined): MaybePromise<Snapshot> {
    const durable = this.committer.durableVersion;
    if (atLeastVersion === undefined || atLeastVersion <= durable) return this.snapshots.acquire(durable);
    if (atLeastVersion > this.committer.lastVersion) throw unreachable(atLeastVersion);
    return this.committer.settled(atLeastVersion).then(() => {
      if (atLeastVersion > this.committer.durableVersion) throw unreachable(atLeastVersion);
      return this.snapshots.acquire(this.committer.durableVersion);
    });
  }

  commit(request: CommitRequest): Promise<number> {
    return this.committer.commit(request);
  }

  watch(watches: readonly Watch[], readVersion: number): void {
    this.committer.watch(watches, readVersion);
  }

  async openView(): Promise<KvView> {
    if (this.#closing) throw closedError();
    const view = await EmbeddedView.open(this.committer.settings.file, (ended) => this.#views.delete(ended));
    this.#views.add(view);
    if (this.#closing) await view.close();
    return view;
  }

  check(): Promise<void> {
    return this.committer.check();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.committer.drain();
    this.snapshots.close();
    await Promise.all([...this.#views].map((view) => view.close()));
    await this.committer.stop();
    this.unlock();
  }
}

/**
 * A view of a directory's store beside the process that has it open, or where none has. Reads only; takes no lock. Throws `unavailable` where there is no
 * store.
 */
export function openEmbeddedView(directory: string): Promise<KvView> {
  return EmbeddedView.open(join(directory, 'kv.sqlite'));
}

function unreachable(version: number): KvError {
  return new KvError('unavailable', `version ${version} is above everything that this store has committed`, 'outage');
}

function makeDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code === 'ENOSPC' ? 'no-space' : 'io';
    throw new KvError('unavailable', `the directory ${directory} can't be made: ${String(error)}`, reason, { cause: error });
  }
}
