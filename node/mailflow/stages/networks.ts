/** Addresses and networks of clients: lists of networks, and the name of an address in reversed DNS zones. */
import { BlockList, isIPv4, isIPv6 } from 'node:net';
import { networkOf, parseAddress } from '../../../store/limits/index.js';

export { networkOf };

/** Whether an address lies in one of some networks. */
export type NetworkSet = (address: string) => boolean;

/** @param networks addresses (`192.0.2.1`) and networks (`10.0.0.0/8`, `2001:db8::/32`), checked before. What is no address is in none. */
export function networkSet(networks: readonly string[]): NetworkSet {
  if (networks.length === 0) return () => false;
  const list = new BlockList();
  for (const each of networks) {
    const [address, prefix] = each.split('/') as [string, string?];
    const family = isIPv4(address) ? 'ipv4' : 'ipv6';
    if (prefix === undefined) list.addAddress(address, family);
    else list.addSubnet(address, Number(prefix), family);
  }
  return (address) => {
    if (isIPv4(address)) return list.check(address, 'ipv4');
    return isIPv6(address) && list.check(address, 'ipv6');
  };
}

/** Loopback, link-local, the private networks of RFC 1918, RFC 6598 and RFC 4193, and no address at all: no public list knows anything of them. */
export const isPrivateAddress: NetworkSet = networkSet([
  '0.0.0.0/8',
  '::',
  '127.0.0.0/8',
  '10.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '169.254.0.0/16',
  '100.64.0.0/10',
  '::1',
  'fe80::/10',
  'fc00::/7',
]);

/** Who is to be banned for what one address did: itself, or its /64, within which a client chooses freely. */
export function bannableNetwork(address: string): string {
  return networkOf(address, { ipv4: 32, ipv6: 64 });
}

/** The labels of an address in a reversed zone, octets (RFC 5782 2.1) or nibbles (2.4), without the zone. Undefined for what is no address. */
export function reversedLabels(address: string): string | undefined {
  const parsed = parseAddress(address);
  if (!parsed) return undefined;
  const { bits } = parsed;
  if (typeof bits === 'number') return [bits & 255, (bits >>> 8) & 255, (bits >>> 16) & 255, (bits >>> 24) & 255].join('.');
  const nibbles = bits.map((group) => group.toString(16).padStart(4, '0')).join('');
  return [...nibbles].reverse().join('.');
}
