/**
 * Several nodes on one shared store, for scenarios and benchmarks: a PostgreSQL of their own, if wanted behind a proxy, and N nodes that are started as
 * their users start them. Node k's ports are node 0's + 1000 k, as with `npm run cluster`.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { basePorts, type NodeOptions, NodeProcess, type PortName } from './node-process.js';
import { freePortOffset } from './ports.js';
import { PostgresServer, type PostgresServerOptions } from './postgres-server.js';
import { waitFor } from './processes.js';
import { TcpProxy } from './tcp-proxy.js';

const portStep = 1_000;
const clusterKeyBytes = 32;

export interface ClusterOptions {
  /** Default 3. */
  nodes?: number;
  postgres?: PostgresServerOptions;
  /** The nodes reach the server through `cluster.proxy`. */
  isProxied?: boolean;
  /** TOML for every node, as in `NodeOptions`. */
  settings?: string;
  /** TOML of cluster-wide settings for the first start. */
  clusterSettings?: string;
  /** Of node `index`, over what the others have. */
  nodeOptions?: (index: number) => Partial<NodeOptions>;
}

export class Cluster {
  private constructor(
    readonly server: PostgresServer,
    private readonly proxyOrNone: TcpProxy | undefined,
    readonly nodes: readonly NodeProcess[],
    private readonly folder: string,
    /** As `STARLING_STORE` of the nodes has it. */
    readonly storeAddress: string,
    /** Where all nodes have the cluster key from. */
    readonly keyFile: string,
  ) {}

  /** Resolves when all nodes are ready: the first one alone, then the others side by side. */
  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    const count = options.nodes ?? 3;
    const folder = mkdtempSync(join(tmpdir(), 'starling-cluster-'));
    const keyFile = join(folder, 'cluster.key');
    writeFileSync(keyFile, `${randomBytes(clusterKeyBytes).toString('base64')}\n`, { mode: 0o600 });
    const server = await PostgresServer.start(options.postgres ?? {});
    const proxy = options.isProxied ? await TcpProxy.start({ host: '127.0.0.1', port: server.port }) : undefined;
    const nodes: NodeProcess[] = [];
    const address = server.url().replace(`:${server.port}/`, `:${proxy?.port ?? server.port}/`);
    const cluster = new Cluster(server, proxy, nodes, folder, address, keyFile);
    try {
      const indexes = Array.from({ length: count }, (_, index) => index);
      const ports = indexes.flatMap((index) => Object.values(basePorts).map((port) => port + index * portStep));
      const portOffset = await freePortOffset(ports);
      const startNode = async (index: number) => {
        const own = options.nodeOptions?.(index) ?? {};
        const data = join(folder, `node-${index}`);
        mkdirSync(data);
        nodes[index] = await NodeProcess.start({
          settings: options.settings,
          clusterSettings: options.clusterSettings,
          data,
          portOffset: portOffset + index * portStep,
          quickstartArguments: ['--cluster-key-file', keyFile],
          ...own,
          env: { STARLING_STORE: address, ...own.env },
        });
      };
      await startNode(0);
      const others = await Promise.allSettled(indexes.slice(1).map(startNode));
      const failed = others.find((result) => result.status === 'rejected');
      if (failed) throw failed.reason;
      return cluster;
    } catch (error) {
      await cluster.remove();
      throw error;
    }
  }

  node(index: number): NodeProcess {
    const node = this.nodes[index];
    if (!node) throw new RangeError(`there is no node ${index}`);
    return node;
  }

  /** Between the nodes and the server. */
  get proxy(): TcpProxy {
    if (!this.proxyOrNone) throw new Error('this cluster has no proxy');
    return this.proxyOrNone;
  }

  /** Of all nodes, in their order. */
  ports(name: PortName): number[] {
    return this.nodes.map((node) => node.port(name));
  }

  /** Waits until every node says that it is ready. */
  async untilReady(timeoutMs = 60_000): Promise<void> {
    let reasons: string[][] = [];
    await waitFor('all nodes to be ready', timeoutMs, async () => {
      reasons = await Promise.all(this.nodes.map((node) => node.reasonsNotReady()));
      return reasons.every(({ length }) => length === 0);
    }).catch((error: unknown) => {
      throw new Error(`${(error as Error).message}: ${JSON.stringify(reasons)}`);
    });
  }

  /** Waits until nothing is queued any more. */
  untilQueueEmpty(timeoutMs?: number): Promise<void> {
    return this.node(0).untilQueueEmpty(timeoutMs);
  }

  /** Sum over all nodes. */
  async metric(name: string, labels: Record<string, string> = {}): Promise<number> {
    const values = await Promise.all(this.nodes.map((node) => node.metric(name, labels)));
    return values.reduce((sum, value) => sum + value, 0);
  }

  /** Ends everything at once and deletes it. */
  async remove(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node?.remove()));
    await this.proxyOrNone?.stop();
    await this.server.remove();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
