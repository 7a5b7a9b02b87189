/** All nodes on 127.0.0.1, each behind a proxy of its own to the store: what can be had without privileges. Only the way to the store can be cut. */
import { connect } from 'node:net';
import type { Cut, Heal, Network, Place } from './network.js';
import { basePorts } from './node-process.js';
import { freePortOffset } from './ports.js';
import { TcpProxy } from './tcp-proxy.js';

const portStep = 1_000;
const gossipPort = 2946;
const host = '127.0.0.1';
const reachMs = 3_000;

export class LoopbackNetwork implements Network {
  readonly kind = 'processes';
  readonly canCutPeers = false;
  readonly outsideHost = host;
  readonly store = { listenAddresses: host, host, trustedRange: '127.0.0.1/32' };
  readonly #proxies = new Map<number, TcpProxy>();

  private constructor(private readonly portOffset: number) {}

  /** Finds free ports for `nodes` nodes, with those that join later. */
  static async start(nodes: number): Promise<LoopbackNetwork> {
    const base = [...Object.values(basePorts), gossipPort];
    const ports = Array.from({ length: nodes }, (_, index) => base.map((port) => port + index * portStep)).flat();
    return new LoopbackNetwork(await freePortOffset(ports));
  }

  async place(index: number): Promise<Place> {
    return { host, portOffset: this.portOffset + index * portStep, wrap: (command) => [...command] };
  }

  async storeFor(index: number, port: number): Promise<{ host: string; port: number }> {
    let proxy = this.#proxies.get(index);
    if (!proxy) {
      proxy = await TcpProxy.start({ host, port });
      this.#proxies.set(index, proxy);
    }
    return { host, port: proxy.port };
  }

  async cut({ node, from, direction = 'both' }: Cut): Promise<Heal> {
    const proxy = this.#proxies.get(node);
    if (from !== 'store' || direction !== 'both' || !proxy) throw new Error('on loopback, only the way to the store can be cut');
    proxy.pause();
    return async () => {
      // What the silence has broken is found broken, as behind a filter that has lost track of the connections.
      proxy.cutAll();
      proxy.resume();
    };
  }

  async reaches(_index: number, to: string, port: number): Promise<boolean> {
    const socket = connect({ host: to, port, timeout: reachMs });
    return new Promise((resolve) => {
      const end = (isThere: boolean) => () => {
        socket.destroy();
        resolve(isThere);
      };
      socket.once('connect', end(true)).once('timeout', end(false)).once('error', end(false));
    });
  }

  async remove(): Promise<void> {
    await Promise.all([...this.#proxies.values()].map((proxy) => proxy.stop()));
    this.#proxies.clear();
  }
}
