/**
 * Hosts and ports as libp2p writes them, and names to addresses through the machine's own resolver (hosts file, container DNS), one look-up at a time:
 * a dead DNS server must not fill the thread pool that files need as well.
 */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import type { Clock } from '../../ops/telemetry/index.js';
import type { HostAndPort } from './contract.js';

const cachedMs = 5_000;
const maxCached = 1_024;

export const addressText = ({ host, port }: HostAndPort): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;

/** `host` is an IP address. */
export function multiaddrText({ host, port }: HostAndPort): string {
  // A zone belongs to this machine alone: `fe80::1%eth0`.
  const [ip, zone] = host.split('%');
  const family = isIP(ip!) === 6 ? 'ip6' : 'ip4';
  return `${zone ? `/ip6zone/${zone}` : ''}/${family}/${ip}/tcp/${port}`;
}

/** Of `/ip4/…/tcp/…` and `/ip6/…/tcp/…`, whatever follows; undefined for anything else. */
export function parseMultiaddr(text: string): HostAndPort | undefined {
  const match = /^(?:\/ip6zone\/([^/]+))?\/ip[46]\/([^/]+)\/tcp\/(\d+)/.exec(text);
  if (!match) return undefined;
  return { host: match[1] ? `${match[2]}%${match[1]}` : match[2]!, port: Number(match[3]) };
}

const isLoopback = (host: string) => host === '::1' || host.startsWith('127.');
const isLinkLocal = (host: string) => /^fe[89ab]/i.test(host);

/** What others can make use of, of all addresses that a node listens on: loopback only when there is nothing else. */
export function reachableAddresses(addresses: readonly HostAndPort[]): HostAndPort[] {
  const useful = addresses.filter(({ host }) => !isLinkLocal(host));
  const outside = useful.filter(({ host }) => !isLoopback(host));
  return outside.length > 0 ? outside : useful;
}

export class Names {
  readonly #known = new Map<string, { hosts: string[]; atMs: number }>();
  #last: Promise<unknown> = Promise.resolve();

  /** `ask`: for all addresses of a host; rejects when there is no answer. */
  constructor(
    private readonly clock: Clock,
    private readonly ask: (host: string) => Promise<{ address: string }[]> = (host) => lookup(host, { all: true }),
  ) {}

  /** IP addresses of a host; itself when it is one. Empty when it can't be resolved now. Never rejects. */
  async resolve(host: string): Promise<readonly string[]> {
    if (isIP(host.split('%')[0]!) !== 0) return [host];
    const turn = this.#last.then(() => this.#look(host));
    this.#last = turn;
    return await turn;
  }

  async #look(host: string): Promise<string[]> {
    const known = this.#known.get(host);
    if (known && this.clock.monotonicMs() - known.atMs < cachedMs) return known.hosts;
    // Without an answer, what was known last still holds more often than not: a network must not stay apart because DNS is down too.
    let hosts: string[] = known?.hosts ?? [];
    try {
      hosts = (await this.ask(host)).map(({ address }) => address);
    } catch {
      // Not now: asked again with a later dial.
    }
    if (this.#known.size >= maxCached) this.#known.clear();
    this.#known.set(host, { hosts, atMs: this.clock.monotonicMs() });
    return hosts;
  }
}
