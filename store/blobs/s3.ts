/**
 * Blobs as objects of an S3-compatible service. Short ones are one PUT, longer ones a multipart upload; the service compares an MD5 of each with what it
 * received, lengths are compared after each upload and before each read. A reading that breaks off goes on where it stopped.
 */
import type { UploadPart } from 's3mini';
import { KvError, type KvStore } from '../kv/contract.js';
import { BatchedWrites } from './batches.js';
import {
  ExternalDamaged,
  ExternalMissing,
  type ExternalStorage,
  type ExternalWriter,
  type S3Options,
  type StoredObject,
} from './external.js';
import { StorageIdentity } from './identity.js';
import { S3Client, type S3Parts, S3Refusal } from './s3-client.js';

/** S3 refuses shorter parts, but for the last one. */
export const minPartBytes = 5 * 1024 * 1024;
/** A body that breaks off this often without a single byte more is given up. */
const maxFruitlessReads = 4;
const markName = 'starling-blobs';
const storageIdPattern = /^[0-9a-f]{32}$/;

/** Throws RangeError for options that can't work. */
export function openS3Storage(parts: S3Parts & { kv: KvStore }, options: S3Options): ExternalStorage {
  const partBytes = options.partBytes ?? minPartBytes;
  if (partBytes < minPartBytes) throw new RangeError(`partBytes must be at least ${minPartBytes}`);
  const prefix = options.prefix ?? '';
  if (!/^[A-Za-z0-9._/-]*$/.test(prefix) || prefix.startsWith('/'))
    throw new RangeError('the prefix has characters other than letters, digits and ._/-, or begins with /');
  return new S3Storage(parts, options.bucket, prefix, partBytes, new S3Client(parts, options));
}

class S3Storage implements ExternalStorage {
  readonly place = 's3';
  readonly #prefix: string;
  readonly #partBytes: number;
  readonly #client: S3Client;
  readonly #identity: StorageIdentity;
  #wasConfirmed = false;

  constructor(parts: S3Parts & { kv: KvStore }, bucket: string, prefix: string, partBytes: number, client: S3Client) {
    this.#prefix = prefix;
    this.#partBytes = partBytes;
    this.#client = client;
    const mark = prefix + markName;
    this.#identity = new StorageIdentity(parts, 's3', {
      name: `bucket ${bucket}`,
      read: async () => (await client.getText(mark))?.trim(),
      write: (text) => client.put(mark, Buffer.from(`${text}\n`, 'latin1')),
    });
  }

  put(storageId: string): ExternalWriter {
    return new S3Writer(this.#client, this.#keyOf(storageId), this.#partBytes, () => this.#confirmOnce());
  }

  async *read(storageId: string, start: number, end: number, storedBytes: number): AsyncGenerator<Buffer, void, undefined> {
    const key = this.#keyOf(storageId);
    let position = start;
    for (let fruitless = 0; position < end; ) {
      const body = await this.#client.get(key, position, end);
      if (!body) {
        await this.#identity.confirm();
        throw new ExternalMissing(`no object ${storageId}`);
      }
      if (body.totalBytes !== storedBytes) {
        body.cancel();
        throw new ExternalDamaged(`its object has ${body.totalBytes} bytes instead of ${storedBytes}`);
      }
      const before = position;
      try {
        for await (const piece of body.pieces) {
          const wanted = piece.length > end - position ? piece.subarray(0, end - position) : piece;
          position += wanted.length;
          if (wanted.length > 0) yield wanted;
        }
      } catch (error) {
        if (position === before && fruitless + 1 >= maxFruitlessReads)
          throw new KvError('unavailable', 'S3 get: the answer broke off', 'outage', { cause: error });
      }
      fruitless = position === before ? fruitless + 1 : 0;
      if (fruitless >= maxFruitlessReads) throw new KvError('unavailable', 'S3 get: the answer was empty', 'outage');
    }
  }

  async size(storageId: string): Promise<number | undefined> {
    const size = await this.#client.head(this.#keyOf(storageId));
    if (size === undefined) await this.#identity.confirm();
    return size;
  }

  async remove(storageId: string, { isAbandoned }: { isAbandoned: boolean }): Promise<void> {
    // S3 says the same whether there was an object or not: this must be our bucket.
    await this.#confirmOnce();
    const key = this.#keyOf(storageId);
    if (isAbandoned) await abortUploads(this.#client, key);
    await this.#client.delete(key);
  }

  async *list(): AsyncGenerator<StoredObject, void, undefined> {
    await this.#identity.confirm();
    for await (const { key, sizeBytes, modifiedMs } of this.#client.list(this.#prefix)) {
      const storageId = key.slice(this.#prefix.length);
      if (storageIdPattern.test(storageId)) yield { storageId, sizeBytes, modifiedMs, isComplete: true };
    }
    for await (const { key, startedMs } of this.#client.listUploads(this.#prefix)) {
      const storageId = key.slice(this.#prefix.length);
      if (storageIdPattern.test(storageId)) yield { storageId, sizeBytes: undefined, modifiedMs: startedMs, isComplete: false };
    }
  }

  check(): Promise<void> {
    return this.#identity.confirm();
  }

  async #confirmOnce(): Promise<void> {
    if (this.#wasConfirmed) return;
    await this.#identity.confirm();
    this.#wasConfirmed = true;
  }

  #keyOf(storageId: string): string {
    return this.#prefix + storageId;
  }
}

class S3Writer implements ExternalWriter {
  readonly #client: S3Client;
  readonly #key: string;
  readonly #confirm: () => Promise<void>;
  readonly #batches: BatchedWrites;
  #uploadId: string | undefined;
  #isOnlyUpload = true;
  #didFinishFail = false;
  #sentBytes = 0;
  readonly #parts: UploadPart[] = [];

  constructor(client: S3Client, key: string, partBytes: number, confirm: () => Promise<void>) {
    this.#client = client;
    this.#key = key;
    this.#confirm = confirm;
    this.#batches = new BatchedWrites(partBytes, (pieces, bytes, isLast) => this.#send(Buffer.concat(pieces, bytes), isLast));
  }

  write(bytes: Buffer): Promise<void> | undefined {
    return this.#batches.add(bytes);
  }

  async finish(): Promise<void> {
    try {
      await this.#batches.end();
      if (!this.#uploadId) return;
      await this.#client.completeUpload(this.#key, this.#uploadId, this.#parts, this.#sentBytes);
      // From here on an abort would take parts of the object away, on services that keep them.
      const joined = this.#uploadId;
      this.#uploadId = undefined;
      if (!this.#isOnlyUpload) await abortUploads(this.#client, this.#key, joined);
    } catch (error) {
      this.#didFinishFail = true;
      // The upload ended under way: a purge gave it up, or somebody cleaned the bucket.
      if (error instanceof S3Refusal) throw new KvError('unavailable', `S3: ${error.message}`, 'outage');
      throw error;
    }
  }

  async abort(): Promise<boolean> {
    await this.#batches.stop();
    if (this.#uploadId) await this.#client.abortUpload(this.#key, this.#uploadId).catch(() => {});
    return !this.#batches.hasFailed && !this.#didFinishFail;
  }

  async #send(bytes: Buffer, isLast: boolean): Promise<void> {
    try {
      await this.#confirm();
      this.#sentBytes += bytes.length;
      if (isLast && !this.#uploadId) return await this.#client.put(this.#key, bytes);
      if (!this.#uploadId) {
        const { uploadId, isSure } = await this.#client.createUpload(this.#key);
        this.#uploadId = uploadId;
        this.#isOnlyUpload = isSure;
      }
      this.#parts.push(await this.#client.uploadPart(this.#key, this.#uploadId, this.#parts.length + 1, bytes));
    } catch (error) {
      if (error instanceof S3Refusal) throw new KvError('unavailable', `S3: ${error.message}`, 'outage');
      throw error;
    }
  }
}

/** Ends all incomplete uploads of one key, but for the one that was completed. */
async function abortUploads(client: S3Client, key: string, completed?: string): Promise<void> {
  for await (const upload of client.listUploads(key)) {
    if (upload.key === key && upload.uploadId !== completed) await client.abortUpload(key, upload.uploadId);
  }
}
