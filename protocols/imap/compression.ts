/**
 * DEFLATE between the session and its socket (RFC 4978). Every write is flushed, so that an answer never waits for the next one. What a client sends unpacks no
 * faster than the session reads, however much a few bytes of it stand for. Per connection: about 75 kB to compress (windows of 8 kB, `memLevel` 6) and 40 kB to
 * unpack (a client may use windows of 32 kB).
 */
import { Duplex } from 'node:stream';
import { constants, createDeflateRaw, createInflateRaw, type DeflateRaw, type InflateRaw } from 'node:zlib';

/** Mail is text: level 3 gives nearly what 6 gives, in half the time. */
const compression = { level: 3, windowBits: 13, memLevel: 6 } as const;
const chunkSize = 8_192;

export class DeflateConnection extends Duplex {
  readonly #socket: Duplex;
  readonly #deflate: DeflateRaw;
  readonly #inflate: InflateRaw;

  /** @param unread what came in already behind the command that began this. The socket must have no listeners and be paused. */
  constructor(socket: Duplex, unread: readonly Buffer[]) {
    super({ allowHalfOpen: true, highWaterMark: 2 * chunkSize });
    this.#socket = socket;
    this.#deflate = createDeflateRaw({ ...compression, chunkSize, flush: constants.Z_SYNC_FLUSH });
    // A client that ends in the middle of its stream has said what it had to say.
    this.#inflate = createInflateRaw({ chunkSize, flush: constants.Z_SYNC_FLUSH, finishFlush: constants.Z_SYNC_FLUSH });
    this.#attach();
    for (const chunk of unread) this.#inflate.write(chunk);
    socket.resume();
  }

  #attach(): void {
    const socket = this.#socket;
    const deflate = this.#deflate;
    const inflate = this.#inflate;
    const fail = (error: Error) => this.destroy(error);
    deflate.on('data', (bytes: Buffer) => {
      if (!socket.destroyed && !socket.write(bytes)) deflate.pause();
    });
    socket.on('drain', () => deflate.resume());
    inflate.on('data', (bytes: Buffer) => {
      if (!this.push(bytes)) inflate.pause();
    });
    inflate.on('end', () => this.push(null));
    socket.on('data', (bytes: Buffer) => {
      if (!inflate.write(bytes)) socket.pause();
    });
    inflate.on('drain', () => socket.resume());
    socket.on('end', () => inflate.end());
    socket.on('close', () => this.destroy());
    for (const stream of [socket, deflate, inflate]) stream.on('error', fail);
  }

  override _read(): void {
    this.#inflate.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#deflate.write(chunk, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    // Only when the socket has taken it all: what follows may be `destroy`.
    this.#deflate.once('end', () => this.#socket.end(() => done()));
    this.#deflate.end();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#deflate.destroy();
    this.#inflate.destroy();
    this.#socket.destroy();
    done(error);
  }
}
