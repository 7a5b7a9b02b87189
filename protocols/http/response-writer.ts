/**
 * Puts one response on the wire: status, headers, and a body as fast as the peer reads it. Knows the engine's three ways to send
 * a body (whole, known size, chunked) and touches the native response only while it lives.
 */
import { reasonPhrase } from './errors.js';
import type { HttpResponse } from './messages.js';
import type { UwsResponse } from './uws.js';

/** Bodies up to this size are handed over whole; the engine keeps what the peer has not taken yet. */
const wholeBodyMaxBytes = 64 * 1024;

/**
 * Chunks of a chunked body are cut to this size. A writable event frees at least a third of the socket's send buffer, which is
 * more than one piece, so what the engine keeps for a slow peer stays bounded.
 */
const pieceBytes = 32 * 1024;

/** Set by the server or the engine itself. */
const ownHeaders = new Set(['content-length', 'transfer-encoding', 'connection', 'date']);

/** The life of the native response, which the exchange watches over. */
export interface WireLife {
  /** False after the end and after an abort: then `res` must not be touched, for every access throws. */
  readonly live: boolean;
  /** The last byte is about to be handed to the engine: whatever holds the connection back must let go now. */
  ending(): void;
  /** The last byte was handed to the engine. */
  ended(): void;
  /** The status line has gone: from here an error can only cut the connection. */
  begun(): void;
}

export interface WriteOptions {
  /** Answers HEAD: the headers of the body, without it. */
  withoutBody: boolean;
  closeConnection: boolean;
}

export class ResponseWriter {
  /** What waits for the peer to read on; rejected when it goes away. */
  #wait: { resolve(): void; reject(error: Error): void } | undefined;
  #onWritable: ((offset: number) => boolean) | undefined;
  #listening = false;

  constructor(
    private readonly res: UwsResponse,
    private readonly life: WireLife,
  ) {}

  /**
   * Sends all of it. Resolves when the engine has taken the last byte (at once for small bodies).
   * @throws Error for headers that cannot be sent (nothing has been written then), for what the body's iterator throws, for a
   *   body that is not `bodyBytes` long, and when the peer goes away.
   */
  write(response: HttpResponse, options: WriteOptions): void | Promise<void> {
    const headers = flatten(response.headers);
    if (!Number.isInteger(response.status) || response.status < 200 || response.status > 599) {
      throw new Error(`Not a final HTTP status: ${response.status}`);
    }
    const { body } = response;
    const hasNoContent = response.status === 204 || response.status === 304;
    if (options.withoutBody || hasNoContent) {
      dispose(body);
      const reportedBytes = hasNoContent ? undefined : sizeOf(response);
      // Our own headers: see `endWithoutBody` for what its arguments would do.
      if (reportedBytes !== undefined) headers.push(['content-length', String(reportedBytes)]);
      else if (!hasNoContent) headers.push(['transfer-encoding', 'chunked']);
      if (options.closeConnection) headers.push(['connection', 'close']);
      this.#whole(response.status, headers, () => this.res.endWithoutBody());
      return;
    }
    if (body === undefined || typeof body === 'string' || body instanceof Uint8Array) {
      const size = body === undefined ? 0 : body.length;
      if (size <= wholeBodyMaxBytes) {
        this.#whole(response.status, headers, () => this.res.end(body ?? '', options.closeConnection));
        return;
      }
      const bytes = typeof body === 'string' ? Buffer.from(body, 'utf8') : body!;
      return this.#pump(response.status, headers, options, once(bytes!), bytes!.length);
    }
    return this.#pump(response.status, headers, options, body, response.bodyBytes);
  }

  /** From the exchange when the peer has gone. */
  abort(error: Error): void {
    const wait = this.#wait;
    this.#wait = undefined;
    wait?.reject(error);
  }

  #whole(status: number, headers: HeaderList, end: () => void): void {
    this.res.cork(() => {
      this.#head(status, headers, false);
      this.life.ending();
      end();
      this.life.ended();
    });
  }

  #head(status: number, headers: HeaderList, closeConnection: boolean): void {
    this.res.writeStatus(`${status} ${reasonPhrase(status)}`);
    for (const [name, value] of headers) this.res.writeHeader(name, value);
    if (closeConnection) this.res.writeHeader('connection', 'close');
    this.life.begun();
  }

  /** The head goes out with the first chunk, so that an iterator that fails at once still gets a proper error response. */
  async #pump(
    status: number,
    headers: HeaderList,
    options: WriteOptions,
    body: AsyncIterable<Uint8Array | string>,
    totalBytes: number | undefined,
  ): Promise<void> {
    const iterator = body[Symbol.asyncIterator]();
    let sentBytes = 0;
    let headSent = false;
    const head = () => {
      if (headSent) return;
      headSent = true;
      this.#head(status, headers, options.closeConnection);
    };
    try {
      for (;;) {
        const next = await this.#orAbort(iterator.next());
        if (next.done || !this.life.live) break;
        const chunk = typeof next.value === 'string' ? Buffer.from(next.value, 'utf8') : next.value;
        if (chunk.length === 0) continue;
        sentBytes += chunk.length;
        if (totalBytes === undefined) await this.#chunked(chunk, head);
        else {
          if (sentBytes > totalBytes) throw new Error(`A body of ${totalBytes} bytes yielded more`);
          await this.#sized(chunk, totalBytes, sentBytes === totalBytes, head);
        }
        if (!this.life.live) break;
      }
      if (totalBytes !== undefined && sentBytes !== totalBytes) {
        throw new Error(`A body of ${totalBytes} bytes yielded ${sentBytes}`);
      }
    } finally {
      // Not awaited: an iterator that is stuck in its own work must not hold this request.
      iterator.return?.().catch(() => {});
    }
    if (!this.life.live) return;
    if (!headSent) {
      this.#whole(status, headers, () => this.res.end('', options.closeConnection));
      return;
    }
    // No closing here: the engine would write its "Connection: close" into the chunked body. Our head has told the client.
    this.res.cork(() => {
      this.life.ending();
      this.res.end();
      this.life.ended();
    });
  }

  /** Chunked transfer coding: the engine keeps what does not fit; go on when the peer has drained it. */
  async #chunked(chunk: Uint8Array, head: () => void): Promise<void> {
    for (let offset = 0; offset < chunk.length; offset += pieceBytes) {
      const piece = chunk.subarray(offset, offset + pieceBytes);
      let flowing = true;
      this.res.cork(() => {
        head();
        flowing = this.res.write(piece);
      });
      if (!this.life.live) return;
      if (flowing) continue;
      await this.#untilWritable(() => {
        // With a writable handler of ours the engine does not send its own backlog; an empty cork does.
        this.res.cork(() => {});
        return true;
      });
    }
  }

  /** Content-Length: the engine takes what fits and nothing more; the rest is offered again from its offset. */
  async #sized(chunk: Uint8Array, totalBytes: number, isLast: boolean, head: () => void): Promise<void> {
    let accepted = false;
    let startOffset = 0;
    const offer = (bytes: Uint8Array) => {
      const [ok, done] = this.res.tryEnd(bytes, totalBytes);
      accepted = ok || done;
      if (done) this.life.ended();
      return accepted;
    };
    this.res.cork(() => {
      head();
      if (isLast) this.life.ending();
      startOffset = this.res.getWriteOffset();
      offer(chunk);
    });
    if (accepted || !this.life.live) return;
    await this.#untilWritable((offset) => offer(chunk.subarray(offset - startOffset)));
  }

  /** Calls `attempt` at each writable event until it returns true. */
  #untilWritable(attempt: (offset: number) => boolean): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      this.#wait = { resolve, reject };
      this.#onWritable = attempt;
      if (this.#listening) return;
      this.#listening = true;
      this.res.onWritable((offset) => this.#writable(offset));
    });
  }

  /** The engine may call spuriously, when nothing waits. */
  #writable(offset: number): boolean {
    if (!this.#onWritable || !this.life.live) {
      if (this.life.live) this.res.cork(() => {});
      return true;
    }
    if (!this.#onWritable(offset)) return false;
    this.#onWritable = undefined;
    const wait = this.#wait;
    this.#wait = undefined;
    wait?.resolve();
    return true;
  }

  /** `Promise.race` against an abort would add one reaction for every chunk to a promise that lives as long as the response. */
  #orAbort<T>(work: Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#wait = { resolve: () => {}, reject };
      work.then(resolve, reject);
    });
  }
}

type HeaderList = [name: string, value: string][];

/** Header names and values as they will be sent. @throws Error on bytes that would end the header line (RFC 9110 5.5). */
function flatten(headers: HttpResponse['headers']): HeaderList {
  const list: HeaderList = [];
  for (const [name, values] of Object.entries(headers ?? {})) {
    if (values === undefined || ownHeaders.has(name.toLowerCase())) continue;
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)) throw new Error(`Not a header name: ${JSON.stringify(name)}`);
    for (const value of typeof values === 'string' ? [values] : values) {
      if (/[\r\n\0]/.test(value)) throw new Error(`The value of header ${name} holds a line break`);
      list.push([name, value]);
    }
  }
  return list;
}

function sizeOf({ body, bodyBytes }: HttpResponse): number | undefined {
  if (body === undefined) return bodyBytes ?? 0;
  return typeof body === 'string' ? Buffer.byteLength(body) : body instanceof Uint8Array ? body.length : bodyBytes;
}

/** Tells a body that will not be sent to let go of what it holds. */
export function dispose(body: HttpResponse['body']): void {
  if (body === undefined || typeof body === 'string' || body instanceof Uint8Array) return;
  body[Symbol.asyncIterator]()
    .return?.()
    .catch(() => {});
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
