/**
 * Each node in a network namespace of its own, with an address of its own on a bridge; this process and the store's server stay outside. The bridge has a
 * namespace as well: in the machine's own, its packet filter would have a say in what passes between nodes (where Docker runs: nothing). Lines are cut by
 * iptables rules that drop packets inside the nodes' namespaces. Everything is named after this process, and goes when it ends, however it ends.
 */
import { spawnSync } from 'node:child_process';
import type { Cut, Heal, Network, Place } from './network.js';
import { hasProgram, runCommand, searchPath } from './processes.js';

/** Quickstart's port of the gossip between nodes. */
export const gossipPort = 2946;
const namePrefix = 'starling-chaos-';
/** Our end of the line to the bridge. */
const linkPrefix = 'scv';
const bridge = 'br0';
/** Last byte of the addresses of this process, the store and node 0. */
const hosts = { outside: 1, store: 2, firstNode: 10 } as const;
const maxNodes = 100;
/** Ends with 0 when the connection has come about. */
const connectOnce = `
const [host, port] = process.argv.slice(1);
const socket = require('node:net').connect({ host, port: Number(port), timeout: 3000 });
socket.once('connect', () => process.exit(0)).once('timeout', () => process.exit(1)).once('error', () => process.exit(1));
`;

/** Why this machine can't do it, in one line; undefined when it can. */
export function namespacesMissing(): string | undefined {
  if (process.platform !== 'linux') return 'network namespaces are of Linux';
  const missing = ['ip', 'iptables'].filter((program) => !hasProgram(program));
  if (missing.length > 0) return `network namespaces need ${missing.join(' and ')}`;
  const name = `${namePrefix}${process.pid}-try`;
  const refused = runSync(['ip', 'netns', 'add', name]);
  if (refused !== undefined) return `no network namespaces here: ${refused}`;
  const unfiltered = runSync(['ip', 'netns', 'exec', name, 'iptables', '-w', '-A', 'INPUT', '-s', '192.0.2.1', '-j', 'DROP']);
  runSync(['ip', 'netns', 'delete', name]);
  return unfiltered && `no packet filter in network namespaces: ${unfiltered}`;
}

/** Answers the last line of what it complained about; undefined when it went well. */
function runSync(command: readonly string[]): string | undefined {
  const [program, ...args] = command;
  const { status, stderr, error } = spawnSync(program!, args, { encoding: 'utf8', env: { ...process.env, PATH: searchPath } });
  if (status === 0) return undefined;
  return (error?.message ?? stderr.trim().split('\n').at(-1)) || `${program} ended with ${status}`;
}

async function run(...command: string[]): Promise<string> {
  const [program, ...args] = command;
  const { code, stdout, stderr } = await runCommand(program!, args, { env: { PATH: searchPath } });
  if (code !== 0) throw new Error(`${command.join(' ')}: ${stderr.trim() || `ended with ${code}`}`);
  return stdout;
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
};

/** Removes namespaces and lines of processes that are gone, with what still runs in them. Answers how many namespaces there were. */
export function removeLeftoverNamespaces(): number {
  const listed = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8', env: { ...process.env, PATH: searchPath } });
  let removed = 0;
  for (const [name, pid] of (listed.stdout ?? '').matchAll(new RegExp(`^${namePrefix}(\\d+)-\\w+`, 'gm'))) {
    if (isAlive(Number(pid))) continue;
    removeNamespace(name);
    removed++;
  }
  // Lines go with the namespace at their other end; a moment later, so they are looked for as well.
  const links = spawnSync('ip', ['-o', 'link', 'show', 'type', 'veth'], {
    encoding: 'utf8',
    env: { ...process.env, PATH: searchPath },
  });
  for (const [, name, pid] of (links.stdout ?? '').matchAll(new RegExp(`^\\d+: (${linkPrefix}(\\d+))@`, 'gm')))
    if (!isAlive(Number(pid))) runSync(['ip', 'link', 'delete', name!]);
  return removed;
}

function removeNamespace(name: string): void {
  const { stdout } = spawnSync('ip', ['netns', 'pids', name], { encoding: 'utf8', env: { ...process.env, PATH: searchPath } });
  for (const pid of (stdout ?? '').split('\n').filter(Boolean)) {
    try {
      process.kill(Number(pid), 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
  }
  runSync(['ip', 'netns', 'delete', name]);
}

export class NamespaceNetwork implements Network {
  readonly kind = 'namespaces';
  readonly canCutPeers = true;
  readonly outsideHost: string;
  readonly store: Network['store'];
  readonly #link = `${linkPrefix}${process.pid}`;
  readonly #switch = `${namePrefix}${process.pid}-net`;
  readonly #places = new Map<number, Promise<Place>>();
  readonly #names = new Set<string>();
  readonly #onExit = () => this.#removeSync();

  private constructor(private readonly range: string) {
    this.outsideHost = this.#address(hosts.outside);
    this.store = {
      listenAddresses: `127.0.0.1,${this.#address(hosts.store)}`,
      host: this.#address(hosts.store),
      trustedRange: `${range}.0/24`,
    };
  }

  /** Makes the bridge. One network per process at a time. Throws a sentence. */
  static async start(): Promise<NamespaceNetwork> {
    removeLeftoverNamespaces();
    const network = new NamespaceNetwork(await freeRange());
    process.on('exit', network.#onExit);
    try {
      await network.#makeBridge();
    } catch (error) {
      await network.remove();
      throw error;
    }
    return network;
  }

  async #makeBridge(): Promise<void> {
    const inside = (...command: string[]) => run('ip', '-n', this.#switch, ...command);
    this.#names.add(this.#switch);
    await run('ip', 'netns', 'add', this.#switch);
    await inside('link', 'add', bridge, 'type', 'bridge', 'forward_delay', '0');
    await inside('link', 'set', bridge, 'up');
    await run('ip', 'link', 'add', this.#link, 'type', 'veth', 'peer', 'name', 'outside', 'netns', this.#switch);
    await inside('link', 'set', 'outside', 'master', bridge, 'up');
    for (const address of [this.outsideHost, this.store.host])
      await run('ip', 'address', 'add', `${address}/24`, 'dev', this.#link);
    await run('ip', 'link', 'set', this.#link, 'up');
  }

  #address(last: number): string {
    return `${this.range}.${last}`;
  }

  #nodeAddress(index: number): string {
    if (index >= maxNodes) throw new RangeError(`no address for node ${index}`);
    return this.#address(hosts.firstNode + index);
  }

  #nameOf(index: number): string {
    return `${namePrefix}${process.pid}-${index}`;
  }

  place(index: number): Promise<Place> {
    let made = this.#places.get(index);
    if (!made) this.#places.set(index, (made = this.#makePlace(index)));
    return made;
  }

  async #makePlace(index: number): Promise<Place> {
    const name = this.#nameOf(index);
    const socket = `node${index}`;
    this.#names.add(name);
    await run('ip', 'netns', 'add', name);
    await run('ip', '-n', this.#switch, 'link', 'add', socket, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
    await run('ip', '-n', this.#switch, 'link', 'set', socket, 'master', bridge, 'up');
    await run('ip', '-n', name, 'link', 'set', 'lo', 'up');
    await run('ip', '-n', name, 'address', 'add', `${this.#nodeAddress(index)}/24`, 'dev', 'eth0');
    await run('ip', '-n', name, 'link', 'set', 'eth0', 'up');
    await run('ip', '-n', name, 'route', 'add', 'default', 'via', this.outsideHost);
    return {
      host: this.#nodeAddress(index),
      portOffset: 0,
      wrap: (command) => ['ip', 'netns', 'exec', name, ...command],
    };
  }

  async storeFor(_index: number, port: number): Promise<{ host: string; port: number }> {
    return { host: this.store.host, port };
  }

  async cut({ node, from, direction = 'both' }: Cut): Promise<Heal> {
    const rules = peersOf(from).flatMap((peer) => {
      const address = peer === 'store' ? this.store.host : this.#nodeAddress(peer);
      const matches = typeof from === 'object' && 'gossip' in from ? gossipMatches : [[]];
      return matches.flatMap((match) => [
        ...(direction === 'out' ? [] : [['INPUT', '-s', address, ...match]]),
        ...(direction === 'in' ? [] : [['OUTPUT', '-d', address, ...match]]),
      ]);
    });
    const filter = (verb: '-A' | '-D', rule: string[]) =>
      run('ip', 'netns', 'exec', this.#nameOf(node), 'iptables', '-w', verb, ...rule, '-j', 'DROP');
    await Promise.all(rules.map((rule) => filter('-A', rule)));
    let healing: Promise<unknown> | undefined;
    return async () => {
      healing ??= Promise.all(rules.map((rule) => filter('-D', rule)));
      await healing;
    };
  }

  async reaches(index: number, host: string, port: number): Promise<boolean> {
    const probe = [process.execPath, '-e', connectOnce, host, String(port)];
    return (await runCommand('ip', ['netns', 'exec', this.#nameOf(index), ...probe], { env: { PATH: searchPath } })).code === 0;
  }

  async remove(): Promise<void> {
    this.#removeSync();
  }

  #removeSync(): void {
    process.off('exit', this.#onExit);
    for (const name of this.#names) removeNamespace(name);
    this.#names.clear();
    runSync(['ip', 'link', 'delete', this.#link]);
  }
}

const peersOf = (from: Cut['from']): readonly (number | 'store')[] =>
  from === 'store' ? ['store'] : 'nodes' in from ? from.nodes : from.gossip;

/** Either side may have made the connection. */
const gossipMatches = ['--dport', '--sport'].map((side) => ['-p', 'tcp', side, String(gossipPort)]);

/** The first three bytes of a private network that this machine does not know. */
async function freeRange(): Promise<string> {
  const known = await run('ip', '-o', 'address', 'show');
  for (let third = process.pid % 256, attempt = 0; attempt < 256; attempt++, third = (third + 1) % 256) {
    const range = `10.213.${third}`;
    if (!known.includes(` ${range}.`)) return range;
  }
  throw new Error('every range of 10.213.0.0/16 is in use on this machine');
}
