/** The machine's part of a report: the delivery-status of RFC 3464, in ASCII or with the internationalized forms of RFC 6533. Pure. */
import { formatDate } from '../../protocols/message/index.js';
import { encodeUtf8Address } from '../../protocols/smtp/grammar/index.js';
import type { QueueMessage, QueueRecipient } from '../../store/queue/index.js';
import { headerSafe, isAscii } from './addresses.js';
import type { DeliveryReply } from './types.js';

/** RFC 3464 2.3.3. */
export type ReportAction = 'failed' | 'delayed' | 'delivered' | 'relayed' | 'expanded';

export interface ReportedRecipient {
  recipient: Pick<QueueRecipient, 'address' | 'orcpt'>;
  action: ReportAction;
  reply: DeliveryReply;
  /** Instead of the reply's enhanced code. */
  status?: string;
}

export interface StatusInput {
  hostname: string;
  message: QueueMessage;
  recipients: readonly ReportedRecipient[];
  /** When these recipients were last tried; absent: they never were. */
  lastAttemptAtMs?: number;
  /** Until when it is tried, for what is delayed. */
  expiresAtMs: number;
  /** Whoever reads it can take UTF-8 (RFC 6533): the message itself came that way. */
  mayUseUtf8: boolean;
}

/** A field folded at spaces so that no line is longer than 998 octets (RFC 5322 2.1.1). */
export function field(name: string, value: string): string {
  const line = `${name}: ${value}`;
  if (Buffer.byteLength(line) <= 900) return `${line}\r\n`;
  return `${line.replace(/(.{1,400})(?: |$)/gu, '$1\r\n ').replace(/[\r\n ]+$/, '')}\r\n`;
}

/** `rfc822; address`, or one of the two forms of RFC 6533 3 for addresses beyond ASCII. */
function typedAddress(address: string, mayUseUtf8: boolean): string {
  const safe = headerSafe(address);
  if (isAscii(safe)) return `rfc822; ${safe}`;
  return `utf-8; ${mayUseUtf8 ? safe : encodeUtf8Address(safe)}`;
}

/** `orcpt` is kept as `type;address`, decoded. */
function typedOriginal(orcpt: string, mayUseUtf8: boolean): string {
  const at = orcpt.indexOf(';');
  const [type, address] = [headerSafe(orcpt.slice(0, at)), headerSafe(orcpt.slice(at + 1))];
  const isEncoded = type === 'utf-8' && (isAscii(address) || !mayUseUtf8);
  return `${type}; ${isEncoded ? encodeUtf8Address(address) : plain(address, mayUseUtf8)}`;
}

/** Where UTF-8 can't stand, what a peer said in it is shown as far as it goes. */
function plain(text: string, mayUseUtf8: boolean): string {
  return mayUseUtf8 ? text : text.replace(/[^\x00-\x7f]/gu, '?');
}

const classes: Record<ReportAction, string> = { failed: '5', delayed: '4', delivered: '2', relayed: '2', expanded: '2' };

function statusOf({ action, reply, status }: ReportedRecipient): string {
  if (status !== undefined) return status;
  const wanted = classes[action];
  if (!/^[245]\.\d{1,3}\.\d{1,3}$/.test(reply.enhanced)) return `${wanted}.0.0`;
  // A message that has expired failed for a reason that was temporary each time (RFC 3464 2.3.4 allows its 4.x.x).
  if (action === 'failed' && reply.enhanced.startsWith('4')) return reply.enhanced;
  return `${wanted}${reply.enhanced.slice(1)}`;
}

/** RFC 3464 2.2 and 2.3, RFC 2852 4.1.5: the fields of the message, then those of each recipient. */
export function deliveryStatus(input: StatusInput): string {
  const { message, hostname, mayUseUtf8, lastAttemptAtMs } = input;
  const { source, deliverBy } = message;
  let text = field('Reporting-MTA', `dns; ${hostname}`);
  if (message.envid !== undefined) text += field('Original-Envelope-Id', plain(headerSafe(message.envid), mayUseUtf8));
  const helo = headerSafe(source.helo ?? '');
  if (helo !== '') text += field('Received-From-MTA', `dns; ${plain(helo, mayUseUtf8)}`);
  text += field('Arrival-Date', formatDate(message.receivedAtMs));
  if (deliverBy) text += field('Deliver-By-Date', formatDate(deliverBy.untilMs));
  for (const reported of input.recipients) {
    const { recipient, action, reply } = reported;
    text += '\r\n';
    if (recipient.orcpt !== undefined) text += field('Original-Recipient', typedOriginal(recipient.orcpt, mayUseUtf8));
    text += field('Final-Recipient', typedAddress(recipient.address, mayUseUtf8));
    text += field('Action', action);
    text += field('Status', statusOf(reported));
    if (reply.host !== undefined) {
      text += field('Remote-MTA', `dns; ${plain(headerSafe(reply.host), mayUseUtf8)}`);
      // RFC 3464 2.3.6: only what a mail server said.
      if (reply.code > 0) {
        const said = plain(headerSafe(reply.text), mayUseUtf8);
        text += field('Diagnostic-Code', `smtp; ${reply.code} ${reply.enhanced} ${said}`.trim());
      }
    }
    if (lastAttemptAtMs !== undefined) text += field('Last-Attempt-Date', formatDate(lastAttemptAtMs));
    text += field('Final-Log-ID', message.id);
    if (action === 'delayed') text += field('Will-Retry-Until', formatDate(input.expiresAtMs));
  }
  return text;
}
