/**
 * Group commit: while one batch is on its way to the server, the next one gathers. A batch has an id, so one whose answer is lost can be
 * sent again; one that is given up is abandoned at the server before anything else is committed over a new connection.
 *
 * What must be true: one batch at a time; nothing that was refused or given up is committed later; results follow the server's answer.
 */
import type { Clock, Logger } from '../../../ops/telemetry/index.js';
import { type CommitRequest, PendingConflict } from '../backend.js';
import { KvError } from '../contract.js';
import { WriteBuffer } from '../write-buffer.js';
import { Batch, type Entry, keyHash } from './batch.js';
import { closedError, errorCode, isCancelled, isReadOnly, isStatementError, unavailable } from './errors.js';
import type { Link, Row } from './link.js';
import { type Links, Reconnector, switched } from './links.js';
import {
  batchBytes,
  batchSeconds,
  batchTransactions,
  conflictsTotal,
  countFlight,
  lostCommitsTotal,
  resentTotal,
  unknownTotal,
} from './metrics.js';
import { encodeNotice } from './notice.js';
import { PendingWrites, pointsWritten, rangesWritten, type WriteRecord } from './pending.js';
import type { Progress } from './progress.js';
import type { WatchFeed } from './watch-feed.js';

/** A batch is given up when it has waited so much longer than for one answer; its transactions may or may not have been committed. */
const unknownMarginMs = 1_000;
/** A batch that the server keeps cancelling is sent so often. */
const maxSends = 5;
/** SQLSTATE of our own function: nobody will know any more what became of the batch. */
const outcomeGone = 'ST001';

const localConflicts = conflictsTotal.labels('node');
const serverConflicts = conflictsTotal.labels('server');

export class Committer {
  readonly #pending = new PendingWrites();
  readonly #queue: Batch[] = [];
  readonly #drained: (() => void)[] = [];
  /** Ids of batches that were given up and that a server may still be at work on. */
  readonly #abandoned = new Set<string>();
  readonly #reconnector: Reconnector;
  readonly #commitText: string;
  readonly #enterText: string;
  #link: Link | undefined;
  #inFlight: Batch | undefined;
  #sendScheduled = false;
  #era: string | undefined;
  /** What was read below this was read before the server lost its memory of recent writes. */
  #validFrom = 0;
  #closing = false;
  #closed = false;

  constructor(
    readonly links: Links,
    readonly progress: Progress,
    readonly feed: WatchFeed,
    readonly clock: Clock,
    readonly logger: Logger,
    schema: string,
  ) {
    const types =
      'bigint,uuid,bigint,int,bigint,bigint[],int[],bytea[],int[],bytea[],bytea[],int[],bytea[],bytea[],smallint[],int[],bytea[],' +
      'bytea[],boolean[],int[],bytea[],smallint[],bigint[],int[],bytea[],bytea[],bytea[],text';
    const parameters = types.split(',').map((type, at) => `$${at + 1}::${type}`);
    this.#commitText = `select "${schema}".commit_1(${parameters.join(', ')})`;
    this.#enterText = `select * from "${schema}".enter_1($1::bigint, $2::bigint, $3::uuid[])`;
    this.#reconnector = new Reconnector(
      links,
      'committer',
      (link) => this.#use(link),
      (error) => this.#onConnectFailure(error),
      () => !this.#closed,
    );
    links.onSwitch((preferred) => {
      if (this.#link && this.#link.endpoint !== preferred) this.#link.destroy(new Error(switched));
    });
  }

  /** Takes the first connection into use. */
  async start(link: Link): Promise<void> {
    await this.#use(link);
  }

  /** Commits; resolves to the version when the server has it durable. Checked against this node's own commits on their way at once. */
  async commit(request: CommitRequest): Promise<number> {
    this.#assertUsable();
    this.#assertNoPendingConflict(request);
    const points = pointsWritten(request);
    const ranges = rangesWritten(request);
    const batch = this.#batchFor(request);
    const record: WriteRecord = { points, ranges, settled: batch.settled };
    const changed = request.watches.length === 0 ? [] : this.feed.arm(request.watches, request.readVersion, record);
    this.#pending.add(record);
    this.#scheduleSend();
    return new Promise<number>((resolve, reject) => {
      const hashes = points.map(keyHash);
      batch.add(request, { request, record, readVersion: request.readVersion, hashes, changed, resolve, reject });
    });
  }

  /** A durable write of nothing but the version. */
  async check(): Promise<void> {
    const nothing = { points: [], ranges: [] };
    const writes = new WriteBuffer();
    await this.commit({ readVersion: undefined, reads: nothing, writes, writeConflicts: nothing, watches: [] });
  }

  /** Takes no more commits, waits for those that run, and says goodbye. */
  async close(): Promise<void> {
    this.#closing = true;
    if (this.#inFlight || this.#queue.length > 0) await new Promise<void>((resolve) => this.#drained.push(resolve));
    this.#closed = true;
    this.#link?.close();
  }

  #assertUsable(): void {
    if (this.#closing) throw closedError();
    // Nothing was sent, so nothing is unknown.
    if (!this.#link && this.#reconnector.isOut) throw this.#outage();
  }

  #outage(): KvError {
    return this.#reconnector.lastError ?? new KvError('unavailable', 'there is no connection to PostgreSQL', 'outage');
  }

  #assertNoPendingConflict(request: CommitRequest): void {
    if (request.readVersion === undefined) return;
    const found = this.#pending.find(request.reads);
    if (!found) return;
    localConflicts.inc();
    const message = `something read at version ${request.readVersion} is about to be changed`;
    throw new PendingConflict(message, found.record.settled, found.contended);
  }

  #batchFor(request: CommitRequest): Batch {
    const last = this.#queue.at(-1);
    if (last?.admits(request)) return last;
    const batch = new Batch(this.#newId());
    this.#queue.push(batch);
    return batch;
  }

  #newId(): string {
    return this.links.random.bytes(16).toString('hex');
  }

  /** Sends at the end of this turn of the event loop, so that everything that commits in it goes together. */
  #scheduleSend(): void {
    if (this.#inFlight || this.#sendScheduled) return;
    this.#sendScheduled = true;
    setImmediate(() => {
      this.#sendScheduled = false;
      this.#sendNext();
    });
  }

  #sendNext(): void {
    if (this.#inFlight || !this.#link) return;
    const batch = this.#queue.shift();
    if (batch) {
      this.#inFlight = batch;
      this.#send(batch, this.#link);
    } else for (const resolve of this.#drained.splice(0)) resolve();
  }

  #send(batch: Batch, link: Link): void {
    if (batch.firstSentAtMs === undefined) {
      batch.firstSentAtMs = this.clock.monotonicMs();
      batch.knownVersion = this.progress.seen;
      batchTransactions.observe(batch.entries.length);
      batchBytes.observe(batch.byteLength);
    } else resentTotal.inc();
    const values = [this.#era!, ...batch.arguments(encodeNotice(this.feed.node, batch.entries), this.#validFrom)];
    batch.sends++;
    countFlight('commit');
    link.run({ name: 'commit_1', text: this.#commitText, values }).then(
      (rows) => this.#onAnswer(batch, link, rows),
      (error: unknown) => this.#onError(batch, link, error),
    );
  }

  #onAnswer(batch: Batch, link: Link, rows: Row[]): void {
    if (this.#inFlight !== batch) return;
    batchSeconds.observe((this.clock.monotonicMs() - batch.firstSentAtMs!) / 1000);
    const outcome = /^(\d*)\|\d*\|([\d,]*)\|([\d,]*)$/.exec(rows[0]?.[0] ?? '');
    if (!outcome) {
      this.#giveUp(batch, new Error('the server answered a commit with something else'));
      link.destroy(new Error('an answer that makes no sense'));
      return;
    }
    this.#inFlight = undefined;
    const [, version, refused, tooOld] = outcome as unknown as [string, string, string, string];
    // The next batch is on its way before anybody runs on with this one's results.
    this.#sendNext();
    this.#settle(batch, Number(version), numbers(refused), numbers(tooOld));
  }

  #settle(batch: Batch, version: number, refused: ReadonlySet<number>, tooOld: ReadonlySet<number>): void {
    this.progress.note(version);
    const passed = refused.size === 0 ? batch.entries : batch.entries.filter((_, at) => !refused.has(at + 1));
    this.#release(batch);
    if (passed.length > 0) this.feed.committed(version, passed);
    batch.entries.forEach((entry, at) => {
      if (refused.has(at + 1)) entry.reject(this.#refusal(entry, tooOld.has(at + 1)));
      else {
        entry.resolve(version);
        for (const watch of entry.changed) watch.fire();
      }
    });
  }

  #refusal(entry: Entry, isTooOld: boolean): KvError {
    if (isTooOld)
      return new KvError('too-old', `the server does not know any more what changed since version ${entry.readVersion}`);
    serverConflicts.inc();
    return new KvError('conflict', `something read at version ${entry.readVersion} was changed since`);
  }

  #onError(batch: Batch, link: Link, error: unknown): void {
    if (this.#inFlight !== batch) return;
    if (link.isLost || !isStatementError(error)) {
      // The connection is gone, and with it the answer: it is asked for again over a new one.
      link.destroy(error as Error);
      return;
    }
    if (errorCode(error) === outcomeGone) {
      this.#fail(batch, unknown(error));
      this.feed.missed(this.progress.seen, 'unknown');
      return;
    }
    if (isReadOnly(error)) this.links.avoid(link.endpoint);
    const isTransient = isReadOnly(error) || isCancelled(error) || /^(40|55P03|P0002)/.test(errorCode(error) ?? '');
    if (isTransient && batch.sends < maxSends && !this.#hasWaitedEnough(batch)) {
      link.destroy(error as Error);
      return;
    }
    this.logger.error({ err: error, transactions: batch.entries.length }, 'a batch of commits failed');
    if (batch.sends === 1) {
      if (batch.entries.length > 1 && isOwnFault(error)) this.#sendEachAlone(batch);
      else this.#fail(batch, unavailable(error, 'the commit failed'));
      return;
    }
    // An earlier sending may still be at work somewhere: it must be abandoned before this connection commits anything else.
    this.#giveUp(batch, error);
    link.destroy(error as Error);
  }

  #fail(batch: Batch, error: KvError): void {
    if (this.#inFlight === batch) this.#inFlight = undefined;
    this.#release(batch);
    for (const entry of batch.entries) entry.reject(error);
    this.#sendNext();
  }

  /** Nothing of `batch` was committed because of one of its transactions: the others must not fail with it. */
  #sendEachAlone(batch: Batch): void {
    this.#inFlight = undefined;
    const alone = batch.entries.map((entry) => {
      const single = new Batch(this.#newId());
      single.add(entry.request, entry);
      // Who waits for the batch waits for all of them.
      return single;
    });
    void Promise.all(alone.map((single) => single.settled)).then(batch.settle);
    this.#queue.unshift(...alone);
    this.#sendNext();
  }

  /** Nobody knows whether `batch` was or will be committed; the next connection sees to it that it will not be later. */
  #giveUp(batch: Batch, cause: unknown): void {
    unknownTotal.inc();
    this.#abandoned.add(batch.id);
    this.#link = undefined;
    this.#fail(batch, unknown(cause));
  }

  #release(batch: Batch): void {
    for (const { record } of batch.entries) this.#pending.remove(record);
    // Those that lost to this batch go first: they have waited longer than those that are done.
    batch.settle();
  }

  #hasWaitedEnough(batch: Batch): boolean {
    const limitMs = this.links.answerTimeoutMs + unknownMarginMs;
    return batch.firstSentAtMs !== undefined && this.clock.monotonicMs() - batch.firstSentAtMs > limitMs;
  }

  #onConnectFailure(error: KvError): void {
    const batch = this.#inFlight;
    if (batch && this.#hasWaitedEnough(batch)) this.#giveUp(batch, error);
    if (!this.#reconnector.isOut) return;
    for (const queued of this.#queue.splice(0)) this.#fail(queued, error);
    if (!this.#inFlight) for (const resolve of this.#drained.splice(0)) resolve();
  }

  /** The first call over a new connection; then whatever was on its way is asked for again. */
  async #use(link: Link): Promise<void> {
    const again = this.#inFlight;
    // Whatever is in it ends connections: that must not go on for ever.
    if (again && again.sends >= maxSends && this.#hasWaitedEnough(again)) {
      this.#giveUp(again, new Error('every connection that it was sent on was lost'));
    }
    const abandoned = [...this.#abandoned];
    const seen = this.progress.seen;
    const values = [this.#era ?? null, String(seen), `{${abandoned.join(',')}}`];
    countFlight('connect');
    const [row] = await link.run({ text: this.#enterText, values });
    const [before, head, era] = row as readonly [string, string, string];
    if (this.#closed) {
      link.close();
      return;
    }
    if (Number(before) < seen) {
      lostCommitsTotal.inc();
      this.logger.error(
        { seen, found: Number(before), host: link.endpoint.name },
        'the store has lost commits that were acknowledged: failover to a standby that did not have them',
      );
    }
    if (this.#era !== undefined && era !== this.#era) this.#validFrom = Number(head);
    this.#era = era;
    this.progress.note(Number(head));
    for (const id of abandoned) this.#abandoned.delete(id);
    // They are over now, but may have been committed, and then nobody told this node's watches.
    if (abandoned.length > 0) this.feed.missed(Number(head), 'unknown');
    this.#link = link;
    link.onLost(() => this.#onLost(link));
    if (this.#inFlight) this.#send(this.#inFlight, link);
    else this.#sendNext();
  }

  #onLost(link: Link): void {
    if (this.#link === link) this.#link = undefined;
    if (!this.#closed) this.#reconnector.start();
  }
}

function unknown(cause: unknown): KvError {
  const message = cause instanceof Error ? cause.message : String(cause);
  return new KvError('commit-unknown', `the commit may or may not have happened: ${message}`, undefined, { cause });
}

/** Whether the server refused what it was given (data, constraints, limits), not because of its own state. */
function isOwnFault(error: unknown): boolean {
  return /^(22|23|42|54)/.test(errorCode(error) ?? '');
}

function numbers(list: string): ReadonlySet<number> {
  return list === '' ? none : new Set(list.split(',').map(Number));
}

const none: ReadonlySet<number> = new Set();
