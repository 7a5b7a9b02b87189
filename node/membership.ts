/** This node as a member of the cluster: what it says of itself, what others free when it dies, what it refuses, and how operators see the others. */
import type { Gossip } from '../cluster/gossip/contract.js';
import type { LeaseHolder } from '../cluster/leases/index.js';
import { createMembership, type FailureTiming, type Membership, type NodeView } from '../cluster/membership/index.js';
import type { Logger } from '../ops/telemetry/index.js';
import { type Queue, type QueueShare, shardOwners } from '../store/queue/index.js';
import { machineClockOf } from './cluster-clock.js';
import type { Config } from './config/schema.js';
import { refuseHalfStores, type Stores } from './stores.js';
import { version } from './version.js';

/** The newest format of each kind of record that this software reads (TRAPS 23). */
export const readableFormats: Readonly<Record<string, number>> = { node: 2, lease: 1, queue: 1, mail: 2, blob: 2, directory: 1 };

/** Claims in a list of nodes are counted up to this. */
const maxCountedClaims = 10_000;

export interface NodeMembershipOptions {
  config: Pick<Config, 'hostname' | 'listeners' | 'roles'>;
  stores: Pick<Stores, 'kv' | 'clock' | 'random' | 'queue'>;
  logger: Logger;
  node: { nodeId: string; incarnation: number };
  /** Started. Without it the store alone tells who lives. */
  gossip?: Gossip | undefined;
  timing?: FailureTiming;
  onFenced?: () => void;
}

/** Not joined yet. */
export function createNodeMembership(options: NodeMembershipOptions): Membership {
  const { config, stores, logger, node, gossip, timing, onFenced } = options;
  const { kv, clock, random, queue } = stores;
  const addresses = config.listeners.map(({ name, protocol, host, port }) => ({ name, protocol, host, port }));
  return createMembership({
    kv,
    // It compares clocks.
    clock: machineClockOf(clock),
    random,
    logger: logger.child({ room: 'membership' }),
    ...node,
    self: {
      hostname: config.hostname,
      addresses,
      roles: config.roles,
      version,
      formats: readableFormats,
      ...(gossip && { gossip: gossip.identity }),
    },
    ...(gossip && { gossip }),
    ...(timing && { timing }),
    claims: {
      release: (nodeId) => queue.releaseClaimsOf(nodeId, Math.floor(clock.nowMs() / 1000)),
      holders: () => queue.claimHolders(),
    },
    precondition: refuseHalfStores,
    onFenced,
  });
}

/** Why a node that stands like this takes on nothing; undefined when it may. */
export function reasonToRefuse({
  standing,
  heartbeatAgeMs,
}: Pick<Membership, 'standing' | 'heartbeatAgeMs'>): string | undefined {
  if (standing === 'storeless') return `No heartbeat has come through to the store for ${Math.round(heartbeatAgeMs / 1000)} s.`;
  if (standing === 'fenced') return 'Another node has declared this one dead; it is stopping.';
  return undefined;
}

/** Why what is accepted now could not be kept; one sentence each. Mail that is longer than a threshold goes where the settings say, and that is asked too. */
export async function storeProblems({
  kv,
  blobs,
}: Pick<Stores, 'kv'> & { blobs: Pick<Stores['blobs'], 'check'> }): Promise<string[]> {
  const problem = (sentence: string) => (error: unknown) => `${sentence}: ${(error as Error).message}`;
  const found = await Promise.all([
    kv.check().then(() => undefined, problem("The store can't be written")),
    blobs.check().then(() => undefined, problem("The storage of large messages can't be used")),
  ]);
  return found.filter((sentence) => sentence !== undefined);
}

/** What the cluster's rooms on this node know; see `describeNodes`. */
export interface ClusterView {
  nodes: readonly NodeView[];
  /** Of the queue. */
  shares: readonly QueueShare[];
  leases: readonly LeaseHolder[];
}

const tenths = (ms: number) => Math.round(ms / 100) / 10;
const place = (host: string, port: number) => `${host.includes(':') ? `[${host}]` : host}:${port}`;

/** The nodes as operators see them: the one that was asked first. */
export async function describeNodes(
  { nodes, shares, leases }: ClusterView,
  queue: Pick<Queue, 'countClaimsOf'>,
): Promise<Record<string, unknown>[]> {
  const owners = shardOwners(shares);
  return Promise.all(
    nodes.map(async ({ nodeId, isSelf, health, verdict, phi, gossipAgeMs, row, heartbeatAgeMs, clockSkewMs }) => ({
      id: nodeId,
      isThisNode: isSelf,
      hostname: row?.hostname ?? null,
      state: row?.state ?? 'unreadable',
      verdict,
      health,
      phi: phi === undefined ? null : Math.round(phi * 100) / 100,
      gossipAgeSeconds: gossipAgeMs === undefined ? null : tenths(gossipAgeMs),
      heartbeatAgeSeconds: tenths(heartbeatAgeMs),
      clockSkewSeconds: clockSkewMs === undefined ? null : tenths(clockSkewMs),
      shards: owners.filter((owner) => owner === nodeId).length,
      isCutOff: shares.some((share) => share.nodeId === nodeId && share.keptAmong !== undefined),
      claims: await queue.countClaimsOf(nodeId, maxCountedClaims),
      leases: leases.filter((lease) => lease.nodeId === nodeId).map(({ job, epoch }) => ({ job, epoch })),
      version: row?.version ?? null,
      startedAt: row ? new Date(row.startedAtMs).toISOString() : null,
      roles: row?.roles ?? [],
      addresses: (row?.addresses ?? []).map(({ name, host, port }) => `${name} ${place(host, port)}`),
      gossipAddresses: (row?.gossip?.addresses ?? []).map(({ host, port }) => place(host, port)),
    })),
  );
}
