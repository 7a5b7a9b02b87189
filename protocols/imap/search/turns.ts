/** Long work in small pieces. */
import { type SessionContext, yieldEventLoop } from '../context.js';

const turnMs = 10;

/** Gives others a turn when 10 ms have gone by, and tells a client that waits for long that it goes on. */
export class Turns {
  readonly #context: SessionContext;
  #startMs: number;

  constructor(context: SessionContext) {
    this.#context = context;
    this.#startMs = context.services.clock.monotonicMs();
  }

  /** Rejects with ConnectionClosed when the client is gone. */
  async give(done?: number, total?: number): Promise<void> {
    const { clock } = this.#context.services;
    if (clock.monotonicMs() - this.#startMs < turnMs) return;
    if (this.#context.output.isClosed) await this.#context.output.ready();
    this.#context.progress(done, total);
    await yieldEventLoop();
    this.#startMs = clock.monotonicMs();
  }
}
