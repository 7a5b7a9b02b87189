/**
 * The way in: socket bytes into the command reader, with a bounded buffer, and waiting for more with a time limit. A wait can also be ended by
 * `wake` (news for IDLE, drain).
 */
import type { Duplex } from 'node:stream';
import type { Clock } from '../../ops/telemetry/index.js';
import type { GrammarLimits } from './grammar/limits.js';
import { CommandReader, type ReaderEvent } from './grammar/reader.js';

export type WaitResult = 'input' | 'ended' | 'timeout' | 'woken';

export class Input {
  reader: CommandReader;
  /** The client will send nothing more. */
  hasEnded = false;
  /** Bytes that came in so far; tells whether a wait brought something. */
  receivedBytes = 0;
  #socket: Duplex;
  #waiter: ((result: WaitResult) => void) | undefined;
  #isPaused = false;
  readonly #clock: Clock;
  readonly #maxBufferedBytes: number;
  /** Called with the very first bytes; true closes the connection. */
  #isAlien: ((bytes: Buffer) => boolean) | undefined;

  constructor(
    socket: Duplex,
    clock: Clock,
    grammar: GrammarLimits,
    maxBufferedBytes: number,
    isAlien?: (bytes: Buffer) => boolean,
  ) {
    this.reader = new CommandReader(grammar);
    this.#clock = clock;
    this.#maxBufferedBytes = maxBufferedBytes;
    this.#isAlien = isAlien;
    this.#socket = socket;
    this.#attach();
  }

  #attach(): void {
    const socket = this.#socket;
    socket.on('data', this.#onData);
    socket.on('end', this.#onEnd);
    socket.on('close', this.#onEnd);
    // Without a listener an ECONNRESET would end the process; `close` follows.
    socket.on('error', this.#onEnd);
  }

  readonly #onData = (chunk: Buffer): void => {
    if (this.#isAlien?.(chunk)) {
      this.#socket.destroy();
      return;
    }
    this.#isAlien = undefined;
    this.receivedBytes += chunk.length;
    this.reader.push(chunk);
    if (this.reader.bufferedBytes > this.#maxBufferedBytes) {
      this.#isPaused = true;
      this.#socket.pause();
    }
    this.#settle('input');
  };

  readonly #onEnd = (): void => {
    this.hasEnded = true;
    this.#settle('ended');
  };

  #settle(result: WaitResult): void {
    const waiter = this.#waiter;
    this.#waiter = undefined;
    waiter?.(result);
  }

  /** Ends a running wait early. */
  wake(): void {
    this.#settle('woken');
  }

  /** Stops reading, for a layer between the socket and this; answers what has come in already and belongs to that layer. */
  handOver(): Buffer[] {
    const unread = this.reader.takeUnread();
    this.detach();
    return unread;
  }

  /** Stops reading, for STARTTLS; everything buffered is dropped. */
  detach(): void {
    const socket = this.#socket;
    socket.pause();
    socket.off('data', this.#onData);
    socket.off('end', this.#onEnd);
    socket.off('close', this.#onEnd);
    this.reader.reset();
  }

  replaceSocket(socket: Duplex): void {
    this.#socket = socket;
    this.#isPaused = false;
    this.#isAlien = undefined;
    this.#attach();
  }

  /** Goes on with other limits (after login); buffered bytes come along. Only between commands. */
  changeLimits(grammar: GrammarLimits): void {
    this.reader = this.reader.withLimits(grammar);
  }

  /** Waits for bytes, at most `timeoutMs`; without it until something else ends the wait. */
  wait(timeoutMs?: number): Promise<WaitResult> {
    if (this.hasEnded) return Promise.resolve('ended');
    return new Promise((resolve) => {
      if (timeoutMs === undefined) this.#waiter = resolve;
      else {
        const timer = this.#clock.setTimer(timeoutMs, () => this.#settle('timeout'), { background: true });
        this.#waiter = (result) => {
          timer.cancel();
          resolve(result);
        };
      }
      if (this.#isPaused) {
        this.#isPaused = false;
        this.#socket.resume();
      }
    });
  }

  next(): ReaderEvent | undefined {
    return this.reader.next();
  }
}
