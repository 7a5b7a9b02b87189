/** Which hosts a destination's mail is taken to: the relay host where one is set, else the domain's MX hosts, but never ourselves. */
import { isIP } from 'node:net';
import type { Random } from '../../ops/telemetry/index.js';
import type { Resolver } from '../../protocols/dns/index.js';
import { type DestinationFailure, type DestinationHost, resolveDestination } from '../../protocols/smtp/client/destination.js';
import type { MailflowSettings } from './settings.js';
import type { DeliveryReply, RecipientVerdict } from './types.js';

export type RemoteRoute =
  /** In the order in which to try them. */
  | { kind: 'hosts'; hosts: Pick<DestinationHost, 'hostname' | 'resolve'>[] }
  /** `failed`: no such domain, null MX, ourselves. `deferred`: the name service can't tell now. */
  | { kind: 'failed' | 'deferred'; reply: DeliveryReply };

export interface RouteLookup {
  resolver: Resolver;
  random: Random;
  settings: Pick<MailflowSettings, 'relayHost' | 'hostname'>;
}

const mailLoops: DeliveryReply = { code: 0, enhanced: '5.4.6', text: 'The mail for this domain comes back to this server' };

export async function findRoute({ resolver, random, settings }: RouteLookup, domain: string): Promise<RemoteRoute> {
  const { relayHost, hostname } = settings;
  if (relayHost)
    return { kind: 'hosts', hosts: [{ hostname: relayHost.host, resolve: () => addressesOf(resolver, relayHost.host) }] };
  const destination = await resolveDestination(domain, resolver, { random });
  if (destination.status === 'failed') {
    const { verdict, reply } = unresolved(destination);
    return { kind: verdict, reply };
  }
  // RFC 5321 5.1: when we are among a domain's hosts, only those preferred to us may be tried.
  const self = destination.hosts.find((host) => host.hostname === hostname.toLowerCase());
  const hosts = self ? destination.hosts.filter(({ preference }) => preference < self.preference) : destination.hosts;
  return hosts.length > 0 ? { kind: 'hosts', hosts } : { kind: 'failed', reply: mailLoops };
}

/** What a failed look-up means for recipients. */
export function unresolved(
  failure: DestinationFailure,
  host?: string,
): { verdict: RecipientVerdict['verdict'] & ('failed' | 'deferred'); reply: DeliveryReply } {
  const { outcome, enhanced, text } = failure;
  const reply: DeliveryReply = { code: 0, enhanced, text };
  if (host !== undefined) reply.host = host;
  return { verdict: outcome === 'permanent' ? 'failed' : 'deferred', reply };
}

/** A host by name or address, without MX. What can't be found is temporary: the relay is configured, so it exists. */
async function addressesOf(resolver: Resolver, host: string) {
  if (isIP(host)) return { status: 'found' as const, addresses: [host], authenticated: false };
  const answers = await Promise.all([resolver.aaaa(host), resolver.a(host)]);
  const addresses = answers.flatMap((answer) => (answer.status === 'found' ? answer.records : []));
  if (addresses.length > 0) return { status: 'found' as const, addresses, authenticated: false };
  const text = `The relay host ${host} has no address that can be found`;
  return { status: 'failed' as const, outcome: 'temporary' as const, enhanced: '4.4.3', text };
}
