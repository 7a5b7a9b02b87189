/**
 * Splits a message's recipients into destination records: by domain, at most 100 each, and fewer when long addresses and their replies would
 * not fit into one value.
 */
import { KvError } from '../kv/contract.js';
import { type Destination, type NewQueueMessage, type QueueId, type QueueRecipient, queueLimits } from './contract.js';

/** Fields, enhanced code and host of a reply, beside its text. */
const replyOverheadBytes = 300;
/** Leaves room in the transaction for the blob and the caller's own writes. */
const maxEnvelopeBytes = 8_500_000;

/** The most that a recipient's record can grow to over its life. */
function recipientBytes(recipient: Omit<QueueRecipient, 'status'>): number {
  return Buffer.byteLength(recipient.address) + Buffer.byteLength(recipient.orcpt ?? '') + 48 + replyReserveBytes;
}

const replyReserveBytes = queueLimits.maxReplyTextBytes + replyOverheadBytes;

/** Destination records of a new message, all `due`; a domain that is named twice goes on with the next part. Throws KvError `too-large`. */
export function splitIntoParts(id: QueueId, destinations: NewQueueMessage['destinations'], dueAtSeconds: number): Destination[] {
  const parts: Destination[] = [];
  const nextPart = new Map<string, number>();
  let envelopeBytes = 0;
  let recipientCount = 0;
  for (const { domain, isLocal, recipients } of destinations) {
    let open: Destination | undefined;
    let openBytes = 0;
    for (const recipient of recipients) {
      const bytes = recipientBytes(recipient);
      if (!open || open.recipients.length >= queueLimits.maxRecipientsPerPart || openBytes + bytes > queueLimits.maxRecordBytes) {
        const part = nextPart.get(domain) ?? 0;
        nextPart.set(domain, part + 1);
        open = { queueId: id, domain, part, isLocal, state: 'due', recipients: [], attempts: 0, dueAtSeconds, epoch: 0 };
        openBytes = 0;
        envelopeBytes += 3 * (Buffer.byteLength(domain) + 64);
        parts.push(open);
      }
      open.recipients.push({ ...recipient, status: 'pending' });
      openBytes += bytes;
      envelopeBytes += bytes - replyReserveBytes;
      recipientCount++;
    }
  }
  if (recipientCount === 0) throw new RangeError('a queued message needs a recipient');
  if (recipientCount > queueLimits.maxRecipientsPerMessage || envelopeBytes > maxEnvelopeBytes) {
    throw new KvError('too-large', `envelope of ${recipientCount} recipients, ${envelopeBytes} bytes, is over the limit`);
  }
  return parts;
}

/** `text` cut to what a record keeps of a reply, at a character's edge. */
export function keptReply(reply: NonNullable<QueueRecipient['lastReply']>): NonNullable<QueueRecipient['lastReply']> {
  const host = reply.host !== undefined && reply.host.length > 255 ? reply.host.slice(0, 255) : reply.host;
  if (Buffer.byteLength(reply.text) <= queueLimits.maxReplyTextBytes) return host === reply.host ? reply : { ...reply, host };
  // A character that the cut splits decodes to U+FFFD and is dropped.
  const cut = Buffer.from(reply.text).subarray(0, queueLimits.maxReplyTextBytes).toString('utf8').replace(/�+$/u, '');
  return { ...reply, host, text: cut };
}
