/** What a peer says of its limits (RFC 9422). */
import type { PeerLimits } from './contract.js';

const limitNames: Record<string, keyof PeerLimits> = {
  MAILMAX: 'maxMessages',
  RCPTMAX: 'maxRecipients',
  RCPTDOMAINMAX: 'maxRecipientDomains',
};

/** RFC 9422 4: `LIMITS RCPTMAX=20 MAILMAX=5`. What is malformed is passed over. */
export function limitsOf(capabilities: ReadonlyMap<string, string>): PeerLimits {
  const limits: PeerLimits = {};
  for (const item of (capabilities.get('LIMITS') ?? '').split(' ')) {
    const match = /^(MAILMAX|RCPTMAX|RCPTDOMAINMAX)=([1-9][0-9]{0,5})$/i.exec(item);
    const limit = match && limitNames[match[1]!.toUpperCase()];
    if (limit) limits[limit] = Number(match[2]);
  }
  return limits;
}
