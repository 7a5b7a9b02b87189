/**
 * The octets of a session: input kept until somebody takes it, replies gathered and written in one piece, both bounded; changing to TLS;
 * an end that lets the last reply arrive.
 */
import type { Duplex } from 'node:stream';
import type { Clock, Timer } from '../../../ops/telemetry/index.js';
import type { SmtpLimits } from './limits.js';

/** Called by the channel; never after `onClosed`, which comes once. */
export interface ChannelEvents {
  /** There is more input, or the client reads again, or has closed its half. */
  onProgress(received: Buffer | undefined): void;
  onError(error: Error): void;
  onClosed(): void;
}

/** The session as its channel sees it. Limits may change as it goes on. */
interface Bounded {
  readonly clock: Clock;
  readonly limits: SmtpLimits;
}

const nothing: Buffer = Buffer.alloc(0);
/** Replies of a long group of commands leave when they have come to this many characters. */
const flushAtCharacters = 16_384;

export class Channel {
  /** Input that was not taken yet begins at `at`. */
  input: Buffer = nothing;
  at = 0;
  /** The client has closed its half. */
  ended = false;
  /** No more input is taken; the socket closes when the last reply has left. */
  closing = false;
  closed = false;
  /** The client does not read its replies: it gets no more until it does. */
  blocked = false;

  #socket: Duplex;
  #out = '';
  #paused = false;
  #flushScheduled = false;
  #lingering: Timer | undefined;

  constructor(
    socket: Duplex,
    private readonly session: Bounded,
    private readonly events: ChannelEvents,
  ) {
    this.#socket = socket;
  }

  /** Begins to listen. */
  start() {
    this.#attach(this.#socket);
  }

  /** Input remains. */
  get hasInput(): boolean {
    return this.at < this.input.length;
  }

  /** There are replies that the client can't have seen. */
  get hasUnsent(): boolean {
    return this.#out !== '';
  }

  /** Octets that are kept here and in the socket: input not taken, replies not read. */
  get bufferedBytes(): number {
    return this.input.length - this.at + this.#out.length + this.#socket.writableLength + this.#socket.readableLength;
  }

  // ---- input ----

  readonly #onData = (chunk: Buffer) => {
    if (this.closing || this.closed) return;
    if (this.hasInput) this.#append(chunk);
    else {
      this.input = chunk;
      this.at = 0;
    }
    this.events.onProgress(chunk);
    if (!this.#paused && this.input.length - this.at > this.session.limits.maxPendingInputBytes) {
      this.#paused = true;
      this.#socket.pause();
    }
  };

  /**
   * Adds to what is kept. Room is made for as much again, and used next time: octets that come one by one are not copied each time. What was
   * handed out of the buffer is never written over: only the room behind all input is.
   */
  #append(chunk: Buffer) {
    const { input, at } = this;
    const room = input.buffer.byteLength - input.byteOffset - input.length;
    if (this.#owned === input.buffer && room >= chunk.length) {
      const grown = Buffer.from(input.buffer as ArrayBuffer, input.byteOffset, input.length + chunk.length);
      grown.set(chunk, input.length);
      this.input = grown;
      return;
    }
    const kept = input.length - at;
    const store = new ArrayBuffer(2 * (kept + chunk.length));
    const grown = Buffer.from(store, 0, kept + chunk.length);
    grown.set(input.subarray(at));
    grown.set(chunk, kept);
    this.#owned = store;
    this.input = grown;
    this.at = 0;
  }

  /** The buffer that `#append` made last: nobody else's. */
  #owned: ArrayBufferLike | undefined;

  /** After input was taken: lets more come. */
  resume() {
    if (!this.hasInput) this.dropInput();
    if (!this.#paused || this.blocked || this.input.length - this.at > this.session.limits.maxPendingInputBytes) return;
    this.#paused = false;
    this.#socket.resume();
  }

  /** Forgets what was not taken. */
  dropInput() {
    this.input = nothing;
    this.at = 0;
    this.#owned = undefined;
  }

  // ---- output ----

  queue(text: string) {
    this.#out += text;
    if (this.#out.length > flushAtCharacters) this.flush();
  }

  /** Writes what is queued, in one piece. The last reply may have left before it was known to be the last. */
  flush() {
    if (this.#hasNothingToFlush || this.closed || this.#socket.destroyed || this.#socket.writableEnded) return;
    const out = this.#out;
    this.#out = '';
    if (out !== '') this.#socket.write(out);
    if (this.closing) this.#socket.end();
    else if (!this.blocked && this.#socket.writableLength > this.session.limits.maxUnreadReplyBytes) this.#waitForReader();
  }

  get #hasNothingToFlush(): boolean {
    return this.#out === '' && !this.closing;
  }

  /** Replies of a group wait for each other, but not for slow work: a client that was not told would send its message again. */
  flushSoon() {
    if (this.#hasNothingToFlush || this.#flushScheduled) return;
    this.#flushScheduled = true;
    setImmediate(() => {
      this.#flushScheduled = false;
      this.flush();
    });
  }

  #waitForReader() {
    this.blocked = true;
    this.#socket.once('drain', () => {
      this.blocked = false;
      if (!this.closed) this.events.onProgress(undefined);
    });
  }

  // ---- the end ----

  /** Takes no more input; what is queued leaves with the next `flush`, and then the socket closes. */
  beginClosing() {
    this.closing = true;
    this.dropInput();
    this.#lingering = this.session.clock.setTimer(this.session.limits.lingerMs, () => this.#socket.destroy(), {
      background: true,
    });
    // What still comes is read and dropped: unread input would turn our close into a reset that may overtake the last reply.
    if (this.#paused) {
      this.#paused = false;
      this.#socket.resume();
    }
    this.flushSoon();
  }

  /** The client closed its half and has got all its answers. */
  endIfDone() {
    if (this.ended && !this.blocked && !this.#socket.writableEnded) this.#socket.end(() => this.#socket.destroy());
  }

  destroy() {
    this.#socket.destroy();
  }

  readonly #onEnd = () => {
    this.ended = true;
    if (!this.closed) this.events.onProgress(undefined);
  };

  readonly #onError = (error: Error) => this.events.onError(error);

  readonly #onClose = () => {
    if (this.closed) return;
    this.closed = true;
    this.#lingering?.cancel();
    this.dropInput();
    this.#out = '';
    this.events.onClosed();
  };

  // ---- sockets ----

  #attach(socket: Duplex) {
    socket.on('error', this.#onError);
    socket.on('close', this.#onClose);
    socket.on('end', this.#onEnd);
    socket.on('data', this.#onData);
    if (socket.destroyed) this.#onClose();
  }

  #detach(socket: Duplex) {
    socket.pause();
    socket.removeListener('data', this.#onData);
    socket.removeListener('end', this.#onEnd);
    // The listeners for the end of it stay: the plain socket's end is the connection's.
  }

  /**
   * Writes what is queued, drops all input (RFC 3207 4.2: what came before the handshake is worth nothing), and goes on over the socket
   * that `secure` yields. Resolves when that is done; rejects, with the connection closed, when it fails.
   */
  async replaceSocket<T extends { socket: Duplex }>(secure: () => Promise<T>, timeoutMs: number): Promise<T> {
    this.flush();
    const plain = this.#socket;
    this.#detach(plain);
    this.dropInput();
    const timer = this.session.clock.setTimer(timeoutMs, () => plain.destroy(), { background: true });
    try {
      const secured = await secure();
      if (this.closed) {
        secured.socket.destroy();
        throw new Error('the connection was closed during the handshake');
      }
      this.#socket = secured.socket;
      this.#attach(secured.socket);
      return secured;
    } catch (error) {
      plain.destroy();
      this.#onClose();
      throw error;
    } finally {
      timer.cancel();
    }
  }
}
