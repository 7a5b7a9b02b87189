/**
 * This node's hold on its cluster: gossip, membership, leases and bus, put together, started and taken down in the order that each of them needs. Gossip is
 * there where the store is shared; libp2p is loaded only then. Without gossip, or when it breaks later, everything is correct and slower.
 */
import { type Bus, createBus, type GenerationSource } from '../cluster/bus/index.js';
import type { Gossip } from '../cluster/gossip/contract.js';
import { createLeaderLeases, type LeaderLeases } from '../cluster/leases/index.js';
import { failureTimings, type Membership } from '../cluster/membership/index.js';
import type { Logger } from '../ops/telemetry/index.js';
import { readGeneration } from '../store/directory/index.js';
import type { Bans } from '../store/limits/contract.js';
import type { NodeIdentity, Queue } from '../store/queue/index.js';
import { decodeHead, headKey } from '../store/settings/records.js';
import { ClusterClock, keepTime } from './cluster-clock.js';
import type { Config } from './config/schema.js';
import { watchGossipReach } from './gossip-reach.js';
import { sealedInstallationSecret } from './installation.js';
import { createNodeMembership, describeNodes } from './membership.js';
import { shareQueueHints } from './queue-hints.js';
import { StartError } from './start-error.js';
import type { Stores } from './stores.js';

export interface NodeClusterOptions {
  config: Pick<Config, 'hostname' | 'listeners' | 'roles' | 'store' | 'gossip'>;
  /** Without `bans` and `destinations`, what other nodes change of them is not heard of. */
  stores: Omit<Stores, 'bans' | 'destinations' | 'formats'> & Partial<Pick<Stores, 'bans' | 'destinations' | 'formats'>>;
  logger: Logger;
}

/** Whether this node is to gossip: where other nodes can be at all, unless its file says no (or yes). */
export const isGossiping = ({ store, gossip }: Pick<Config, 'store' | 'gossip'>): boolean =>
  gossip.enabled ?? store.backend !== 'embedded';

/** Listens for gossip, so that the node row can say where; joins nothing yet. Throws `StartError` with a sentence, KvError. */
export async function openNodeCluster(options: NodeClusterOptions): Promise<NodeCluster> {
  const node = { nodeId: options.stores.nodeId, incarnation: 1 };
  const gossip = isGossiping(options.config) ? await startGossip(options, node) : undefined;
  try {
    return new NodeCluster(options, node, gossip);
  } catch (error) {
    await gossip?.stop();
    throw error;
  }
}

async function startGossip({ config, stores, logger }: NodeClusterOptions, node: NodeIdentity): Promise<Gossip> {
  const { clock, random, kv, sealer } = stores;
  const { host, port, advertise, bootstrap, mdns } = config.gossip;
  const secret = await sealedInstallationSecret(kv, 'gossip', sealer, random);
  const { createGossip } = await import('../cluster/gossip/index.js');
  const gossip = createGossip({
    ...node,
    secret,
    listen: [{ host, port }],
    advertise,
    bootstrap,
    isMdnsEnabled: mdns,
    clock,
    random,
    logger: logger.child({ room: 'gossip' }),
  });
  try {
    await gossip.start();
  } catch (error) {
    await gossip.stop();
    throw new StartError((error as Error).message, { cause: error });
  }
  return gossip;
}

/** Something that is loaded again whenever its generation in the store has changed. */
function generations(name: string, room: Pick<Bans, 'readGeneration' | 'reload'>): GenerationSource {
  return { name, read: (reads) => room.readGeneration(reads), onChanged: () => room.reload() };
}

export class NodeCluster {
  readonly membership: Membership;
  readonly leases: LeaderLeases;
  /** Absent with a store that no other node uses. Without gossip to carry it, it compares generations on its timer. */
  readonly bus: Bus | undefined;
  readonly #stores: NodeClusterOptions['stores'];
  readonly #hostname: string;
  readonly #logger: Logger;
  readonly #fencedListeners = new Set<() => void>();
  readonly #changeListeners = new Set<() => void>();
  #isFenced = false;
  #unsubscribe: (() => void)[] = [];

  constructor(
    { config, stores, logger }: NodeClusterOptions,
    readonly node: NodeIdentity,
    readonly gossip: Gossip | undefined,
  ) {
    this.#stores = stores;
    this.#hostname = config.hostname;
    this.#logger = logger;
    const { kv, clock, random, settings } = stores;
    const timing = failureTimings[settings.current.cluster.failureDetection];
    const onFenced = () => this.fenced();
    this.membership = createNodeMembership({ config, stores, logger, node, gossip, timing, onFenced });
    const members = () => this.membership.members();
    this.leases = createLeaderLeases({
      kv,
      clock,
      logger: logger.child({ room: 'leases' }),
      nodeId: node.nodeId,
      members,
      renewMs: timing.heartbeatMs,
      termMs: timing.termMs,
    });
    const isShared = config.store.backend !== 'embedded';
    this.bus =
      isShared || gossip
        ? createBus({ ...(gossip && { gossip }), kv, clock, random, logger, nodeId: node.nodeId, members })
        : undefined;
  }

  get nodeId(): string {
    return this.node.nodeId;
  }

  /** Another node has declared this one dead. */
  get isFenced(): boolean {
    return this.#isFenced;
  }

  /** Told once. */
  onFenced(listener: () => void): void {
    this.#fencedListeners.add(listener);
  }

  /** The work may be shared differently, or has become due elsewhere: a look at the queue is worth while. */
  onWork(listener: () => void): void {
    this.#changeListeners.add(listener);
  }

  /** To be called by whoever finds out first. */
  fenced(): void {
    if (this.#isFenced) return;
    this.#isFenced = true;
    for (const listener of this.#fencedListeners) listener();
  }

  /** Becomes a member: row and fence, then leases, then news. Throws NodeIdTaken, KvError. */
  async join(): Promise<void> {
    const { kv, clock } = this.#stores;
    // The embedded store belongs to one process: whatever an earlier one had claimed is ours now.
    await this.membership.join({ isStoreExclusive: kv.backend === 'embedded' });
    const { formats } = this.#stores;
    if (formats) formats.of = (kind) => this.membership.commonFormat(kind);
    const shared = () => {
      this.leases.wake();
      this.#tellOfWork();
    };
    this.#unsubscribe.push(
      this.membership.onChange(shared),
      this.membership.onStanding(() => this.#tellOfWork()),
    );
    const { gossip, membership } = this;
    if (gossip) {
      const reach = { gossip, membership, hostname: this.#hostname, clock, logger: this.#logger };
      this.#unsubscribe.push(watchGossipReach(reach));
    }
    // Without gossip the store's rows tell the others' clocks too coarsely.
    const { clock: date } = this.#stores;
    if (this.bus && date instanceof ClusterClock) {
      const time = keepTime({ clock: date, membership: this.membership, logger: this.#logger });
      this.#unsubscribe.push(() => time.end());
      // What this node writes before, others would have to wait for.
      await time.known;
    }
    await this.leases.start();
    if (this.bus) this.#shareNews(this.bus);
  }

  /** For a drain and at the end: gives back leases, claims, row and fence, then leaves the gossip, so that the others need not wait. Never rejects. */
  async leave(): Promise<void> {
    await this.leases.release();
    await this.membership.leave();
    await this.close();
  }

  /** Says nothing any more. What the node has left in the store the others find. */
  async close(): Promise<void> {
    for (const unsubscribe of this.#unsubscribe.splice(0)) unsubscribe();
    await this.bus?.stop();
    await this.gossip?.stop();
  }

  describe(queue: Pick<Queue, 'countClaimsOf'>): Promise<Record<string, unknown>[]> {
    const { membership, leases } = this;
    return describeNodes({ nodes: membership.nodes(), shares: membership.shares('queue'), leases: leases.holders() }, queue);
  }

  #tellOfWork(): void {
    for (const listener of this.#changeListeners) listener();
  }

  #shareNews(bus: Bus): void {
    const { mail, settings, directory, queue, clock, bans, destinations, onChanged } = this.#stores;
    const { leases, gossip } = this;
    this.#unsubscribe.push(
      mail.onLocalChange((change) => bus.announceChange(change)),
      bus.onChange((change) => mail.heard(change)),
      bus.onMissed(() => mail.recheckWatched()),
      bus.follow({
        name: 'settings',
        read: async (reads) => String(decodeHead(await reads.get(headKey)).generation),
        onChanged: () => settings.refresh(),
      }),
      bus.follow({
        name: 'directory',
        read: async (reads) => String(await readGeneration(reads)),
        onChanged: () => directory.changedElsewhere(),
      }),
      bus.follow(leases.source),
      ...(bans ? [bus.follow(generations('bans', bans))] : []),
      ...(destinations ? [bus.follow(generations('destinations', destinations))] : []),
      leases.onChange(() => bus.raised(leases.source.name)),
      onChanged((what) => bus.raised(what)),
    );
    if (gossip) this.#unsubscribe.push(shareQueueHints({ gossip, queue, clock, onHint: () => this.#tellOfWork() }));
    bus.start();
  }
}
