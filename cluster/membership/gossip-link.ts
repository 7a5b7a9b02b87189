/**
 * Puts the detector on a real network: its timer, what it says and hears, and the messages that make others look at the store at once. Everything that comes
 * in here is a hint: it may hurry a round or hold a verdict back, and changes nothing else.
 */
import type { Clock, Logger, Random, Timer } from '../../ops/telemetry/index.js';
import type { Gossip, GossipMember, GossipMessage } from '../gossip/contract.js';
import type { FailureTiming, NodeRow } from './contract.js';
import { Detector } from './detector.js';
import { decodeAnnouncement, decodeDrainWish, encodeAnnouncement, encodeDrainWish } from './messages.js';

export interface GossipLinkOptions {
  gossip: Gossip;
  clock: Clock;
  random: Random;
  logger: Logger;
  timing: FailureTiming;
  nodeId: string;
  incarnation: number;
  /** News is about to be taken in, or time has gone on. */
  beforeNews: () => void;
  /** Time has gone on, or news has been taken in: doubts may have come or gone. */
  afterNews: () => void;
  /** Somebody is heard again, or is not any more. */
  onHearing: () => void;
  /** Look at the store, soon; others may ask for it as often as they like. */
  onHurry: () => void;
}

/** Of joins that others have told of; more are forgotten. */
const keptJoins = 1_000;

export class GossipLink {
  readonly detector: Detector;
  readonly #o: GossipLinkOptions;
  readonly #leaving: (() => void)[] = [];
  #timer: Timer | undefined;
  #armedMs = Number.POSITIVE_INFINITY;
  #isOver = false;
  #known: ReadonlySet<string> = new Set();
  readonly #toldJoins = new Set<string>();

  constructor(options: GossipLinkOptions) {
    this.#o = options;
    const { gossip, nodeId, incarnation, timing, random } = options;
    this.detector = new Detector({
      nodeId,
      incarnation,
      timing,
      float: () => random.float(),
      voice: {
        send: (to, body) => gossip.send(to, body),
        announce: (body) => gossip.publish('membership', body),
        setIncarnation: (raised) => gossip.setIncarnation(raised),
        hurry: options.onHurry,
        onHearing: options.onHearing,
      },
    });
  }

  start(): void {
    const { gossip, clock, nodeId, onHurry } = this.#o;
    gossip.setIncarnation(this.detector.incarnation);
    this.#leaving.push(
      gossip.onDirect((message) =>
        this.#takeIn((nowMs) => this.detector.received(message.from, message.incarnation, message.body, nowMs)),
      ),
      gossip.subscribe('membership', (message) => this.#announced(message)),
      gossip.subscribe('control', ({ body }) => {
        if (decodeDrainWish(body) === nodeId) onHurry();
      }),
      gossip.onConnection((peer, isConnected) => {
        this.#takeIn((nowMs) => this.detector.connection(peer, isConnected, nowMs));
        if (!isConnected) onHurry();
      }),
      gossip.onStranger(onHurry),
    );
    this.detector.start(clock.monotonicMs());
    this.#arm();
  }

  stop(): void {
    this.#isOver = true;
    this.#timer?.cancel();
    for (const leave of this.#leaving) leave();
  }

  /** The detector has caught up with the clock: a pause of this process no longer looks like the silence of all others. */
  poll(): void {
    const nowMs = this.#o.clock.monotonicMs();
    if (this.#isOver || this.detector.dueMs > nowMs) return;
    this.#o.beforeNews();
    this.detector.tick(nowMs);
    this.#arm();
    this.#o.afterNews();
  }

  /** The other nodes whose fences stand. Tells the others who is new among them, unless somebody has told this node. */
  setRows(rows: readonly NodeRow[]): void {
    const members: GossipMember[] = [];
    for (const { nodeId, incarnation, gossip } of rows) if (gossip) members.push({ nodeId, incarnation, ...gossip });
    this.#o.gossip.setMembers(members);
    this.detector.setPeers(members, this.#o.clock.monotonicMs());
    const before = this.#known;
    this.#known = new Set(rows.map(({ nodeId }) => nodeId));
    for (const nodeId of this.#known) {
      if (!before.has(nodeId) && before.size > 0 && !this.#toldJoins.has(nodeId)) this.announce('joined', nodeId);
    }
    this.#arm();
  }

  /** Makes the others look at the store. */
  announce(kind: 'joined' | 'changed' | 'leaving' | 'fenced', nodeId: string): void {
    this.#o.gossip.publish('membership', encodeAnnouncement({ kind, nodeId }));
  }

  /** Makes `nodeId` look whether it is wanted to drain. */
  announceDrainWish(nodeId: string): void {
    this.#o.gossip.publish('control', encodeDrainWish(nodeId));
  }

  #announced({ from, body }: GossipMessage): void {
    const announcement = decodeAnnouncement(body);
    if (!announcement) return;
    const { kind } = announcement;
    if (kind === 'alive' || kind === 'suspect') {
      this.#takeIn((nowMs) => this.detector.told(from, announcement, nowMs));
      return;
    }
    if (kind === 'joined') {
      if (this.#known.has(announcement.nodeId)) return;
      if (this.#toldJoins.size >= keptJoins) this.#toldJoins.clear();
      this.#toldJoins.add(announcement.nodeId);
    }
    this.#o.onHurry();
  }

  #takeIn(work: (nowMs: number) => void): void {
    if (this.#isOver) return;
    this.poll();
    this.#o.beforeNews();
    work(this.#o.clock.monotonicMs());
    this.#arm();
  }

  #arm(): void {
    const { dueMs } = this.detector;
    // Nothing is due before `start`.
    if (this.#isOver || dueMs === Number.POSITIVE_INFINITY) return;
    if (this.#timer && this.#armedMs <= dueMs && this.#armedMs > this.#o.clock.monotonicMs()) return;
    this.#timer?.cancel();
    this.#armedMs = dueMs;
    // Whole milliseconds, so that no rounding makes it fire too early over and over.
    const delayMs = Math.max(Math.ceil(dueMs - this.#o.clock.monotonicMs()), 0);
    this.#timer = this.#o.clock.setTimer(
      delayMs,
      () => {
        this.#timer = undefined;
        this.#guarded();
      },
      { background: true },
    );
  }

  /** The timer has fired: early where the detector is due later than it was. */
  #guarded(): void {
    try {
      this.poll();
    } catch (error) {
      this.#o.logger.error({ err: error }, 'the failure detector stumbled');
    }
    if (!this.#timer) this.#arm();
  }
}
