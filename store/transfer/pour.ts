/**
 * Pours rows into an empty store: in bounded transactions, each of which also moves the marker, so that it can be cut off anywhere (a kill, a lost
 * connection, a commit that nobody heard of) and goes on exactly there. At the end everything is read again and compared, claims of nodes that are
 * unknown here are freed as a takeover does it, and the marker goes.
 */
import type { Clock, Logger } from '../../ops/telemetry/index.js';
import { type KeyValue, KvError, type KvStore, type KvTransaction, keyAfter } from '../kv/contract.js';
import { createQueueNodes } from '../queue/nodes.js';
import { settleClaim } from './claim.js';
import { type OnProgress, TransferInterrupted, TransferRefused } from './contract.js';
import { decodeMarker, encodeMarker, type Marker } from './marker.js';
import { installationRows, openReader } from './rows.js';
import { claimKey, markerKey, wholeSpace } from './spaces.js';
import { Tally } from './tally.js';

/** Far below the limits of a transaction (10 MB, 5 s), so that a slow server has its time. */
const maxBatchBytes = 2_000_000;
const defaultBatchRows = 4_000;
/** Rows of a cleared attempt per transaction. */
const clearedPerTransaction = 2_000;

export interface PourOptions {
  target: KvStore;
  clock: Clock;
  logger: Logger;
  kind: Marker['kind'];
  sourceId: string;
  /** For people. */
  source: string;
  /** All rows from the first on, in order; may be called again after the source was found changed. */
  rows(): AsyncIterable<KeyValue[]>;
  /** Called once all rows are written, before they are verified, and again after an interruption in it; throws when they are not what they should be. */
  confirm?(tally: Tally): Promise<void>;
  /** Called once the target is verified, and again after an interruption in it: what belongs to it outside of its rows. */
  move?(): Promise<void>;
  /** Called right before the target is whole, and again after an interruption. May change its rows. */
  settle?(): Promise<void>;
  /** When the rows are not those of the interrupted attempt: begin anew, or refuse. */
  onChanged: 'restart' | 'refuse';
  totalBytes?: number;
  isEstimate?: boolean;
  /** Rows per transaction. Default 4,000. */
  maxBatchRows?: number;
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

/** Pours, or goes on with it. Resolves when the target is whole. Throws `TransferRefused`, `TransferInterrupted`, `KvError`. */
export async function pour(options: PourOptions): Promise<Tally> {
  const pouring = new Pouring(options);
  return pouring.run();
}

class SourceChanged extends Error {}

class Pouring {
  readonly #o: PourOptions;
  #marker!: Marker;
  /** The marker's bytes: whoever finds others there is not alone. */
  #stored!: Buffer;

  constructor(options: PourOptions) {
    this.#o = options;
  }

  async run(): Promise<Tally> {
    await this.#begin();
    await this.#compareAgain();
    if (this.#marker.stage === 'clearing') await this.#clear();
    if (this.#marker.stage === 'copying') await this.#copy();
    if (this.#marker.stage === 'verifying') await this.#verify();
    await this.#finish();
    return this.#marker.tally;
  }

  /** Marks an empty target, or takes up what stands there. */
  async #begin(): Promise<void> {
    const { target, clock, kind, sourceId, source } = this.#o;
    const fresh: Marker = {
      kind,
      sourceId,
      source,
      stage: 'copying',
      startedAtMs: Math.floor(clock.nowMs()),
      tally: new Tally(),
    };
    const freshBytes = encodeMarker(fresh);
    this.#stored = await target.transact(
      async (tx) => {
        const found = await tx.get(markerKey);
        if (found) return found;
        if ((await tx.getRange(wholeSpace.begin, wholeSpace.end, { limit: 1 })).length > 0) {
          throw new TransferRefused('the target is not empty; a store is only moved into an empty one');
        }
        tx.set(markerKey, freshBytes);
        return freshBytes;
      },
      { label: 'transfer-begin' },
    );
    this.#marker = decodeMarker(this.#stored);
    if (this.#marker.kind !== kind || this.#marker.sourceId !== sourceId) {
      throw new TransferRefused(
        `the target holds an unfinished ${this.#marker.kind} of ${this.#marker.source}, which is something else`,
      );
    }
  }

  /** The source of a copy may have been used since the attempt that has read all of it was cut off. A backup doesn't change. */
  async #compareAgain(): Promise<void> {
    const { kind, stage, tally } = this.#marker;
    if (kind !== 'copy' || (stage !== 'verifying' && stage !== 'finishing')) return;
    const seen = new Tally();
    for await (const rows of this.#o.rows()) {
      for (const { key, value } of rows) seen.add(key, value);
      this.#check('comparing', seen, tally.bytes);
    }
    if (tally.differenceTo(seen)) await this.#step({ ...this.#marker, stage: 'clearing' });
  }

  async #copy(): Promise<void> {
    try {
      await this.#copyRows();
    } catch (error) {
      if (!(error instanceof SourceChanged)) throw error;
      if (this.#o.onChanged === 'refuse') {
        throw new TransferRefused(
          `the target holds an unfinished ${this.#marker.kind} of ${this.#marker.source} with other content`,
        );
      }
      await this.#step({ ...this.#marker, stage: 'clearing' });
      await this.#clear();
      await this.#copyRows();
    }
    await this.#o.confirm?.(this.#marker.tally);
    await this.#step({ ...this.#marker, stage: 'verifying' });
  }

  /** Compares what is there already with the source, then writes the rest. */
  async #copyRows(): Promise<void> {
    const { lastKey, tally: written } = this.#marker;
    const seen = new Tally();
    let isComparing = lastKey !== undefined;
    const maxBatchRows = this.#o.maxBatchRows ?? defaultBatchRows;
    let batch = new Batch(maxBatchRows);
    const compared = () => {
      if (written.differenceTo(seen)) throw new SourceChanged();
      isComparing = false;
    };
    for await (const rows of this.#o.rows()) {
      for (const { key, value } of rows) {
        if (isComparing && key.compare(lastKey!) > 0) compared();
        if (isComparing) {
          seen.add(key, value);
          continue;
        }
        if (batch.isFull(key.length + value.length)) {
          await this.#write(batch.rows);
          batch = new Batch(maxBatchRows);
        }
        batch.add({ key, value });
      }
      this.#check(isComparing ? 'comparing' : 'copying', isComparing ? seen : this.#marker.tally);
    }
    if (isComparing) compared();
    if (batch.rows.length > 0) await this.#write(batch.rows);
  }

  /** One batch, in one transaction; in halves where it is too much for one. */
  async #write(rows: readonly KeyValue[]): Promise<void> {
    const tally = Tally.unpack(this.#marker.tally.pack());
    for (const { key, value } of rows) tally.add(key, value);
    try {
      await this.#step({ ...this.#marker, lastKey: rows.at(-1)!.key, tally }, (tx) => {
        for (const { key, value } of rows) tx.set(key, value);
      });
    } catch (error) {
      const isTooMuch = error instanceof KvError && (error.code === 'too-old' || error.code === 'too-large');
      if (!isTooMuch || rows.length === 1) throw error;
      const middle = rows.length >> 1;
      await this.#write(rows.slice(0, middle));
      await this.#write(rows.slice(middle));
    }
    this.#check('copying', this.#marker.tally);
  }

  /** Moves the marker on, with what `write` writes. */
  async #step(next: Marker, write?: (tx: KvTransaction) => void): Promise<void> {
    const nextBytes = encodeMarker(next);
    const before = this.#stored;
    await this.#o.target.transact(
      async (tx) => {
        const found = await tx.get(markerKey);
        // A commit that nobody had heard of.
        if (found?.equals(nextBytes)) return;
        if (!found?.equals(before)) throw new TransferRefused('somebody else works on the target');
        write?.(tx);
        tx.set(markerKey, nextBytes);
      },
      // With 'too-old' the batch is split instead of tried a hundred times.
      { label: 'transfer-write', maxAttempts: 8 },
    );
    this.#stored = nextBytes;
    this.#marker = next;
  }

  /** Takes away what an attempt with another source has written. */
  async #clear(): Promise<void> {
    const { target } = this.#o;
    let cleared = 0;
    for (let begin: Buffer = wholeSpace.begin; ; ) {
      const rows = await target.read((reads) => reads.getRange(begin, wholeSpace.end, { limit: clearedPerTransaction }));
      const last = rows.at(-1);
      if (!last) break;
      const from = begin;
      await target.transact(
        async (tx) => {
          if (!(await tx.get(markerKey))?.equals(this.#stored)) throw new TransferRefused('somebody else works on the target');
          const claim = await tx.get(claimKey);
          tx.clearRange(from, keyAfter(last.key));
          tx.set(markerKey, this.#stored);
          // Storages stay marked with it.
          if (claim) tx.set(claimKey, claim);
        },
        { label: 'transfer-clear' },
      );
      cleared += rows.length;
      begin = keyAfter(last.key);
      this.#report('clearing', cleared, 0);
    }
    await this.#step({ ...this.#marker, stage: 'copying', lastKey: undefined, tally: new Tally() });
  }

  /** Reads the target from the beginning and compares. */
  async #verify(): Promise<void> {
    const { target } = this.#o;
    const found = new Tally();
    const reader = await openReader(target);
    try {
      for await (const rows of installationRows(reader)) {
        for (const { key, value } of rows) found.add(key, value);
        this.#check('verifying', found, this.#marker.tally.bytes);
      }
    } finally {
      await reader.close();
    }
    const difference = this.#marker.tally.differenceTo(found);
    if (difference) {
      await this.#step({ ...this.#marker, stage: 'clearing' });
      throw new TransferRefused(`the target is not what was written to it: ${difference}; the same command begins anew`);
    }
    await this.#o.move?.();
    await this.#step({ ...this.#marker, stage: 'finishing' });
  }

  /** Frees claims: their nodes are not here. Then the marker goes. */
  async #finish(): Promise<void> {
    const { target, clock, logger } = this.#o;
    const nodes = createQueueNodes(target, () => {}, logger);
    for (const nodeId of await nodes.claimHolders()) {
      do this.#check('finishing', this.#marker.tally);
      while ((await nodes.releaseClaimsOf(nodeId, Math.floor(clock.nowMs() / 1000))) > 0);
    }
    await this.#o.settle?.();
    await target.transact(
      async (tx) => {
        const found = await tx.get(markerKey);
        if (found && !found.equals(this.#stored)) throw new TransferRefused('somebody else works on the target');
        await settleClaim(tx);
        tx.clear(markerKey);
      },
      { label: 'transfer-finish' },
    );
  }

  #check(stage: 'comparing' | 'copying' | 'verifying' | 'finishing', { keys, bytes }: Tally, totalBytes?: number): void {
    if (this.#o.signal?.aborted) {
      throw new TransferInterrupted(`interrupted while ${stage}; the same command goes on from there`);
    }
    this.#report(stage, keys, bytes, totalBytes);
  }

  #report(
    stage: 'comparing' | 'copying' | 'clearing' | 'verifying' | 'finishing',
    keys: number,
    bytes: number,
    exact?: number,
  ): void {
    const { onProgress, totalBytes, isEstimate } = this.#o;
    if (!onProgress) return;
    if (exact !== undefined) onProgress({ stage, keys, bytes, totalBytes: exact });
    else onProgress({ stage, keys, bytes, ...(totalBytes !== undefined && { totalBytes, isEstimate: isEstimate ?? false }) });
  }
}

class Batch {
  readonly rows: KeyValue[] = [];
  #bytes = 0;

  constructor(readonly maxRows: number) {}

  isFull(moreBytes: number): boolean {
    return this.rows.length >= this.maxRows || (this.rows.length > 0 && this.#bytes + moreBytes > maxBatchBytes);
  }

  add(row: KeyValue): void {
    this.rows.push(row);
    this.#bytes += row.key.length + row.value.length;
  }
}
