/**
 * Writes a stream of pieces in batches: one batch in flight, one being filled, never more.
 */

/** Sends one batch. `isLast`: nothing follows, and it may be shorter than the limit. */
export type SendBatch = (pieces: Buffer[], bytes: number, isLast: boolean) => Promise<void>;

export class BatchedWrites {
  readonly #limitBytes: number;
  readonly #send: SendBatch;
  #pieces: Buffer[] = [];
  #bytes = 0;
  #inFlight: Promise<void> | undefined;
  #isStopped = false;
  #failure: { error: unknown } | undefined;

  constructor(limitBytes: number, send: SendBatch) {
    this.#limitBytes = limitBytes;
    this.#send = send;
  }

  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  /** Throws what an earlier batch failed with. */
  assertWell(): void {
    if (this.#failure) throw this.#failure.error;
  }

  /** Answers a promise when a full batch has to wait for the one in flight; nothing may be added before it resolved. */
  add(piece: Buffer): Promise<void> | undefined {
    this.assertWell();
    this.#pieces.push(piece);
    this.#bytes += piece.length;
    if (this.#bytes < this.#limitBytes) return undefined;
    if (!this.#inFlight) {
      this.#start(false);
      return undefined;
    }
    return this.#inFlight.then(() => {
      if (!this.#isStopped) this.#start(false);
    });
  }

  /** Sends what is left and waits until all is sent. */
  async end(): Promise<void> {
    await this.#inFlight;
    this.assertWell();
    if (this.#pieces.length > 0 && !this.#isStopped) this.#start(true);
    await this.#inFlight;
    this.assertWell();
  }

  /** Sends nothing more; resolves when the batch in flight is through. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#pieces = [];
    this.#bytes = 0;
    await this.#inFlight?.catch(() => {});
  }

  #start(isLast: boolean): void {
    const pieces = this.#pieces;
    const bytes = this.#bytes;
    this.#pieces = [];
    this.#bytes = 0;
    const flight = this.#send(pieces, bytes, isLast).then(
      () => {
        this.#inFlight = undefined;
      },
      (error) => {
        this.#inFlight = undefined;
        this.#failure = { error };
        throw error;
      },
    );
    flight.catch(() => {});
    this.#inFlight = flight;
  }
}
