/** Compares the generations of what this node keeps in memory with the store: all in one read, each source harmed by no other. */
import { type Clock, counter, type Logger, type Random, type Timer } from '../../ops/telemetry/index.js';
import { KvError, type KvReads, type KvStore } from '../../store/kv/contract.js';
import { Deadline } from '../membership/deadline.js';
import { busLimits, type GenerationSource } from './contract.js';

/** `result`: `same`, `changed`, `failed` (the store did not answer). */
const comparisonsTotal = counter('starling_cluster_bus_comparisons_total', 'Comparisons of generations with the store.', [
  'result',
]);
const sourceFailures = counter(
  'starling_cluster_bus_source_failures_total',
  'Generations that could not be read, or changes of them that could not be taken over.',
  ['source'],
);

interface Followed {
  source: GenerationSource;
  seen: string | undefined;
  /** Since when (monotonic) it is being told. */
  tellingSinceMs: number | undefined;
  /** It has changed again meanwhile. */
  isBehind: boolean;
  /** The last attempt to read it threw. */
  hasReadFailed: boolean;
  /** The last attempt to tell of it threw. */
  hasTellingFailed: boolean;
}

export interface GenerationsOptions {
  kv: KvStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** How long to the next comparison when nothing asks for one. */
  intervalMs(): number;
}

export class Generations {
  readonly #o: GenerationsOptions;
  readonly #followed = new Map<string, Followed>();
  #timer: Timer | undefined;
  #dueMs = Number.POSITIVE_INFINITY;
  #comparing: Promise<void> | undefined;
  #startedAtMs = Number.NEGATIVE_INFINITY;
  /** When the last complete comparison began. */
  #comparedAtMs: number | undefined;
  #failures = 0;
  #isOpen = false;
  readonly #deadline: Deadline;

  constructor(options: GenerationsOptions) {
    this.#o = options;
    this.#deadline = new Deadline(options.clock, busLimits.healthyIntervalMs);
  }

  get comparedAgeMs(): number | undefined {
    return this.#comparedAtMs === undefined ? undefined : this.#o.clock.monotonicMs() - this.#comparedAtMs;
  }

  /** When the last comparison that went well began (monotonic). */
  get comparedAtMs(): number {
    return this.#comparedAtMs ?? Number.NEGATIVE_INFINITY;
  }

  get isWell(): boolean {
    if (this.#failures > 0) return false;
    const nowMs = this.#o.clock.monotonicMs();
    for (const { hasReadFailed, hasTellingFailed, tellingSinceMs } of this.#followed.values()) {
      if (hasReadFailed || hasTellingFailed) return false;
      // Whoever takes so long serves what is outdated.
      if (tellingSinceMs !== undefined && nowMs - tellingSinceMs > busLimits.healthyIntervalMs) return false;
    }
    return true;
  }

  open(): void {
    this.#isOpen = true;
    this.want(0);
  }

  async close(): Promise<void> {
    this.#isOpen = false;
    this.#timer?.cancel();
    await this.#comparing;
  }

  follow(source: GenerationSource): () => void {
    if (this.#followed.has(source.name)) throw new Error(`the generation ${source.name} is followed already`);
    const followed: Followed = {
      source,
      seen: undefined,
      tellingSinceMs: undefined,
      isBehind: false,
      hasReadFailed: false,
      hasTellingFailed: false,
    };
    this.#followed.set(source.name, followed);
    this.want(0);
    return () => {
      if (this.#followed.get(source.name) === followed) this.#followed.delete(source.name);
    };
  }

  follows(name: string): boolean {
    return this.#followed.has(name);
  }

  /** A comparison that begins after `delayMs` at the latest, but not too soon after the last one. */
  want(delayMs: number): void {
    if (!this.#isOpen) return;
    const nowMs = this.#o.clock.monotonicMs();
    const dueMs = Math.max(nowMs + delayMs, this.#startedAtMs + busLimits.minComparisonGapMs);
    if (dueMs >= this.#dueMs) return;
    this.#dueMs = dueMs;
    if (!this.#comparing) this.#arm();
  }

  #arm(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (!this.#isOpen || this.#dueMs === Number.POSITIVE_INFINITY) return;
    const waitMs = this.#dueMs - this.#o.clock.monotonicMs();
    if (waitMs <= 0) this.#begin();
    else this.#timer = this.#o.clock.setTimer(waitMs, () => this.#begin(), { background: true });
  }

  #begin(): void {
    this.#dueMs = Number.POSITIVE_INFINITY;
    this.#comparing = this.#compare().finally(() => {
      this.#comparing = undefined;
      const { random } = this.#o;
      // Nodes that have the same reason to look don't look together for ever.
      if (this.#followed.size > 0) this.want(this.#o.intervalMs() * (0.9 + random.float() * 0.2));
      this.#arm();
    });
  }

  async #compare(): Promise<void> {
    const { clock, kv, logger } = this.#o;
    const startMs = clock.monotonicMs();
    this.#startedAtMs = startMs;
    const all = [...this.#followed.values()];
    try {
      const found =
        all.length === 0
          ? []
          : await this.#deadline.bound((signal) =>
              kv.read((reads) => Promise.all(all.map((one) => this.#read(one, reads))), {
                label: 'bus-compare',
                maxAttempts: 5,
                signal,
              }),
            );
      if (!this.#isOpen) return;
      if (this.#failures > 0) logger.info('generations can be compared with the store again');
      this.#failures = 0;
      this.#comparedAtMs = startMs;
      const changed = all.filter((one, i) => found[i] !== undefined && found[i] !== one.seen);
      comparisonsTotal.inc({ result: changed.length > 0 ? 'changed' : 'same' });
      for (const [i, one] of all.entries()) {
        const generation = found[i];
        if (generation === undefined) continue;
        if (generation !== one.seen) void this.#tell(one, generation);
        else one.hasTellingFailed = false;
      }
    } catch (error) {
      if (!this.#isOpen) return;
      comparisonsTotal.inc({ result: 'failed' });
      if (this.#failures++ === 0) logger.warn({ err: error }, 'generations could not be compared with the store, trying again');
    }
  }

  /** Undefined for one that failed by itself. An error of the store is everybody's. */
  async #read(one: Followed, reads: KvReads): Promise<string | undefined> {
    try {
      const generation = await one.source.read(reads);
      one.hasReadFailed = false;
      return generation;
    } catch (error) {
      if (error instanceof KvError) throw error;
      this.#failed(one, error, one.hasReadFailed, 'a generation could not be read');
      one.hasReadFailed = true;
      return undefined;
    }
  }

  /** Remembers the generation as seen once its source has taken it over. */
  async #tell(one: Followed, generation: string): Promise<void> {
    if (one.tellingSinceMs !== undefined) {
      one.isBehind = true;
      return;
    }
    one.tellingSinceMs = this.#o.clock.monotonicMs();
    try {
      await one.source.onChanged(generation);
      one.seen = generation;
      one.hasTellingFailed = false;
    } catch (error) {
      this.#failed(one, error, one.hasTellingFailed, 'a change could not be taken over, trying again');
      one.hasTellingFailed = true;
    }
    one.tellingSinceMs = undefined;
    if (!one.isBehind) return;
    one.isBehind = false;
    this.want(0);
  }

  #failed(one: Followed, error: unknown, isKnown: boolean, message: string): void {
    const { logger } = this.#o;
    const { name } = one.source;
    sourceFailures.inc({ source: name });
    if (!isKnown) logger.warn({ err: error, source: name }, message);
    this.want(this.#o.intervalMs());
  }
}
