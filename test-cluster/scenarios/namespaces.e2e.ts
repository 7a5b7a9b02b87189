/** The namespaces harness itself: places hear one another, cuts cut what they say and nothing else, heals heal, and nothing is left behind. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createServer, type Server } from 'node:net';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { gossipPort, NamespaceNetwork, namespacesMissing, removeLeftoverNamespaces } from '../harness/namespaces.js';
import type { Cut, Place } from '../harness/network.js';

const missing = namespacesMissing();
if (missing !== undefined) process.stderr.write(`skipped: ${missing}\n`);

const mailPort = 2525;
const datagramPort = 4000;
/** What has not come after this long is taken for lost. What should come is sent again until it does. */
const silenceMs = 600;
const arrivesWithinMs = 60_000;

/** Runs in a place: listens, and does as it is told line by line: `tcp HOST PORT` tries a connection, `udp HOST` sends; says `udp` when one has come. */
const correspondent = `
const net = require('node:net');
const say = (line) => process.stdout.write(line + '\\n');
const heard = require('node:dgram').createSocket('udp4');
heard.on('message', (text) => say('heard ' + text));
heard.bind(${datagramPort});
for (const port of [${mailPort}, ${gossipPort}]) net.createServer((socket) => socket.end()).listen(port, '0.0.0.0');
require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const [verb, host, text] = line.split(' ');
  if (verb === 'udp') return heard.send(text, ${datagramPort}, host);
  const socket = net.connect({ host, port: Number(text), timeout: 500 });
  const end = (word) => { socket.destroy(); say(line + ' ' + word); };
  socket.once('connect', () => end('yes')).once('timeout', () => end('no')).once('error', () => end('no'));
});
say('up');
`;

class Correspondent {
  readonly #lines: string[] = [];
  #wake: (() => void) | undefined;

  private constructor(readonly child: ChildProcess) {
    createInterface({ input: child.stdout! }).on('line', (line) => {
      this.#lines.push(line);
      this.#wake?.();
    });
  }

  static async start({ wrap }: Place): Promise<Correspondent> {
    const [command, ...args] = wrap([process.execPath, '-e', correspondent]);
    const one = new Correspondent(spawn(command!, args, { stdio: ['pipe', 'pipe', 'inherit'] }));
    if (!(await one.hears('up', arrivesWithinMs))) throw new Error('the correspondent does not come up');
    return one;
  }

  /** Whether it says this within the time. */
  async hears(line: string, timeoutMs = silenceMs): Promise<boolean> {
    const deadline = performance.now() + timeoutMs;
    while (!this.#lines.includes(line)) {
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) return false;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, leftMs);
      });
    }
    this.#lines.splice(this.#lines.indexOf(line), 1);
    return true;
  }

  async reaches(host: string, port: number): Promise<boolean> {
    const line = `tcp ${host} ${port}`;
    this.child.stdin!.write(`${line}\n`);
    for (;;) {
      if (await this.hears(`${line} yes`, 100)) return true;
      if (await this.hears(`${line} no`, 100)) return false;
    }
  }

  send(host: string, text: string): void {
    this.child.stdin!.write(`udp ${host} ${text}\n`);
  }
}

describe.skipIf(missing !== undefined)('places in network namespaces', () => {
  let network: NamespaceNetwork;
  let places: Place[];
  let people: Correspondent[];
  let store: Server;
  let storePort: number;

  beforeAll(async () => {
    network = await NamespaceNetwork.start();
    places = await Promise.all([0, 1, 2].map((index) => network.place(index)));
    people = await Promise.all(places.map((place) => Correspondent.start(place)));
    store = createServer((socket) => socket.end());
    await new Promise<void>((resolve) => store.listen(0, network.store.host, resolve));
    storePort = (store.address() as { port: number }).port;
  });
  afterAll(async () => {
    for (const { child } of people ?? []) child.kill('SIGKILL');
    store?.close();
    await network?.remove();
  });

  const tcpOnce = (from: number, to: number, port = mailPort) => people[from]!.reaches(places[to]!.host, port);
  const toStoreOnce = (from: number) => people[from]!.reaches(network.store.host, storePort);
  let datagrams = 0;
  const udpOnce = (from: number, to: number) => {
    const text = `d${datagrams++}`;
    people[from]!.send(places[to]!.host, text);
    return people[to]!.hears(`heard ${text}`);
  };
  /** Whether these lines carry: all of them, in the end, on however slow a machine. */
  const carry = async (...tries: (() => Promise<boolean>)[]) => {
    for (const one of tries) {
      const deadlineMs = performance.now() + arrivesWithinMs;
      while (!(await one())) if (performance.now() > deadlineMs) return false;
    }
    return true;
  };
  /** Whether none of these carries anything. */
  const carryNothing = async (...tries: (() => Promise<boolean>)[]) =>
    !(await Promise.all(tries.map((one) => one()))).includes(true);
  const tcp = (from: number, to: number, port?: number) => () => tcpOnce(from, to, port);
  const udp = (from: number, to: number) => () => udpOnce(from, to);
  const toStore = (from: number) => () => toStoreOnce(from);
  /** What holds while a cut lasts; it has healed afterwards. */
  const during = async (cut: Cut, look: () => Promise<void>) => {
    const heal = await network.cut(cut);
    await look().finally(heal);
    await heal();
    expect(await carry(tcp(0, 1), tcp(1, 0), tcp(0, 1, gossipPort), toStore(0), udp(0, 1), udp(1, 0))).toBe(true);
  };

  it('are cut off from peers, and from nothing else', async () => {
    await during({ node: 0, from: { nodes: [1] } }, async () => {
      expect(await carryNothing(tcp(0, 1), tcp(1, 0), udp(0, 1), udp(1, 0))).toBe(true);
      expect(await carry(tcp(0, 2), tcp(2, 0), tcp(1, 2), toStore(0), toStore(1))).toBe(true);
    });
  });

  it('are cut off in one direction', async () => {
    await during({ node: 0, from: { nodes: [1] }, direction: 'in' }, async () => {
      expect([await carry(udp(0, 1)), await carryNothing(udp(1, 0))]).toEqual([true, true]);
    });
    await during({ node: 0, from: { nodes: [1] }, direction: 'out' }, async () => {
      expect([await carryNothing(udp(0, 1)), await carry(udp(1, 0))]).toEqual([true, true]);
    });
  });

  it('are cut off from gossip alone', async () => {
    await during({ node: 0, from: { gossip: [1] } }, async () => {
      expect(await carryNothing(tcp(0, 1, gossipPort), tcp(1, 0, gossipPort))).toBe(true);
      expect(await carry(tcp(0, 1), tcp(1, 0), tcp(0, 2, gossipPort), toStore(0))).toBe(true);
    });
  });

  it('are cut off from the store alone', async () => {
    await during({ node: 0, from: 'store' }, async () => {
      expect([await carryNothing(toStore(0)), await carry(toStore(1), tcp(0, 1), tcp(1, 0))]).toEqual([true, true]);
    });
  });

  it('are removed when whoever made them has died', () => {
    const { pid } = spawnSync('true');
    const name = `starling-chaos-${pid}-0`;
    expect(spawnSync('ip', ['netns', 'add', name]).status).toBe(0);
    expect(removeLeftoverNamespaces()).toBeGreaterThanOrEqual(1);
    const { stdout } = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' });
    expect(stdout).not.toContain(name);
    // Our own are none.
    expect(stdout).toContain(`starling-chaos-${process.pid}-0`);
  });
});
