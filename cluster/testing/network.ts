/**
 * A network in one process for tests and the simulator: the face of `cluster/gossip`, with delays, loss, doubles, reordering and cuts between any two nodes,
 * one way or both. Everything that happens comes from the clock and the random numbers that are handed in. As over TCP, direct messages keep their order,
 * a killed process is noticed at once by whoever could reach it, and a cut link or a paused process is noticed by nothing but silence.
 */
import type { Random, Timer } from '../../ops/telemetry/index.js';
import type { Gossip, GossipIdentity, GossipMember, GossipMessage, PeerStatus, Topic } from '../gossip/contract.js';
import type { NodeClock } from './virtual-time.js';

export interface NetworkFaults {
  /** Of each message, 0 to 1. */
  loss: number;
  /** Of each published message: that it arrives twice. */
  doubling: number;
  minDelayMs: number;
  maxDelayMs: number;
}

/** `onMessage` sees everything that is delivered or lost; for stories and counts. */
export interface NetworkOptions {
  random: Random;
  faults?: Partial<NetworkFaults>;
  onMessage?: (event: { from: string; to: string; topic: Topic | 'direct'; isLost: boolean }) => void;
}

export class SimulatedNetwork {
  readonly faults: NetworkFaults;
  readonly nodes = new Map<string, SimulatedGossip>();
  readonly #random: Random;
  readonly #onMessage: NetworkOptions['onMessage'];
  /** `from>to` of links that carry nothing. */
  readonly #cuts = new Set<string>();
  sent = 0;

  constructor(options: NetworkOptions) {
    this.#random = options.random;
    this.#onMessage = options.onMessage;
    this.faults = { loss: 0, doubling: 0, minDelayMs: 0.2, maxDelayMs: 2, ...options.faults };
  }

  /** A node's hold on the network. It takes no part before `start`. */
  node(nodeId: string, clock: NodeClock): SimulatedGossip {
    return new SimulatedGossip(this, nodeId, clock);
  }

  /** Nothing goes from `from` to `to` any more. */
  cut(from: string, to: string): void {
    this.#cuts.add(`${from}>${to}`);
  }

  cutBoth(one: string, other: string): void {
    this.cut(one, other);
    this.cut(other, one);
  }

  heal(): void {
    this.#cuts.clear();
    this.reconnect();
  }

  healBoth(one: string, other: string): void {
    this.#cuts.delete(`${one}>${other}`);
    this.#cuts.delete(`${other}>${one}`);
    this.reconnect();
  }

  isCut(from: string, to: string): boolean {
    return this.#cuts.has(`${from}>${to}`);
  }

  /** The process is gone: its peers see their connections close. */
  kill(nodeId: string): void {
    const node = this.nodes.get(nodeId);
    if (!node) return;
    this.nodes.delete(nodeId);
    node.isOver = true;
    for (const peer of this.nodes.values()) if (!this.isCut(nodeId, peer.nodeId)) peer.lost(nodeId);
  }

  /** Opens the connections that both sides allow. */
  reconnect(): void {
    for (const one of this.nodes.values()) {
      for (const other of this.nodes.values()) {
        if (one === other || one.clock.isPaused || other.clock.isPaused) continue;
        if (this.isCut(one.nodeId, other.nodeId) || this.isCut(other.nodeId, one.nodeId)) continue;
        if (one.allows(other.nodeId) && other.allows(one.nodeId)) one.opened(other.nodeId);
        else if (one.allows(other.nodeId)) other.stranger();
      }
    }
  }

  carry(from: SimulatedGossip, to: string, topic: Topic | 'direct', message: GossipMessage): void {
    this.sent++;
    // What is published was found to reach the receiver, if only through others.
    const isLost = (topic === 'direct' && this.isCut(from.nodeId, to)) || this.#random.float() < this.faults.loss;
    this.#onMessage?.({ from: from.nodeId, to, topic, isLost });
    if (isLost) return;
    this.#deliver(from, to, topic, message);
    if (topic !== 'direct' && this.#random.float() < this.faults.doubling) this.#deliver(from, to, topic, message);
  }

  #deliver(from: SimulatedGossip, to: string, topic: Topic | 'direct', message: GossipMessage): void {
    const { minDelayMs, maxDelayMs } = this.faults;
    const delayMs = minDelayMs + this.#random.float() * (maxDelayMs - minDelayMs);
    const receiver = this.nodes.get(to);
    if (!receiver) return;
    const nowMs = receiver.clock.monotonicMs();
    // One stream per pair keeps its order.
    const atMs = topic === 'direct' ? receiver.arrivalAfter(from.nodeId, nowMs + delayMs) : nowMs + delayMs;
    receiver.clock.setTimer(atMs - nowMs, () => {
      if (topic !== 'direct' || !this.isCut(from.nodeId, to)) receiver.received(topic, message);
    });
  }
}

const reconnectMs = 1_000;

/** As if it had been bytes in between: nobody holds on to what another process has. Plain values, which are most, are copied by hand for speed. */
function copied(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(copied);
  if (Object.getPrototypeOf(value) === Object.prototype)
    return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, copied(one)]));
  return structuredClone(value);
}

export class SimulatedGossip implements Gossip {
  readonly identity: GossipIdentity;
  isOver = false;
  #incarnation = 1;
  #members = new Map<string, GossipMember>();
  readonly #connected = new Map<string, number>();
  readonly #sequences = new Map<string, number>();
  readonly #seen = new Map<string, { incarnation: number; numbers: Set<number>; highest: number }>();
  readonly #arrivals = new Map<string, number>();
  readonly #listeners = new Map<Topic | 'direct', Set<(message: GossipMessage) => void>>();
  readonly #connectionListeners = new Set<(nodeId: string, isConnected: boolean) => void>();
  readonly #strangerListeners = new Set<() => void>();
  #strangerAtMs = Number.NEGATIVE_INFINITY;
  #timer: Timer | undefined;

  constructor(
    readonly network: SimulatedNetwork,
    readonly nodeId: string,
    readonly clock: NodeClock,
  ) {
    this.identity = { peerId: `peer-${nodeId}`, addresses: [{ host: nodeId, port: 1 }] };
  }

  async start(): Promise<void> {
    this.network.nodes.set(this.nodeId, this);
    this.#redial();
  }

  async stop(): Promise<void> {
    if (this.isOver) return;
    this.#timer?.cancel();
    this.network.kill(this.nodeId);
  }

  setIncarnation(incarnation: number): void {
    this.#incarnation = incarnation;
  }

  setMembers(members: readonly GossipMember[]): void {
    this.#members = new Map(members.map((member) => [member.nodeId, member]));
    for (const nodeId of [...this.#connected.keys()]) if (!this.#members.has(nodeId)) this.lost(nodeId);
    if (this.network.nodes.get(this.nodeId) === this) this.network.reconnect();
  }

  connected(): readonly string[] {
    return [...this.#connected.keys()];
  }

  peers(): PeerStatus[] {
    return [...this.#members.keys()].map((nodeId) => ({
      nodeId,
      isConnected: this.#connected.has(nodeId),
      sinceMs: this.#connected.get(nodeId) ?? 0,
    }));
  }

  onConnection(listener: (nodeId: string, isConnected: boolean) => void): () => void {
    this.#connectionListeners.add(listener);
    return () => this.#connectionListeners.delete(listener);
  }

  onStranger(listener: () => void): () => void {
    this.#strangerListeners.add(listener);
    return () => this.#strangerListeners.delete(listener);
  }

  publish(topic: Topic, body: unknown): void {
    if (this.isOver) return;
    const message = this.#message(topic, body);
    // Through others where the direct way is cut, as a mesh carries it.
    for (const nodeId of this.#reachable()) this.network.carry(this, nodeId, topic, message);
  }

  subscribe(topic: Topic, listener: (message: GossipMessage) => void): () => void {
    return this.#listen(topic, listener);
  }

  send(nodeId: string, body: unknown): boolean {
    if (this.isOver || !this.#connected.has(nodeId)) return false;
    this.network.carry(this, nodeId, 'direct', this.#message(`direct:${nodeId}`, body));
    return true;
  }

  onDirect(listener: (message: GossipMessage) => void): () => void {
    return this.#listen('direct', listener);
  }

  // --- for the network ---

  allows(nodeId: string): boolean {
    return this.#members.has(nodeId);
  }

  opened(nodeId: string): void {
    if (this.#connected.has(nodeId)) return;
    this.#connected.set(nodeId, this.clock.monotonicMs());
    for (const listener of [...this.#connectionListeners]) listener(nodeId, true);
  }

  lost(nodeId: string): void {
    if (!this.#connected.delete(nodeId)) return;
    for (const listener of [...this.#connectionListeners]) listener(nodeId, false);
  }

  stranger(): void {
    const nowMs = this.clock.monotonicMs();
    if (nowMs - this.#strangerAtMs < 1_000) return;
    this.#strangerAtMs = nowMs;
    for (const listener of [...this.#strangerListeners]) listener();
  }

  arrivalAfter(from: string, atMs: number): number {
    const arrivalMs = Math.max(atMs, this.#arrivals.get(from) ?? 0);
    this.#arrivals.set(from, arrivalMs);
    return arrivalMs;
  }

  received(topic: Topic | 'direct', message: GossipMessage): void {
    if (this.isOver || !this.allows(message.from)) return;
    const id = `${topic}/${message.from}`;
    let seen = this.#seen.get(id);
    if (!seen) this.#seen.set(id, (seen = { incarnation: message.incarnation, numbers: new Set(), highest: 0 }));
    if (message.incarnation < seen.incarnation || seen.numbers.has(message.sequence) || message.sequence < seen.highest - 1_000)
      return;
    seen.incarnation = message.incarnation;
    seen.numbers.add(message.sequence);
    seen.highest = Math.max(seen.highest, message.sequence);
    if (seen.numbers.size > 2_000)
      for (const number of seen.numbers) if (number < seen.highest - 1_000) seen.numbers.delete(number);
    for (const listener of [...(this.#listeners.get(topic) ?? [])]) listener({ ...message, body: copied(message.body) });
  }

  #listen(topic: Topic | 'direct', listener: (message: GossipMessage) => void): () => void {
    let listeners = this.#listeners.get(topic);
    if (!listeners) this.#listeners.set(topic, (listeners = new Set()));
    listeners.add(listener);
    return () => listeners.delete(listener);
  }

  #message(stream: string, body: unknown): GossipMessage {
    const sequence = (this.#sequences.get(stream) ?? 0) + 1;
    this.#sequences.set(stream, sequence);
    return { from: this.nodeId, incarnation: this.#incarnation, sequence, body: copied(body) };
  }

  /** Whom a mesh would carry a message to: over links that are open and not cut, any number of hops. */
  #reachable(): Set<string> {
    const found = new Set<string>([this.nodeId]);
    for (const at of found) {
      for (const next of this.network.nodes.get(at)?.connected() ?? []) if (!this.network.isCut(at, next)) found.add(next);
    }
    found.delete(this.nodeId);
    return found;
  }

  #redial(): void {
    if (this.isOver) return;
    this.network.reconnect();
    this.#timer = this.clock.setTimer(reconnectMs, () => this.#redial());
  }
}
