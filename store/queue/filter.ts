/** What an operator's filter means. */
import type { Destination, QueueFilter, QueueMessage } from './contract.js';

/** As destinations are named. */
export const domainOf = (domain: string | undefined): string | undefined => domain?.toLowerCase();

const isSameText = (one: string, other: string): boolean => one.toLowerCase() === other.toLowerCase();

/** As far as the message itself tells. */
export function meansMessage({ sender, queueName, receivedBeforeMs }: QueueFilter, message: QueueMessage): boolean {
  if (receivedBeforeMs !== undefined && message.receivedAtMs >= receivedBeforeMs) return false;
  if (queueName !== undefined && (message.queueName ?? 'default') !== queueName) return false;
  if (sender === undefined) return true;
  // '@domain' is the end of an address; '' and '<>' are bounces.
  if (sender.startsWith('@')) return message.from.toLowerCase().endsWith(sender.toLowerCase());
  return isSameText(message.from, sender === '<>' ? '' : sender);
}

export function meansDestination({ recipient, domain, state, replyText }: QueueFilter, destination: Destination): boolean {
  if (domain !== undefined && destination.domain !== domainOf(domain)) return false;
  if (state === 'waiting' && (destination.state !== 'due' || destination.line === undefined)) return false;
  if (state !== undefined && state !== 'waiting' && destination.state !== state) return false;
  if (replyText !== undefined && !hasReply(destination, replyText.toLowerCase())) return false;
  return recipient === undefined || destination.recipients.some(({ address }) => isSameText(address, recipient));
}

function hasReply({ recipients }: Destination, text: string): boolean {
  return recipients.some(({ lastReply }) => {
    if (!lastReply) return false;
    const { code, enhanced, text: said, host = '' } = lastReply;
    return `${code} ${enhanced} ${said} ${host}`.toLowerCase().includes(text);
  });
}
