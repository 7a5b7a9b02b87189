/** The rooms that mail goes through on one node, with all that they ask of others: accepting, the queue's runner, delivery. */

import type { Logger } from '../ops/telemetry/index.js';
import { SystemResolver } from '../protocols/dns/index.js';
import type { SaslBackend } from '../protocols/sasl/contract.js';
import { createLoginGuard } from './abuse/index.js';
import { createSaslBackend } from './authentication.js';
import type { NodeCluster } from './cluster.js';
import type { Config } from './config/schema.js';
import { createExpressionHost } from './expression-host.js';
import {
  createDelivery,
  createDirectDelivery,
  createReceiver,
  type Delivery,
  deadlineSecondsOf,
  type Receiver,
} from './mailflow/index.js';
import { createTokenVerifier } from './oauth-tokens/index.js';
import { ownEndpoints } from './own-endpoints.js';
import { createQueueRunner, type QueueRunner } from './services/index.js';
import { type ClusterSettings, liveAcceptStages } from './settings/index.js';
import { liveMailflowSettings } from './settings/mailflow.js';
import { virtualQueues } from './settings/queue.js';
import type { Stores } from './stores.js';

export interface MailRooms {
  delivery: Delivery;
  runner: QueueRunner;
  receiver: Receiver;
}

/** Nothing is started. */
export function createMailRooms(config: Config, stores: Stores, cluster: NodeCluster, logger: Logger): MailRooms {
  const { clock, random } = stores;
  const settings = liveMailflowSettings(stores.settings, config.hostname);
  const { servers } = config.dns;
  const resolver = new SystemResolver(servers.length > 0 ? { servers } : {});
  const { limits, destinations, ownAddresses } = stores;
  const host = createExpressionHost({ ...stores, resolver, rates: limits.rates });
  const shared = { ...stores, logger, settings, resolver, host, limits };
  const { membership, nodeId } = cluster;
  const mayWork = () => membership.standing === 'joined';
  const delivery = createDelivery({
    ...shared,
    nodeId,
    maySend: mayWork,
    ownEndpoints: () => ownEndpoints(config, membership.nodes()),
  });
  const runner: QueueRunner = createQueueRunner({
    queue: stores.queue,
    node: cluster.node,
    clock,
    random,
    logger,
    deliver: (job, signal) => delivery.deliver(job, signal),
    putOff: (job, error) => delivery.putOff(job, error),
    destinations,
    deadlineSecondsOf: deadlineSecondsOf(settings),
    maxConcurrentTo: (domain) => delivery.pacer.limitOf(domain),
    shares: () => membership.shares('queue'),
    mayWork,
    onFenced: () => cluster.fenced(),
    limits: runnerLimits(stores.settings.current),
  });
  stores.settings.onChange((current) => runner.setLimits(runnerLimits(current)));
  const receiver = createReceiver({
    ...shared,
    nodeId,
    stages: liveAcceptStages(stores.settings, { logger, clock, host }),
    isOwnAddress: (address) => ownAddresses.has(address),
    direct: createDirectDelivery(shared),
    desk: runner,
    authBackend: saslBackend(stores, logger),
  });
  return { delivery, runner, receiver };
}

/** What the settings say of the runner. */
const runnerLimits = ({ outbound, queue }: Pick<ClusterSettings, 'outbound' | 'queue'>) => ({
  maxRemoteDeliveries: outbound.maxConcurrentDeliveries,
  queues: virtualQueues(queue),
});

/** Logins of all protocols. */
function saslBackend(stores: Stores, logger: Logger): SaslBackend {
  const { clock, limits, bans, directory, ownAddresses } = stores;
  const tokens = createTokenVerifier({ settings: () => stores.settings.opened('login'), clock, logger });
  const guard = createLoginGuard({
    rates: limits.rates,
    knownLogins: limits.knownLogins,
    bans,
    clock,
    logger,
    settings: () => stores.settings.current.abuse,
    isExempt: (address) => ownAddresses.has(address),
    isLogin: async (login) => (await directory.principal(login)) !== undefined,
  });
  return createSaslBackend(directory, logger, { clock, settings: () => stores.settings.current.login, tokens, guard });
}
