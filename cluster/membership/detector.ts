/**
 * What gossip says of the other nodes, and what it says of this one. No store, no timers: whoever owns it calls `tick` when it is due and hands in what has
 * come. A heartbeat is a direct message to the few nodes that watch this one, with a digest of what the sender has heard of everybody; so news spreads in
 * a few hops, and everybody learns whether it is heard itself. Nothing here declares anybody dead.
 */
import type { FailureTiming } from './contract.js';
import { LocalHealth } from './local-health.js';
import { type Announcement, type DirectMessage, decodeDirect, encodeAnnouncement, encodeDirect } from './messages.js';
import { falseAlarms, suspicions } from './metrics.js';
import { OwnBeats } from './own-beats.js';
import { Peer } from './peer.js';
import { Probes } from './probes.js';
import type { Hearing } from './verdict.js';
import { watching } from './watchers.js';

/** How the detector speaks. */
export interface Voice {
  send(nodeId: string, body: unknown): boolean;
  announce(body: unknown): void;
  setIncarnation(incarnation: number): void;
  /** The others doubt this node: let its row move. */
  hurry(): void;
  /** Somebody is heard again, or is not any more. */
  onHearing(): void;
}

export interface DetectorOptions {
  nodeId: string;
  incarnation: number;
  timing: FailureTiming;
  voice: Voice;
  /** Uniform in [0, 1). */
  float: () => number;
}

/** How badly this node wants to look at the store. `calm`: somebody has been cut off for long, and its row moves. */
export type Doubt = 'none' | 'calm' | 'doubt';

const maxHelpers = 3;
/** After so long somebody who is cut off and lives is nothing new. */
const calmAfterMs = 60_000;
/** Beyond this it makes no difference how long ago something was. */
const longAgoMs = 1e9;

export class Detector {
  readonly #o: DetectorOptions;
  readonly #peers = new Map<string, Peer>();
  readonly #probes: Probes;
  readonly #health = new LocalHealth();
  readonly #beats: OwnBeats;
  #incarnation: number;
  #refutedMs = Number.NEGATIVE_INFINITY;
  #hops = 1;
  #hasHeardAnybody = false;
  #isAcknowledged = false;
  #nextBeatMs = Number.POSITIVE_INFINITY;
  #dueMs = Number.POSITIVE_INFINITY;
  /** When the last heartbeat in the store that came through began. */
  #storeBeatMs = Number.NEGATIVE_INFINITY;

  constructor(options: DetectorOptions) {
    this.#o = options;
    this.#incarnation = options.incarnation;
    this.#beats = new OwnBeats(options.timing.gossipHeartbeatMs / 10);
    this.#probes = new Probes((nodeId, message) => options.voice.send(nodeId, encodeDirect(message)));
  }

  /** Heartbeats begin, at any moment within an interval, so that nodes that start together don't all speak at once. */
  start(nowMs: number): void {
    this.#nextBeatMs = nowMs + this.#o.float() * this.#o.timing.gossipHeartbeatMs;
    this.#dueMs = this.#nextBeatMs;
  }

  /** When `tick` should be called next. May become earlier with every call of anything. */
  get dueMs(): number {
    return this.#dueMs;
  }

  get incarnation(): number {
    return this.#incarnation;
  }

  /** By what silences are stretched for want of trust in oneself: 1 to 4. */
  get stretch(): number {
    return this.#health.stretch;
  }

  // --- what happens ---

  /** The other nodes that gossip, as their rows say. */
  setPeers(found: readonly { nodeId: string; incarnation: number }[], nowMs: number): void {
    const ids = [this.#o.nodeId, ...found.map(({ nodeId }) => nodeId)].sort();
    const { watchers, hops } = watching(this.#o.nodeId, ids);
    const watched = new Set(watchers);
    this.#hops = hops;
    const gone = new Set(this.#peers.keys());
    // To those who are left, if any, it has not been said that this node knows what it is to be heard.
    if (!found.some((one) => gone.has(one.nodeId))) this.#isAcknowledged = false;
    for (const { nodeId, incarnation } of found) {
      gone.delete(nodeId);
      const peer = this.#peers.get(nodeId);
      if (peer) peer.watch(watched.has(nodeId), nowMs);
      else this.#peers.set(nodeId, new Peer(nodeId, this.#o.timing, nowMs, incarnation, watched.has(nodeId)));
    }
    for (const nodeId of gone) this.#peers.delete(nodeId);
    this.#schedule(nowMs);
  }

  /** A heartbeat in the store that was begun at `startMs` has come through. */
  storeBeaten(startMs: number): void {
    this.#storeBeatMs = startMs;
  }

  /** Sends what is due, suspects who is silent. */
  tick(nowMs: number): void {
    const lateMs = nowMs - this.#dueMs;
    const isLate = lateMs > Math.max(this.#o.timing.gossipHeartbeatMs / 2, 100);
    if (isLate) {
      this.#health.worse();
      for (const peer of this.#peers.values()) peer.forgive(lateMs, nowMs);
    }
    if (nowMs >= this.#nextBeatMs) {
      this.#beatAll(nowMs);
      const { gossipHeartbeatMs } = this.#o.timing;
      this.#nextBeatMs = Math.max(this.#nextBeatMs + gossipHeartbeatMs, nowMs + gossipHeartbeatMs / 2);
      if (!isLate) this.#health.better();
    }
    for (const { target, isUnheard } of this.#probes.expire(nowMs)) this.#probeFailed(target, isUnheard, nowMs);
    for (const peer of this.#peers.values()) this.#watch(peer, nowMs);
    this.#schedule(nowMs);
  }

  /** A connection has been opened, or the last one with the node is gone. */
  connection(nodeId: string, isConnected: boolean, nowMs: number): void {
    const peer = this.#peers.get(nodeId);
    if (!peer?.isWatched) return;
    if (!isConnected) {
      peer.lostAtMs = nowMs;
      this.#watch(peer, nowMs);
    } else if (this.#beats.lastMs < nowMs - 20) this.#beatTo([nodeId], nowMs);
  }

  /** A direct message. Answers false when it is not this room's. */
  received(from: string, incarnation: number, body: unknown, nowMs: number): boolean {
    const message = decodeDirect(body);
    if (!message) return false;
    const peer = this.#peers.get(from);
    if (!peer) return true;
    peer.incarnation = Math.max(peer.incarnation, incarnation);
    switch (message.kind) {
      case 'heartbeat':
        this.#heartbeat(peer, message, nowMs);
        break;
      case 'probe':
        this.#o.voice.send(
          from,
          encodeDirect({ kind: 'ack', probe: message.probe, target: this.#o.nodeId, beat: this.#beats.next(nowMs) }),
        );
        break;
      case 'probe-request':
        this.#probes.relay(from, message, nowMs);
        break;
      case 'ack':
        this.#heardOf(message.target, message.beat, nowMs);
        this.#probes.answered(message);
        break;
      case 'nack':
        this.#probes.denied(from, message.probe);
        break;
      case 'suspected':
        this.#refute(message.incarnation, nowMs);
        break;
    }
    this.#dueMs = Math.min(this.#dueMs, this.#probes.nextMs);
    return true;
  }

  /** An announcement on the topic `membership`. */
  told(from: string, announcement: Announcement, nowMs: number): void {
    if (announcement.kind === 'alive') {
      const peer = this.#peers.get(from);
      if (!peer) return;
      peer.incarnation = Math.max(peer.incarnation, announcement.incarnation);
      this.#heardOf(from, announcement.beat, nowMs);
    } else if (announcement.kind === 'suspect') {
      const { nodeId, incarnation } = announcement;
      if (nodeId === this.#o.nodeId) this.#refute(incarnation, nowMs);
      const peer = this.#peers.get(nodeId);
      // Who hears the suspect lets whoever does not have its news.
      if (peer?.isWatched && !peer.isTroubled(nowMs) && this.#peers.has(from)) this.#beatTo([from], nowMs);
    }
  }

  // --- what is asked ---

  hearing(nodeId: string, nowMs: number): Hearing {
    const peer = this.#peers.get(nodeId);
    if (!peer || !this.#hasHeardAnybody) return 'unknown';
    return nowMs >= peer.silentAtMs(this.#health.stretch, this.#hops) ? 'no' : 'yes';
  }

  phi(nodeId: string, nowMs: number): number | undefined {
    const peer = this.#peers.get(nodeId);
    return peer && peer.beat > 0 ? peer.phi(nowMs) : undefined;
  }

  newsAgeMs(nodeId: string, nowMs: number): number | undefined {
    const peer = this.#peers.get(nodeId);
    return peer && peer.beat > 0 ? nowMs - peer.newsAtMs : undefined;
  }

  /**
   * Since when gossip, on its own, has been sure that the node is gone, or when it will be unless there is news: nothing has been heard for all of
   * `silenceMs`, probes have failed, and this is one of those that watch the node, which has told it that it is heard. Undefined where gossip can't tell.
   */
  goneSinceMs(nodeId: string): number | undefined {
    const peer = this.#peers.get(nodeId);
    if (!peer?.isWatched || !peer.isTwoWay || !peer.suspicion?.failedProbes) return undefined;
    return peer.silentAtMs(this.#health.stretch, this.#hops);
  }

  /** Others, that gossip, of which there is no fresh news: they may know better. */
  unheard(nowMs: number): string[] {
    const ids: string[] = [];
    for (const peer of this.#peers.values()) if (!peer.isFresh(nowMs, this.#hops)) ids.push(peer.nodeId);
    return ids;
  }

  /**
   * Whether anybody who could say so is known to hear this node. While somebody is, nobody takes its silence for death (see `Judge`). Where anything is wrong
   * with anybody, only those count whose own heartbeats come through to the store: others may have been cut off together with this node. True where gossip
   * has never worked: this node has told nobody that it does.
   */
  isVouchedFor(nowMs: number): boolean {
    if (!this.#isAcknowledged || this.#peers.size === 0) return true;
    const afterMs = nowMs - this.#o.timing.silenceMs;
    let isVouched = false;
    let isVouchedStrictly = false;
    let isStrict = false;
    for (const peer of this.#peers.values()) {
      if (peer.acknowledgedMs > afterMs) {
        isVouched = true;
        if (peer.storeBeatMs > afterMs) isVouchedStrictly = true;
      }
      if (!peer.isFresh(nowMs, this.#hops) || (peer.isWatched && nowMs - peer.acknowledgedMs > this.#o.timing.silenceMs / 2))
        isStrict = true;
    }
    return isStrict ? isVouchedStrictly : isVouched;
  }

  /** Whether something has been wrong with it for so long that both sides have stopped to hurry. */
  isCalmAbout(nodeId: string, nowMs: number): boolean {
    const troubledSinceMs = this.#peers.get(nodeId)?.troubledSinceMs;
    return troubledSinceMs !== undefined && nowMs - troubledSinceMs > calmAfterMs;
  }

  /** `isRowMoving`: whether the row of a node has been seen to change lately. */
  doubt(nowMs: number, isRowMoving: (nodeId: string) => boolean): Doubt {
    let doubt: Doubt = 'none';
    for (const peer of this.#peers.values()) {
      if (!peer.isWatched || peer.troubledSinceMs === undefined) continue;
      if (!this.isCalmAbout(peer.nodeId, nowMs) || (!isRowMoving(peer.nodeId) && peer.isTwoWay)) return 'doubt';
      if (this.#hasHeardAnybody) doubt = 'calm';
    }
    return doubt;
  }

  // --- within ---

  #heartbeat(peer: Peer, message: DirectMessage & { kind: 'heartbeat' }, nowMs: number): void {
    const { nodeId } = this.#o;
    if (message.isAcknowledged) peer.isTwoWay = true;
    this.#heardOf(peer.nodeId, message.beat, nowMs);
    const { digest, storeAgeMs } = message;
    for (let i = 0; i + 1 < digest.length; i += 2) {
      const id = digest[i];
      const beat = digest[i + 1];
      if (typeof id !== 'string' || !Number.isSafeInteger(beat)) continue;
      if (id === nodeId) this.#acknowledged(peer, beat as number, storeAgeMs);
      else this.#heardOf(id, beat as number, nowMs);
    }
  }

  #acknowledged(peer: Peer, beat: number, storeAgeMs: number): void {
    const sentMs = this.#beats.sentMs(beat);
    if (sentMs === undefined) return;
    peer.acknowledgedMs = Math.max(peer.acknowledgedMs, sentMs);
    // What acknowledges a heartbeat was sent after it, however long it has been under way.
    peer.storeBeatMs = Math.max(peer.storeBeatMs, sentMs - storeAgeMs);
    this.#isAcknowledged = true;
  }

  #heardOf(nodeId: string, beat: number, nowMs: number): void {
    const peer = this.#peers.get(nodeId);
    if (!peer) return;
    const { isSilent, suspicion } = peer;
    if (!peer.heard(beat, nowMs)) return;
    this.#hasHeardAnybody = true;
    if (suspicion) suspicions.inc({ event: 'cleared' });
    if (!isSilent) return;
    falseAlarms.inc();
    this.#o.voice.onHearing();
  }

  #watch(peer: Peer, nowMs: number): void {
    const isTroubled = peer.isTroubled(nowMs);
    if (!isTroubled) peer.troubledSinceMs = undefined;
    else peer.troubledSinceMs ??= nowMs;
    if (!peer.isSilent && this.hearing(peer.nodeId, nowMs) === 'no') {
      peer.isSilent = true;
      this.#o.voice.onHearing();
    }
    if (!peer.isWatched || peer.beat === 0 || nowMs < peer.suspectAtMs) return;
    if (!peer.suspicion) {
      peer.suspicion = { sinceMs: nowMs, failedProbes: 0, nextProbeMs: nowMs };
      suspicions.inc({ event: 'raised' });
      const { nodeId, incarnation } = peer;
      this.#o.voice.announce(encodeAnnouncement({ kind: 'suspect', nodeId, incarnation }));
      this.#o.voice.send(nodeId, encodeDirect({ kind: 'suspected', incarnation }));
    }
    const { suspicion } = peer;
    if (suspicion.nextProbeMs === undefined || suspicion.nextProbeMs > nowMs) return;
    suspicion.nextProbeMs = undefined;
    this.#probes.begin(peer.nodeId, this.#helpers(peer, nowMs), nowMs, this.#probeTimeoutMs);
  }

  get #probeTimeoutMs(): number {
    return (this.#o.timing.silenceMs / 4) * this.#health.stretch;
  }

  #probeFailed(target: string, isUnheard: boolean, nowMs: number): void {
    if (isUnheard) this.#health.worse();
    const suspicion = this.#peers.get(target)?.suspicion;
    if (!suspicion) return;
    suspicion.failedProbes++;
    suspicion.nextProbeMs = suspicion.failedProbes < 3 ? nowMs : nowMs + this.#o.timing.silenceMs;
  }

  /** Up to three that are heard, by lot. */
  #helpers(target: Peer, nowMs: number): string[] {
    const heard = [...this.#peers.values()].filter((peer) => peer !== target && peer.beat > 0 && !peer.isTroubled(nowMs));
    const chosen: string[] = [];
    while (chosen.length < maxHelpers && heard.length > 0) {
      const at = Math.floor(this.#o.float() * heard.length);
      chosen.push(heard[at]!.nodeId);
      heard[at] = heard.at(-1)!;
      heard.pop();
    }
    return chosen;
  }

  /** Somebody takes this node, in `incarnation`, for silent: not an earlier one, nor one that it has never been in. Not as often as others like. */
  #refute(incarnation: number, nowMs: number): void {
    if (incarnation !== this.#incarnation || nowMs - this.#refutedMs < this.#o.timing.gossipHeartbeatMs) return;
    this.#refutedMs = nowMs;
    this.#incarnation = incarnation + 1;
    suspicions.inc({ event: 'refuted' });
    this.#health.worse();
    const { voice } = this.#o;
    voice.setIncarnation(this.#incarnation);
    voice.announce(encodeAnnouncement({ kind: 'alive', incarnation: this.#incarnation, beat: this.#beats.next(nowMs) }));
    this.#beatAll(nowMs);
    voice.hurry();
  }

  #beatAll(nowMs: number): void {
    const watchers: string[] = [];
    for (const peer of this.#peers.values()) if (peer.isWatched) watchers.push(peer.nodeId);
    this.#beatTo(watchers, nowMs);
  }

  #beatTo(nodeIds: readonly string[], nowMs: number): void {
    const digest: (string | number)[] = [];
    for (const { nodeId, beat } of this.#peers.values()) if (beat > 0) digest.push(nodeId, beat);
    const body = encodeDirect({
      kind: 'heartbeat',
      beat: this.#beats.next(nowMs),
      isAcknowledged: this.#isAcknowledged,
      storeAgeMs: Math.min(Math.ceil(nowMs - this.#storeBeatMs), longAgoMs),
      digest,
    });
    for (const nodeId of nodeIds) this.#o.voice.send(nodeId, body);
  }

  #schedule(nowMs: number): void {
    let dueMs = Math.min(this.#nextBeatMs, this.#probes.nextMs);
    for (const peer of this.#peers.values()) {
      if (!peer.isWatched) continue;
      if (peer.troubledSinceMs === undefined) dueMs = Math.min(dueMs, peer.doubtAtMs);
      else if (!peer.suspicion && peer.beat > 0) dueMs = Math.min(dueMs, peer.suspectAtMs);
      else if (peer.suspicion?.nextProbeMs !== undefined) dueMs = Math.min(dueMs, peer.suspicion.nextProbeMs);
      if (!peer.isSilent && peer.troubledSinceMs !== undefined) {
        const silentAtMs = peer.silentAtMs(this.#health.stretch, this.#hops);
        if (silentAtMs > nowMs) dueMs = Math.min(dueMs, silentAtMs);
      }
    }
    this.#dueMs = Math.max(dueMs, nowMs);
  }
}
