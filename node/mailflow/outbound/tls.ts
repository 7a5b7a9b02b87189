/** Under which TLS a host is spoken to: what the route or the settings demand, and never less than a policy does (TRAPS 25). */
import type { ClientTls } from '../../../protocols/smtp/client/contract.js';
import type { TlsDecision, TlsDemand } from './contract.js';

const rank: Record<TlsDemand, number> = { none: 0, opportunistic: 1, required: 2, verified: 3 };

/** What is asked for, and for the log by whom. */
export interface HostTls {
  demand: TlsDemand | 'implicit';
  tls: ClientTls;
  reason: string;
}

/**
 * `demand`: of the route, or chosen by the settings. `isRequired`: the message's sender (REQUIRETLS). `brokenBecause`: a handshake with this host has lately
 * failed; opportunistic TLS does without then.
 */
export function hostTls(
  demand: TlsDemand | 'implicit',
  decision: Exclude<TlsDecision, { mode: 'skip' }> | undefined,
  isRequired: boolean,
  brokenBecause: string | undefined,
): HostTls {
  // From the first byte on, with the certificate verified: nothing is stricter.
  if (demand === 'implicit') return { demand, tls: { mode: 'implicit' }, reason: 'route' };
  let [strictest, reason]: [TlsDemand, string] = [demand, 'settings'];
  if (decision && rank[decision.mode] >= rank[strictest]) [strictest, reason] = [decision.mode, decision.reason];
  if (isRequired && strictest !== 'verified') [strictest, reason] = ['verified', 'requiretls'];
  const tls = clientTls(strictest, brokenBecause);
  if (decision?.minVersion) tls.minVersion = decision.minVersion;
  // A policy that only watches may take any certificate: its eye is not for what others demand.
  if (decision?.mode === 'verified' && decision.verify) tls.verify = decision.verify;
  return { demand: strictest, tls, reason };
}

function clientTls(demand: TlsDemand, brokenBecause: string | undefined): ClientTls {
  switch (demand) {
    case 'none':
      return { mode: 'none' };
    case 'opportunistic':
      return brokenBecause === undefined ? { mode: 'opportunistic' } : { mode: 'none', plainBecause: brokenBecause };
    case 'required':
      return { mode: 'required', verify: () => ({ ok: true }) };
    case 'verified':
      return { mode: 'required' };
  }
}
