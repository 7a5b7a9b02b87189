/** What an operator's filter means. */
import { domainToASCII } from 'node:url';
import type { Destination, QueueFilter, QueueMessage } from './contract.js';

/** As destinations are named: in lower-case ASCII, whatever script it was written in. What is no domain stays as it is, and names none. */
export function domainOf(domain: string): string {
  const ascii = /[^\x00-\x7f]/.test(domain) ? domainToASCII(domain) : domain;
  return (ascii || domain).toLowerCase();
}

/** In the form in which two are compared. */
function addressOf(text: string): string {
  const at = text.lastIndexOf('@') + 1;
  return at === 0 ? text.toLowerCase() : text.slice(0, at).toLowerCase() + domainOf(text.slice(at));
}

const isSameAddress = (one: string, other: string): boolean => addressOf(one) === addressOf(other);

/** As far as the message itself tells. */
export function meansMessage({ sender, queueName, receivedBeforeMs }: QueueFilter, message: QueueMessage): boolean {
  if (receivedBeforeMs !== undefined && message.receivedAtMs >= receivedBeforeMs) return false;
  if (queueName !== undefined && (message.queueName ?? 'default') !== queueName) return false;
  if (sender === undefined) return true;
  // '@domain' is the end of an address; '' and '<>' are bounces.
  if (sender.startsWith('@')) return addressOf(message.from).endsWith(addressOf(sender));
  return isSameAddress(message.from, sender === '<>' ? '' : sender);
}

export function meansDestination({ recipient, domain, state, replyText }: QueueFilter, destination: Destination): boolean {
  if (domain !== undefined && destination.domain !== domainOf(domain)) return false;
  if (state === 'waiting' && (destination.state !== 'due' || destination.line === undefined)) return false;
  if (state !== undefined && state !== 'waiting' && destination.state !== state) return false;
  if (replyText !== undefined && !hasReply(destination, replyText.toLowerCase())) return false;
  return recipient === undefined || destination.recipients.some(({ address }) => isSameAddress(address, recipient));
}

function hasReply({ recipients }: Destination, text: string): boolean {
  return recipients.some(({ lastReply }) => {
    if (!lastReply) return false;
    const { code, enhanced, text: said, host = '' } = lastReply;
    return `${code} ${enhanced} ${said} ${host}`.toLowerCase().includes(text);
  });
}
