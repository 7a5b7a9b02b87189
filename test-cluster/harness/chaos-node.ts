/** One node of a chaos run: a process in its place, of whichever checkout, started and stopped many times; its lives and what it says are written down. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream, mkdirSync, type WriteStream, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { askNode } from './control-socket.js';
import type { Place } from './network.js';
import { basePorts, type PortName } from './node-process.js';
import { type CommandResult, GivenUp, runCommand, waitFor } from './processes.js';

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** One run of the process. */
export interface Life {
  nodeId: string;
  pid: number;
  /** Why it ended: the signal that we sent, or the code with which it left. */
  end?: { code: number | null; signal: NodeJS.Signals | null };
}

export interface ChaosNodeOptions {
  index: number;
  /** Made when it is not there. */
  data: string;
  /** Root of a built checkout. */
  checkout: string;
  password: string;
  clusterKeyFile: string;
  /** Cluster-wide settings for a first start. */
  clusterSettingsFile?: string;
  logFile: string;
  env?: NodeJS.ProcessEnv;
  /** Told of every line that the node logs. */
  onLine?(index: number, line: string): void;
  onEnd?(index: number, life: Life): void;
}

const startTimeoutMs = 90_000;

/** The local file of a node that listens on its place's address. */
function localFile(index: number, place: Place, hasGossip: boolean): string {
  const listener = (name: PortName, protocol: string, tls: string) =>
    `[[listeners]]\nname = "${name}"\nprotocol = "${protocol}"\nhost = "${place.host}"\nport = ${basePorts[name] + place.portOffset}\ntls = "${tls}"\n`;
  return [
    `hostname = "${hostnameOf(index)}"`,
    'drainTimeoutSeconds = 15',
    '[log]\nlevel = "warn"',
    ...(hasGossip ? [`[gossip]\nhost = "${place.host}"\nport = ${2946 + place.portOffset}`] : []),
    listener('smtp', 'smtp', 'starttls'),
    listener('submissions', 'submission', 'implicit'),
    listener('imaps', 'imap', 'implicit'),
    listener('http', 'http', 'none'),
  ].join('\n');
}

/** By which a node greets others. */
export const hostnameOf = (index: number): string => `node-${index}.chaos.test`;

export class ChaosNode {
  readonly lives: Life[] = [];
  checkout: string;
  #settled: { place: Place; store: string } | undefined;
  #child: ChildProcess | undefined;
  #ended: Promise<void> = Promise.resolve();
  #log: WriteStream;
  #lastLines: string[] = [];

  constructor(private readonly options: ChaosNodeOptions) {
    this.checkout = options.checkout;
    mkdirSync(options.data, { recursive: true, mode: 0o700 });
    this.#log = createWriteStream(options.logFile, { flags: 'a', mode: 0o600 });
  }

  /** Says where it runs and where it finds the store (`postgres://…`); before the first start. */
  settle(place: Place, store: string): void {
    this.#settled = { place, store };
  }

  get #whereabouts() {
    if (!this.#settled) throw new Error(`node ${this.index} has no place yet`);
    return this.#settled;
  }

  get index(): number {
    return this.options.index;
  }

  get host(): string {
    return this.#whereabouts.place.host;
  }

  get data(): string {
    return this.options.data;
  }

  get isRunning(): boolean {
    return this.#child !== undefined;
  }

  /** Of the present life, or the last one. */
  get nodeId(): string | undefined {
    return this.lives.at(-1)?.nodeId;
  }

  port(name: PortName): number {
    return basePorts[name] + this.#whereabouts.place.portOffset;
  }

  /** Resolves when the node is ready and known by its id. */
  async start(timeoutMs = startTimeoutMs): Promise<void> {
    if (this.#child) throw new Error(`node ${this.index} runs`);
    const { data, clusterKeyFile, clusterSettingsFile, password, env } = this.options;
    const { place, store } = this.#whereabouts;
    const settingsFile = `${data}.toml`;
    writeFileSync(settingsFile, localFile(this.index, place, await acceptsGossip(this.checkout, data)));
    const [command, ...args] = place.wrap([
      process.execPath,
      starlingOf(this.checkout),
      ...['quickstart', '--data', data, '--config', settingsFile, '--cluster-key-file', clusterKeyFile],
      ...['--port-offset', String(place.portOffset), '--password', password],
      ...(clusterSettingsFile ? ['--settings', clusterSettingsFile] : []),
    ]);
    const child = spawn(command!, args, {
      cwd: this.checkout,
      env: { ...process.env, STARLING_STORE: store, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      // Ctrl-C in a terminal is for whoever runs the nodes, not for them.
      detached: true,
    });
    this.#attend(child);
    await waitFor(`node ${this.index} to become ready`, timeoutMs, async () => {
      if (this.#child !== child) throw new GivenUp(`node ${this.index} did not start: ${this.#lastLines.join('\n')}`);
      return (await this.isReady()) && (await this.#learnId(child));
    }).catch((error: unknown) => {
      child.kill('SIGKILL');
      throw error;
    });
  }

  async #learnId(child: ChildProcess): Promise<boolean> {
    const shown = (await this.ask('node show')) as { id: string; pid: number };
    if (shown.pid !== child.pid) return false;
    this.lives.push({ nodeId: shown.id, pid: shown.pid });
    return true;
  }

  #attend(child: ChildProcess): void {
    this.#child = child;
    running.add(child);
    this.#lastLines = [];
    for (const stream of [child.stdout!, child.stderr!]) {
      createInterface({ input: stream }).on('line', (line) => {
        this.#log.write(`${line}\n`);
        this.#lastLines = [...this.#lastLines.slice(-9), line];
        this.options.onLine?.(this.index, line);
      });
    }
    this.#ended = new Promise((resolve) => {
      const end = (code: number | null, signal: NodeJS.Signals | null) => {
        running.delete(child);
        if (this.#child === child) this.#child = undefined;
        const life = this.lives.find(({ pid, end: ended }) => pid === child.pid && !ended);
        if (life) {
          life.end = { code, signal };
          this.options.onEnd?.(this.index, life);
        }
        resolve();
      };
      child.once('error', () => end(null, null));
      child.once('exit', end);
    });
  }

  async isReady(timeoutMs = 2_000): Promise<boolean> {
    const url = `http://${this.host}:${this.port('http')}/health/ready`;
    const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs) });
    await response.arrayBuffer();
    return response.status === 200;
  }

  ask(operation: string, flags: Record<string, unknown> = {}, timeoutMs?: number): Promise<unknown> {
    return askNode(join(this.data, 'control.sock'), operation, { flags }, timeoutMs);
  }

  /** Runs the `starling` command on this node. */
  cli(...args: string[]): Promise<CommandResult> {
    return runCommand(process.execPath, [starlingOf(this.checkout), ...args, '--data', this.data]);
  }

  /** Harmless when it doesn't run. */
  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  /** Waits until the process has ended. */
  ended(): Promise<void> {
    return this.#ended;
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.#ended;
  }

  /** SIGTERM: drains. Answers the exit code; null when a signal had to help after `timeoutMs`. */
  async stop(timeoutMs = 40_000): Promise<number | null> {
    this.signal('SIGTERM');
    const late = setTimeout(() => this.signal('SIGKILL'), timeoutMs);
    await this.#ended;
    clearTimeout(late);
    return this.lives.at(-1)?.end?.code ?? null;
  }

  async remove(): Promise<void> {
    await this.kill();
    await new Promise((resolve) => this.#log.end(resolve));
  }
}

const starlingOf = (checkout: string): string => join(checkout, 'node', 'cli', 'starling.mjs');

const gossiping = new Map<string, Promise<boolean>>();

/** Whether nodes of this checkout know the section `gossip` of the local file. */
function acceptsGossip(checkout: string, data: string): Promise<boolean> {
  let known = gossiping.get(checkout);
  if (!known) gossiping.set(checkout, (known = tryGossip(checkout, data)));
  return known;
}

async function tryGossip(checkout: string, data: string): Promise<boolean> {
  const file = `${data}-try.toml`;
  writeFileSync(file, `data = "${data}-try"\n[gossip]\nhost = "127.0.0.1"\nport = 2946\n`);
  const { stdout, stderr } = await runCommand(process.execPath, [starlingOf(checkout), 'node', 'list', '--config', file]);
  return !/gossip/.test(stdout + stderr);
}
