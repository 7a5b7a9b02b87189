/**
 * By which way a published message goes. Straight over the lanes, one frame for all, as long as that reaches everybody: every member, and every stranger that is
 * connected. Otherwise by gossipsub, which whoever can't be reached hears of through a third. What went straight in the moments before a member was found to
 * be out of reach is published once more by gossipsub then: it may have gone nowhere.
 */
import type { Clock } from '../../ops/telemetry/index.js';
import type { GossipMessage, Topic } from './contract.js';
import { publishedFrame } from './frames.js';
import type { Link } from './link.js';
import { countPublished, messagesDropped } from './metrics.js';
import { gossipTimes } from './options.js';
import type { Peers } from './peers.js';

/** Of messages that might have to be published once more. */
const maxRecentMessages = 256;
const maxRecentBytes = 1024 * 1024;

interface Recent {
  atMs: number;
  topic: Topic;
  bytes: Buffer;
  message: GossipMessage;
}

export interface BroadcastOptions {
  peers: Peers;
  clock: Clock;
  /** Publishes by gossipsub. Never throws. */
  gossip(topic: Topic, bytes: Buffer, message: GossipMessage): void;
}

export class Broadcast {
  readonly #options: BroadcastOptions;
  #recent: Recent[] = [];
  #recentBytes = 0;
  /** Node ids of members that could be reached straight at the last look. */
  #reached: ReadonlySet<string> = new Set();
  #againMs = Number.NEGATIVE_INFINITY;

  constructor(options: BroadcastOptions) {
    this.#options = options;
  }

  publish(topic: Topic, bytes: Buffer, message: GossipMessage): void {
    const nowMs = this.#options.clock.monotonicMs();
    const links = this.#straight(nowMs);
    if (!links) {
      countPublished('gossipsub');
      this.#options.gossip(topic, bytes, message);
      return;
    }
    countPublished('straight');
    if (links.length === 0) return;
    const frame = publishedFrame(topic, bytes);
    for (const link of links) if (!link.lane.send(frame)) messagesDropped.inc({ topic, reason: 'full' });
    this.#remember({ atMs: nowMs, topic, bytes, message });
  }

  /** The links that reach everybody; undefined when somebody isn't reached by any. */
  #straight(nowMs: number): Link[] | undefined {
    const { peers } = this.#options;
    const links: Link[] = [];
    let members = 0;
    for (const { current, peerId } of peers.byPeerId.values()) {
      if (!current?.lane.isOpen || current.isDoubtful(nowMs)) return undefined;
      if (peers.memberOfPeer(peerId)) members++;
      links.push(current);
    }
    return members === peers.memberCount ? links : undefined;
  }

  #remember(recent: Recent): void {
    this.#recent.push(recent);
    this.#recentBytes += recent.bytes.length;
    const { length } = this.#recent;
    if (length <= maxRecentMessages && this.#recentBytes <= maxRecentBytes) return;
    // Half of them at once, so that it is seldom done.
    this.#keep(this.#recent.slice(length >> 1));
  }

  #keep(recent: Recent[]): void {
    this.#recent = recent;
    this.#recentBytes = recent.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }

  /** Looks who is out of reach, and publishes once more what such a member may not have got. To be called now and then. */
  look(nowMs: number): void {
    const fromMs = nowMs - gossipTimes.recentMs;
    if (this.#recent.length > 0 && this.#recent[0]!.atMs < fromMs) this.#keep(this.#recent.filter(({ atMs }) => atMs >= fromMs));
    const sinceMs = this.#lostSinceMs(nowMs);
    if (sinceMs === undefined || nowMs - this.#againMs < gossipTimes.againPauseMs) return;
    const recent = this.#recent.filter(({ atMs }) => atMs >= sinceMs);
    if (recent.length === 0) return;
    this.#againMs = nowMs;
    this.#keep([]);
    countPublished('again', recent.length);
    for (const { topic, bytes, message } of recent) this.#options.gossip(topic, bytes, message);
  }

  /** Since when a member that was reached at the last look, and isn't any more, may have got nothing; undefined when there is none. */
  #lostSinceMs(nowMs: number): number | undefined {
    const { peers } = this.#options;
    const before = this.#reached;
    const reached = new Set<string>();
    let sinceMs = Number.POSITIVE_INFINITY;
    for (const { current, peerId } of peers.byPeerId.values()) {
      const member = peers.memberOfPeer(peerId);
      if (!member || !current) continue;
      if (current.lane.isOpen && !current.isDoubtful(nowMs)) reached.add(member.nodeId);
      else if (before.has(member.nodeId)) sinceMs = Math.min(sinceMs, current.heardMs - gossipTimes.tickMs);
    }
    this.#reached = reached;
    for (const nodeId of before) {
      // Its connection has been closed: seldom long after it has last carried something.
      if (!reached.has(nodeId) && peers.member(nodeId)) sinceMs = Math.min(sinceMs, nowMs - gossipTimes.lossMs);
    }
    return sinceMs === Number.POSITIVE_INFINITY ? undefined : sinceMs;
  }
}
