/**
 * Dials for ever: libp2p has no such loop. Members are dialed at their addresses in turn, with hardly a pause, and have to prove their peer id; addresses
 * without a member behind them (bootstrap, mDNS) ever more slowly, and whoever answers is welcome.
 */
import type { Clock, Random } from '../../ops/telemetry/index.js';
import { addressText, multiaddrText, Names, parseMultiaddr } from './addresses.js';
import type { GossipMember, HostAndPort } from './contract.js';
import type { Connection, DialTarget, Host } from './libp2p-types.js';
import { dialFailures } from './metrics.js';
import { gossipTimes } from './options.js';

const maxParallelDials = 32;
const maxFoundAddresses = 256;
/** An address that mDNS has not found again for so long is forgotten. */
const foundForMs = 120_000;
/** An address behind which this node itself answers is tried again now and then: addresses move. */
const ownAddressRedialMs = 60_000;

interface Target {
  addresses: readonly HostAndPort[];
  /** Undefined: whoever answers. */
  peerId: string | undefined;
  nextMs: number;
  failures: number;
  /** Connections in a row that ended before they could carry anything. */
  fruitless: number;
  /** Which of all resolved addresses is next. */
  turn: number;
  isDialing: boolean;
  /** Who answered last, where nobody had to. */
  answeredBy?: string;
  untilMs: number;
}

export interface DialerOptions {
  host: Host;
  toMultiaddr(text: string): DialTarget;
  ownNodeId: string;
  bootstrap: readonly HostAndPort[];
  clock: Clock;
  random: Random;
  isConnected(peerId: string): boolean;
  isRefused(peerId: string): boolean;
}

export class Dialer {
  readonly #options: DialerOptions;
  readonly #names: Names;
  readonly #members = new Map<string, Target>();
  readonly #addresses = new Map<string, Target>();
  /** What ends the dials that are under way. Not one signal for all: whatever is derived from a signal that lives long is remembered by it for ever. */
  readonly #patiences = new Set<AbortController>();
  #isOver = false;
  /** `host:port` of members: an address that is also a member's is left to the member. */
  #memberAddresses = new Map<string, string>();
  /** What is to be done when TCP is open, by the address that is dialed. */
  readonly #reaching = new Map<string, () => void>();
  #dialing = 0;

  constructor(options: DialerOptions) {
    this.#options = options;
    this.#names = new Names(options.clock);
    for (const address of options.bootstrap) this.#addAddress(address, Number.POSITIVE_INFINITY);
  }

  setMembers(members: readonly GossipMember[]): void {
    const nowMs = this.#options.clock.monotonicMs();
    const isKept = new Set(members.map(({ peerId }) => peerId));
    for (const peerId of this.#members.keys()) if (!isKept.has(peerId)) this.#members.delete(peerId);
    this.#memberAddresses = new Map();
    for (const { nodeId, peerId, addresses } of members) {
      for (const address of addresses) this.#memberAddresses.set(addressText(address), peerId);
      const known = this.#members.get(peerId);
      if (known) {
        if (known.addresses.map(addressText).join() !== addresses.map(addressText).join()) known.nextMs = nowMs;
        known.addresses = addresses;
        continue;
      }
      const target = newTarget(addresses, peerId, nowMs + this.#patienceMs(nodeId), Number.POSITIVE_INFINITY);
      this.#members.set(peerId, target);
    }
  }

  /** mDNS has seen somebody. */
  found(multiaddrs: readonly string[]): void {
    for (const text of multiaddrs) {
      const address = parseMultiaddr(text);
      if (address) this.#addAddress(address, this.#options.clock.monotonicMs() + foundForMs);
    }
  }

  #addAddress(address: HostAndPort, untilMs: number): void {
    const text = addressText(address);
    const known = this.#addresses.get(text);
    if (known) known.untilMs = Math.max(known.untilMs, untilMs);
    else if (this.#addresses.size < maxFoundAddresses) {
      this.#addresses.set(text, newTarget([address], undefined, this.#options.clock.monotonicMs(), untilMs));
    }
  }

  /** The last connection with this member is gone. */
  lost(member: GossipMember): void {
    const target = this.#members.get(member.peerId);
    if (!target) return;
    target.nextMs = this.#options.clock.monotonicMs() + 20 + this.#options.random.float() * 80 + this.#patienceMs(member.nodeId);
  }

  /** A connection with this peer can carry messages. */
  fruitful(peerId: string): void {
    const target = this.#members.get(peerId);
    if (target) target.fruitless = 0;
  }

  /** One has ended before it could. Where that goes on (a peer of a version too far away), dials become rarer. */
  fruitless(peerId: string): void {
    const target = this.#members.get(peerId);
    if (!target) return;
    const { addressRedialMs, memberRedialMs } = gossipTimes;
    const pauseMs = Math.min(addressRedialMs.last, memberRedialMs * 1.5 ** ++target.fruitless);
    target.nextMs = this.#options.clock.monotonicMs() + pauseMs * this.#jitter();
  }

  /** Dials what is due. */
  tick(nowMs: number): void {
    const { isConnected, isRefused } = this.#options;
    for (const [peerId, target] of this.#members) {
      if (target.isDialing || nowMs < target.nextMs || isConnected(peerId) || isRefused(peerId)) continue;
      this.#start(target);
    }
    for (const [text, target] of this.#addresses) {
      if (target.untilMs < nowMs) this.#addresses.delete(text);
      else if (!target.isDialing && nowMs >= target.nextMs && !this.#isServed(text, target)) this.#start(target);
    }
  }

  stop(): void {
    this.#isOver = true;
    for (const patience of this.#patiences) patience.abort(new Error('gossip stops'));
  }

  #isServed(text: string, target: Target): boolean {
    const { isConnected } = this.#options;
    const member = this.#memberAddresses.get(text);
    return (member !== undefined && isConnected(member)) || (target.answeredBy !== undefined && isConnected(target.answeredBy));
  }

  #patienceMs(nodeId: string): number {
    return this.#options.ownNodeId > nodeId ? gossipTimes.secondDialerDelayMs : 0;
  }

  #start(target: Target): void {
    if (this.#dialing >= maxParallelDials || this.#isOver) return;
    target.isDialing = true;
    this.#dialing++;
    void this.#dial(target).finally(() => {
      target.isDialing = false;
      this.#dialing--;
    });
  }

  /** Never rejects. */
  async #dial(target: Target): Promise<void> {
    try {
      const address = await this.#nextAddress(target);
      if (!address) throw new Error('no address');
      // Resolving took time.
      if (target.peerId !== undefined && this.#options.isConnected(target.peerId)) return;
      const connection = await this.#connect(address, target.peerId);
      target.failures = 0;
      // A redial soon after a loss, not a storm when the peer takes connections and drops them at once.
      target.nextMs = Math.max(target.nextMs, this.#options.clock.monotonicMs() + gossipTimes.memberRedialMs);
      // He may have been connected already, under another address. The second connection is left alone: to close it now could close the only one that
      // carries anything, and the peer may be about to close the other one for the same reason.
      if (target.peerId === undefined) target.answeredBy = connection.remotePeer.toString();
    } catch (error) {
      if (this.#isOver) return;
      this.#failed(target, error);
    }
  }

  async #nextAddress(target: Target): Promise<HostAndPort | undefined> {
    const all: HostAndPort[] = [];
    for (const { host, port } of target.addresses) {
      for (const ip of await this.#names.resolve(host)) all.push({ host: ip, port });
    }
    return all.length === 0 ? undefined : all[target.turn++ % all.length];
  }

  async #connect(address: HostAndPort, peerId: string | undefined): Promise<Connection> {
    const { clock, host, toMultiaddr } = this.#options;
    const text = `${multiaddrText(address)}${peerId ? `/p2p/${peerId}` : ''}`;
    const patience = new AbortController();
    if (this.#isOver) patience.abort(new Error('gossip stops'));
    this.#patiences.add(patience);
    const giveUp = () => patience.abort(new Error('no answer in time'));
    let timer = clock.setTimer(gossipTimes.connectTimeoutMs, giveUp, { background: true });
    this.#reaching.set(text, () => {
      timer.cancel();
      timer = clock.setTimer(gossipTimes.handshakeTimeoutMs, giveUp, { background: true });
    });
    try {
      return await host.dial(toMultiaddr(text), { signal: patience.signal });
    } finally {
      timer.cancel();
      this.#reaching.delete(text);
      this.#patiences.delete(patience);
    }
  }

  /** TCP to this address, as it was dialed, is open. */
  reached(remote: string): void {
    this.#reaching.get(remote)?.();
  }

  #jitter(): number {
    return 0.75 + this.#options.random.float() * 0.5;
  }

  #failed(target: Target, error: unknown): void {
    const nowMs = this.#options.clock.monotonicMs();
    target.failures++;
    if (isSelf(error)) {
      target.nextMs = nowMs + ownAddressRedialMs;
      return;
    }
    dialFailures.inc();
    const { first, last } = gossipTimes.addressRedialMs;
    const pauseMs =
      target.peerId !== undefined ? gossipTimes.memberRedialMs : Math.min(last, first * 1.5 ** (target.failures - 1));
    target.nextMs = nowMs + pauseMs * this.#jitter();
  }
}

function newTarget(addresses: readonly HostAndPort[], peerId: string | undefined, nextMs: number, untilMs: number): Target {
  return { addresses, peerId, nextMs, failures: 0, fruitless: 0, turn: 0, isDialing: false, untilMs };
}

/** libp2p's answer when this node itself has picked up. */
function isSelf(error: unknown): boolean {
  if (error instanceof AggregateError) return error.errors.some(isSelf);
  return error instanceof Error && (error.name === 'InvalidPeerIdError' || error.message.includes('Can not dial self'));
}
