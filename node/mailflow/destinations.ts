/** The queue works per destination: what goes to one domain goes together. */
import type { NewQueueMessage } from '../../store/queue/index.js';
import type { AcceptedRecipient } from './types.js';

/** One destination per domain; an address that was given twice is delivered once. */
export function groupByDomain(recipients: readonly AcceptedRecipient[]): NewQueueMessage['destinations'] {
  const seen = new Set<string>();
  const byDomain = new Map<string, NewQueueMessage['destinations'][number]>();
  for (const { domain, isLocal, recipient } of recipients) {
    const same = isLocal ? recipient.address.toLowerCase() : recipient.address;
    if (seen.has(same)) continue;
    seen.add(same);
    let destination = byDomain.get(domain);
    if (!destination) byDomain.set(domain, (destination = { domain, isLocal, recipients: [] }));
    destination.recipients.push(recipient);
  }
  return [...byDomain.values()];
}
