/**
 * Which hosts a destination's mail is taken to, and how: by an operator's word for this destination, else by the route that the settings choose, else the relay
 * host where one is set, else the domain's mail exchangers, but never ourselves. A route may also lead to the mailboxes of this installation.
 */
import { isIP } from 'node:net';
import type { Random } from '../../ops/telemetry/index.js';
import type { Resolver } from '../../protocols/dns/index.js';
import type { ClientAuth } from '../../protocols/smtp/client/contract.js';
import { type DestinationFailure, type HostAddresses, resolveDestination } from '../../protocols/smtp/client/destination.js';
import type { RouteOverride } from '../../store/queue/contract.js';
import type { AddressOrder, OutboundRoute, OutboundSettings, RouteHost, TlsDemand } from './outbound/contract.js';
import type { MailflowSettings } from './settings.js';
import type { DeliveryReply, RecipientVerdict } from './types.js';

/** How the hosts of a route are spoken to. */
export interface Transport {
  /** For log and pool: `mx`, `relay`, the route's name, `operator`. */
  name: string;
  protocol: 'smtp' | 'lmtp';
  /** Undefined: what settings and policies say for the host. */
  tls?: TlsDemand | 'implicit';
  auth?: ClientAuth;
  /** The hosts were set by an operator, not by what a domain says of itself: loopback is meant as it is. */
  isConfigured: boolean;
}

export interface RouteStop {
  hostname: string;
  port: number;
  resolve(): Promise<HostAddresses>;
  transport: Transport;
}

export type RemoteRoute =
  /** In the order in which to try them; `fallback` when all of these have failed for now. `authenticated`: the MX answer is proved by DNSSEC. */
  | { kind: 'hosts'; hosts: RouteStop[]; fallback: RouteStop[]; authenticated: boolean }
  /** The mailboxes of this installation. */
  | { kind: 'local' }
  /** `failed`: no such domain, null MX, ourselves. `deferred`: the name service can't tell now; `isOurs`: it is the settings that can't. */
  | { kind: 'failed' | 'deferred'; reply: DeliveryReply; isOurs?: boolean };

export interface RouteLookup {
  resolver: Resolver;
  random: Random;
  settings: Pick<MailflowSettings, 'relayHost' | 'hostname' | 'smtpPort' | 'maxHostsPerAttempt' | 'outbound'>;
  /** What the expression chose. */
  routeName: string;
  addressOrder: AddressOrder;
  /** An operator's word for this destination. */
  override?: RouteOverride;
}

/** RFC 3463 X.4.6. */
export const mailLoops: DeliveryReply = {
  code: 0,
  enhanced: '5.4.6',
  text: 'The mail for this domain comes back to this server',
};

const lmtpPort = 24;

export async function findRoute(lookup: RouteLookup, domain: string): Promise<RemoteRoute> {
  const { settings, override, routeName } = lookup;
  const { relayHost, smtpPort, outbound } = settings;
  if (override) return overridden(lookup, override);
  const route = outbound.routes.find(({ name }) => name === routeName);
  if (route && route.kind !== 'mx') return configured(lookup, route);
  // A route that was named so before the word had a meaning keeps its own.
  if (!route && routeName === 'local') return { kind: 'local' };
  if (!route && routeName !== '' && routeName !== 'mx' && !(routeName === 'relay' && relayHost)) {
    const text = `The settings choose the route '${routeName.slice(0, 60)}', which they do not have`;
    return { kind: 'deferred', reply: { code: 0, enhanced: '4.3.5', text }, isOurs: true };
  }
  if (relayHost && !route && routeName !== 'mx') {
    const { host, port, tls, user, password } = relayHost;
    // Of a relay host, `required` has always meant a good certificate.
    const relay: OutboundRoute = {
      name: 'relay',
      kind: 'relay',
      hosts: [{ host, port }],
      tls: tls === 'required' ? 'verified' : tls,
    };
    if (user !== undefined) Object.assign(relay, { user, password });
    return configured(lookup, relay);
  }
  const transport: Transport = { name: route?.name ?? 'mx', protocol: 'smtp', isConfigured: false };
  if (route?.tls !== undefined) transport.tls = route.tls;
  return exchangers(lookup, domain, transport, route?.port ?? smtpPort);
}

/** The mail exchangers of a domain. */
async function exchangers(lookup: RouteLookup, domain: string, transport: Transport, port: number): Promise<RemoteRoute> {
  const { resolver, random, settings, addressOrder } = lookup;
  const { fallbackHosts } = settings.outbound;
  const families = addressOrder === 'only4' ? [4 as const] : addressOrder === 'only6' ? [6 as const] : undefined;
  const destination = await resolveDestination(domain, resolver, { random, ...(families ? { families } : {}) });
  const fallback = stopsOf(lookup, fallbackHosts, { name: 'fallback', protocol: 'smtp', isConfigured: true }, settings.smtpPort);
  if (destination.status === 'failed') {
    // A name service that can't tell is no reason not to hand the mail to somebody who may know more.
    if (destination.outcome === 'temporary' && fallback.length > 0)
      return { kind: 'hosts', hosts: [], fallback, authenticated: false };
    const { verdict, reply } = unresolved(destination);
    return { kind: verdict, reply };
  }
  // RFC 5321 5.1: when we are among a domain's hosts, only those preferred to us may be tried.
  const self = destination.hosts.find((host) => host.hostname === settings.hostname.toLowerCase());
  const hosts = self ? destination.hosts.filter(({ preference }) => preference < self.preference) : destination.hosts;
  if (hosts.length === 0) return { kind: 'failed', reply: mailLoops };
  return {
    kind: 'hosts',
    hosts: hosts.map(({ hostname, resolve }) => ({ hostname, resolve, port, transport })),
    fallback,
    authenticated: destination.authenticated,
  };
}

function overridden(lookup: RouteLookup, { host, port, isDomain }: RouteOverride): RemoteRoute | Promise<RemoteRoute> {
  const { smtpPort } = lookup.settings;
  const transport: Transport = { name: 'operator', protocol: 'smtp', isConfigured: true };
  if (isDomain) return exchangers(lookup, host, { ...transport, isConfigured: false }, port ?? smtpPort);
  return { kind: 'hosts', hosts: stopsOf(lookup, [{ host }], transport, port ?? smtpPort), fallback: [], authenticated: false };
}

/** A route whose hosts are named in the settings. */
function configured(lookup: RouteLookup, route: OutboundRoute): RemoteRoute {
  const { name, kind, hosts, tls, user, password, token, mechanisms } = route;
  const transport: Transport = { name, protocol: kind === 'lmtp' ? 'lmtp' : 'smtp', isConfigured: true };
  if (tls !== undefined) transport.tls = tls;
  if (user !== undefined && token !== undefined) transport.auth = { login: user, accessToken: token, mechanisms };
  else if (user !== undefined) transport.auth = { login: user, password: password ?? '', mechanisms };
  const port = route.port ?? (kind === 'lmtp' ? lmtpPort : lookup.settings.smtpPort);
  return { kind: 'hosts', hosts: stopsOf(lookup, hosts, transport, port), fallback: [], authenticated: false };
}

function stopsOf(
  { resolver, random }: RouteLookup,
  hosts: readonly RouteHost[],
  transport: Transport,
  port: number,
): RouteStop[] {
  return inTurn(hosts, random).map((host) => ({
    hostname: host.host,
    port: host.port ?? port,
    transport,
    resolve: () => addressesOf(resolver, host.host),
  }));
}

/** By order; among equals each is first as often as its weight says. */
function inTurn(hosts: readonly RouteHost[], random: Random): RouteHost[] {
  const left = [...hosts];
  const out: RouteHost[] = [];
  while (left.length > 0) {
    const order = Math.min(...left.map((host) => host.order ?? 0));
    const equals = left.filter((host) => (host.order ?? 0) === order);
    const total = equals.reduce((sum, { weight = 1 }) => sum + weight, 0);
    let place = random.float() * total;
    const chosen = equals.find(({ weight = 1 }) => (place -= weight) < 0) ?? equals.at(-1)!;
    left.splice(left.indexOf(chosen), 1);
    out.push(chosen);
  }
  return out;
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

/** A host by name or address, without MX. What can't be found is temporary: it is configured, so it exists. */
async function addressesOf(resolver: Resolver, host: string): Promise<HostAddresses> {
  if (isIP(host)) return { status: 'found', addresses: [host], authenticated: false };
  // RFC 6761 6.3: name servers need not know it.
  if (/^localhost\.?$/i.test(host)) return { status: 'found', addresses: ['127.0.0.1', '::1'], authenticated: false };
  const answers = await Promise.all([resolver.aaaa(host), resolver.a(host)]);
  const found = answers.filter((answer) => answer.status === 'found');
  const addresses = found.flatMap(({ records }) => records);
  if (addresses.length > 0)
    return { status: 'found', addresses, authenticated: found.every(({ authenticated }) => authenticated) };
  return { status: 'failed', outcome: 'temporary', enhanced: '4.4.3', text: `The host ${host} has no address that can be found` };
}

/** For whoever shows or checks routes: the names that an expression may choose. */
export function routeNames({ routes }: Pick<OutboundSettings, 'routes'>): string[] {
  return [...new Set(['mx', 'relay', 'local', ...routes.map(({ name }) => name)])];
}
