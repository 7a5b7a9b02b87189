/**
 * One node, put together: opens the store, starts the queue runner, opens the listeners, and takes all of it down again in the order that loses
 * nothing: unready first, no new work, what runs is finished or handed back, then the store is closed.
 */
import { readFileSync } from 'node:fs';
import { hostname as machineName } from 'node:os';
import { join } from 'node:path';
import type { LeaderLease } from '../cluster/leases/index.js';
import { NodeIdTaken } from '../cluster/membership/index.js';
import { enableProcessMetrics, gauge, type Logger } from '../ops/telemetry/index.js';
import { HttpServer, Router, type TlsCertificate, verifyCertificate } from '../protocols/http/index.js';
import { scramIterations, scramSaltBytes } from '../store/directory/index.js';
import { KvError } from '../store/kv/index.js';
import { type ControlServer, maxSocketPathBytes, startControlServer } from './api/control.js';
import { type Readiness, registerHealth, registerMetrics } from './api/health.js';
import type { NodeFace } from './api/operations.js';
import { type NodeCluster, openNodeCluster } from './cluster.js';
import type { Config } from './config/schema.js';
import { forgetExpired } from './forgetting.js';
import { installationSecret } from './installation.js';
import { LineListeners } from './line-listeners.js';
import { CertificateStore, loadOrMakeSelfSigned, trustedProxies } from './listeners/index.js';
import { createMailRooms } from './mail-rooms.js';
import type { Delivery, Receiver } from './mailflow/index.js';
import { reasonToRefuse, storeProblems } from './membership.js';
import { createIndexer, createPurger, eventLoopLoad, type Indexer, type Purger, type QueueRunner } from './services/index.js';
import { type FirstSettings, indexingSettings } from './settings/index.js';
import { StartError } from './start-error.js';
import { openStores, type Stores } from './stores.js';
import { turnAwayWhileStoreless } from './turn-away.js';
import { version } from './version.js';

const nodeInfo = gauge('starling_node_info', 'Always 1; what this node is, in its labels.', ['version', 'backend']);
const nodeDraining = gauge('starling_draining', '1 while this node takes no new work.');

/** For what is left of a drain after its time: last replies, files. */
const stopGraceMs = 10_000;
/** Deliveries in hand beyond which background work takes longer rests. */
const busyClaims = 50;
/** For the last reply of a session that did not end in time. */
const partingMs = 500;
/** For giving back row, fence, claims and leases; what is left then, the others find. */
const leaveMs = 5_000;

export interface RunningNode {
  readonly stores: Stores;
  /** From now on `/health/ready` may say yes. */
  setReady(): void;
  /** Begins the drain; harmless to call again. */
  drain(): void;
  /** Resolves when the node has stopped and its store is closed. */
  readonly stopped: Promise<void>;
  /** Another node has declared this one dead: it stops by itself, and whoever supervises the process should start it again. */
  readonly isFenced: boolean;
}

export interface StartOptions {
  logger: Logger;
  /** Unready until `setReady`. */
  isHeldBack?: boolean;
  /** The cluster's settings, if this is the first start of an installation. */
  firstSettings?: FirstSettings;
  /** Ends the wait for a store that can't be reached; `startNode` throws its reason then. */
  signal?: AbortSignal;
}

/** Starts a node. Throws `StartError` with a sentence for its operator. */
export async function startNode(config: Config, options: StartOptions): Promise<RunningNode> {
  const { logger } = options;
  enableProcessMetrics();
  const controlPath = join(config.data, 'control.sock');
  if (Buffer.byteLength(controlPath) > maxSocketPathBytes)
    throw new StartError(
      `the path ${controlPath} is longer than the ${maxSocketPathBytes} bytes that a socket may have: choose a shorter data directory`,
    );
  const stores = await openStores(config, { logger, firstSettings: options.firstSettings, waiting: { signal: options.signal } });
  let cluster: NodeCluster | undefined;
  let node: Node | undefined;
  try {
    cluster = await openNodeCluster({ config, stores, logger });
    node = new Node(config, stores, cluster, logger);
    await node.start(await certificateFor(config, logger));
    if (!options.isHeldBack) node.setReady();
    return node;
  } catch (error) {
    if (node) await node.abandon();
    else {
      await cluster?.close();
      await stores.close();
    }
    if (error instanceof KvError || error instanceof NodeIdTaken || isListenError(error))
      throw new StartError((error as Error).message, { cause: error });
    throw error;
  }
}

const isListenError = (error: unknown) => error instanceof Error && /cannot listen on/.test(error.message);

/** A certificate that can't be had, or doesn't work with its key, is a sentence for the operator. */
async function certificateFor(config: Config, logger: Logger): Promise<TlsCertificate> {
  try {
    return verifyCertificate(await nodeCertificate(config, logger));
  } catch (error) {
    throw new StartError(`can't use the certificate: ${(error as Error).message}`, { cause: error });
  }
}

async function nodeCertificate(config: Config, logger: Logger): Promise<TlsCertificate> {
  const { certificateFile, privateKeyFile } = config.tls;
  if (certificateFile === undefined || privateKeyFile === undefined) {
    const names = [...new Set([config.hostname, 'localhost', machineName(), '127.0.0.1'])].filter((name) =>
      /^[a-z0-9.-]+$/i.test(name),
    );
    return loadOrMakeSelfSigned(join(config.data, 'tls'), { names, logger });
  }
  const certificateChainPem = readFileSync(certificateFile, 'utf8');
  return { certificateChainPem, privateKeyPem: readFileSync(privateKeyFile, 'utf8'), names: [config.hostname] };
}

class Node implements RunningNode {
  readonly stopped: Promise<void>;
  readonly #startedAtMs: number;
  readonly #certificates: CertificateStore;
  readonly #delivery: Delivery;
  readonly #runner: QueueRunner;
  readonly #receiver: Receiver;
  readonly #indexer: Indexer;
  readonly #purger: Purger;
  #endPurge: (() => Promise<void>) | undefined;
  readonly #router = new Router();
  #lines: LineListeners | undefined;
  #https: HttpServer[] = [];
  #control: ControlServer | undefined;
  #isStarted = false;
  #isReady = false;
  #isDraining = false;
  #finish!: () => void;

  constructor(
    readonly config: Config,
    readonly stores: Stores,
    readonly cluster: NodeCluster,
    readonly logger: Logger,
  ) {
    const { clock } = stores;
    this.stopped = new Promise((resolve) => {
      this.#finish = resolve;
    });
    this.#startedAtMs = clock.nowMs();
    this.#certificates = new CertificateStore({ logger });
    const { delivery, runner, receiver } = createMailRooms(config, stores, cluster, logger);
    this.#delivery = delivery;
    this.#runner = runner;
    this.#receiver = receiver;
    this.#indexer = createIndexer({
      ...stores,
      logger,
      settings: () => indexingSettings(stores.settings.current),
      shares: () => cluster.membership.shares('queue'),
      mayWork: () => cluster.membership.standing === 'joined',
      isBusy: () => runner.size > busyClaims,
      load: eventLoopLoad(),
    });
    this.#purger = createPurger({ ...stores, settings: {}, logger });
    this.#heedCluster();
  }

  get isFenced(): boolean {
    return this.cluster.isFenced;
  }

  #heedCluster(): void {
    const { cluster, logger } = this;
    // Whoever declared this node dead has its claims: it must not go on taking mail that it can't deliver.
    cluster.onFenced(() => {
      logger.fatal({ nodeId: cluster.nodeId }, 'another node has declared this one dead; stopping');
      // Others have begun on the same deliveries: what a remote host has not taken yet must not be sent from here as well.
      void this.#runner.stop();
      this.drain();
    });
    cluster.onWork(() => this.#runner.wake());
    cluster.membership.onDrainRequested(() => {
      logger.info({ nodeId: cluster.nodeId }, 'an operator wants this node to drain');
      this.drain();
    });
  }

  async start(certificate: TlsCertificate): Promise<void> {
    const { config, stores, cluster, logger } = this;
    this.#certificates.replace([certificate]);
    const fakeSaltKey = await installationSecret(stores.kv, 'scram-fake-salt', stores.random);
    await cluster.join();
    stores.ownAddresses.follow({ config, membership: cluster.membership, logger });
    await Promise.all([stores.bans.start(), stores.destinations.start()]);
    if (this.isFenced) throw new StartError('another node has declared this one dead while it was starting');
    if (config.roles.includes('queue')) {
      this.#runner.start();
      this.#indexer.start();
    }
    stores.settings.follow();
    this.#receiver.start();
    const { intervalMs } = this.#purger;
    this.#endPurge = cluster.leases.whileLeader('purge', (...job) => this.#purge(...job), { pauseMs: intervalMs });
    this.#lines = new LineListeners({
      config,
      stores,
      certificates: this.#certificates,
      smtpHandler: this.#receiver.handler,
      sasl: this.#receiver.handler.authBackend!,
      reasonToRefuse: () => reasonToRefuse(cluster.membership),
      // As real secrets are, so that a fake challenge gives nothing away (RFC 5802).
      scram: { iterations: scramIterations, saltBytes: scramSaltBytes, fakeSaltKey },
      logger,
    });
    stores.bans.onBanned(() => this.#lines?.cutBanned());
    turnAwayWhileStoreless({ membership: cluster.membership, sessions: this.#lines.sessions, clock: stores.clock, logger });
    await this.#lines.listen();
    await this.#startHttp();
    this.#control = await startControlServer(join(config.data, 'control.sock'), { stores, node: this.#face() }, logger);
    nodeInfo.set({ version, backend: stores.kv.backend }, 1);
    const gossip = cluster.gossip?.identity.addresses.map(({ host, port }) => `${host}:${port}`);
    logger.info(
      { nodeId: cluster.nodeId, listeners: config.listeners.map(({ name, port }) => `${name}:${port}`), gossip },
      'node started',
    );
    this.#isStarted = true;
    if (this.#isDraining) this.#end();
  }

  async #purge(epoch: number, signal: AbortSignal, lease: LeaderLease): Promise<void> {
    const { stores } = this;
    await this.#purger.work(epoch, signal, lease);
    const keepHistoryDays = () => stores.settings.current.queue.keepHistoryDays;
    await forgetExpired({ ...stores, keepHistoryDays }, (reads) => lease.assert(reads), signal);
  }

  /** After a start that failed half-way: lets go of everything. */
  async abandon(): Promise<void> {
    await Promise.all([this.#runner.stop(), this.#indexer.stop(), this.#endPurge?.(), this.#lines?.close()]);
    this.#delivery.close();
    await this.#leave();
    await Promise.all(this.#https.map((server) => server.stop(0)));
    await this.stores.close();
  }

  setReady(): void {
    this.#isReady = true;
    if (!this.#isDraining) void this.cluster.membership.setState('ready');
  }

  drain(): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    nodeDraining.set(1);
    // Asked for in the middle of the start: what is being opened can be closed when it is open.
    if (this.#isStarted) this.#end();
  }

  #end(): void {
    const giveUp = (error: unknown) => {
      this.logger.fatal({ err: error }, 'the node could not stop in good order');
      process.exit(1);
    };
    // Everything below has its own deadline; this one is for a disk or a library that never answers.
    const { clock } = this.stores;
    const lastMs = this.config.drainTimeoutSeconds * 1000 + stopGraceMs;
    clock.setTimer(lastMs, () => giveUp(new Error(`not stopped within ${lastMs} ms`)), { background: true });
    this.#stop().then(this.#finish, giveUp);
  }

  async #startHttp(): Promise<void> {
    const { config, logger } = this;
    registerHealth(this.#router, { probe: () => this.#probe(), isDraining: () => this.#isDraining, logger });
    registerMetrics(this.#router);
    for (const { name, host, port, protocol, tls, maxConnections, proxyProtocol } of config.listeners) {
      if (protocol !== 'http' || !config.roles.includes('http')) continue;
      const isTls = tls === 'implicit';
      const server = new HttpServer({
        name,
        host,
        port,
        logger: logger.child({ listener: name }),
        router: this.#router,
        maxConnections,
        ...(proxyProtocol ? { proxyProtocol: trustedProxies(proxyProtocol) } : {}),
        ...(isTls ? { tls: { certificates: this.#certificates.certificates } } : {}),
      });
      if (isTls) this.#certificates.onChange((certificates) => server.setCertificates(certificates));
      this.#https.push(server);
      await server.listen();
    }
  }

  async #probe(): Promise<Readiness> {
    if (!this.#isReady) return { ready: false, reasons: ['The node is starting.'] };
    const refusal = reasonToRefuse(this.cluster.membership);
    if (refusal !== undefined) return { ready: false, reasons: [refusal] };
    const reasons = await storeProblems(this.stores);
    return { ready: reasons.length === 0, reasons };
  }

  async #stop(): Promise<void> {
    const { clock } = this.stores;
    const budgetMs = this.config.drainTimeoutSeconds * 1000;
    const startMs = clock.monotonicMs();
    const deadlineMs = startMs + budgetMs;
    this.logger.info({ sessions: this.#lines?.sessions.size, claims: this.#runner.size }, 'draining');
    this.#lines?.stopAccepting();
    await Promise.all([
      // The others take its share of the work from here on; its claims stay its own until it leaves.
      this.#within(deadlineMs, this.cluster.membership.setState('draining')),
      this.#receiver.drain(deadlineMs),
      this.#within(deadlineMs, this.#lines?.sessions.drain()),
      this.#runner.drain(deadlineMs),
      this.#within(deadlineMs, this.#indexer.stop()),
      this.#within(deadlineMs, this.cluster.leases.release()),
    ]);
    // Who used up the time hears of it, too.
    await this.#within(clock.monotonicMs() + partingMs, this.#lines?.sessions.stop());
    await this.#lines?.close();
    this.#delivery.close();
    await this.#leave();
    // Last of all, so that balancers and operators can watch the drain.
    await Promise.all(this.#https.map((server) => server.stop(1_000)));
    await this.#control?.close();
    await this.stores.close();
    this.logger.info({ milliseconds: Math.round(clock.monotonicMs() - startMs) }, 'stopped');
  }

  /** What can't be given back in time is left for the others to find; whatever happens, nothing is said over gossip any more. */
  async #leave(): Promise<void> {
    const { clock } = this.stores;
    await this.#within(clock.monotonicMs() + leaveMs, this.cluster.leave());
    await this.#within(clock.monotonicMs() + partingMs, this.cluster.close());
  }

  /** Waits for `work`, but no longer than until the deadline. */
  async #within(deadlineMs: number, work: Promise<unknown> | undefined): Promise<void> {
    const { clock } = this.stores;
    const over = new AbortController();
    const late = clock.sleep(Math.max(0, deadlineMs - clock.monotonicMs()), over.signal).catch(() => undefined);
    await Promise.race([work, late]);
    over.abort();
  }

  #face(): NodeFace {
    return {
      describe: async () => ({
        id: this.cluster.nodeId,
        hostname: this.config.hostname,
        pid: process.pid,
        version,
        node: process.version,
        store: this.stores.kv.backend,
        startedAt: new Date(this.#startedAtMs).toISOString(),
        state: this.#isDraining ? 'draining' : this.#isReady ? 'ready' : 'starting',
        sessions: this.#lines?.sessions.size ?? 0,
        claims: this.#runner.size,
        residentBytes: process.memoryUsage.rss(),
      }),
      nodes: () => this.cluster.describe(this.stores.queue),
      drain: () => this.drain(),
      requestDrain: (nodeId) => this.cluster.membership.requestDrain(nodeId),
      certificates: () =>
        this.#certificates.certificates.map(({ names, notBeforeMs, notAfterMs }) => ({
          names,
          notBefore: new Date(notBeforeMs).toISOString(),
          notAfter: new Date(notAfterMs).toISOString(),
        })),
    };
  }
}
