/** This node as a member of the cluster: what it says of itself, what others free when it dies, and the jobs that one node does for all. */
import { createLeaderLeases, type LeaderLeases } from '../cluster/leases/index.js';
import { createMembership, type Membership, type NodeView } from '../cluster/membership/index.js';
import type { Logger } from '../ops/telemetry/index.js';
import type { Queue } from '../store/queue/index.js';
import type { Config } from './config/schema.js';
import { refuseHalfStores, type Stores } from './stores.js';
import { version } from './version.js';

/** The newest format of each kind of record that this software reads (TRAPS 23). */
export const readableFormats: Readonly<Record<string, number>> = { node: 2, lease: 1, queue: 1, mail: 1, blob: 1, directory: 1 };

/** Claims in a list of nodes are counted up to this. */
const maxCountedClaims = 10_000;

export interface NodeMembershipOptions {
  config: Pick<Config, 'hostname' | 'listeners' | 'roles'>;
  stores: Pick<Stores, 'kv' | 'clock' | 'random' | 'queue'>;
  logger: Logger;
  node: { nodeId: string; incarnation: number };
  onFenced?: () => void;
}

/** Not joined yet. */
export function createNodeMembership({ config, stores, logger, node, onFenced }: NodeMembershipOptions): Membership {
  const { kv, clock, random, queue } = stores;
  const addresses = config.listeners.map(({ name, protocol, host, port }) => ({ name, protocol, host, port }));
  return createMembership({
    kv,
    clock,
    random,
    logger: logger.child({ room: 'membership' }),
    ...node,
    self: {
      hostname: config.hostname,
      addresses,
      roles: config.roles,
      version,
      formats: readableFormats,
    },
    claims: {
      release: (nodeId) => queue.releaseClaimsOf(nodeId, Math.floor(clock.nowMs() / 1000)),
      holders: () => queue.claimHolders(),
    },
    precondition: refuseHalfStores,
    onFenced,
  });
}

/** Leases of the jobs that one node does for all. Not started yet. */
export function createNodeLeases(stores: Pick<Stores, 'kv' | 'clock'>, logger: Logger, nodeId: string): LeaderLeases {
  return createLeaderLeases({ kv: stores.kv, clock: stores.clock, logger: logger.child({ room: 'leases' }), nodeId });
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

/** The nodes as operators see them: the one that was asked first. */
export async function describeNodes(nodes: readonly NodeView[], queue: Queue): Promise<Record<string, unknown>[]> {
  return Promise.all(
    nodes.map(async ({ nodeId, isSelf, health, row, heartbeatAgeMs, clockSkewMs }) => ({
      id: nodeId,
      isThisNode: isSelf,
      hostname: row?.hostname ?? null,
      state: row?.state ?? 'unreadable',
      health,
      heartbeatAgeSeconds: Math.round(heartbeatAgeMs / 100) / 10,
      clockSkewSeconds: clockSkewMs === undefined ? null : Math.round(clockSkewMs / 100) / 10,
      claims: await queue.countClaimsOf(nodeId, maxCountedClaims),
      version: row?.version ?? null,
      startedAt: row ? new Date(row.startedAtMs).toISOString() : null,
      roles: row?.roles ?? [],
      addresses: (row?.addresses ?? []).map(
        ({ name, host, port }) => `${name} ${host.includes(':') ? `[${host}]` : host}:${port}`,
      ),
    })),
  );
}
