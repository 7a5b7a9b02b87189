/** One Starling node as a process, started as its users start it, reached only through its ports. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { askNode } from './control-socket.js';
import { freePortOffset } from './ports.js';
import { type CommandResult, GivenUp, runCommand, startProcess, waitFor } from './processes.js';

/** The repository's root, from sources and from dist/ alike. */
export const repositoryRoot = fileURLToPath(new URL(import.meta.url.includes('/dist/') ? '../../..' : '../..', import.meta.url));
/** What node runs for the `starling` command. */
export const starlingCommand = join(repositoryRoot, 'node', 'cli', 'starling.mjs');

/** The quickstart's ports without offset (README, "Ports"). */
export const basePorts = {
  smtp: 2525,
  submission: 2587,
  submissions: 2465,
  lmtp: 2424,
  imap: 2143,
  imaps: 2993,
  pop3: 2110,
  pop3s: 2995,
  http: 2080,
  https: 2443,
  /** Where the store is shared. */
  gossip: 2946,
};
export type PortName = keyof typeof basePorts;

export interface NodeOptions {
  /** Kept when given; otherwise a new folder that `remove` deletes. */
  data?: string;
  /** '' lets the node make its own. */
  password?: string;
  /** TOML for this node's local file; replaces sections of the quickstart's. */
  settings?: string;
  /** TOML of cluster-wide settings for the first start of an installation. */
  clusterSettings?: string;
  env?: NodeJS.ProcessEnv;
  /** Default: one under which all ports are free. */
  portOffset?: number;
  /** After the other arguments of `starling quickstart`. */
  quickstartArguments?: readonly string[];
}

const maxStartAttempts = 3;

export class NodeProcess {
  readonly password: string;
  readonly data: string;
  private readonly ownsFolder: boolean;
  private readonly settingsFile: string | undefined;
  private readonly clusterSettingsFile: string | undefined;
  private readonly env: NodeJS.ProcessEnv;
  private readonly quickstartArguments: readonly string[];
  private running: ReturnType<typeof startProcess> | undefined;

  private constructor(
    options: NodeOptions,
    readonly portOffset: number,
  ) {
    this.password = options.password ?? 'correct-horse-battery';
    this.ownsFolder = options.data === undefined;
    this.data = options.data ?? mkdtempSync(join(tmpdir(), 'starling-node-'));
    this.env = options.env ?? {};
    this.quickstartArguments = options.quickstartArguments ?? [];
    if (options.settings !== undefined) {
      this.settingsFile = join(this.data, 'settings.toml');
      writeFileSync(this.settingsFile, options.settings);
    }
    if (options.clusterSettings !== undefined) {
      this.clusterSettingsFile = join(this.data, 'cluster-settings.toml');
      writeFileSync(this.clusterSettingsFile, options.clusterSettings);
    }
  }

  /** Starts a node and waits until it is ready. */
  static async start(options: NodeOptions = {}): Promise<NodeProcess> {
    for (let attempt = 1; ; attempt++) {
      const node = new NodeProcess(options, options.portOffset ?? (await freePortOffset(Object.values(basePorts))));
      try {
        await node.start();
        return node;
      } catch (error) {
        await node.remove();
        // Something that is not ours may have taken a port meanwhile.
        const isPortTaken = options.portOffset === undefined && /listen (?:for gossip )?on /.test((error as Error).message);
        if (!isPortTaken || attempt === maxStartAttempts) throw error;
      }
    }
  }

  port(name: PortName): number {
    return basePorts[name] + this.portOffset;
  }

  get pid(): number {
    const pid = this.running?.child.pid;
    if (pid === undefined) throw new Error('the node is not running');
    return pid;
  }

  /** What it printed since its last start. */
  get output(): { stdout: string; stderr: string } {
    return this.running?.output ?? { stdout: '', stderr: '' };
  }

  async start(timeoutMs = 60_000): Promise<void> {
    const args = [starlingCommand, 'quickstart', '--data', this.data, '--port-offset', String(this.portOffset)];
    if (this.password !== '') args.push('--password', this.password);
    if (this.settingsFile) args.push('--config', this.settingsFile);
    if (this.clusterSettingsFile) args.push('--settings', this.clusterSettingsFile);
    args.push(...this.quickstartArguments);
    const running = startProcess(process.execPath, args, { cwd: repositoryRoot, env: this.env });
    this.running = running;
    let ended: number | null | undefined;
    void running.ended.then((code) => {
      ended = code;
    });
    await waitFor('the node to become ready', timeoutMs, async () => {
      if (ended !== undefined) throw new GivenUp(`the node ended with ${ended}:\n${running.output.stderr.slice(-4000)}`);
      return this.isReady();
    }).catch((error: unknown) => {
      running.child.kill('SIGKILL');
      throw new Error(`${(error as Error).message}\n${running.output.stderr.slice(-4000)}`);
    });
  }

  async isReady(): Promise<boolean> {
    return (await this.reasonsNotReady()).length === 0;
  }

  /** As the node itself says them; none when it is ready. */
  async reasonsNotReady(): Promise<string[]> {
    const response = await fetch(`http://127.0.0.1:${this.port('http')}/health/ready`, { signal: AbortSignal.timeout(10_000) });
    const text = await response.text();
    if (response.status === 200) return [];
    // Before the node has its routes, the answer need not be its own.
    const { reasons } = JSON.parse(text.startsWith('{') ? text : '{}') as { reasons?: string[] };
    return reasons?.length ? reasons : [`${response.status} ${text}`];
  }

  async metrics(): Promise<string> {
    const response = await fetch(`http://127.0.0.1:${this.port('http')}/metrics`);
    return response.text();
  }

  /** Waits until nothing is queued any more, on any node of its cluster. Asks over the control socket: a process for each look would take the time that the node needs. */
  async untilQueueEmpty(timeoutMs = 60_000): Promise<void> {
    await waitFor('an empty queue', timeoutMs, async () => {
      const listed = await askNode(join(this.data, 'control.sock'), 'queue list', {}, 30_000);
      return Array.isArray(listed) && listed.length === 0;
    });
  }

  /** Sum of all samples of a metric whose labels contain all of `labels`. */
  async metric(name: string, labels: Record<string, string> = {}): Promise<number> {
    let sum = 0;
    for (const line of (await this.metrics()).split('\n')) {
      if (!line.startsWith(`${name}{`) && !line.startsWith(`${name} `)) continue;
      if (Object.entries(labels).every(([key, value]) => line.includes(`${key}="${value}"`)))
        sum += Number(line.slice(line.lastIndexOf(' ') + 1));
    }
    return sum;
  }

  /** Sends a signal and goes on. */
  signal(signal: NodeJS.Signals): void {
    this.running?.child.kill(signal);
  }

  /** SIGTERM, waits for the drain, answers the exit code. */
  async stop(): Promise<number | null> {
    if (!this.running) return null;
    this.running.child.kill('SIGTERM');
    return this.end();
  }

  /** SIGKILL: as if the plug were pulled. */
  async kill(): Promise<void> {
    if (!this.running) return;
    this.running.child.kill('SIGKILL');
    await this.end();
  }

  /** Waits for a process that was told, or decided, to end. */
  async end(): Promise<number | null> {
    const code = await this.running?.ended;
    this.running = undefined;
    return code ?? null;
  }

  /** Ends the node and deletes its folder when it made it. */
  async remove(): Promise<void> {
    await this.kill();
    if (this.ownsFolder) rmSync(this.data, { recursive: true, force: true });
  }

  /** Runs a `starling` operation on this node, or on its store when it does not run. */
  cli(...args: string[]): Promise<CommandResult> {
    return runCommand(process.execPath, this.cliArguments(...args), { env: this.env });
  }

  /** What node takes to run a `starling` operation on this node. */
  cliArguments(...args: string[]): string[] {
    return [starlingCommand, ...args, '--data', this.data];
  }
}
