/**
 * The PostgreSQL backend: many nodes on one database. FoundationDB's scheme: optimistic transactions over snapshots, and a resolver
 * that gives commits their order. The resolver is a function inside the server (`functions.ts`).
 */
import type { Clock, Logger, Random } from '../../../ops/telemetry/index.js';
import type { Attempt, CommitRequest, Snapshot, SnapshotBackend, TransactionSource } from '../backend.js';
import { KvError, type KvStore, type KvView } from '../contract.js';
import { RetryingStore } from '../retry.js';
import { BufferedTransaction } from '../transaction.js';
import type { Watch } from '../watches.js';
import { Committer } from './committer.js';
import { parseEndpoints } from './endpoints.js';
import { closedError, isConfigurationError } from './errors.js';
import type { Link } from './link.js';
import { Links, patienceMs } from './links.js';
import { Progress } from './progress.js';
import { Readers } from './readers.js';
import { prepareSchema } from './schema.js';
import { PostgresView } from './view.js';
import { WatchFeed } from './watch-feed.js';

export interface PostgresStoreOptions {
  /** `postgres://user:password@host:5432[,host:5432…]/database?sslmode=…&sslrootcert=…`. Of several hosts, the one that takes writes is used. */
  connectionString: string;
  logger: Logger;
  clock: Clock;
  random: Random;
  /** Where the tables are; made when it is not there. Small letters, digits and `_`. Default `starling`. */
  schema?: string;
  /** Connections of this node at most, one for commits and one that listens among them; a backup takes one more. At least 3, default 10. */
  maxConnections?: number;
  /** The longest wait for an answer of the server, after which it counts as hanging. Default 5,000. */
  answerTimeoutMs?: number;
}

const defaultMaxConnections = 10;
const defaultAnswerTimeoutMs = 5_000;
const otherConnections = 2;
const firstPauseMs = 100;

/** Connects, makes the tables if need be, and opens the store. Throws `unavailable` with a sentence when that can't be done within seconds. */
export async function openPostgresStore(options: PostgresStoreOptions): Promise<KvStore> {
  const { logger, clock, random, schema = 'starling', maxConnections = defaultMaxConnections } = options;
  if (!/^[a-z_][a-z0-9_]{0,47}$/.test(schema)) throw new RangeError('a schema name has up to 48 small letters, digits and _');
  if (maxConnections < otherConnections + 1) throw new RangeError('a store needs 3 connections at least');
  const links = new Links(
    parseEndpoints(options.connectionString),
    clock,
    random,
    logger,
    options.answerTimeoutMs ?? defaultAnswerTimeoutMs,
  );
  const progress = new Progress();
  const node = random.bytes(6).toString('hex');
  const feed = new WatchFeed(node, links, progress, clock, logger, schema);
  const committer = new Committer(links, progress, feed, clock, logger, schema);
  const readers = new Readers(links, progress, clock, logger, schema, maxConnections - otherConnections);
  const opened: Link[] = [];
  try {
    const first = await firstLink(links, clock);
    opened.push(first);
    await prepareSchema(first, schema);
    await feed.start(await remember(opened, links.open('listener')));
    await committer.start(first);
    readers.start(await remember(opened, links.open('reader')));
  } catch (error) {
    readers.close();
    feed.close(closedError());
    await committer.close();
    for (const link of opened) link.close();
    throw error;
  }
  return new RetryingStore(new PostgresSource(links, readers, committer, feed, clock), clock, random);
}

/** A server that is just starting is waited for; wrong addresses, passwords and rights are told at once. */
async function firstLink(links: Links, clock: Clock): Promise<Link> {
  const untilMs = clock.monotonicMs() + patienceMs;
  for (;;) {
    try {
      return await links.open('committer');
    } catch (error) {
      const cause = error instanceof KvError ? error.cause : error;
      if (isConfigurationError(cause) || clock.monotonicMs() > untilMs) throw error;
      await clock.sleep(firstPauseMs);
    }
  }
}

async function remember(opened: Link[], opening: Promise<Link>): Promise<Link> {
  const link = await opening;
  opened.push(link);
  return link;
}

class PostgresSource implements TransactionSource, SnapshotBackend {
  readonly backend = 'postgres';
  readonly #views = new Set<PostgresView>();
  #closing: Promise<void> | undefined;

  constructor(
    readonly links: Links,
    readonly readers: Readers,
    readonly committer: Committer,
    readonly feed: WatchFeed,
    readonly clock: Clock,
  ) {}

  begin(atLeastVersion: bigint | undefined, mayHaveCommitted: boolean): Attempt {
    if (this.#closing) throw closedError();
    return new BufferedTransaction(this, this.clock, atLeastVersion, mayHaveCommitted);
  }

  acquire(atLeastVersion: number | undefined): Snapshot {
    return this.readers.acquire(atLeastVersion);
  }

  commit(request: CommitRequest): Promise<number> {
    return this.committer.commit(request);
  }

  watch(watches: readonly Watch[], readVersion: number): void {
    this.feed.arm(watches, readVersion);
  }

  async openView(): Promise<KvView> {
    if (this.#closing) throw closedError();
    const link = await this.links.open('view');
    try {
      const view = await PostgresView.open(link, this.readers.statements, (ended) => this.#views.delete(ended));
      this.#views.add(view);
      if (this.#closing) await view.close();
      return view;
    } catch (error) {
      link.close();
      throw error;
    }
  }

  /** A commit and a snapshot: each has connections of its own. */
  async check(): Promise<void> {
    const [committed, seen] = await Promise.allSettled([this.committer.check(), this.#look()]);
    const error: unknown = committed.status === 'rejected' ? committed.reason : seen.status === 'rejected' && seen.reason;
    if (!error) return;
    if (error instanceof KvError && error.code === 'unavailable') throw error;
    throw new KvError('unavailable', `the store did not pass a check: ${(error as Error).message}`, 'outage', { cause: error });
  }

  /** A snapshot that went with its connection says nothing about the store: the next one is asked, as for any transaction. */
  async #look(attempts = 3): Promise<void> {
    const snapshot = this.readers.acquire(undefined);
    try {
      return await snapshot.ready?.();
    } catch (error) {
      if (attempts <= 1 || !(error instanceof KvError && error.code === 'too-old')) throw error;
    } finally {
      snapshot.release();
    }
    return this.#look(attempts - 1);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.committer.close();
    this.readers.close();
    this.feed.close(closedError());
    await Promise.all([...this.#views].map((view) => view.close()));
  }
}
