/** The cluster of a chaos run: PostgreSQL and nodes in their places, in one folder named after this process, gone when it ends, however it ends. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ChaosNode, type ChaosNodeOptions } from './chaos-node.js';
import { LoopbackNetwork } from './loopback.js';
import { NamespaceNetwork } from './namespaces.js';
import type { Network } from './network.js';
import { repositoryRoot } from './node-process.js';
import { PostgresServer } from './postgres-server.js';
import { runCommand, waitFor } from './processes.js';

const folderPrefix = 'starling-chaos-';
const clusterKeyBytes = 32;
const connectionsPerNode = 60;
const reachMs = 30_000;
/** Nodes that may join later need ports of their own. */
const spareNodes = 1;

export interface ChaosClusterOptions {
  harness: Network['kind'];
  nodes: number;
  /** Root of the built checkout that the nodes start from. Default: this one. */
  checkout?: string;
  /** TOML for a first start, given the address of this process as the nodes see it. */
  clusterSettings?(outsideHost: string): Promise<string>;
  envOf?(index: number): NodeJS.ProcessEnv | undefined;
  /** Node `index` has its data on a file system of this size. Needs root. */
  smallDisk?: { index: number; megabytes: number };
  onLine?: ChaosNodeOptions['onLine'];
  onEnd?: ChaosNodeOptions['onEnd'];
}

export class ChaosCluster {
  readonly password = 'correct-horse-battery';
  readonly nodes: ChaosNode[] = [];
  /** With those that are not ready yet. */
  readonly #made: ChaosNode[] = [];
  readonly #mounted: string[] = [];
  readonly #onExit = () => this.#removeFolder();

  private constructor(
    private readonly options: ChaosClusterOptions,
    readonly network: Network,
    readonly server: PostgresServer,
    readonly folder: string,
  ) {
    process.on('exit', this.#onExit);
  }

  /** The network and the store; no node runs yet. */
  static async start(options: ChaosClusterOptions): Promise<ChaosCluster> {
    removeLeftoverFolders();
    const folder = mkdtempSync(join(tmpdir(), `${folderPrefix}${process.pid}-`));
    chmodSync(folder, 0o755);
    const count = options.nodes + spareNodes;
    let network: Network | undefined;
    let server: PostgresServer | undefined;
    try {
      network = options.harness === 'namespaces' ? await NamespaceNetwork.start() : await LoopbackNetwork.start(count);
      const accessFile = join(folder, 'pg_hba.conf');
      const trusted = [...new Set(['127.0.0.1/32', network.store.trustedRange])];
      writeFileSync(accessFile, trusted.map((range) => `host all all ${range} trust\n`).join(''));
      const settings = {
        listen_addresses: network.store.listenAddresses,
        hba_file: accessFile,
        max_connections: String(20 + connectionsPerNode * count),
      };
      server = await PostgresServer.start({ folder, settings, ownGroup: true });
      const cluster = new ChaosCluster(options, network, server, folder);
      writeFileSync(cluster.#keyFile, `${randomBytes(clusterKeyBytes).toString('base64')}\n`, { mode: 0o600 });
      if (options.clusterSettings) writeFileSync(cluster.#settingsFile, await options.clusterSettings(network.outsideHost));
      return cluster;
    } catch (error) {
      await network?.remove();
      await server?.stop('immediate');
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  get #keyFile(): string {
    return join(this.folder, 'cluster.key');
  }

  get #settingsFile(): string {
    return join(this.folder, 'settings.toml');
  }

  /** Starts all nodes: the first one alone, then the others side by side. */
  async startNodes(): Promise<void> {
    await this.addNode();
    await Promise.all(Array.from({ length: this.options.nodes - 1 }, () => this.addNode()));
    await this.#mustReachOneAnother();
  }

  /** Lines that don't carry anything from the start would make every partition a success. */
  async #mustReachOneAnother(): Promise<void> {
    const pairs = this.nodes.flatMap((from) => this.nodes.map((to) => ({ from, to })));
    await Promise.all(
      pairs
        .filter(({ from, to }) => from !== to)
        .map(({ from, to }) => {
          const what = `node ${from.index} to reach node ${to.index}; something on this machine may keep them apart`;
          return waitFor(what, reachMs, () => this.network.reaches(from.index, to.host, to.port('http')));
        }),
    );
  }

  /** One more node, which is among `nodes` from when it is ready. */
  async addNode(): Promise<ChaosNode> {
    const index = this.#made.length;
    const data = join(this.folder, `node-${index}`);
    const node = this.#makeNode(index, data);
    this.#made.push(node);
    const { place, store } = await this.#whereabouts(index);
    node.settle(place, store);
    const { smallDisk } = this.options;
    if (smallDisk?.index === index) await this.#mount(data, smallDisk.megabytes);
    await node.start();
    this.nodes[index] = node;
    return node;
  }

  async #whereabouts(index: number) {
    const place = await this.network.place(index);
    const { host, port } = await this.network.storeFor(index, this.server.port);
    return { place, store: this.server.url().replace(`127.0.0.1:${this.server.port}`, `${host}:${port}`) };
  }

  #makeNode(index: number, data: string): ChaosNode {
    const { options, password } = this;
    return new ChaosNode({
      index,
      data,
      checkout: options.checkout ?? repositoryRoot,
      password,
      clusterKeyFile: this.#keyFile,
      clusterSettingsFile: options.clusterSettings ? this.#settingsFile : undefined,
      logFile: join(this.folder, `node-${index}.log`),
      env: options.envOf?.(index),
      onLine: options.onLine,
      onEnd: options.onEnd,
    });
  }

  async #mount(path: string, megabytes: number): Promise<void> {
    mkdirSync(path, { recursive: true });
    const { code, stderr } = await runCommand('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', path]);
    if (code !== 0) throw new Error(`can't mount a small disk: ${stderr.trim()}`);
    this.#mounted.push(path);
  }

  node(index: number): ChaosNode {
    const node = this.nodes[index];
    if (!node) throw new RangeError(`there is no node ${index}`);
    return node;
  }

  /** Ends everything at once and deletes it; what the nodes have logged can be moved to another folder. */
  async remove(logsTo?: string): Promise<void> {
    await Promise.all(this.#made.map((node) => node.remove()));
    await this.network.remove();
    await this.server.stop('immediate');
    process.off('exit', this.#onExit);
    for (const name of logsTo === undefined ? [] : readdirSync(this.folder).filter((file) => file.endsWith('.log')))
      copyFileSync(join(this.folder, name), join(logsTo!, name));
    this.#removeFolder();
  }

  #removeFolder(): void {
    for (const path of this.#mounted.splice(0)) spawnSync('umount', ['-l', path]);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Ends what processes that are gone have left running, and deletes their folders. Answers how many folders there were. */
export function removeLeftoverFolders(): number {
  let removed = 0;
  for (const name of readdirSync(tmpdir())) {
    const pid = new RegExp(`^${folderPrefix}(\\d+)-`).exec(name)?.[1];
    if (pid === undefined || isAlive(Number(pid))) continue;
    const folder = join(tmpdir(), name);
    for (const left of processesNaming(`${folder}/`)) process.kill(left, 'SIGKILL');
    for (const line of readFileSync('/proc/mounts', 'utf8').split('\n')) {
      const path = line.split(' ')[1];
      if (path?.startsWith(`${folder}/`)) spawnSync('umount', ['-l', path]);
    }
    rmSync(folder, { recursive: true, force: true });
    removed++;
  }
  return removed;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Processes with this text among their arguments. */
function processesNaming(text: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(text);
      } catch {
        return false; // it has ended meanwhile
      }
    })
    .map(Number);
}
