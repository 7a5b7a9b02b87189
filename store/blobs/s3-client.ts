/**
 * Requests to an S3-compatible service, on the library s3mini: each with a time limit and, where the service or the way to it failed, tried again with
 * backoff and jitter. Every request here may be repeated without harm. What remains is KvError `unavailable`; no error or log line holds a credential.
 */
import { createHash } from 'node:crypto';
import { type AWSHeaders, S3mini, S3ServiceError, type UploadPart } from 's3mini';
import { type Clock, histogram, type Logger, type Random, type Timer } from '../../ops/telemetry/index.js';
import { KvError } from '../kv/contract.js';
import { ExternalDamaged, type S3Options } from './external.js';

const requestSeconds = histogram('starling_blob_s3_request_seconds', 'S3 requests until their answer, retries not added up', [
  'operation',
  'outcome',
]);

const firstBackoffMs = 100;
const maxBackoffMs = 5_000;
const pageSize = 1_000;
/** Statuses and codes that a later try may not meet again. */
const passingStatuses = new Set([408, 429, 500, 502, 503, 504]);
const passingCodes = new Set(['RequestTimeout', 'BadDigest', 'SlowDown', 'InternalError', 'OperationAborted', 'IncompleteBody']);
const fullCodes = /StorageFull|QuotaExceeded|InsufficientStorage|OverQuota/;

type Operation = 'put' | 'get' | 'head' | 'delete' | 'create' | 'part' | 'complete' | 'abort' | 'list';

/** An answer that the service refused with. `code` is S3's own, e.g. `NoSuchKey`. */
export class S3Refusal extends Error {
  override readonly name = 'S3Refusal';
  constructor(
    readonly status: number,
    readonly code: string,
  ) {
    super(`${status} ${code}`);
  }
}

export interface S3Parts {
  clock: Clock;
  random: Random;
  logger: Logger;
}

/** Part of an object as it arrives. */
export interface S3Body {
  /** Length of the whole object. */
  totalBytes: number;
  pieces: AsyncIterable<Buffer>;
  cancel(): void;
}

export interface S3Entry {
  key: string;
  sizeBytes: number;
  modifiedMs: number;
}

export interface S3Upload {
  key: string;
  uploadId: string;
  startedMs: number;
}

export class S3Client {
  readonly #s3: S3mini;
  readonly #parts: S3Parts;
  readonly #timeoutMs: number;
  readonly #maxAttempts: number;
  readonly #running = new WeakMap<Response, AbortController>();

  constructor(parts: S3Parts, options: S3Options) {
    this.#parts = parts;
    this.#timeoutMs = options.requestTimeoutMs ?? 30_000;
    this.#maxAttempts = options.maxAttempts ?? 5;
    this.#s3 = new S3mini({
      accessKeyId: options.accessKeyId,
      secretAccessKey: options.secretAccessKey,
      region: options.region,
      endpoint: `${options.endpoint.replace(/\/+$/, '')}/${options.bucket}`,
      fetch: (input: string | URL | Request, init?: RequestInit) => this.#fetch(input, init ?? {}),
    });
  }

  async put(key: string, bytes: Buffer): Promise<void> {
    await this.#request('put', () => this.#s3.putObject(key, bytes, undefined, undefined, digestOf(bytes), bytes.length));
  }

  /** Length of an object, or undefined when there is none. */
  async head(key: string): Promise<number | undefined> {
    return this.#unlessMissing('head', async () => {
      try {
        return await this.#s3.getContentLength(key);
      } catch (error) {
        throw error instanceof Error && error.cause !== undefined ? error.cause : error;
      }
    });
  }

  /** The bytes `[start, end)`, or undefined when there is no such object. Throws `ExternalDamaged` when it is shorter than `start`. */
  async get(key: string, start: number, end: number): Promise<S3Body | undefined> {
    const response = await this.#unlessMissing('get', () => this.#s3.getObjectRaw(key, false, start, end));
    if (!response) return undefined;
    const cancel = () => this.#running.get(response)?.abort();
    const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(response.headers.get('content-range') ?? '');
    if (response.status !== 206 || !range || Number(range[1]) !== start) {
      cancel();
      throw new KvError('unavailable', 'the S3 service does not serve ranges of objects', 'outage');
    }
    return { totalBytes: Number(range[2]), pieces: this.#pieces(response), cancel };
  }

  /** A short object as text, or undefined. */
  async getText(key: string): Promise<string | undefined> {
    return this.#unlessMissing('get', async () => (await this.#s3.getObjectRaw(key, true)).text());
  }

  async delete(key: string): Promise<void> {
    await this.#unlessMissing('delete', () => this.#s3.deleteObject(key));
  }

  /** Begins a multipart upload. `isSure` is false when an earlier try may have begun one too. */
  async createUpload(key: string): Promise<{ uploadId: string; isSure: boolean }> {
    let tries = 0;
    const uploadId = await this.#request('create', () => {
      tries++;
      return this.#s3.getMultipartUploadId(key);
    });
    return { uploadId, isSure: tries === 1 };
  }

  uploadPart(key: string, uploadId: string, partNumber: number, bytes: Buffer): Promise<UploadPart> {
    return this.#request('part', () => this.#s3.uploadPart(key, uploadId, bytes, partNumber, {}, undefined, digestOf(bytes)));
  }

  /** Joins the parts. Throws when afterwards there is no object of `sizeBytes`. */
  async completeUpload(key: string, uploadId: string, parts: UploadPart[], sizeBytes: number): Promise<void> {
    let failure: unknown;
    try {
      await this.#request('complete', async () => {
        const result = await this.#s3.completeMultipartUpload(key, uploadId, parts);
        // A service that began to answer 200 can tell of its failure only in the body.
        if (!result.etag) throw new S3Refusal(500, 'InternalError');
      });
    } catch (error) {
      // The answer to an earlier try may have been lost, and then the upload is no more; the object tells.
      if (!(error instanceof S3Refusal && error.code === 'NoSuchUpload')) throw error;
      failure = error;
    }
    const found = await this.head(key);
    if (found === sizeBytes) return;
    const what = failure ? 'the upload was lost' : `the object has ${found ?? 'no'} bytes after ${sizeBytes} were sent`;
    throw new KvError('unavailable', `S3: ${what}`, 'outage');
  }

  async abortUpload(key: string, uploadId: string): Promise<void> {
    await this.#unlessMissing('abort', () => this.#s3.abortMultipartUpload(key, uploadId));
  }

  async *list(prefix: string): AsyncGenerator<S3Entry, void, undefined> {
    let token: string | undefined;
    do {
      const page = await this.#request('list', () => this.#s3.listObjectsPaged('/', prefix, pageSize, token));
      if (!page) throw new KvError('unavailable', 'S3 has no such bucket', 'outage');
      for (const { Key, Size, LastModified } of page.objects ?? [])
        yield { key: Key, sizeBytes: Size, modifiedMs: LastModified.getTime() };
      token = page.nextContinuationToken;
    } while (token);
  }

  /** Incomplete multipart uploads of keys that begin with `prefix`. */
  async *listUploads(prefix: string): AsyncGenerator<S3Upload, void, undefined> {
    let markers: Record<string, string> = {};
    for (;;) {
      const raw = await this.#request('list', () =>
        this.#s3.listMultipartUploads('/', '', 'GET', { prefix, 'max-uploads': pageSize, ...markers }),
      );
      const page = field(raw, 'ListMultipartUploadsResult') ?? raw;
      for (const upload of asArray(field(page, 'Upload'))) {
        const key = text(field(upload, 'Key'));
        // Some services take the prefix as a hint.
        if (!key.startsWith(prefix)) continue;
        yield { key, uploadId: text(field(upload, 'UploadId')), startedMs: Date.parse(text(field(upload, 'Initiated'))) || 0 };
      }
      if (text(field(page, 'IsTruncated')) !== 'true') return;
      const next = {
        'key-marker': text(field(page, 'NextKeyMarker')),
        'upload-id-marker': text(field(page, 'NextUploadIdMarker')),
      };
      if (
        !next['key-marker'] ||
        (next['key-marker'] === markers['key-marker'] && next['upload-id-marker'] === markers['upload-id-marker'])
      )
        return;
      markers = next;
    }
  }

  async #unlessMissing<T>(operation: Operation, send: () => Promise<T>): Promise<T | undefined> {
    try {
      return await this.#request(operation, send);
    } catch (error) {
      // Answers to HEAD have no body and so no code.
      if (
        error instanceof S3Refusal &&
        error.status === 404 &&
        ['NoSuchKey', 'NoSuchUpload', 'NotFound', 'Unknown'].includes(error.code)
      )
        return undefined;
      if (error instanceof S3Refusal && error.status === 416) throw new ExternalDamaged('its object is too short');
      throw error instanceof S3Refusal ? unavailable(operation, error) : error;
    }
  }

  /** Sends, and again while it may help. Throws `S3Refusal` for 404 and 416, KvError `unavailable` otherwise. */
  async #request<T>(operation: Operation, send: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const startMs = this.#parts.clock.monotonicMs();
      const observe = (outcome: string) =>
        requestSeconds.observe({ operation, outcome }, (this.#parts.clock.monotonicMs() - startMs) / 1000);
      try {
        const value = await send();
        observe('ok');
        return value;
      } catch (thrown) {
        const error = asRefusal(thrown);
        const isRefused = error instanceof S3Refusal;
        observe(isRefused ? 'refused' : 'failed');
        if (isRefused && [404, 416].includes(error.status) && error.code !== 'NoSuchBucket') throw error;
        const mayPass = !isRefused || passingStatuses.has(error.status) || passingCodes.has(error.code);
        if (!mayPass || fullCodes.test(isRefused ? error.code : '') || attempt >= this.#maxAttempts)
          throw unavailable(operation, error);
        this.#parts.logger.debug({ operation, attempt, problem: messageOf(error) }, 'an S3 request is tried again');
        const backoffMs = Math.min(maxBackoffMs, firstBackoffMs * 2 ** attempt);
        await this.#parts.clock.sleep(backoffMs * (0.5 + this.#parts.random.float() / 2));
      }
    }
  }

  /** `fetch` with a time limit. Answers to range requests are streamed; all others are whole when this resolves. */
  async #fetch(input: string | URL | Request, init: RequestInit): Promise<Response> {
    const controller = new AbortController();
    const timer = this.#limit(controller);
    const headers = { ...(init.headers as Record<string, string>), 'accept-encoding': 'identity' };
    try {
      // A redirect would take the signature elsewhere, where it does not hold: it is a refusal like any other.
      const response = await fetch(input, { ...init, headers, signal: controller.signal, redirect: 'manual' });
      if ('range' in headers && response.status === 206) {
        this.#running.set(response, controller);
        return response;
      }
      const body = await response.arrayBuffer();
      const { status, statusText } = response;
      return new Response(body.byteLength > 0 ? body : null, { status, statusText, headers: response.headers });
    } finally {
      timer.cancel();
    }
  }

  #limit(controller: AbortController): Timer {
    const timeout = () => controller.abort(new Error(`no answer for ${this.#timeoutMs} ms`));
    return this.#parts.clock.setTimer(this.#timeoutMs, timeout, { background: true });
  }

  /** The body; time runs only while somebody waits for it. */
  async *#pieces(response: Response): AsyncGenerator<Buffer, void, undefined> {
    const controller = this.#running.get(response)!;
    const reader = response.body!.getReader();
    let isDone = false;
    try {
      for (;;) {
        const timer = this.#limit(controller);
        const { done, value } = await reader.read().finally(() => timer.cancel());
        if (done) {
          isDone = true;
          return;
        }
        yield Buffer.from(value.buffer, value.byteOffset, value.byteLength);
      }
    } finally {
      if (!isDone) controller.abort();
    }
  }
}

/** The service compares it with what it received. The library's type knows only x-amz headers. */
function digestOf(bytes: Buffer): AWSHeaders {
  return { 'content-md5': createHash('md5').update(bytes).digest('base64') } as AWSHeaders;
}

/** The library's error holds the answer's body, in which services repeat parts of the request: only status and code go on. */
function asRefusal(error: unknown): unknown {
  if (!(error instanceof S3ServiceError)) return error;
  const code = /<Code>([A-Za-z0-9]{1,64})<\/Code>/.exec(error.body ?? '')?.[1] ?? error.serviceCode ?? 'Unknown';
  return new S3Refusal(error.status, code);
}

function unavailable(operation: Operation, error: unknown): Error {
  if (error instanceof KvError) return error;
  const isFull = error instanceof S3Refusal && (error.status === 507 || fullCodes.test(error.code));
  return new KvError('unavailable', `S3 ${operation}: ${messageOf(error)}`, isFull ? 'no-space' : 'outage');
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause instanceof Error ? error.cause : undefined;
  return cause ? `${error.message} (${(cause as NodeJS.ErrnoException).code ?? cause.message})` : error.message;
}

const field = (node: unknown, name: string): unknown =>
  typeof node === 'object' && node !== null ? (node as Record<string, unknown>)[name] : undefined;
const text = (node: unknown): string => (typeof node === 'string' ? node : '');
const asArray = (node: unknown): unknown[] => (Array.isArray(node) ? node : node === undefined ? [] : [node]);
