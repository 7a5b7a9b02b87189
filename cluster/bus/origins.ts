/**
 * Tells from the numbers of each origin's messages whether some never came. A message that was only overtaken has a while to come; one that comes twice, or
 * from before a restart of the numbers, is passed over.
 */
import { type Clock, counter, type Timer } from '../../ops/telemetry/index.js';
import { busLimits } from './contract.js';

const missedTotal = counter('starling_cluster_bus_missed_total', 'Messages of other nodes that never came here.');

/** Numbers before the first one heard that may only have been overtaken. */
const maxAwaitedBefore = 64;

interface Origin {
  incarnation: number;
  /** The first number heard: what was before may have been sent before this node listened, and is not counted. */
  first: number;
  highest: number;
  /** Numbers below `highest` that have not come, and when they are given up. Ascending in both. */
  awaited: Map<number, number>;
}

export interface OriginsOptions {
  clock: Clock;
  /** So many messages never came; 0: some may have gone before this node heard of the origin. */
  onLost(count: number): void;
}

export class Origins {
  readonly #o: OriginsOptions;
  /** Heard last at the end. */
  readonly #origins = new Map<string, Origin>();
  #timer: Timer | undefined;
  missed = 0;

  constructor(options: OriginsOptions) {
    this.#o = options;
  }

  /** False for a message that is to be passed over. */
  accept(from: string, incarnation: number, sequence: number): boolean {
    const origin = this.#origins.get(from);
    if (!origin || incarnation > origin.incarnation) return this.#begin(from, origin, incarnation, sequence);
    if (incarnation < origin.incarnation) return false;
    return this.#count(from, origin, sequence);
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** A new origin, or one that refuted a suspicion (its numbers go on) or started anew (they begin again). */
  #begin(from: string, before: Origin | undefined, incarnation: number, sequence: number): boolean {
    if (before && sequence > before.highest) {
      before.incarnation = incarnation;
      return this.#count(from, before, sequence);
    }
    this.#origins.delete(from);
    const origin: Origin = { incarnation, first: sequence, highest: sequence, awaited: new Map() };
    this.#origins.set(from, origin);
    if (this.#origins.size > busLimits.maxOrigins) this.#origins.delete(this.#origins.keys().next().value!);
    if (before || sequence > maxAwaitedBefore) this.#o.onLost(0);
    else this.#await(origin, 1);
    return true;
  }

  #count(from: string, origin: Origin, sequence: number): boolean {
    if (sequence <= origin.highest) return origin.awaited.delete(sequence);
    this.#origins.delete(from);
    this.#origins.set(from, origin);
    const first = Math.max(origin.highest + 1, sequence - busLimits.maxAwaited);
    let given = first - origin.highest - 1;
    origin.highest = sequence;
    this.#await(origin, first);
    for (const number of origin.awaited.keys()) {
      if (origin.awaited.size <= busLimits.maxAwaited) break;
      origin.awaited.delete(number);
      given++;
    }
    if (given > 0) this.#lose(given);
    return true;
  }

  /** All numbers from `begin` to below the highest. */
  #await(origin: Origin, begin: number): void {
    const deadlineMs = this.#o.clock.monotonicMs() + busLimits.reorderMs;
    for (let number = begin; number < origin.highest; number++) origin.awaited.set(number, deadlineMs);
    if (origin.awaited.size > 0) this.#watch();
  }

  #watch(): void {
    this.#timer ??= this.#o.clock.setTimer(
      busLimits.reorderMs,
      () => {
        this.#timer = undefined;
        this.#giveUp();
      },
      { background: true },
    );
  }

  #giveUp(): void {
    const nowMs = this.#o.clock.monotonicMs();
    let count = 0;
    let isAwaiting = false;
    let isUnsure = false;
    for (const { awaited, first } of this.#origins.values()) {
      for (const [number, deadlineMs] of awaited) {
        if (deadlineMs > nowMs + 1) break;
        awaited.delete(number);
        if (number < first) isUnsure = true;
        else count++;
      }
      isAwaiting ||= awaited.size > 0;
    }
    if (count > 0) this.#lose(count);
    else if (isUnsure) this.#o.onLost(0);
    if (isAwaiting) this.#watch();
  }

  #lose(count: number): void {
    this.missed += count;
    missedTotal.inc(count);
    this.#o.onLost(count);
  }
}
