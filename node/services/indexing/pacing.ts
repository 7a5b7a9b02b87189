/**
 * Keeps background work from being felt: it takes a share of the time, in small slices; while the node is at work for others it waits, until it has waited
 * long enough or too much has come together, and then goes on with a smaller share.
 */
import { type Clock, counter } from '../../../ops/telemetry/index.js';

const waitedSeconds = counter(
  'starling_search_waited_seconds_total',
  'Time that indexing waited because the node was at work for others.',
);

/** Work that is done in one go. */
const sliceMs = 5;
/** The same while others are at work: whoever comes meanwhile waits for so long. */
const crowdedSliceMs = 2;
/** The same for clocks that stand still while there is work (the simulator's), and for work that is mostly waiting. */
const sliceChars = 262_144;
/** Longest rest at one time. */
const maxRestMs = 3_000;
/** A timer that comes so late tells of a busy event loop. */
const lateMs = 20;
/** Part of the time that others are at work, from which on they are disturbed. */
const crowdedLoad = 0.1;
/** After others were at work the node counts as crowded for so long. */
const quietMs = 250;
/** What was heard is believed for so long. */
const freshMs = 1_000;
/** First hearing of an errand. */
const hearingMs = 30;
/** The share of work that can't wait any more, as part of its usual one. */
const crowdedPart = 1 / 3;
/** From so many times the bearable tail on it takes its usual share, whoever is at work. */
const urgentTails = 4;

/** Work that may wait. */
export interface Errand {
  /** From when on (monotonic) it waits for nobody. */
  overdueAtMs: number;
  /** Messages that every search must look through until it is done; asked now and then while it waits. */
  tail(): Promise<number>;
}

export interface PaceOptions {
  clock: Clock;
  /** Ends every rest; its reason is thrown. */
  signal: AbortSignal;
  /** Of the time that may be worked, above 0 and at most 1. */
  share: () => number;
  /** Whether the node has much to do that somebody waits for. */
  isBusy: () => boolean;
  /** Part of the time since it was last asked that the node was at work, 0 to 1. */
  load: () => number;
  /** Messages in front of a tail that searches look through quickly enough. */
  bearableTail: () => number;
}

export class Pace {
  readonly #o: PaceOptions;
  #beganMs: number;
  #chars = 0;
  /** Since others were last heard at work, as far as was listened. */
  #quietForMs = quietMs;
  #heardAtMs = Number.NEGATIVE_INFINITY;
  #errand: Errand | undefined;
  /** Of the errand, as of the last look. */
  #tail = 0;

  constructor(options: PaceOptions) {
    this.#o = options;
    this.#beganMs = options.clock.monotonicMs();
  }

  /** Work begins that may wait: resolves when the node is quiet, or the work can't wait any more. Holds until the next `begin` or `end`. */
  async begin(errand: Errand): Promise<void> {
    const { clock } = this.#o;
    this.#errand = errand;
    this.#tail = await errand.tail();
    if (clock.monotonicMs() - this.#heardAtMs > freshMs) await this.#listen(hearingMs);
    await this.#wait();
    this.resume();
  }

  /** What goes on from here waits for nobody, but keeps to its share. */
  end(): void {
    this.#errand = undefined;
    this.#tail = 0;
  }

  /** To be awaited between pieces of work; `chars` of text were worked on since the last time. */
  async step(chars = 0): Promise<void> {
    const { clock, signal } = this.#o;
    signal.throwIfAborted();
    this.#chars += chars;
    const workedMs = clock.monotonicMs() - this.#beganMs;
    if (workedMs < (this.#isCrowded ? crowdedSliceMs : sliceMs) && this.#chars < sliceChars) return;
    await this.#listen(Math.min(maxRestMs, Math.max(1, workedMs * (1 / this.#share - 1))));
    await this.#wait();
    this.resume();
  }

  /** Work begins anew: what has passed since the last step was no work. */
  resume(): void {
    this.#beganMs = this.#o.clock.monotonicMs();
    this.#chars = 0;
  }

  get #isCrowded(): boolean {
    return this.#quietForMs < quietMs;
  }

  get #share(): number {
    const share = this.#o.share();
    const mustHurry = this.#tail > urgentTails * this.#o.bearableTail();
    return this.#isCrowded && !mustHurry ? share * crowdedPart : share;
  }

  /** Until the node is quiet or the errand can't wait any more. */
  async #wait(): Promise<void> {
    const { clock, bearableTail } = this.#o;
    const fromMs = clock.monotonicMs();
    for (;;) {
      const errand = this.#errand;
      const mayWait = errand && clock.monotonicMs() < errand.overdueAtMs && this.#tail <= bearableTail();
      if (!mayWait || !this.#isCrowded) break;
      await this.#listen(Math.min(quietMs, Math.max(1, errand.overdueAtMs - clock.monotonicMs())));
      this.#tail = await errand.tail();
    }
    const waitedMs = clock.monotonicMs() - fromMs;
    if (waitedMs > 0) waitedSeconds.inc(waitedMs / 1000);
  }

  /** Rests, and hears whether others are at work meanwhile. */
  async #listen(restMs: number): Promise<void> {
    const { clock, signal, isBusy, load } = this.#o;
    load();
    const fromMs = clock.monotonicMs();
    await clock.sleep(restMs, signal);
    this.#heardAtMs = clock.monotonicMs();
    const passedMs = this.#heardAtMs - fromMs;
    const isCrowded = isBusy() || passedMs - restMs > lateMs || load() > crowdedLoad;
    this.#quietForMs = isCrowded ? 0 : this.#quietForMs + passedMs;
  }
}
