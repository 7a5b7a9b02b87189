/**
 * Gossip over libp2p: published messages by gossipsub, direct ones over streams of our own. Brings the parts of this room together; `tick` is what keeps
 * the connections alive.
 */
import type { Timer } from '../../ops/telemetry/index.js';
import { addressText, parseMultiaddr, reachableAddresses } from './addresses.js';
import { Broadcast } from './broadcast.js';
import {
  type Gossip,
  type GossipIdentity,
  type GossipMember,
  type GossipMessage,
  type PeerStatus,
  type Topic,
  topics,
} from './contract.js';
import { Dialer, type DialerOptions } from './dialer.js';
import { messageFrame } from './frames.js';
import { Gatekeeper } from './gatekeeper.js';
import { Intake, siftRpcs } from './intake.js';
import { deriveNetworkKeys, type NetworkKeys, type ProtocolNames, protocolNames } from './keys.js';
import { maxLaneStreams } from './lane.js';
import type { Connection, Host } from './libp2p-types.js';
import { Link, type LinkEvents, maxDirectStreams } from './link.js';
import { whyNotListening } from './listen-error.js';
import { Listeners } from './listeners.js';
import {
  type Channel,
  connectionsClosed,
  connectionsOpened,
  countSent,
  countSentBytes,
  messagesDropped,
  showInMetrics,
} from './metrics.js';
import { type GossipOptions, gossipTimes } from './options.js';
import { Outgoing } from './outgoing.js';
import { Peers } from './peers.js';
import { RareWarnings } from './rarely.js';
import { Upkeep } from './upkeep.js';

const strangerIntervalMs = 1_000;
/** A tick that is later than this tells that the process stood still. */
const lateTickMs = 1_000;
const stopTimeoutMs = 3_000;
const stoppedMeanwhile = 'gossip was stopped before it had started';

export class Libp2pGossip implements Gossip {
  readonly nodeId: string;
  readonly #options: GossipOptions;
  readonly #keys: NetworkKeys;
  readonly #names: ProtocolNames;
  readonly #warnings: RareWarnings;
  readonly #gatekeeper: Gatekeeper;
  readonly #peers: Peers;
  readonly #intake: Intake;
  readonly #links = new Map<string, Link>();
  readonly #heard: Record<Channel, Listeners<[GossipMessage]>>;
  readonly #connections: Listeners<[string, boolean]>;
  readonly #strangers: Listeners<[]>;
  readonly #outgoing: Outgoing;
  readonly #broadcast: Broadcast;
  #members: readonly GossipMember[] = [];
  #identity: GossipIdentity | undefined;
  #host: Host | undefined;
  #dialer: Dialer | undefined;
  #tickTimer: Timer | undefined;
  #tickedMs = 0;
  #upkeep: Upkeep | undefined;
  #strangerToldMs = Number.NEGATIVE_INFINITY;
  #hasUntoldStranger = false;
  #isOver = false;
  #starting: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;
  #hide: (() => void) | undefined;

  constructor(options: GossipOptions) {
    const { clock, logger, nodeId } = options;
    this.#keys = deriveNetworkKeys(options.secret);
    const names = (this.#names = protocolNames(this.#keys.tag));
    this.#warnings = new RareWarnings(clock, logger);
    this.#gatekeeper = new Gatekeeper(clock, this.#warnings);
    this.#options = options;
    this.nodeId = nodeId;
    this.#outgoing = new Outgoing(options, this.#warnings);
    this.#connections = new Listeners(logger);
    this.#strangers = new Listeners(logger);
    const heard = (topic: Channel) =>
      new Listeners<[GossipMessage]>(logger, () => messagesDropped.inc({ topic, reason: 'listener' }));
    this.#heard = {
      membership: heard('membership'),
      changes: heard('changes'),
      control: heard('control'),
      direct: heard('direct'),
    };
    this.#peers = new Peers(clock, (member, isConnected) => this.#memberChanged(member, isConnected));
    this.#broadcast = new Broadcast({ peers: this.#peers, clock, gossip: (...message) => this.#gossip(...message) });
    this.#intake = new Intake({
      nodeId,
      clock,
      peers: this.#peers,
      names,
      events: {
        handUp: (channel, message) => this.#heard[channel].call(message),
        onNonsense: (peerId, reason) => this.#cutOff(peerId, reason),
      },
    });
  }

  get identity(): GossipIdentity {
    if (!this.#identity) throw new Error('gossip has no identity before it is started');
    return this.#identity;
  }

  start(): Promise<void> {
    return (this.#starting ??= this.#start());
  }

  async #start(): Promise<void> {
    const { createHost, meshSize, multiaddr } = await import('./host.js');
    const host = await createHost(this.#options, {
      keys: this.#keys,
      names: this.#names,
      gatekeeper: this.#gatekeeper,
      onFound: (multiaddrs) => this.#dialer?.found(multiaddrs),
      messageId: (topic, bytes) => this.#intake.messageId(topic, bytes),
    });
    siftRpcs(host, this.#intake, () => this.#isOver);
    host.addEventListener('connection:open', ({ detail }) => this.#opened(detail));
    host.addEventListener('connection:close', ({ detail }) => this.#closed(detail));
    try {
      if (this.#isOver) throw new Error(stoppedMeanwhile);
      await host.start();
      await host.handle(this.#names.published, (stream, connection) => this.#links.get(connection.id)?.acceptLane(stream), {
        maxInboundStreams: maxLaneStreams,
        maxOutboundStreams: maxLaneStreams,
      });
      await host.handle(this.#names.direct, (stream, connection) => this.#links.get(connection.id)?.accept(stream), {
        maxInboundStreams: maxDirectStreams,
        maxOutboundStreams: maxDirectStreams,
      });
      if (this.#isOver) throw new Error(stoppedMeanwhile);
    } catch (error) {
      await Promise.resolve(host.stop()).catch(() => undefined);
      if (this.#isOver) throw new Error(stoppedMeanwhile);
      const addresses = this.#options.listen.map(addressText).join(', ');
      throw new Error(`can't listen for gossip on ${addresses}: ${whyNotListening(error)}`, { cause: error });
    }
    this.#host = host;
    for (const topic of topics) host.services.pubsub.subscribe(this.#names.topic(topic));
    this.#identity = { peerId: host.peerId.toString(), addresses: this.#ownAddresses(host) };
    this.#startDialing(host, multiaddr);
    this.#hide = showInMetrics({
      peerCounts: () => this.#peers.counts(),
      meshSizes: () => topics.map((topic) => [topic, meshSize(host, this.#names.topic(topic))]),
    });
    this.#tickedMs = this.#options.clock.monotonicMs();
    const hangUp = (link: Link, cause: string) => this.#hangUp(link, cause);
    this.#upkeep = new Upkeep(
      { host, peers: this.#peers, gatekeeper: this.#gatekeeper, names: this.#names, hangUp },
      this.#tickedMs,
    );
    this.#tick();
  }

  #startDialing(host: Host, toMultiaddr: DialerOptions['toMultiaddr']): void {
    const { bootstrap = [], clock, random } = this.#options;
    const dialer = new Dialer({
      host,
      toMultiaddr,
      ownNodeId: this.nodeId,
      bootstrap,
      clock,
      random,
      isConnected: (peerId) => (this.#peers.byPeerId.get(peerId)?.links.size ?? 0) > 0,
      isRefused: (peerId) => this.#gatekeeper.isRefused(peerId),
    });
    this.#dialer = dialer;
    this.#gatekeeper.onReached = (remote) => dialer.reached(remote);
    dialer.setMembers(this.#members);
  }

  #ownAddresses(host: Host): GossipIdentity['addresses'] {
    if (this.#options.advertise && this.#options.advertise.length > 0) return this.#options.advertise;
    return reachableAddresses(host.getMultiaddrs().flatMap((address) => parseMultiaddr(address.toString()) ?? []));
  }

  stop(): Promise<void> {
    return (this.#stopping ??= this.#stop());
  }

  async #stop(): Promise<void> {
    this.#isOver = true;
    this.#tickTimer?.cancel();
    this.#dialer?.stop();
    this.#hide?.();
    this.#peers.close();
    if (!this.#starting) return;
    const stopped = this.#endHost().catch((error: unknown) => {
      this.#options.logger.warn({ err: error }, 'gossip did not stop cleanly');
    });
    const given = new AbortController();
    await Promise.race([stopped, this.#options.clock.sleep(stopTimeoutMs, given.signal).catch(() => undefined)]);
    given.abort();
    // Peers that do not answer are hung up on.
    for (const link of this.#links.values()) link.abort('this node stops');
  }

  /** A start that is under way notices by itself that it is over. */
  async #endHost(): Promise<void> {
    await this.#starting?.catch(() => undefined);
    await this.#host?.stop();
  }

  setIncarnation(incarnation: number): void {
    this.#outgoing.incarnation = incarnation;
  }

  setMembers(members: readonly GossipMember[]): void {
    if (this.#isOver) return;
    this.#members = members.filter(({ nodeId }) => nodeId !== this.nodeId);
    for (const { peerId } of this.#members) if (!this.#peers.memberOfPeer(peerId)) this.#gatekeeper.pardon(peerId);
    this.#peers.setMembers(this.#members);
    this.#dialer?.setMembers(this.#members);
  }

  connected(): readonly string[] {
    return this.#peers.connected();
  }

  peers(): PeerStatus[] {
    return this.#peers.statuses();
  }

  onConnection(listener: (nodeId: string, isConnected: boolean) => void): () => void {
    return this.#connections.add(listener);
  }

  onStranger(listener: () => void): () => void {
    return this.#strangers.add(listener);
  }

  publish(topic: Topic, body: unknown): void {
    if (this.#isOver || !this.#identity) {
      messagesDropped.inc({ topic, reason: 'stopped' });
      return;
    }
    const packed = this.#outgoing.pack(topic, topic, body);
    if (!packed) return;
    const { bytes, message } = packed;
    countSent(topic);
    countSentBytes(topic, bytes.length);
    this.#broadcast.publish(topic, bytes, message);
  }

  #gossip(topic: Topic, bytes: Buffer, message: GossipMessage): void {
    if (this.#isOver || !this.#host) return;
    this.#intake.noteOwn(topic, bytes, message);
    this.#host.services.pubsub.publish(this.#names.topic(topic), bytes).catch((error: unknown) => {
      messagesDropped.inc({ topic, reason: 'not-connected' });
      this.#options.logger.debug({ err: error, topic }, 'a message was not published');
    });
  }

  subscribe(topic: Topic, listener: (message: GossipMessage) => void): () => void {
    return this.#heard[topic].add(listener);
  }

  send(nodeId: string, body: unknown): boolean {
    const link = this.#isOver ? undefined : this.#peers.linkTo(nodeId);
    if (!link) {
      messagesDropped.inc({ topic: 'direct', reason: 'not-connected' });
      return false;
    }
    const bytes = this.#outgoing.pack('direct', `direct:${nodeId}`, body)?.bytes;
    if (!bytes) return false;
    if (!link.send(messageFrame(bytes))) {
      messagesDropped.inc({ topic: 'direct', reason: link.isReady ? 'full' : 'not-connected' });
      return false;
    }
    countSent('direct');
    countSentBytes('direct', bytes.length);
    return true;
  }

  onDirect(listener: (message: GossipMessage) => void): () => void {
    return this.#heard.direct.add(listener);
  }

  // --- connections ---

  readonly #linkEvents: LinkEvents = {
    onReady: (link) => {
      if (this.#links.has(link.connection.id)) this.#peers.update(link.peerId);
      this.#dialer?.fruitful(link.peerId);
    },
    onMessage: (link, envelope) => {
      // What a connection still held when it was closed may come after the end.
      const peer = this.#isOver ? undefined : this.#peers.byPeerId.get(link.peerId);
      if (peer) this.#intake.direct(peer, envelope);
    },
    onPublished: (link, kind, envelope) => {
      const peer = this.#isOver ? undefined : this.#peers.byPeerId.get(link.peerId);
      if (peer) this.#intake.straight(peer, kind, envelope);
    },
    onRoundTrip: (link, roundTripMs) => {
      if (!this.#isOver) this.#peers.roundTripOf(link.peerId, roundTripMs);
    },
    onNonsense: (link, reason) => {
      messagesDropped.inc({ topic: 'direct', reason });
      this.#cutOff(link.peerId, reason);
    },
    onBroken: (link) => this.#hangUp(link, 'closed'),
  };

  #opened(connection: Connection): void {
    if (this.#isOver || connection.status !== 'open') return;
    const nowMs = this.#options.clock.monotonicMs();
    const link = new Link(connection, this.#names, this.#options.clock, this.#linkEvents);
    const peer = this.#peers.peer(link.peerId);
    for (const older of peer.links) older.probe(nowMs);
    peer.links.add(link);
    this.#links.set(connection.id, link);
    connectionsOpened.inc({ direction: connection.direction });
    void link.open();
    if (!this.#peers.memberOfPeer(link.peerId)) {
      this.#hasUntoldStranger = true;
      this.#tellOfStrangers(nowMs);
    }
  }

  #closed(connection: Connection): void {
    const link = this.#links.get(connection.id);
    if (!link) return;
    this.#links.delete(connection.id);
    connectionsClosed.inc({ cause: link.closedBy ?? 'closed' });
    const peer = this.#peers.byPeerId.get(link.peerId);
    peer?.links.delete(link);
    this.#peers.update(link.peerId);
    if (!link.wasReady && !peer?.current) this.#dialer?.fruitless(link.peerId);
  }

  #hangUp(link: Link, cause: string): void {
    // Its streams close before it does, and would ask for the same.
    if (link.closedBy) return;
    link.closedBy = cause;
    link.abort(cause);
  }

  #memberChanged(member: GossipMember, isConnected: boolean): void {
    if (this.#isOver) return;
    if (!isConnected) this.#dialer?.lost(member);
    this.#connections.call(member.nodeId, isConnected);
  }

  /** Something came that no member of any version sends. */
  #cutOff(peerId: string, reason: 'garbage' | 'oversized'): void {
    this.#warnings.warn(`cut off a peer that sent ${reason === 'garbage' ? 'garbage' : 'more than is allowed'}`, {
      peerId,
      node: this.#peers.memberOfPeer(peerId)?.nodeId,
    });
    this.#gatekeeper.refuseFor(peerId, gossipTimes.cutOffMs);
    for (const link of [...(this.#peers.byPeerId.get(peerId)?.links ?? [])]) this.#hangUp(link, reason);
  }

  #tellOfStrangers(nowMs: number): void {
    if (!this.#hasUntoldStranger || nowMs - this.#strangerToldMs < strangerIntervalMs) return;
    this.#hasUntoldStranger = false;
    this.#strangerToldMs = nowMs;
    this.#strangers.call();
  }

  #tick(): void {
    if (this.#isOver) return;
    try {
      this.#lookAtAll();
    } catch (error) {
      // Whatever it is must end neither the process nor the upkeep of all other connections.
      this.#warnings.warn('a look at the connections of gossip failed', { err: error });
    }
    this.#tickTimer = this.#options.clock.setTimer(gossipTimes.tickMs, () => this.#tick(), { background: true });
  }

  #lookAtAll(): void {
    const nowMs = this.#options.clock.monotonicMs();
    const lateMs = nowMs - this.#tickedMs - gossipTimes.tickMs;
    this.#tickedMs = nowMs;
    for (const link of [...this.#links.values()]) {
      if (lateMs > lateTickMs) link.forgive(lateMs);
      const cause = link.deadCause(nowMs, this.#peers.byPeerId.get(link.peerId)?.isReplaced(link) ?? false);
      if (cause) this.#hangUp(link, cause);
      else {
        link.pingIfDue(nowMs);
        if (link.isReady) link.lane.openIfDue(nowMs);
      }
    }
    this.#broadcast.look(nowMs);
    this.#upkeep?.tick(nowMs);
    this.#tellOfStrangers(nowMs);
    this.#dialer?.tick(nowMs);
  }
}
