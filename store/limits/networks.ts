/**
 * Addresses and networks: parsing, their one canonical text, and a map from networks that finds the longest one around an address without waiting.
 */
import ipaddr from 'ipaddr.js';

export interface Network {
  family: 4 | 6;
  /** IPv4: the address as one number. IPv6: eight groups of 16 bits. Bits beyond the prefix are 0. */
  bits: number | readonly number[];
  prefix: number;
}

const digit0 = 0x30;

/** A dotted quad as a number; undefined for anything else. Much quicker than the library, and most addresses are such. */
export function parseIpv4(text: string): number | undefined {
  let value = 0;
  let octet = -1;
  let dots = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0x2e) {
      if (octet < 0 || ++dots > 3) return undefined;
      value = value * 256 + octet;
      octet = -1;
      continue;
    }
    const digit = code - digit0;
    // No leading zeros: some read them as octal.
    if (digit < 0 || digit > 9 || octet === 0) return undefined;
    octet = octet < 0 ? digit : octet * 10 + digit;
    if (octet > 255) return undefined;
  }
  return dots === 3 && octet >= 0 ? value * 256 + octet : undefined;
}

const ipv6Groups = 8;

/** The eight groups of an IPv6 address (RFC 4291 2.2), a dotted quad at its end included; undefined for anything else. */
export function parseIpv6(text: string): number[] | undefined {
  const groups: number[] = [];
  let gapAt = -1;
  let at = 0;
  if (text.startsWith('::')) {
    gapAt = 0;
    at = 2;
  }
  while (at < text.length) {
    let end = text.indexOf(':', at);
    if (end < 0) end = text.length;
    if (end === text.length && text.indexOf('.', at) > 0) {
      const quad = parseIpv4(text.slice(at));
      if (quad === undefined) return undefined;
      groups.push(Math.floor(quad / 65_536), quad % 65_536);
      break;
    }
    const group = hexGroup(text, at, end);
    if (group < 0 || groups.push(group) > ipv6Groups) return undefined;
    if (end === text.length) break;
    at = end + 1;
    // A colon at the end is only right as the second of two.
    if (at === text.length) return undefined;
    if (text.charCodeAt(at) !== 0x3a) continue;
    if (gapAt >= 0) return undefined;
    gapAt = groups.length;
    at++;
  }
  if (gapAt < 0) return groups.length === ipv6Groups ? groups : undefined;
  // Two colons stand for at least one group (RFC 5952 4.2.2 wants two of whoever writes; readers take one).
  const missing = ipv6Groups - groups.length;
  if (missing < 1) return undefined;
  groups.splice(gapAt, 0, ...new Array<number>(missing).fill(0));
  return groups;
}

/** One to four hexadecimal digits; -1 for anything else. */
function hexGroup(text: string, from: number, to: number): number {
  if (to - from < 1 || to - from > 4) return -1;
  let value = 0;
  for (let i = from; i < to; i++) {
    const code = text.charCodeAt(i);
    const lower = code | 0x20;
    const digit = code >= digit0 && code <= 0x39 ? code - digit0 : lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

const isMapped = (groups: readonly number[]): boolean =>
  groups[5] === 0xffff && groups[0] === 0 && groups[1] === 0 && groups[2] === 0 && groups[3] === 0 && groups[4] === 0;

/** An address (a zone is dropped, an IPv4-mapped one is IPv4) as the network that has only it; undefined for anything else. */
export function parseAddress(text: string): Network | undefined {
  const ipv4 = parseIpv4(text);
  if (ipv4 !== undefined) return { family: 4, bits: ipv4, prefix: 32 };
  const zone = text.indexOf('%');
  const groups = parseIpv6(zone < 0 ? text : text.slice(0, zone));
  if (!groups) return undefined;
  if (isMapped(groups)) return { family: 4, bits: groups[6]! * 65_536 + groups[7]!, prefix: 32 };
  return { family: 6, bits: groups, prefix: 128 };
}

/** An address or a network in CIDR notation; undefined for anything else. Bits beyond the prefix are cleared. */
export function parseNetwork(text: string): Network | undefined {
  const slash = text.indexOf('/');
  if (slash < 0) return parseAddress(text);
  const digits = text.slice(slash + 1);
  const address = parseAddress(text.slice(0, slash));
  if (!address || !/^\d{1,3}$/.test(digits)) return undefined;
  // ::ffff:192.0.2.0/120 is 192.0.2.0/24.
  const prefix = Number(digits) - (address.family === 4 && text.includes(':') ? 96 : 0);
  return prefix < 0 || prefix > address.prefix ? undefined : widen(address, prefix);
}

function widen({ family, bits, prefix }: Network, to: number): Network {
  if (to >= prefix) return { family, bits, prefix };
  return { family, bits: typeof bits === 'number' ? mask4(bits, to) : mask6(bits, to), prefix: to };
}

const mask4 = (bits: number, prefix: number): number => bits - (bits % 2 ** (32 - prefix));

function mask6(bits: readonly number[], prefix: number): number[] {
  return bits.map((group, i) => {
    const kept = Math.min(16, Math.max(0, prefix - 16 * i));
    return group & (0xffff << (16 - kept)) & 0xffff;
  });
}

/** `192.0.2.1`, `192.0.2.0/24`, `2001:db8::/64` (RFC 5952). */
export function networkText({ family, bits, prefix }: Network): string {
  const address =
    typeof bits === 'number'
      ? [bits >>> 24, (bits >>> 16) & 255, (bits >>> 8) & 255, bits & 255].join('.')
      : new ipaddr.IPv6([...bits]).toRFC5952String();
  return prefix === (family === 4 ? 32 : 128) ? address : `${address}/${prefix}`;
}

/** The network around an address, as greylisting and the login guard see senders: by default its /24 or /64. What is no address comes back as it is. */
export function networkOf(address: string, prefixes: { ipv4?: number; ipv6?: number } = {}): string {
  const parsed = parseAddress(address);
  if (!parsed) return address;
  const { ipv4 = 24, ipv6 = 64 } = prefixes;
  return networkText(widen(parsed, parsed.family === 4 ? ipv4 : ipv6));
}

/** Whether `outer` holds all of `inner`. */
export function isWithin(inner: Network, outer: Network): boolean {
  if (inner.family !== outer.family || inner.prefix < outer.prefix) return false;
  return networkText(widen(inner, outer.prefix)) === networkText(outer);
}

/** One table per length of prefix that is in use, the longest first. */
class Family<K> {
  readonly tables: { prefix: number; entries: Map<K, unknown> }[] = [];

  table(prefix: number): Map<K, unknown> {
    const found = this.tables.find((table) => table.prefix === prefix);
    if (found) return found.entries;
    const entries = new Map<K, unknown>();
    this.tables.push({ prefix, entries });
    this.tables.sort((a, b) => b.prefix - a.prefix);
    return entries;
  }

  tidy(): void {
    const empty = this.tables.findIndex(({ entries }) => entries.size === 0);
    if (empty >= 0) this.tables.splice(empty, 1);
  }
}

/** The first `prefix` bits as a text: a key of a table. */
function groupsText(bits: readonly number[], prefix: number): string {
  const whole = prefix >> 4;
  let text = '';
  for (let i = 0; i < whole; i++) text += String.fromCharCode(bits[i]!);
  const rest = prefix & 15;
  return rest === 0 ? text : text + String.fromCharCode(bits[whole]! & (0xffff << (16 - rest)) & 0xffff);
}

/** Values by network. */
export class NetworkMap<V> {
  readonly #ipv4 = new Family<number>();
  readonly #ipv6 = new Family<string>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(network: Network): V | undefined {
    return this.#change(network, (entries, id) => entries.get(id) as V | undefined);
  }

  set(network: Network, value: V): void {
    this.#change(network, (entries, id) => {
      if (!entries.has(id)) this.#size++;
      entries.set(id, value);
    });
  }

  delete(network: Network): boolean {
    return this.#change(network, (entries, id) => {
      const isThere = entries.delete(id);
      if (isThere) this.#size--;
      return isThere;
    });
  }

  /** The value of the smallest network around `address` that is `accepted`; undefined for what is no address. */
  find(address: string, accepted: (value: V) => boolean): V | undefined {
    if (this.#size === 0) return undefined;
    const parsed = parseAddress(address);
    if (!parsed) return undefined;
    const { bits } = parsed;
    if (typeof bits === 'number') {
      for (const { prefix, entries } of this.#ipv4.tables) {
        const value = entries.get(mask4(bits, prefix)) as V | undefined;
        if (value !== undefined && accepted(value)) return value;
      }
      return undefined;
    }
    for (const { prefix, entries } of this.#ipv6.tables) {
      const value = entries.get(groupsText(bits, prefix)) as V | undefined;
      if (value !== undefined && accepted(value)) return value;
    }
    return undefined;
  }

  *values(): Generator<V, void, undefined> {
    for (const { tables } of [this.#ipv4, this.#ipv6]) for (const { entries } of tables) yield* entries.values() as Iterable<V>;
  }

  #change<T>({ bits, prefix }: Network, change: (entries: Map<unknown, unknown>, id: unknown) => T): T {
    const isIpv4 = typeof bits === 'number';
    const family = isIpv4 ? this.#ipv4 : this.#ipv6;
    const result = change(family.table(prefix) as Map<unknown, unknown>, isIpv4 ? bits : groupsText(bits, prefix));
    family.tidy();
    return result;
  }
}
