/** IMAP's ENVELOPE (RFC 9051 7.5.2) from the raw envelope; the result is latin1 text ready for the output. */
import { formatNstring } from './imap-strings.js';
import type { Envelope, EnvelopeAddress } from './types.js';

function addressList(addresses: readonly EnvelopeAddress[]): string {
  if (addresses.length === 0) return 'NIL';
  let list = '(';
  for (const { name, route, mailbox, host } of addresses) {
    list += `(${formatNstring(name)} ${formatNstring(route)} ${formatNstring(mailbox)} ${formatNstring(host)})`;
  }
  return `${list})`;
}

export function formatEnvelope(envelope: Envelope): string {
  const { from, sender, replyTo } = envelope;
  const fromList = addressList(from);
  const senderList = sender === from ? fromList : addressList(sender);
  const replyToList = replyTo === from ? fromList : addressList(replyTo);
  return (
    `(${formatNstring(envelope.date)} ${formatNstring(envelope.subject)} ${fromList} ${senderList} ${replyToList} ` +
    `${addressList(envelope.to)} ${addressList(envelope.cc)} ${addressList(envelope.bcc)} ` +
    `${formatNstring(envelope.inReplyTo)} ${formatNstring(envelope.messageId)})`
  );
}
