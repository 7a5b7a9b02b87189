/** Nodes, forwarders and raw peers for the tests of this room: real libp2p over loopback. */
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { pino } from 'pino';
import { type Clock, type Logger, silentLogger, sleepOn, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import type { Gossip, GossipMember, GossipMessage, HostAndPort, Topic } from './contract.js';
import { createGossip } from './index.js';
import type { GossipOptions } from './options.js';

export const secret = Buffer.alloc(32, 7);
export const otherSecret = Buffer.alloc(32, 8);
export const nodeIdOf = (digit: number): string => digit.toString(16).repeat(32).slice(0, 32);

/** Polls; machines that run tests are slow at times. */
export async function until(what: string, isSo: () => boolean | Promise<boolean>, timeoutMs = 300_000): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  while (!(await isSo())) {
    if (performance.now() > endMs) throw new Error(`not in time: ${what}`);
    await systemClock.sleep(10);
  }
}

/** Runs `factor` times as fast as the machine's. */
export function fastClock(factor: number): Clock {
  const clock: Clock = {
    nowMs: systemClock.nowMs,
    monotonicMs: () => systemClock.monotonicMs() * factor,
    setTimer: (delayMs, callback, options) => systemClock.setTimer(delayMs / factor, callback, options),
    sleep: (delayMs, signal) => sleepOn(clock, delayMs, signal),
  };
  return clock;
}

/** A logger whose lines can be read. */
export function listeningLogger(): { logger: Logger; lines: { level: number; msg: string; remote?: string }[] } {
  const lines: { level: number; msg: string; remote?: string }[] = [];
  return { logger: pino({ level: 'warn' }, { write: (line: string) => void lines.push(JSON.parse(line)) }), lines };
}

export interface Heard extends GossipMessage {
  channel: Topic | 'direct';
}

export class TestNode {
  readonly heard: Heard[] = [];
  readonly connections: [string, boolean][] = [];
  strangers = 0;

  private constructor(readonly gossip: Gossip) {
    for (const topic of ['membership', 'changes', 'control'] as const) {
      gossip.subscribe(topic, (message) => this.heard.push({ channel: topic, ...message }));
    }
    gossip.onDirect((message) => this.heard.push({ channel: 'direct', ...message }));
    gossip.onConnection((nodeId, isConnected) => this.connections.push([nodeId, isConnected]));
    gossip.onStranger(() => this.strangers++);
  }

  static async start(digit: number, options: Partial<GossipOptions> = {}): Promise<TestNode> {
    const node = new TestNode(
      createGossip({
        nodeId: nodeIdOf(digit),
        incarnation: 1,
        secret,
        listen: [{ host: '127.0.0.1', port: 0 }],
        clock: systemClock,
        random: systemRandom,
        logger: silentLogger,
        ...options,
      }),
    );
    await node.gossip.start();
    return node;
  }

  get member(): GossipMember {
    return { nodeId: this.gossip.nodeId, incarnation: 1, ...this.gossip.identity };
  }

  get port(): number {
    return this.gossip.identity.addresses[0]!.port;
  }

  isConnectedTo(other: TestNode | string): boolean {
    return this.gossip.connected().includes(typeof other === 'string' ? other : other.gossip.nodeId);
  }

  bodies(channel: Topic | 'direct'): unknown[] {
    return this.heard.filter((message) => message.channel === channel).map(({ body }) => body);
  }
}

/** Tells everybody of everybody, themselves included. */
export function introduce(...nodes: TestNode[]): void {
  const members = nodes.map(({ member }) => member);
  for (const { gossip } of nodes) gossip.setMembers(members);
}

export async function meshed(...nodes: TestNode[]): Promise<void> {
  await until('a full mesh', () => nodes.every(({ gossip }) => gossip.connected().length === nodes.length - 1));
}

/** Publishes until each of the others has heard it: the gossip streams open a moment after the connection. */
export async function publishesTo(from: TestNode, others: TestNode[], body: string): Promise<void> {
  await until(`${body} from ${from.gossip.nodeId}`, async () => {
    from.gossip.publish('changes', body);
    await systemClock.sleep(50);
    return others.every((other) => other.heard.some((message) => message.body === body));
  });
}

/** A TCP forwarder: what stands between a node and the address it advertises. */
export class Forwarder {
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  /** While true, bytes go nowhere and nothing is closed, as when packets are swallowed. */
  isSwallowing = false;

  private constructor(private readonly target: HostAndPort) {
    this.#server = createServer((inbound) => this.#forward(inbound));
  }

  static async start(target: HostAndPort, port = 0): Promise<Forwarder> {
    const forwarder = new Forwarder(target);
    forwarder.#server.listen(port, '127.0.0.1');
    await once(forwarder.#server, 'listening');
    return forwarder;
  }

  get address(): HostAndPort {
    return { host: '127.0.0.1', port: (this.#server.address() as AddressInfo).port };
  }

  #forward(inbound: Socket): void {
    const outbound = connect(this.target.port, this.target.host);
    const pair: [Socket, Socket][] = [
      [inbound, outbound],
      [outbound, inbound],
    ];
    let isLost = this.isSwallowing;
    for (const [from, to] of pair) {
      this.#sockets.add(from);
      // Bytes that are lost break the connection for good, as a gap in a stream does.
      from.on('data', (bytes) => {
        isLost ||= this.isSwallowing;
        if (!isLost) to.write(bytes);
      });
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.#sockets.delete(from);
        if (!isLost) to.destroy();
      });
    }
  }

  stop(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** A port that nobody listens on, below those that outgoing connections get: none of them will take it before it is used. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 28_000);
    const server = createServer().listen(port, '127.0.0.1');
    if (!(await once(server, 'listening').catch(() => undefined))) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
}
