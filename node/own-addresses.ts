/**
 * Addresses that nobody judges: those of the cluster's members and of trusted proxies. They are never banned, looked up in blocklists or greylisted: a ban of
 * one of them would shut out everybody behind it (TRAPS 35).
 */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import type { Membership } from '../cluster/membership/index.js';
import type { Logger } from '../ops/telemetry/index.js';
import { networkOf, parseAddress } from '../store/limits/index.js';
import type { Config } from './config/schema.js';
import { type NetworkSet, networkSet } from './mailflow/index.js';

/** Listening there says nothing of where a node calls from. */
const wildcards: ReadonlySet<string> = new Set(['0.0.0.0', '::']);

/** One text for an address however it is written. */
const canonical = (address: string) => (parseAddress(address) ? networkOf(address, { ipv4: 32, ipv6: 128 }) : address);

export interface OwnAddressesSources {
  config: Pick<Config, 'listeners'>;
  membership: Pick<Membership, 'nodes' | 'onChange'>;
  logger: Logger;
  /** Addresses of a host name. Default: the machine's resolver. */
  resolve?: (host: string) => Promise<string[]>;
}

export class OwnAddresses {
  #isProxy: NetworkSet = () => false;
  #members: ReadonlySet<string> = new Set();
  /** What names stood for when they were last found: a name service that is away for a moment must not take an exemption away. */
  #found = new Map<string, readonly string[]>();
  #turn = 0;
  #stop: (() => void) | undefined;

  /** Nothing is anybody's own before `follow`. */
  has(address: string): boolean {
    return this.#isProxy(address) || this.#members.has(canonical(address));
  }

  /** Knows the proxies at once; learns the members' addresses now and whenever they change, names as soon as they are resolved. */
  follow(sources: OwnAddressesSources): void {
    const { config, membership } = sources;
    this.#isProxy = networkSet(config.listeners.flatMap(({ proxyProtocol }) => proxyProtocol?.from ?? []));
    this.#stop = membership.onChange(() => void this.#learn(sources));
    void this.#learn(sources);
  }

  stop(): void {
    this.#stop?.();
  }

  async #learn({ membership, logger, resolve = addressesOf }: OwnAddressesSources): Promise<void> {
    const turn = ++this.#turn;
    const rows = membership.nodes().flatMap(({ row }) => (row ? [row] : []));
    const hosts = new Set(
      rows.flatMap(({ addresses, gossip }) => [...addresses, ...(gossip?.addresses ?? [])].map(({ host }) => host)),
    );
    const found = await Promise.all(
      [...hosts].map(async (host) => {
        if (isIP(host)) return wildcards.has(host) ? [] : [host];
        return resolve(host).catch((error: unknown) => {
          logger.debug({ host, err: error }, "a member's name can not be resolved");
          return this.#found.get(host) ?? [];
        });
      }),
    );
    // An earlier question that is answered later knows less.
    if (turn !== this.#turn) return;
    this.#found = new Map([...hosts].map((host, place) => [host, found[place]!]));
    this.#members = new Set(found.flat().map(canonical));
  }
}

async function addressesOf(host: string): Promise<string[]> {
  return (await lookup(host, { all: true })).map(({ address }) => address);
}
