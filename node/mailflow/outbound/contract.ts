/**
 * What is set for mail that leaves, and what others may hand in: where it goes (routes), how much at a time (rates, concurrency), from which addresses,
 * and under which TLS. Plain fields; expressions are compiled by `choices.ts`.
 */
import type { CertificateVerdict, ClientTimeouts, ShownCertificate } from '../../../protocols/smtp/client/contract.js';
import type { ExpressionSource } from '../../expressions/contract.js';

/** `required`: encrypted, whoever the peer is. `verified`: its certificate fits its name, too. */
export type TlsDemand = 'none' | 'opportunistic' | 'required' | 'verified';

/** One host of a route. */
export interface RouteHost {
  /** Name (its addresses are looked up, not its MX) or address. */
  host: string;
  /** Default: that of the route. */
  port?: number;
  /** Hosts of the lowest number are tried first. Default 0. */
  order?: number;
  /** Among hosts of the same order: the share of messages that try this one first. Default 1. */
  weight?: number;
}

/** A way that mail can take, chosen by name. */
export interface OutboundRoute {
  name: string;
  /** `mx`: the mail exchangers of the domain. `relay`, `lmtp`: these hosts, by SMTP or LMTP over TCP. */
  kind: 'mx' | 'relay' | 'lmtp';
  hosts: readonly RouteHost[];
  /** Default: 25 for `mx` and `relay` (`outbound.port`), 24 for `lmtp`. */
  port?: number;
  /** Default: what `outbound.tls` says. */
  tls?: TlsDemand | 'implicit';
  user?: string;
  password?: string;
  /** OAuth 2 access token, instead of a password. */
  token?: string;
  /** SASL mechanisms that may be used; default: any that fits. */
  mechanisms?: readonly string[];
}

/** No more than `count` deliveries within `periodSeconds`, in the whole cluster, to what has the same key. */
export interface OutboundRate {
  /** [a-z0-9-], for counting and in logs. */
  name: string;
  /** Which deliveries it is for; default: all. */
  match?: ExpressionSource;
  /** What is counted apart; default: the domain. */
  key?: ExpressionSource;
  count: number;
  periodSeconds: number;
}

/** No more than `max` deliveries at a time, in the whole cluster, to what has the same key. */
export interface OutboundConcurrency extends Pick<OutboundRate, 'name' | 'match' | 'key'> {
  max: number;
}

/** The families take turns, the preferred one first; or only one is tried. */
export type AddressOrder = 'prefer6' | 'prefer4' | 'only6' | 'only4';

export interface OutboundSettings {
  routes: readonly OutboundRoute[];
  /** Name of the route, or `local` for the mailboxes of this installation; '' for the usual one (`relay` where a relay host is set, else the domain's mail exchangers). */
  route?: ExpressionSource;
  tls: ExpressionSource;
  /** Local addresses to send from, by the peer's family; '' lets the system choose. */
  sourceAddress4?: ExpressionSource;
  sourceAddress6?: ExpressionSource;
  /** Name for EHLO; '' for the node's own. */
  heloName?: ExpressionSource;
  /** Tried when all mail exchangers of a domain have failed for now. */
  fallbackHosts: readonly RouteHost[];
  /** An `AddressOrder` (or an expression), asked once for each attempt. */
  addressOrder: ExpressionSource;
  /** To a peer without 8BITMIME: as it is (`send`), or back to its sender (`return`, 5.6.3). */
  eightBit: ExpressionSource;
  rates: readonly OutboundRate[];
  concurrency: readonly OutboundConcurrency[];
  maxMessagesPerConnection: number;
  maxSecondsPerConnection: number;
  /** How long a handshake that failed (by host), and a network without IPv6, are remembered. */
  tlsFailureMemorySeconds: number;
  familyFailureMemorySeconds: number;
  timeouts: Partial<ClientTimeouts>;
}

export const defaultOutboundSettings: OutboundSettings = {
  routes: [],
  tls: "'opportunistic'",
  fallbackHosts: [],
  addressOrder: 'prefer6',
  eightBit: 'send',
  rates: [],
  concurrency: [],
  maxMessagesPerConnection: 100,
  maxSecondsPerConnection: 300,
  tlsFailureMemorySeconds: 3_600,
  familyFailureMemorySeconds: 600,
  timeouts: {},
};

/** What a policy (MTA-STS, DANE) demands of a host. */
export type TlsDecision =
  | {
      mode: TlsDemand;
      /** Judges the certificate; default for `verified`: WebPKI and the host's name. */
      verify?(shown: ShownCertificate): CertificateVerdict;
      minVersion?: 'TLSv1.2' | 'TLSv1.3';
      /** For the log: `mta-sts`, `dane`, … */
      reason: string;
    }
  /** This host gets no mail for this domain now (not named by an enforced policy; bogus DNSSEC): another may. */
  | { mode: 'skip'; enhanced: string; reason: string };

export interface TlsPolicy {
  /**
   * `authenticated`: the way from the domain to the host's address is proved by DNSSEC. Undefined: no policy. Never weakens what the settings demand. Must not
   * reject: who can't tell says `skip`.
   */
  forHost(asked: {
    domain: string;
    host: string;
    port: number;
    authenticated: boolean;
  }): Promise<TlsDecision | undefined> | TlsDecision | undefined;
}

/** An address and port that this installation listens on with SMTP. */
export interface OwnEndpoint {
  /** `0.0.0.0` or `::`: all addresses of the machine. */
  address: string;
  port: number;
}

/** What an attempt meant for the destination as a whole. `neutral`: it says nothing of it. */
export type PaceResult = 'good' | 'bad' | 'neutral';

/** How many deliveries may run to a destination at a time on this node: adapts to what they meet. */
export interface DestinationPacer {
  /** Deliveries at a time, at least 1. */
  limitOf(domain: string): number;
  /** Deliveries that run. */
  runningOf(domain: string): number;
  /** Waits for a place; the answer gives it back with what came of the attempt (once). Rejects with the signal's reason. */
  enter(domain: string, signal: AbortSignal): Promise<(result: PaceResult) => void>;
}
