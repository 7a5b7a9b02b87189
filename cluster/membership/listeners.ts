/** Who wants to be told of something. One that throws harms neither the others nor the membership. */
import type { Logger } from '../../ops/telemetry/index.js';

export class Listeners<T extends unknown[] = []> {
  readonly #listeners = new Set<(...facts: T) => void>();

  constructor(readonly logger: Logger) {}

  /** Answers the way to stop it. */
  add(listener: (...facts: T) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  tell(...facts: T): void {
    for (const listener of [...this.#listeners]) this.tellOne(listener, ...facts);
  }

  tellOne(listener: (...facts: T) => void, ...facts: T): void {
    try {
      listener(...facts);
    } catch (error) {
      this.logger.error({ err: error }, 'a listener of the membership failed');
    }
  }
}
