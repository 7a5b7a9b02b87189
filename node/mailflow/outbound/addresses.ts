/** Addresses of hosts: in which order they are tried, and which of them are this installation itself. */
import { isIPv6 } from 'node:net';
import type { Clock } from '../../../ops/telemetry/index.js';
import type { AddressOrder, OwnEndpoint } from './contract.js';

/**
 * The families in turn, beginning with the preferred one, so that a few attempts reach both; within a family the order stays. A family that does not work from
 * here at present comes last.
 */
export function inOrder(addresses: readonly string[], order: AddressOrder, isFamilyDown: (family: 4 | 6) => boolean): string[] {
  const six = order === 'only4' ? [] : addresses.filter((address) => isIPv6(address));
  const four = order === 'only6' ? [] : addresses.filter((address) => !isIPv6(address));
  const isSixDown = six.length > 0 && isFamilyDown(6);
  const isFourDown = four.length > 0 && isFamilyDown(4);
  if (isSixDown !== isFourDown) return isSixDown ? [...four, ...six] : [...six, ...four];
  const [first, second] = order === 'prefer4' || order === 'only4' ? [four, six] : [six, four];
  const out: string[] = [];
  for (let at = 0; at < Math.max(first.length, second.length); at++) {
    if (at < first.length) out.push(first[at]!);
    if (at < second.length) out.push(second[at]!);
  }
  return out;
}

/** IPv4 in IPv6 clothes as IPv4, IPv6 in one form. */
function plain(address: string): string {
  const mapped = /^::ffff:([0-9.]+)$/i.exec(address);
  if (mapped) return mapped[1]!;
  if (!isIPv6(address)) return address;
  return new URL(`http://[${address.replace(/%.*$/, '')}]`).hostname.slice(1, -1);
}

const isLoopback = (address: string): boolean => /^127\./.test(address) || address === '::1';
const isUnspecified = (address: string): boolean => /^0\./.test(address) || address === '::';

/** Where this installation is, as of a few seconds ago at most: asking a machine for its addresses costs more than a delivery. */
export function recently(ask: () => OwnPlaces, clock: Pick<Clock, 'monotonicMs'>): () => OwnPlaces {
  let known: OwnPlaces | undefined;
  let untilMs = 0;
  return () => {
    const nowMs = clock.monotonicMs();
    if (!known || nowMs >= untilMs) {
      known = ask();
      untilMs = nowMs + freshMs;
    }
    return known;
  };
}

/** Listeners, and the machine's addresses for those that listen on all of them. */
export interface OwnPlaces {
  endpoints: readonly OwnEndpoint[];
  interfaces: readonly string[];
}

const freshMs = 5_000;

/** The port of the world's mail: what a domain says of it is meant for everybody. */
const publicPort = 25;

/**
 * Whether mail for a domain that names this address would come back here: nowhere (0.0.0.0), loopback on the public port, or a place that we listen on.
 * `interfaces`: the machine's addresses, for listeners on all of them.
 */
export function leadsHome(address: string, port: number, own: readonly OwnEndpoint[], interfaces: readonly string[]): boolean {
  const target = plain(address);
  if (isUnspecified(target) || (isLoopback(target) && port === publicPort)) return true;
  return own.some((endpoint) => {
    if (endpoint.port !== port) return false;
    const at = plain(endpoint.address);
    if (at === target) return true;
    return isUnspecified(at) && (isLoopback(target) || interfaces.some((one) => plain(one) === target));
  });
}
