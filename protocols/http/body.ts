/**
 * The body of one request: bytes come from the engine in its own rhythm, are kept up to a small high-water mark, and the
 * connection is paused until the handler has read them. Reading more than the limit fails with 413.
 */
import { HttpError } from './errors.js';

/** Unread bytes at which the connection is paused. One read of the engine (at most 512 KiB) may go beyond it. */
const highWaterBytes = 64 * 1024;

/** What a body may ask of its connection; both calls are harmless after the connection has gone. */
export interface BodyFlow {
  pause(): void;
  resume(): void;
}

export class RequestBody implements AsyncIterable<Buffer> {
  readonly #queue: Buffer[] = [];
  #queuedBytes = 0;
  #receivedBytes = 0;
  #paused = false;
  #ended: boolean;
  #failure: HttpError | undefined;
  #wake: (() => void) | undefined;
  #taken = false;

  /**
   * @param declaredBytes the Content-Length; undefined for a chunked body; 0 when there is none.
   * @param maxBytes beyond it the body fails with 413.
   */
  constructor(
    readonly declaredBytes: number | undefined,
    readonly maxBytes: number,
    private readonly flow: BodyFlow,
  ) {
    this.#ended = declaredBytes === 0;
  }

  /** True once the last byte has arrived (not: has been read). */
  get complete(): boolean {
    return this.#ended;
  }

  /**
   * The whole body.
   * @throws HttpError 413 beyond `maxBytes`; the reason of the abort when the client goes away.
   */
  async read(): Promise<Buffer> {
    const chunks: Buffer[] = [];
    for await (const chunk of this) chunks.push(chunk);
    return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
  }

  /** The whole body as JSON. @throws HttpError 400 when it is not JSON in UTF-8, else as `read`. */
  async readJson(): Promise<unknown> {
    const bytes = await this.read();
    try {
      return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    } catch {
      throw new HttpError(400, 'The request body is not JSON.');
    }
  }

  /** Chunks in order, once; the peer is held back while a chunk is being worked on. Ending early drops the rest. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void, undefined> {
    if (this.#taken) throw new Error('A request body can be read once');
    this.#taken = true;
    for (;;) {
      const chunk = this.#queue.shift();
      if (chunk) {
        this.#queuedBytes -= chunk.length;
        yield chunk;
        continue;
      }
      if (this.#failure) throw this.#failure;
      if (this.#ended) return;
      if (this.#paused) {
        this.#paused = false;
        this.flow.resume();
        // Resuming may have failed the body, when the connection had gone.
        if (this.#failure || this.#queue.length > 0) continue;
      }
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  /** From the engine: `chunk` is copied, because its memory is reused when this returns. */
  push(chunk: ArrayBuffer, isLast: boolean): void {
    if (this.#failure || this.#ended) return;
    this.#receivedBytes += chunk.byteLength;
    if (this.#receivedBytes > this.maxBytes) {
      this.#queue.length = 0;
      this.fail(tooLarge(this.maxBytes));
      return;
    }
    if (chunk.byteLength > 0) {
      const copy = Buffer.from(new Uint8Array(chunk));
      this.#queue.push(copy);
      this.#queuedBytes += copy.length;
    }
    if (isLast) this.#ended = true;
    else if (this.#queuedBytes >= highWaterBytes && !this.#paused) {
      this.#paused = true;
      this.flow.pause();
    }
    this.#rouse();
  }

  /** From the exchange: nothing more will come. A body that had arrived whole stays readable. */
  fail(error: HttpError): void {
    if (this.#ended) return;
    this.#failure ??= error;
    this.#rouse();
  }

  /** From the exchange, before the response ends: a paused connection would never read its next request. */
  release(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.flow.resume();
  }

  /** Bytes still to come from the peer, as far as it has declared them. */
  get outstandingBytes(): number {
    return this.#ended || this.declaredBytes === undefined ? 0 : this.declaredBytes - this.#receivedBytes;
  }

  #rouse(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

export function tooLarge(maxBytes: number): HttpError {
  return new HttpError(413, `The request body may have at most ${maxBytes} bytes.`);
}
