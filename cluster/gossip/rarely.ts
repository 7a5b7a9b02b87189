/** Log lines that an outsider can cause: each kind at most once a minute, with the count of those that were left out. */
import type { Clock, Logger } from '../../ops/telemetry/index.js';

const intervalMs = 60_000;

export class RareWarnings {
  readonly #kinds = new Map<string, { atMs: number; leftOut: number }>();

  constructor(
    private readonly clock: Clock,
    private readonly logger: Logger,
  ) {}

  /** `sentence` tells the kinds apart: it is from a small fixed set. */
  warn(sentence: string, fields: Record<string, unknown>): void {
    const nowMs = this.clock.monotonicMs();
    const kind = this.#kinds.get(sentence);
    if (kind && nowMs - kind.atMs < intervalMs) {
      kind.leftOut++;
      return;
    }
    this.#kinds.set(sentence, { atMs: nowMs, leftOut: 0 });
    this.logger.warn(kind?.leftOut ? { ...fields, leftOut: kind.leftOut } : fields, sentence);
  }
}
