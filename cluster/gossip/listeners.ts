/** Sets of listeners; one that throws is logged and harms nobody else. */
import type { Logger } from '../../ops/telemetry/index.js';

export class Listeners<A extends unknown[]> {
  readonly #all = new Set<(...args: A) => void>();

  constructor(
    private readonly logger: Logger,
    private readonly onThrown?: () => void,
  ) {}

  /** Answers the way to stop it. */
  add(listener: (...args: A) => void): () => void {
    // A listener that is added twice is called twice.
    const own = (...args: A) => listener(...args);
    this.#all.add(own);
    return () => void this.#all.delete(own);
  }

  call(...args: A): void {
    for (const listener of this.#all) {
      try {
        listener(...args);
      } catch (error) {
        this.onThrown?.();
        this.logger.error({ err: error }, 'a listener to gossip threw');
      }
    }
  }
}
