/**
 * Which hosts take mail for a domain (RFC 5321 5.1, RFC 7505): MX by preference, the domain itself where there is none, address literals
 * as they are. Addresses are looked up host by host, when the host's turn comes.
 */
import { isIPv4 } from 'node:net';
import { domainToASCII } from 'node:url';
import { type Random, systemRandom } from '../../../ops/telemetry/index.js';
import type { DnsOutcome, MxRecord, Resolver } from '../../dns/index.js';
import { addressOfLiteral, isDomainName } from '../grammar/path.js';

export interface DestinationFailure {
  status: 'failed';
  outcome: 'permanent' | 'temporary';
  /** RFC 3463, such as `5.1.2`. */
  enhanced: string;
  text: string;
}

/** Addresses in the order in which to try them. */
export type HostAddresses = { status: 'found'; addresses: string[]; authenticated: boolean } | DestinationFailure;

export interface DestinationHost {
  /** Lower case, ASCII; the textual IP for an address literal. Compare it with our own names to break loops. */
  hostname: string;
  /** Of the MX record; 0 without one. */
  preference: number;
  /** The addresses, IPv6 first, each family shuffled. Never rejects. */
  resolve(): Promise<HostAddresses>;
}

export interface Destination {
  status: 'found';
  /** By preference; those of equal preference in random order. At least one. */
  hosts: DestinationHost[];
  source: 'mx' | 'address' | 'literal';
  /** The MX answer (or the proof that there is none) is authenticated by DNSSEC. */
  authenticated: boolean;
}

export interface DestinationOptions {
  random?: Random;
  /** MX hosts beyond are left out. */
  maxHosts?: number;
  /** Left out: both. */
  families?: readonly (4 | 6)[];
}

function failure(outcome: 'permanent' | 'temporary', enhanced: string, text: string): DestinationFailure {
  return { status: 'failed', outcome, enhanced, text };
}

/** Fisher and Yates, on a copy. */
function shuffled<T>(items: readonly T[], random: Random): T[] {
  const out = [...items];
  for (let i = out.length - 1; i > 0; i--) {
    const j = Math.floor(random.float() * (i + 1));
    [out[i], out[j]] = [out[j]!, out[i]!];
  }
  return out;
}

/** Looks a destination up. `domain` is what stands after the @: a name in any script, or an address literal. Never rejects. */
export async function resolveDestination(
  domain: string,
  resolver: Resolver,
  options: DestinationOptions = {},
): Promise<Destination | DestinationFailure> {
  if (domain.startsWith('[')) return literalDestination(domain);
  const random = options.random ?? systemRandom;
  const name = domainToASCII(domain.replace(/\.$/, ''));
  if (name === '' || !isDomainName(name) || isIPv4(name)) return failure('permanent', '5.1.2', `${domain} is no domain name`);
  const answer = await resolver.mx(name);
  switch (answer.status) {
    case 'temporary':
      return failure('temporary', '4.4.3', `The mail hosts of ${name} could not be looked up: ${answer.reason}`);
    case 'nxdomain':
      return failure('permanent', '5.1.2', `The domain ${name} does not exist`);
    case 'nodata':
      return implicitDestination(name, resolver, random, options, answer.authenticated);
    case 'found':
      return mxDestination(name, answer, resolver, random, options);
  }
}

function literalDestination(literal: string): Destination | DestinationFailure {
  const address = addressOfLiteral(literal);
  if (!address) return failure('permanent', '5.1.2', `${literal} is no address literal`);
  const found: HostAddresses = { status: 'found', addresses: [address], authenticated: false };
  const host: DestinationHost = { hostname: address, preference: 0, resolve: async () => found };
  return { status: 'found', hosts: [host], source: 'literal', authenticated: false };
}

/** RFC 5321 5.1: without MX records the domain is its own mail host, if it has an address. */
async function implicitDestination(
  name: string,
  resolver: Resolver,
  random: Random,
  options: DestinationOptions,
  authenticated: boolean,
): Promise<Destination | DestinationFailure> {
  const addresses = await resolveAddresses(name, resolver, random, options.families);
  if (addresses.status === 'failed') {
    return addresses.outcome === 'temporary'
      ? addresses
      : failure('permanent', '5.1.2', `The domain ${name} has no mail host and no address`);
  }
  const host: DestinationHost = { hostname: name, preference: 0, resolve: async () => addresses };
  return { status: 'found', hosts: [host], source: 'address', authenticated };
}

function mxDestination(
  name: string,
  answer: Extract<DnsOutcome<MxRecord>, { status: 'found' }>,
  resolver: Resolver,
  random: Random,
  options: DestinationOptions,
): Destination | DestinationFailure {
  const usable = answer.records.filter((record) => record.exchange !== '' && isDomainName(record.exchange));
  if (usable.length === 0) {
    // RFC 7505 3: a single MX of "." says that the domain takes no mail.
    const nullMx = answer.records.every((record) => record.exchange === '');
    return nullMx
      ? failure('permanent', '5.1.10', `The domain ${name} accepts no mail (null MX)`)
      : failure('permanent', '5.4.4', `The mail hosts of ${name} are no host names`);
  }
  const seen = new Set<string>();
  const hosts = shuffled(usable, random)
    // Sorting is stable, so the shuffle decides among equals.
    .sort((one, other) => one.preference - other.preference)
    .filter(({ exchange }) => !seen.has(exchange) && seen.add(exchange))
    .slice(0, options.maxHosts ?? 16)
    .map(({ exchange, preference }) => ({
      hostname: exchange,
      preference,
      resolve: () => resolveAddresses(exchange, resolver, random, options.families),
    }));
  return { status: 'found', hosts, source: 'mx', authenticated: answer.authenticated };
}

/** A and AAAA at the same time. One family that answers is enough; only two proofs of absence are permanent. */
async function resolveAddresses(
  hostname: string,
  resolver: Resolver,
  random: Random,
  families: readonly (4 | 6)[] = [4, 6],
): Promise<HostAddresses> {
  const none: DnsOutcome<string> = { status: 'nodata', authenticated: false };
  const [six, four] = await Promise.all([
    families.includes(6) ? resolver.aaaa(hostname) : none,
    families.includes(4) ? resolver.a(hostname) : none,
  ]);
  const found = [six, four].filter((outcome) => outcome.status === 'found');
  if (found.length > 0) {
    return {
      status: 'found',
      addresses: found.flatMap((outcome) => shuffled(outcome.records, random)),
      authenticated: found.every((outcome) => outcome.authenticated),
    };
  }
  for (const outcome of [six, four]) {
    if (outcome.status === 'temporary') {
      return failure('temporary', '4.4.3', `The address of ${hostname} could not be looked up: ${outcome.reason}`);
    }
  }
  return failure('permanent', '5.4.4', `The host ${hostname} has no address`);
}
