/** Addresses in networks, for `in_network` and `network_of`. IPv4 addresses that are mapped into IPv6 count as IPv4. */
import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { Complaint } from './evaluation.js';

type Address = ReturnType<typeof ipaddr.parse>;
type Network = [Address, number];

/** Undefined for what isn't an address. */
export function parseAddress(text: string): Address | undefined {
  // isIP first: ipaddr.js takes forms such as 0x7f.1 as well.
  if (isIP(text) === 0) return undefined;
  return ipaddr.process(text);
}

/** An address or CIDR; throws Complaint. */
export function parseNetwork(text: string): Network {
  const slash = text.indexOf('/');
  const bare = slash < 0 ? text : text.slice(0, slash);
  const address = isIP(bare) === 0 ? undefined : ipaddr.parse(bare);
  if (!address) throw new Complaint(`'${text.slice(0, 60)}' is no address or network such as 192.0.2.0/24`);
  const full = address.kind() === 'ipv4' ? 32 : 128;
  const bits = slash < 0 ? full : prefixBits(text.slice(slash + 1), full, text);
  if (address.kind() === 'ipv6' && (address as ipaddr.IPv6).isIPv4MappedAddress() && bits >= 96)
    return [(address as ipaddr.IPv6).toIPv4Address(), bits - 96];
  return [address, bits];
}

function prefixBits(text: string, full: number, whole: string): number {
  const bits = /^\d{1,3}$/.test(text) ? Number(text) : Number.NaN;
  if (!(bits <= full)) throw new Complaint(`the length of a prefix is from 0 to ${full}: '${whole.slice(0, 60)}'`);
  return bits;
}

export function isInNetwork(address: Address, [base, bits]: Network): boolean {
  if (address.kind() !== base.kind()) return false;
  return (address as ipaddr.IPv4).match(base as ipaddr.IPv4, bits);
}

/** Whom an address stands for when something is counted: an IPv4 address itself, of IPv6 the /64, which one customer has all of. Other texts as they are. */
export function networkOf(value: string): string {
  const address = parseAddress(value);
  if (address === undefined || address.kind() === 'ipv4') return address?.toString() ?? value;
  const head = (address as ipaddr.IPv6).toByteArray().slice(0, 8);
  return `${ipaddr.fromByteArray([...head, 0, 0, 0, 0, 0, 0, 0, 0]).toString()}/64`;
}
