/**
 * Purging (TRAPS 6). A blob goes in steps, each its own transaction: the last unlink leaves a candidate; a generation later, without links, its head gets
 * a tombstone; a generation after that, still without links, head and bytes go. Every link reads the head, so it conflicts with both steps. Any number
 * of nodes may run this at once.
 */
import { counter } from '../../ops/telemetry/index.js';
import { type KeyValue, type KvTransaction, keyAfter } from '../kv/contract.js';
import type { BlobId, PurgeResult } from './contract.js';
import {
  candidateId,
  candidateKey,
  candidateRange,
  chunkRange,
  expiryDueRange,
  headKey,
  linkKey,
  linkRange,
  parseExpiryKey,
  uploadRange,
  uploadStorageId,
} from './keys.js';
import { ObjectRemovals } from './object-removals.js';
import {
  chunkCountOf,
  decodeHead,
  decodeSeconds,
  decodeUpload,
  encodeSeconds,
  type UploadRecord,
  withTombstone,
} from './records.js';
import { markGarbage, maxChunksWithHead, removeChunks } from './removal.js';
import type { BlobSettings } from './settings.js';

const purgedBlobs = counter('starling_blobs_purged_total', 'Blobs removed after their last link had gone');
const purgedBytes = counter('starling_blob_purged_bytes_total', 'Content bytes of the blobs that were removed');
const abandonedUploads = counter('starling_blob_uploads_abandoned_total', 'Uploads that nothing linked in time');

const pageSize = 1_000;
/** Candidates judged in one transaction. */
const blobsPerTransaction = 32;
/** A candidate from further in the future than this was written under a wrong clock; it is treated as new. */
const maxSkewSeconds = 3_600;

export interface PurgePass {
  nowSeconds: number;
  maxItems?: number;
  signal?: AbortSignal;
}

type Counts = Pick<PurgeResult, 'tombstoned' | 'removed' | 'removedBytes'>;

export class BlobPurge {
  readonly #settings: BlobSettings;
  /** Where the last pass stopped; undefined: at the beginning. */
  #candidatesFrom: Buffer | undefined;
  #uploadsFrom: Buffer | undefined;

  constructor(settings: BlobSettings) {
    this.#settings = settings;
  }

  /** One pass over at most `maxItems` records; the next one goes on where this one stopped. */
  async run(pass: PurgePass): Promise<PurgeResult> {
    const result: PurgeResult = { examined: 0, tombstoned: 0, removed: 0, removedBytes: 0, more: false };
    const budget = Math.max(1, pass.maxItems ?? 10_000);
    await this.#expireLinks(pass, budget, result);
    await this.#judgeUploads(pass, budget, result);
    await this.#judgeCandidates(pass, budget, result);
    purgedBlobs.inc(result.removed);
    purgedBytes.inc(result.removedBytes);
    return result;
  }

  /** Ends links of uploaded content whose time is over. */
  async #expireLinks(pass: PurgePass, budget: number, result: PurgeResult): Promise<void> {
    const { begin, end } = expiryDueRange(pass.nowSeconds);
    for (;;) {
      const limit = Math.min(100, budget - result.examined);
      if (limit <= 0 || pass.signal?.aborted) {
        result.more = true;
        return;
      }
      const due = await this.#page(begin, end, limit);
      if (due.length > 0)
        await this.#settings.kv.transact((tx) => this.#expire(tx, due, pass.nowSeconds), { label: 'blob-expire' });
      result.examined += due.length;
      if (due.length < limit) return;
    }
  }

  async #expire(tx: KvTransaction, due: KeyValue[], nowSeconds: number): Promise<void> {
    const entries = due.map(({ key }) => ({ key, ...parseExpiryKey(key) }));
    const links = await tx.getMany(entries.map(({ id, owner }) => linkKey(id, owner)));
    for (const [index, { key, id, owner }] of entries.entries()) {
      const link = links[index];
      tx.clear(key);
      // A link made again since then has a later end, and an entry of its own.
      if (!link || decodeSeconds(link) > nowSeconds) continue;
      tx.clear(linkKey(id, owner));
      tx.set(candidateKey(id), encodeSeconds(nowSeconds));
    }
  }

  /** Removes garbage, and uploads that nothing linked in time. */
  async #judgeUploads(pass: PurgePass, budget: number, result: PurgeResult): Promise<void> {
    const all = uploadRange();
    const objects = new ObjectRemovals(this.#settings, pass.nowSeconds);
    for (;;) {
      const limit = Math.min(pageSize, budget - result.examined);
      if (limit <= 0) {
        result.more = true;
        return;
      }
      const page = await this.#page(this.#uploadsFrom ?? all.begin, all.end, limit);
      for (const { key, value } of page) {
        if (pass.signal?.aborted) {
          await objects.settled();
          result.more = true;
          return;
        }
        result.examined++;
        this.#uploadsFrom = keyAfter(key);
        const garbage = await this.#garbage(key, value, pass.nowSeconds);
        if (garbage?.place === 'store') await removeChunks(this.#settings, uploadStorageId(key), pass.signal);
        else if (garbage) await objects.add(uploadStorageId(key), garbage);
      }
      await objects.settled();
      if (page.length < limit) break;
    }
    this.#uploadsFrom = undefined;
  }

  /** The upload's record when it is garbage now. */
  async #garbage(key: Buffer, seen: Buffer, nowSeconds: number): Promise<UploadRecord | undefined> {
    const isAbandoned = (record: UploadRecord) => nowSeconds - record.sinceSeconds >= this.#settings.abandonedUploadSeconds;
    const record = this.#readable(() => decodeUpload(seen));
    if (record?.state === 'garbage') return record;
    if (!record || !isAbandoned(record)) return undefined;
    const garbage = await this.#settings.kv.transact(
      async (tx) => {
        const value = await tx.get(key);
        const current = value && decodeUpload(value);
        if (!current || !isAbandoned(current)) return undefined;
        if (current.state === 'garbage') return current;
        markGarbage(tx, uploadStorageId(key), current, nowSeconds, true);
        const state = 'garbage' as const;
        return current.place === 'store'
          ? { ...current, state }
          : { ...current, state, sinceSeconds: nowSeconds, isLingering: true };
      },
      { label: 'blob-abandon' },
    );
    if (garbage) abandonedUploads.inc();
    return garbage;
  }

  async #judgeCandidates(pass: PurgePass, budget: number, result: PurgeResult): Promise<void> {
    const all = candidateRange();
    for (;;) {
      const limit = Math.min(pageSize, budget - result.examined);
      if (limit <= 0 || pass.signal?.aborted) {
        result.more = true;
        return;
      }
      const page = await this.#page(this.#candidatesFrom ?? all.begin, all.end, limit);
      const ripe = page.filter(({ value }) => this.#isRipe(value, pass.nowSeconds)).map(({ key }) => candidateId(key));
      for (let start = 0; start < ripe.length; start += blobsPerTransaction) {
        const ids = ripe.slice(start, start + blobsPerTransaction);
        const counts = await this.#settings.kv.transact((tx) => this.#judge(tx, ids, pass.nowSeconds), { label: 'blob-purge' });
        result.tombstoned += counts.tombstoned;
        result.removed += counts.removed;
        result.removedBytes += counts.removedBytes;
      }
      result.examined += page.length;
      if (page.length < limit) break;
      this.#candidatesFrom = keyAfter(page.at(-1)!.key);
    }
    this.#candidatesFrom = undefined;
  }

  #isRipe(value: Buffer, nowSeconds: number): boolean {
    const age = nowSeconds - decodeSeconds(value);
    return age >= this.#settings.generationSeconds || age < -maxSkewSeconds;
  }

  /** Takes the next step for each of these candidates, all in one transaction. */
  async #judge(tx: KvTransaction, ids: BlobId[], nowSeconds: number): Promise<Counts> {
    const counts: Counts = { tombstoned: 0, removed: 0, removedBytes: 0 };
    const [candidates, heads, links] = await Promise.all([
      tx.getMany(ids.map(candidateKey)),
      tx.getMany(ids.map(headKey)),
      Promise.all(ids.map((id) => tx.getRange(linkRange(id).begin, linkRange(id).end, { limit: 1 }))),
    ]);
    for (const [index, id] of ids.entries()) {
      const candidate = candidates[index];
      if (!candidate || !this.#isRipe(candidate, nowSeconds)) continue;
      if (nowSeconds < decodeSeconds(candidate)) tx.set(candidateKey(id), encodeSeconds(nowSeconds));
      else if (!heads[index] || links[index]!.length > 0) tx.clear(candidateKey(id));
      else this.#advance(tx, id, heads[index], nowSeconds, counts);
    }
    return counts;
  }

  /** A blob without links: tombstone first, removal when the tombstone is a generation old. */
  #advance(tx: KvTransaction, id: BlobId, value: Buffer, nowSeconds: number, counts: Counts): void {
    const head = this.#readable(() => decodeHead(id, value));
    if (!head) return;
    if (head.tombstoneSeconds === 0 || head.tombstoneSeconds > nowSeconds + maxSkewSeconds) {
      tx.set(headKey(id), withTombstone(value, nowSeconds));
      tx.set(candidateKey(id), encodeSeconds(nowSeconds));
      counts.tombstoned++;
      return;
    }
    if (nowSeconds - head.tombstoneSeconds < this.#settings.generationSeconds) return;
    tx.clear(headKey(id));
    tx.clear(candidateKey(id));
    counts.removed++;
    counts.removedBytes += head.sizeBytes;
    if (head.layout === 'inline') return;
    if (head.layout === 'external') {
      markGarbage(tx, head.storageId, head, nowSeconds);
      return;
    }
    const chunkCount = chunkCountOf(head);
    if (chunkCount > maxChunksWithHead) {
      markGarbage(tx, head.storageId, { place: 'store', chunkCount }, nowSeconds);
      return;
    }
    const chunks = chunkRange(head.storageId);
    tx.clearRange(chunks.begin, chunks.end);
  }

  /** One unreadable record must not stop the purge of all others: it is reported and left alone. */
  #readable<T>(decode: () => T): T | undefined {
    try {
      return decode();
    } catch (error) {
      this.#settings.logger.error({ err: error }, 'the purge met a blob record that it cannot read');
      return undefined;
    }
  }

  #page(begin: Buffer, end: Buffer, limit: number): Promise<KeyValue[]> {
    return this.#settings.kv.read((reads) => reads.getRange(begin, end, { limit }), { label: 'blob-purge-scan' });
  }
}
