/**
 * The way out: response text is gathered and leaves in few large writes; who writes much waits (`ready`) until the client has taken it.
 */
import type { Duplex } from 'node:stream';
import type { Clock } from '../../ops/telemetry/index.js';

/** The client is gone; whatever runs for it may stop. */
export class ConnectionClosed extends Error {
  override readonly name = 'ConnectionClosed';
  constructor() {
    super('connection closed');
  }
}

/** How long a client that has been sent everything may take to close its side. */
const lingerMs = 5_000;
const flushAtChars = 32_768;
/** Shorter byte runs are cheaper to copy into the text around them than to write alone. */
const copyBelowBytes = 4_096;
/** Clients that speak different extensions hear different texts. */
const maxSharedTexts = 16;
const maxSharedChars = 4_096;

/** Text that many sessions are told, as bytes: made once, for as long as they are being told. */
export class SharedBytes {
  readonly #bytesOf = new Map<string, Buffer>();

  of(latin1: string): Buffer {
    let bytes = this.#bytesOf.get(latin1);
    if (!bytes) {
      bytes = Buffer.from(latin1, 'latin1');
      if (this.#bytesOf.size < maxSharedTexts && latin1.length <= maxSharedChars) this.#bytesOf.set(latin1, bytes);
    }
    return bytes;
  }
}

export class Output {
  #socket: Duplex;
  #text = '';
  readonly #clock: Clock;
  readonly #limits: { maxBufferedOutputBytes: number; writeTimeoutMs: number };

  constructor(socket: Duplex, clock: Clock, limits: { maxBufferedOutputBytes: number; writeTimeoutMs: number }) {
    this.#socket = socket;
    this.#clock = clock;
    this.#limits = limits;
  }

  get socket(): Duplex {
    return this.#socket;
  }

  get isClosed(): boolean {
    return this.#socket.destroyed || this.#socket.writableEnded;
  }

  /** The client takes less than is written: `ready` would give a promise, or throw. */
  get isCongested(): boolean {
    return this.isClosed || this.#socket.writableLength >= this.#limits.maxBufferedOutputBytes;
  }

  replaceSocket(socket: Duplex): void {
    this.#text = '';
    this.#socket = socket;
  }

  /** Appends text, one byte per character. */
  write(latin1: string): void {
    this.#text += latin1;
    if (this.#text.length >= flushAtChars) this.flush();
  }

  /** Appends bytes. Answers whether they are kept, and must not change afterwards; few are copied. */
  bytes(bytes: Buffer): boolean {
    if (bytes.length < copyBelowBytes) {
      this.write(bytes.toString('latin1'));
      return false;
    }
    this.flush();
    if (!this.isClosed) this.#socket.write(bytes);
    return true;
  }

  /** Hands what is gathered to the socket; `shared` where others are told the same. */
  flush(shared?: SharedBytes): void {
    if (this.#text === '') return;
    const bytes = shared?.of(this.#text) ?? Buffer.from(this.#text, 'latin1');
    this.#text = '';
    if (!this.isClosed) this.#socket.write(bytes);
  }

  /** A promise when the caller should wait before writing more. Rejects with ConnectionClosed when the client is gone or takes nothing. */
  ready(): Promise<void> | undefined {
    if (this.isClosed) return Promise.reject(new ConnectionClosed());
    if (this.#socket.writableLength < this.#limits.maxBufferedOutputBytes) return undefined;
    return this.#drained();
  }

  #drained(): Promise<void> {
    const socket = this.#socket;
    return new Promise((resolve, reject) => {
      const done = (error?: Error) => {
        timer.cancel();
        socket.off('drain', onDrain);
        socket.off('close', onClose);
        if (error) reject(error);
        else resolve();
      };
      const onDrain = () => done();
      const onClose = () => done(new ConnectionClosed());
      // Bytes trickling out reset nothing: what the client must take in this time is only a buffer's worth.
      const timer = this.#clock.setTimer(
        this.#limits.writeTimeoutMs,
        () => {
          socket.destroy();
          done(new ConnectionClosed());
        },
        { background: true },
      );
      socket.on('drain', onDrain);
      socket.on('close', onClose);
    });
  }

  /** Sends what is left and closes. */
  end(): void {
    this.flush();
    const socket = this.#socket;
    if (socket.destroyed) return;
    const destroyAfter = (ms: number) => this.#clock.setTimer(ms, () => socket.destroy(), { background: true });
    // What a slow client is still owed gets the time of any other buffer's worth: with POP3 it may be a message that QUIT has removed.
    let timer = destroyAfter(this.#limits.writeTimeoutMs);
    socket.once('close', () => timer.cancel());
    socket.end(() => {
      timer.cancel();
      // A client that does not close its side does not keep ours.
      if (!socket.destroyed) timer = destroyAfter(lingerMs);
    });
  }
}
