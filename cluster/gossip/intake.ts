/**
 * Which messages are handed up. Published ones are looked at before gossipsub remembers them: what a stranger forwards must not keep the same message
 * from being taken when a member forwards it, and what is dropped here is not forwarded.
 */
import type { Clock } from '../../ops/telemetry/index.js';
import { type GossipMessage, gossipLimits, type Topic, topics } from './contract.js';
import { unpackEnvelope } from './envelope.js';
import { topicOfFrame } from './frames.js';
import type { ProtocolNames } from './keys.js';
import type { GossipRpc, Host, RpcReceiver } from './libp2p-types.js';
import { type Channel, countReceived, countReceivedBytes, type DropReason, duplicates, messagesDropped } from './metrics.js';
import type { Peer, Peers } from './peers.js';
import { RecentIds } from './recent-ids.js';
import { Replays, type Seen } from './replays.js';

export interface IntakeEvents {
  handUp(channel: Channel, message: GossipMessage): void;
  onNonsense(peerId: string, reason: 'garbage' | 'oversized'): void;
}

export interface IntakeOptions {
  nodeId: string;
  clock: Clock;
  peers: Peers;
  names: ProtocolNames;
  events: IntakeEvents;
}

export class Intake {
  readonly #options: IntakeOptions;
  readonly #replays = new Replays();
  readonly #topics: ReadonlyMap<string, Topic>;
  /** Of what has come straight. */
  readonly #straight = new RecentIds();
  /** Message ids of what has been unpacked already. */
  readonly #ids = new WeakMap<Uint8Array, Uint8Array>();

  constructor(options: IntakeOptions) {
    this.#options = options;
    this.#topics = new Map(topics.map((topic) => [options.names.topic(topic), topic]));
  }

  /** Of a message that this node publishes. */
  noteOwn(topic: Topic, bytes: Uint8Array, message: GossipMessage): void {
    this.#ids.set(bytes, idBytes(messageId(topic, message)));
  }

  /** For gossipsub. */
  messageId(topicName: string, bytes: Uint8Array): Uint8Array {
    const known = this.#ids.get(bytes);
    if (known) return known;
    const message = unpackEnvelope(bytes);
    return typeof message === 'string' ? bytes : idBytes(messageId(this.#topics.get(topicName) ?? 'control', message));
  }

  /** Takes out of what a peer has sent whatever gossipsub must not see, and hands up what is new. */
  sift(peerId: string, rpc: GossipRpc): void {
    const peer = this.#options.peers.byPeerId.get(peerId);
    if (!peer || !this.#options.peers.memberOfPeer(peerId)) {
      for (const { topic } of rpc.messages) drop(this.#topics.get(topic) ?? 'control', 'not-a-member');
      rpc.messages = [];
      // Subscriptions and the mesh count once it is a member; it may become one at any moment.
      if (rpc.control) {
        rpc.control.ihave = [];
        rpc.control.iwant = [];
      }
      return;
    }
    if (rpc.messages.length === 0) return;
    const kept: GossipRpc['messages'] = [];
    for (const message of rpc.messages) if (this.#isWanted(peer, message.topic, message.data)) kept.push(message);
    rpc.messages = kept;
  }

  #isWanted(peer: Peer, topicName: string, bytes: Uint8Array | undefined): boolean {
    const topic = this.#topics.get(topicName);
    if (!topic) return drop('control', 'unknown-topic');
    if (!peer.gossipRate.take(this.#options.clock.monotonicMs())) return drop(topic, 'rate');
    const message = this.#unpack(peer.peerId, topic, bytes ?? new Uint8Array(0));
    if (!message || message.from === this.#options.nodeId) return false;
    if (!this.#options.peers.member(message.from)) return drop(topic, 'not-a-member');
    const id = messageId(topic, message);
    const seen = this.#replays.see(topic, message.from, message.incarnation, message.sequence);
    // What has come straight before isn't handed up again; gossipsub has to know it to tell others.
    if (!isNew(topic, seen) && !(seen === 'duplicate' && this.#straight.take(id))) return false;
    this.#ids.set(bytes!, idBytes(id));
    if (seen === 'new') this.#handUp(topic, message);
    return true;
  }

  /** A message that this peer has published itself, straight from it. `kind`: of its frame. */
  straight(peer: Peer, kind: number, bytes: Buffer): void {
    const topic = topicOfFrame(kind);
    if (!topic) return void drop('control', 'unknown-topic');
    const nowMs = this.#options.clock.monotonicMs();
    if (!peer.gossipRate.take(nowMs)) return void drop(topic, 'rate');
    const message = this.#fromMember(peer, topic, bytes);
    if (!message) return;
    const seen = this.#replays.see(topic, message.from, message.incarnation, message.sequence);
    if (!isNew(topic, seen)) return;
    this.#straight.add(messageId(topic, message), nowMs);
    this.#handUp(topic, message);
  }

  /** A direct message over a connection with this peer. */
  direct(peer: Peer, bytes: Buffer): void {
    if (!peer.directRate.take(this.#options.clock.monotonicMs())) return void drop('direct', 'rate');
    const message = this.#fromMember(peer, 'direct', bytes);
    if (!message) return;
    const seen = this.#replays.seeDirect(message.from, message.incarnation, message.sequence);
    if (isNew('direct', seen)) this.#handUp('direct', message);
  }

  /** What came over a connection with its origin. Nobody speaks for another there. */
  #fromMember(peer: Peer, channel: Channel, bytes: Buffer): GossipMessage | undefined {
    const member = this.#options.peers.memberOfPeer(peer.peerId);
    const message = member && this.#unpack(peer.peerId, channel, bytes);
    if (message && message.from === member.nodeId) return message;
    if (!member || message) drop(channel, 'not-a-member');
    return undefined;
  }

  #unpack(peerId: string, channel: Channel, bytes: Uint8Array): GossipMessage | undefined {
    countReceivedBytes(channel, bytes.length);
    const message = bytes.length > gossipLimits.maxMessageBytes ? 'oversized' : unpackEnvelope(bytes);
    if (typeof message !== 'string') return message;
    drop(channel, message);
    if (message !== 'newer') this.#options.events.onNonsense(peerId, message);
    return undefined;
  }

  #handUp(channel: Channel, message: GossipMessage): void {
    countReceived(channel);
    this.#options.events.handUp(channel, message);
  }
}

/** What a peer has published goes through the intake before gossipsub sees it. */
export function siftRpcs(host: Host, intake: Intake, isOver: () => boolean): void {
  const receiver = host.services.pubsub as unknown as Partial<RpcReceiver>;
  const receive = receiver.handleReceivedRpc?.bind(receiver);
  // Without this way in, strangers would be heard.
  if (!receive) throw new Error('this version of gossipsub is not made as expected');
  receiver.handleReceivedRpc = async (from, rpc) => {
    if (isOver()) return;
    intake.sift(from.toString(), rpc);
    await receive(from, rpc);
  };
}

/** The same on every node, whatever way the message has taken. */
function messageId(topic: Topic, { from, incarnation, sequence }: GossipMessage): string {
  return `${topic[0]}${topic[1]}${from}/${incarnation}/${sequence}`;
}

const idBytes = (id: string): Uint8Array => Buffer.from(id, 'latin1');

function drop(channel: Channel, reason: DropReason): false {
  messagesDropped.inc({ topic: channel, reason });
  return false;
}

function isNew(channel: Channel, seen: Seen): boolean {
  if (seen === 'new') return true;
  if (seen === 'duplicate') duplicates.inc({ topic: channel });
  else drop(channel, 'stale');
  return false;
}
