/**
 * The peers that this node has connections with, and the members it should have them with. A member is connected as long as one of its connections can
 * carry a message; which one is used changes only when it must, so that messages stay in order.
 */
import type { Clock } from '../../ops/telemetry/index.js';
import { type GossipMember, gossipLimits, type PeerStatus } from './contract.js';
import type { Link } from './link.js';
import { roundTrip, roundTrips } from './metrics.js';
import { TokenBucket } from './token-bucket.js';

/** Somebody at the other end of at least one connection. */
export class Peer {
  readonly links = new Set<Link>();
  /** Direct messages go over this one. */
  current: Link | undefined;
  /** Heartbeats must not suffer from a flood of published messages. */
  readonly directRate: TokenBucket;
  readonly gossipRate: TokenBucket;
  /** Since when it has been connected without being a member. */
  strangerSinceMs: number;
  /** Since when a gossip stream has been missing, and how often it was asked for in vain. */
  streamsMissingMs: number | undefined;
  vainRepairs = 0;
  /** Since when it has been connected without telling its subscriptions. */
  unsubscribedMs: number | undefined;

  constructor(
    readonly peerId: string,
    nowMs: number,
  ) {
    const { maxMessagesPerSecond } = gossipLimits;
    this.directRate = new TokenBucket(maxMessagesPerSecond, 5 * maxMessagesPerSecond, nowMs);
    this.gossipRate = new TokenBucket(maxMessagesPerSecond, 5 * maxMessagesPerSecond, nowMs);
    this.strangerSinceMs = nowMs;
  }

  /** Another of its connections can carry messages. */
  isReplaced(link: Link): boolean {
    for (const other of this.links) if (other !== link && other.isReady) return true;
    return false;
  }
}

interface MemberState {
  member: GossipMember;
  isConnected: boolean;
  sinceMs: number;
  roundTripMs?: number;
}

const label = (nodeId: string) => nodeId.slice(0, 8);

export class Peers {
  readonly byPeerId = new Map<string, Peer>();
  readonly #members = new Map<string, MemberState>();
  readonly #memberByPeerId = new Map<string, GossipMember>();

  /** `onChange` hears of the first connection of a member, and of the loss of its last. */
  constructor(
    private readonly clock: Clock,
    private readonly onChange: (member: GossipMember, isConnected: boolean) => void,
  ) {}

  /** A peer that has or opens a connection. */
  peer(peerId: string): Peer {
    let peer = this.byPeerId.get(peerId);
    if (!peer) this.byPeerId.set(peerId, (peer = new Peer(peerId, this.clock.monotonicMs())));
    return peer;
  }

  memberOfPeer(peerId: string): GossipMember | undefined {
    return this.#memberByPeerId.get(peerId);
  }

  member(nodeId: string): GossipMember | undefined {
    return this.#members.get(nodeId)?.member;
  }

  get memberCount(): number {
    return this.#members.size;
  }

  /** The link for messages to this member. */
  linkTo(nodeId: string): Link | undefined {
    const state = this.#members.get(nodeId);
    return state && this.byPeerId.get(state.member.peerId)?.current;
  }

  setMembers(members: readonly GossipMember[]): void {
    const nowMs = this.clock.monotonicMs();
    const wanted = new Map(members.map((member) => [member.nodeId, member]));
    for (const [nodeId, state] of [...this.#members]) {
      // Another process under the same id is another peer.
      if (wanted.get(nodeId)?.peerId !== state.member.peerId) this.#remove(nodeId, state, nowMs);
    }
    for (const member of members) {
      const state = this.#members.get(member.nodeId);
      if (state) state.member = member;
      else this.#members.set(member.nodeId, { member, isConnected: false, sinceMs: nowMs });
      this.#memberByPeerId.set(member.peerId, member);
    }
    for (const { peerId } of members) this.update(peerId);
  }

  #remove(nodeId: string, state: MemberState, nowMs: number): void {
    this.#members.delete(nodeId);
    this.#memberByPeerId.delete(state.member.peerId);
    roundTrip.remove({ peer: label(nodeId) });
    const peer = this.byPeerId.get(state.member.peerId);
    if (peer) peer.strangerSinceMs = nowMs;
    if (state.isConnected) this.onChange(state.member, false);
  }

  /** To be called when a link of the peer has become ready, or has been lost. */
  update(peerId: string): void {
    const peer = this.byPeerId.get(peerId);
    if (peer) {
      if (!peer.current?.isReady) peer.current = [...peer.links].reverse().find(({ isReady }) => isReady);
      if (peer.links.size === 0) this.byPeerId.delete(peerId);
    }
    const member = this.#memberByPeerId.get(peerId);
    const state = member && this.#members.get(member.nodeId);
    if (!state) return;
    const isConnected = peer?.current !== undefined;
    if (isConnected === state.isConnected) return;
    state.isConnected = isConnected;
    state.sinceMs = this.clock.monotonicMs();
    this.onChange(state.member, isConnected);
  }

  roundTripOf(peerId: string, roundTripMs: number): void {
    const member = this.#memberByPeerId.get(peerId);
    if (!member) return;
    this.#members.get(member.nodeId)!.roundTripMs = roundTripMs;
    roundTrip.set({ peer: label(member.nodeId) }, roundTripMs / 1_000);
    roundTrips.observe(roundTripMs / 1_000);
  }

  connected(): string[] {
    return [...this.#members].filter(([, { isConnected }]) => isConnected).map(([nodeId]) => nodeId);
  }

  statuses(): PeerStatus[] {
    return [...this.#members].map(([nodeId, { isConnected, roundTripMs, sinceMs }]) => ({
      nodeId,
      isConnected,
      ...(roundTripMs === undefined ? {} : { roundTripMs }),
      sinceMs,
    }));
  }

  counts(): { connected: number; disconnected: number; strangers: number } {
    const connected = this.connected().length;
    const strangers = [...this.byPeerId.keys()].filter((peerId) => !this.#memberByPeerId.has(peerId)).length;
    return { connected, disconnected: this.#members.size - connected, strangers };
  }

  /** Forgets what metrics show of the members. */
  close(): void {
    for (const nodeId of this.#members.keys()) roundTrip.remove({ peer: label(nodeId) });
  }
}
