/** What expressions of the queue and of deliveries may ask about a destination (`stageVariables.queue`, `.host`). */
import type { ClaimedDestination, Destination, QueueMessage, QueueRecipient } from '../../../store/queue/index.js';
import type { StageFacts } from '../../expressions/contract.js';
import { domainOfAddress } from '../addresses.js';

/** Of an attempt that did not succeed, in one word (`last_error`). */
export type DeliveryErrorClass = 'dns' | 'connection' | 'tls' | 'temporary' | 'permanent' | 'timeout' | 'rate' | 'unknown';

/** What kind of failure a reply tells of; '' without one. Our own replies (code 0) are told apart by their enhanced code. */
export function errorClassOf(reply: QueueRecipient['lastReply']): DeliveryErrorClass | '' {
  if (!reply || (reply.code >= 200 && reply.code < 400)) return '';
  if (reply.code >= 500) return 'permanent';
  if (reply.code >= 400) return 'temporary';
  const [, subject, detail] = reply.enhanced.split('.');
  if (subject === '4') {
    if (detail === '3' || detail === '4') return 'dns';
    if (detail === '2' && /^(Timeout|The delivery took too long)/.test(reply.text)) return 'timeout';
    return detail === '7' ? 'timeout' : 'connection';
  }
  if (subject === '1') return 'dns';
  // What we say ourselves: held back by a limit (`deliver-remote.ts`), no login at the relay; the rest is about TLS.
  if (subject === '7') return detail === '1' ? 'rate' : detail === '4' || detail === '8' ? 'unknown' : 'tls';
  return reply.enhanced.startsWith('5') ? 'permanent' : 'unknown';
}

/** A node, for expressions. */
export interface NodeFacts {
  node_id: string;
  hostname: string;
}

/** Of one destination of one message; `recipient` is its first one that waits. */
export function queueFacts(
  { message, destination }: { message: QueueMessage; destination: Destination },
  node: NodeFacts,
  nowMs: number,
): Partial<StageFacts> {
  const recipient = destination.recipients.find(({ status }) => status === 'pending') ?? destination.recipients[0];
  const reply = recipient?.lastReply;
  return {
    ...node,
    queue_id: message.id,
    queue_name: message.queueName ?? 'default',
    retry_num: destination.attempts,
    notify_num: recipient?.isDelayNotified ? 1 : 0,
    last_error: errorClassOf(reply),
    last_status: reply?.code ?? 0,
    age: Math.max(0, Math.floor((nowMs - message.receivedAtMs) / 1000)),
    expires_in: Math.floor((message.expiresAtMs - nowMs) / 1000),
    source: message.source.protocol,
    sender: message.from,
    sender_domain: domainOfAddress(message.from),
    recipient: recipient?.address ?? '',
    rcpt_domain: destination.domain,
    size: message.sizeBytes - message.relayOffsetBytes,
    priority: message.priority,
  };
}

/** What all deliveries share. */
export type Claimed = Pick<ClaimedDestination, 'message' | 'destination'>;
