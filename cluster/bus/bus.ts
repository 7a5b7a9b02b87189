/** The bus of one node: sends what this node has changed, hears of what others have, and makes up from the store for what was missed. */
import { type Clock, counter, gauge, type Logger, type Random, type Timer } from '../../ops/telemetry/index.js';
import type { KvStore } from '../../store/kv/contract.js';
import type { Gossip, GossipMessage } from '../gossip/contract.js';
import { type AccountChange, type Bus, type BusStatus, busLimits, type GenerationSource } from './contract.js';
import { Generations } from './generations.js';
import { type BusMessage, decodeBody, encodeBody, isName } from './message.js';
import { Origins } from './origins.js';
import { Outbox } from './outbox.js';

/** `result`: `taken`, `passed-over` (a double, or an old one), `unreadable`. */
const received = counter('starling_cluster_bus_received_total', 'Messages of changes that came from other nodes.', ['result']);
const catchUps = counter('starling_cluster_bus_catch_ups_total', 'Times that missed messages were made up for from the store.');
const open = new Set<StoreBus>();
gauge('starling_cluster_bus_healthy', 'Whether changes of other nodes reach this one at once: 1, else 0.', [], (metric) => {
  for (const bus of open) metric.set(bus.status.isHealthy ? 1 : 0);
});
gauge('starling_cluster_bus_compared_age_seconds', 'Since generations were last compared with the store.', [], (metric) => {
  for (const bus of open) metric.set((bus.status.comparedAgeMs ?? 0) / 1000);
});

export interface BusOptions {
  /** Without it, generations are compared on the timer alone. */
  gossip?: Gossip;
  kv: KvStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Of this node. Default: the one that gossips. */
  nodeId?: string;
  /** Ids of the live members, with or without this one; where absent, the members that gossip knows. */
  members?: () => readonly string[];
}

export function createBus(options: BusOptions): Bus {
  return new StoreBus(options);
}

class StoreBus implements Bus {
  readonly #o: BusOptions;
  readonly #outbox: Outbox | undefined;
  readonly #origins: Origins;
  readonly #generations: Generations;
  readonly #changeListeners = new Set<(change: AccountChange) => void>();
  readonly #missedListeners = new Set<() => void>();
  #unsubscribe: (() => void)[] = [];
  #catchUp: Timer | undefined;
  #caughtUpAtMs = Number.NEGATIVE_INFINITY;
  /** When the last gap was found (monotonic). */
  #gapAtMs = Number.NEGATIVE_INFINITY;
  #state: 'new' | 'running' | 'stopped' = 'new';

  constructor(options: BusOptions) {
    this.#o = { ...options, logger: options.logger.child({ part: 'bus' }) };
    const { gossip, kv, clock, random, logger } = this.#o;
    const intervalMs = () => (this.status.isHealthy ? busLimits.healthyIntervalMs : busLimits.unhealthyIntervalMs);
    this.#generations = new Generations({ kv, clock, random, logger, intervalMs });
    this.#origins = new Origins({ clock, onLost: () => this.#missed() });
    if (!gossip) return;
    const publish = (message: BusMessage) => gossip.publish('changes', encodeBody(message));
    this.#outbox = new Outbox({ clock, publish, connectedCount: () => gossip.connected().length });
  }

  start(): void {
    if (this.#state !== 'new') return;
    this.#state = 'running';
    open.add(this);
    const { gossip } = this.#o;
    if (gossip) {
      this.#unsubscribe = [
        gossip.subscribe('changes', (message) => this.#received(message)),
        gossip.onConnection((_nodeId, isConnected) => {
          if (isConnected) this.#missed();
          else this.#generations.want(busLimits.unhealthyIntervalMs);
        }),
      ];
    }
    this.#generations.open();
  }

  async stop(): Promise<void> {
    if (this.#state === 'running') this.#outbox?.close();
    this.#state = 'stopped';
    open.delete(this);
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    this.#catchUp?.cancel();
    this.#origins.close();
    await this.#generations.close();
  }

  announceChange(change: AccountChange): void {
    if (this.#state === 'running') this.#outbox?.change(change);
  }

  raised(name: string): void {
    if (!isName(name)) throw new RangeError(`not the name of a generation: ${name}`);
    if (this.#state !== 'running') return;
    this.#outbox?.raise(name);
    if (this.#generations.follows(name)) this.#generations.want(0);
  }

  follow(source: GenerationSource): () => void {
    if (!isName(source.name)) throw new RangeError(`not the name of a generation: ${source.name}`);
    return this.#generations.follow(source);
  }

  onChange(listener: (change: AccountChange) => void): () => void {
    const own = (change: AccountChange) => listener(change);
    this.#changeListeners.add(own);
    return () => void this.#changeListeners.delete(own);
  }

  onMissed(listener: () => void): () => void {
    const own = () => listener();
    this.#missedListeners.add(own);
    return () => void this.#missedListeners.delete(own);
  }

  get status(): BusStatus {
    const { comparedAgeMs, comparedAtMs, isWell } = this.#generations;
    const isHealthy = isWell && comparedAtMs >= this.#gapAtMs && this.#isConnected();
    return { missed: this.#origins.missed, ...(comparedAgeMs !== undefined && { comparedAgeMs }), isHealthy };
  }

  #isConnected(): boolean {
    const { gossip, members } = this.#o;
    const nodeId = this.#o.nodeId ?? gossip?.nodeId;
    if (!members) return gossip?.peers().every((peer) => peer.isConnected) ?? true;
    const connected = new Set(gossip?.connected());
    return members().every((member) => member === nodeId || connected.has(member));
  }

  #received({ from, incarnation, sequence, body }: GossipMessage): void {
    if (!this.#origins.accept(from, incarnation, sequence)) {
      received.inc({ result: 'passed-over' });
      return;
    }
    const message = decodeBody(body);
    received.inc({ result: message ? 'taken' : 'unreadable' });
    if (!message) return;
    if (message.isOverflow) this.#missed();
    if (message.raised.some((name) => this.#generations.follows(name))) this.#generations.want(0);
    for (const change of message.changes) {
      this.#tell(this.#changeListeners, (listener) => listener(change));
    }
  }

  /** Something has not come, or may not have. Soon afterwards, once for all that is found by then, the store is looked at. */
  #missed(): void {
    const { clock, random } = this.#o;
    const nowMs = clock.monotonicMs();
    this.#gapAtMs = nowMs;
    if (this.#catchUp || this.#state !== 'running') return;
    const soonestMs = this.#caughtUpAtMs + busLimits.minMissedGapMs * (1 + random.float() / 2);
    const delayMs = Math.max(random.float() * busLimits.jitterMs, soonestMs - nowMs);
    this.#catchUp = clock.setTimer(
      delayMs,
      () => {
        this.#catchUp = undefined;
        this.#caughtUpAtMs = clock.monotonicMs();
        catchUps.inc();
        this.#generations.want(0);
        this.#tell(this.#missedListeners, (listener) => listener());
      },
      { background: true },
    );
  }

  #tell<Listener>(listeners: ReadonlySet<Listener>, call: (listener: Listener) => void): void {
    for (const listener of [...listeners]) {
      try {
        call(listener);
      } catch (error) {
        this.#o.logger.error({ err: error }, 'a listener of the bus failed');
      }
    }
  }
}
