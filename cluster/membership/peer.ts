/** What gossip has told this node of one other. Monotonic milliseconds of this node's clock throughout. */
import type { FailureTiming } from './contract.js';
import { ArrivalEstimate, deviationsOf } from './phi.js';

/** φ at which rounds in the store become faster. One lost heartbeat stays below it. */
const doubtDeviations = deviationsOf(4);
/** φ at which others are asked to probe, and the suspect is told. */
const suspectDeviations = deviationsOf(8);

export interface Suspicion {
  sinceMs: number;
  /** Probes that nobody has answered in time. */
  failedProbes: number;
  /** When the next one is due; undefined while one is under way. */
  nextProbeMs: number | undefined;
}

export class Peer {
  /** The highest that it has spoken under, as far as is known. */
  incarnation: number;
  /** Of the newest heartbeat that anybody is known to have had from it; 0 before the first. */
  beat = 0;
  /** When `beat` rose last; before the first heartbeat, when the peer became known. */
  newsAtMs: number;
  /** It has told this node itself that it is acknowledged by somebody, so it knows when nobody hears it any more. */
  isTwoWay = false;
  /** When this node sent the newest of its heartbeats that the peer is known to have heard of. */
  acknowledgedMs = Number.NEGATIVE_INFINITY;
  /** The last heartbeat of the peer that came through to the store began then or later, as it said itself. */
  storeBeatMs = Number.NEGATIVE_INFINITY;
  /** The last connection with it was lost then, and nothing has come since. */
  lostAtMs: number | undefined;
  /** Since when something is not as it should be: no news, no acknowledgement, no connection. */
  troubledSinceMs: number | undefined;
  /** As last told to whoever wants to know. */
  isSilent = false;
  suspicion: Suspicion | undefined;
  /** Whether the two send one another heartbeats. */
  #isWatched: boolean;
  #watchedSinceMs: number;
  readonly #estimate: ArrivalEstimate;

  constructor(
    readonly nodeId: string,
    readonly timing: FailureTiming,
    knownSinceMs: number,
    incarnation: number,
    isWatched: boolean,
  ) {
    this.#estimate = new ArrivalEstimate(timing.gossipHeartbeatMs);
    this.newsAtMs = knownSinceMs;
    this.incarnation = incarnation;
    this.#isWatched = isWatched;
    this.#watchedSinceMs = knownSinceMs;
  }

  get isWatched(): boolean {
    return this.#isWatched;
  }

  /** Whether the two watch one another from now on; it takes a while until there can be an acknowledgement. */
  watch(isWatched: boolean, nowMs: number): void {
    if (isWatched && !this.#isWatched) this.#watchedSinceMs = nowMs;
    this.#isWatched = isWatched;
  }

  /** The peer has sent a heartbeat with this number, whoever says so. Answers whether that is news. */
  heard(beat: number, nowMs: number): boolean {
    if (beat <= this.beat) return false;
    if (this.beat > 0) this.#estimate.add(nowMs - this.newsAtMs);
    this.beat = beat;
    this.newsAtMs = nowMs;
    this.lostAtMs = undefined;
    this.suspicion = undefined;
    this.isSilent = false;
    return true;
  }

  /** This node itself stood still for `lateMs`: what it did not hear in that time says nothing. */
  forgive(lateMs: number, nowMs: number): void {
    this.newsAtMs = Math.min(this.newsAtMs + lateMs, nowMs);
  }

  phi(nowMs: number): number {
    return this.#estimate.phi(nowMs - this.newsAtMs);
  }

  /** From when on the lack of news is a reason to look closer. */
  get doubtAtMs(): number {
    return this.newsAtMs + Math.min(this.#estimate.silenceMs(doubtDeviations), this.timing.silenceMs / 2);
  }

  /** From when on it is a reason to ask others. */
  get suspectAtMs(): number {
    return this.newsAtMs + Math.min(this.#estimate.silenceMs(suspectDeviations), this.timing.silenceMs / 2);
  }

  /** From when on it counts as silent: news is overdue by `silenceMs`. `hops`: how many relays it takes at most, each up to a heartbeat. */
  silentAtMs(stretch: number, hops: number): number {
    const { gossipHeartbeatMs, silenceMs } = this.timing;
    const detourMs = this.isWatched ? 0 : 2 * hops * gossipHeartbeatMs;
    return this.newsAtMs + gossipHeartbeatMs + detourMs + silenceMs * stretch;
  }

  /** Whether news of it is no older than half of what makes it silent. */
  isFresh(nowMs: number, hops: number): boolean {
    return nowMs < this.silentAtMs(0.5, hops);
  }

  /** Whether something is wrong between the two now. */
  isTroubled(nowMs: number): boolean {
    if (this.lostAtMs !== undefined || nowMs >= this.doubtAtMs) return true;
    // An acknowledgement comes with the next heartbeat of the other side; one of either may be lost.
    const sinceMs = Math.max(this.acknowledgedMs, this.#watchedSinceMs);
    return this.#isWatched && nowMs - sinceMs > 4 * this.timing.gossipHeartbeatMs;
  }
}
