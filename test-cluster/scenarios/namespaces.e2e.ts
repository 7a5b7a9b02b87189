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
    await one.hears('up', 20_000);
    return one;
  }

  /** Whether it says this within the time. */
  async hears(line: string, timeoutMs = 700): Promise<boolean> {
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

  const tcp = (from: number, to: number, port = mailPort) => people[from]!.reaches(places[to]!.host, port);
  const toStore = (from: number) => people[from]!.reaches(network.store.host, storePort);
  let datagrams = 0;
  const udp = (from: number, to: number) => {
    const text = `d${datagrams++}`;
    people[from]!.send(places[to]!.host, text);
    return people[to]!.hears(`heard ${text}`);
  };
  /** What holds while a cut lasts; it has healed afterwards. */
  const during = async (cut: Cut, look: () => Promise<void>) => {
    const heal = await network.cut(cut);
    await look().finally(heal);
    await heal();
    expect([
      await tcp(0, 1),
      await tcp(1, 0),
      await tcp(0, 1, gossipPort),
      await toStore(0),
      await udp(0, 1),
      await udp(1, 0),
    ]).toEqual(Array(6).fill(true));
  };

  it('are cut off from peers, and from nothing else', async () => {
    await during({ node: 0, from: { nodes: [1] } }, async () => {
      expect([await tcp(0, 1), await tcp(1, 0), await udp(0, 1), await udp(1, 0)]).toEqual([false, false, false, false]);
      expect([await tcp(0, 2), await tcp(2, 0), await tcp(1, 2), await toStore(0), await toStore(1)]).toEqual(
        Array(5).fill(true),
      );
    });
  });

  it('are cut off in one direction', async () => {
    await during({ node: 0, from: { nodes: [1] }, direction: 'in' }, async () => {
      expect([await udp(0, 1), await udp(1, 0)]).toEqual([true, false]);
    });
    await during({ node: 0, from: { nodes: [1] }, direction: 'out' }, async () => {
      expect([await udp(0, 1), await udp(1, 0)]).toEqual([false, true]);
    });
  });

  it('are cut off from gossip alone', async () => {
    await during({ node: 0, from: { gossip: [1] } }, async () => {
      expect([await tcp(0, 1, gossipPort), await tcp(1, 0, gossipPort)]).toEqual([false, false]);
      expect([await tcp(0, 1), await tcp(1, 0), await tcp(0, 2, gossipPort), await toStore(0)]).toEqual([true, true, true, true]);
    });
  });

  it('are cut off from the store alone', async () => {
    await during({ node: 0, from: 'store' }, async () => {
      expect([await toStore(0), await toStore(1), await tcp(0, 1), await tcp(1, 0)]).toEqual([false, true, true, true]);
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
