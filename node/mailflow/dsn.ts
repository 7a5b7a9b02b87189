/**
 * Delivery status notifications: multipart/report of RFC 3462 with the delivery-status of RFC 3464 and, where an address or the message needs
 * it, the internationalized types of RFC 6533. Pure: facts in, bytes out.
 */
import { isAscii as areAscii } from 'node:buffer';
import { formatDate } from '../../protocols/message/index.js';
import { encodeUtf8Address } from '../../protocols/smtp/grammar/index.js';
import type { QueueMessage, QueueRecipient } from '../../store/queue/index.js';
import { headerSafe, isAscii } from './addresses.js';
import type { DeliveryReply } from './types.js';

export type ReportKind = 'failed' | 'delayed' | 'success';

/** RFC 3464 2.3.3. */
export type ReportAction = 'failed' | 'delayed' | 'delivered' | 'relayed' | 'expanded';

export interface ReportedRecipient {
  recipient: Pick<QueueRecipient, 'address' | 'orcpt'>;
  action: ReportAction;
  reply: DeliveryReply;
}

export interface ReportInput {
  kind: ReportKind;
  hostname: string;
  message: QueueMessage;
  recipients: readonly ReportedRecipient[];
  /** The message as it was received, or only its header; without our Return-Path. */
  returned: { bytes: Buffer; isHeaderOnly: boolean };
  nowMs: number;
  /** Unique; for Message-ID and boundary. */
  id: string;
}

export interface Report {
  bytes: Buffer;
  /** Length of the Return-Path field at the front. */
  relayOffsetBytes: number;
  isEightBit: boolean;
  /** The report's own header holds UTF-8: it needs SMTPUTF8 on its way. */
  isUtf8: boolean;
}

const subjects: Record<ReportKind, string> = {
  failed: 'Undelivered mail returned to sender',
  delayed: 'Delayed mail (still being retried)',
  success: 'Successful mail delivery report',
};

const sentences: Record<ReportKind, string> = {
  failed:
    'Your message could not be delivered to one or more recipients. It will not be tried again.\r\nThe reasons are given below, and the message is attached.',
  delayed:
    'Your message has not been delivered yet to the recipients below. You need not send it again:\r\ndelivery will be tried until %UNTIL%.',
  success: 'Your message was delivered as you asked to be told.',
};

/** Status types that are told to the sender as `rfc822;address` or `utf-8;address`. */
function typedAddress(address: string): string {
  return isAscii(address) ? `rfc822; ${headerSafe(address)}` : `utf-8; ${headerSafe(address)}`;
}

/** `orcpt` is kept as `type;address`. */
function typedOriginal(orcpt: string): string {
  const at = orcpt.indexOf(';');
  const [type, address] = [orcpt.slice(0, at), orcpt.slice(at + 1)];
  const form = type === 'utf-8' && isAscii(address) ? encodeUtf8Address(address) : address;
  return `${headerSafe(type)}; ${headerSafe(form)}`;
}

/** A field folded at spaces so that no line is longer than 998 octets (RFC 5322 2.1.1). */
function field(name: string, value: string): string {
  const line = `${name}: ${value}`;
  if (Buffer.byteLength(line) <= 900) return `${line}\r\n`;
  return `${line.replace(/(.{1,400})(?: |$)/gu, '$1\r\n ').replace(/[\r\n ]+$/, '')}\r\n`;
}

function statusOf({ action, reply }: ReportedRecipient): string {
  const classes: Record<ReportAction, string> = { failed: '5', delayed: '4', delivered: '2', relayed: '2', expanded: '2' };
  const wanted = classes[action];
  if (!/^[245]\.\d{1,3}\.\d{1,3}$/.test(reply.enhanced)) return `${wanted}.0.0`;
  // A message that has expired failed for a reason that was temporary each time (RFC 3464 2.3.4 allows its 4.x.x).
  if (action === 'failed' && reply.enhanced.startsWith('4')) return reply.enhanced;
  return `${wanted}${reply.enhanced.slice(1)}`;
}

function deliveryStatus(input: ReportInput): string {
  const { message, hostname, nowMs } = input;
  let text = field('Reporting-MTA', `dns; ${hostname}`);
  if (message.envid !== undefined) text += field('Original-Envelope-Id', headerSafe(message.envid));
  text += field('Arrival-Date', formatDate(message.receivedAtMs));
  for (const reported of input.recipients) {
    const { recipient, action, reply } = reported;
    text += '\r\n';
    if (recipient.orcpt !== undefined) text += field('Original-Recipient', typedOriginal(recipient.orcpt));
    text += field('Final-Recipient', typedAddress(recipient.address));
    text += field('Action', action);
    text += field('Status', statusOf(reported));
    if (reply.host !== undefined) {
      text += field('Remote-MTA', `dns; ${headerSafe(reply.host)}`);
      // RFC 3464 2.3.6: only what a mail server said.
      if (reply.code > 0)
        text += field('Diagnostic-Code', `smtp; ${reply.code} ${reply.enhanced} ${headerSafe(reply.text)}`.trim());
    }
    text += field('Last-Attempt-Date', formatDate(nowMs));
    if (action === 'delayed') text += field('Will-Retry-Until', formatDate(message.expiresAtMs));
  }
  return text;
}

function explanation(input: ReportInput): string {
  const lines = input.recipients.map(({ recipient, action, reply }) => {
    const said = reply.host === undefined ? '' : `${headerSafe(reply.host)} said: `;
    const code = reply.code > 0 ? `${reply.code} ` : '';
    const verb = action === 'relayed' ? ' (handed to a mail server that sends no reports of its own)' : '';
    return `<${headerSafe(recipient.address)}>${verb}:\r\n    ${said}${code}${reply.enhanced} ${headerSafe(reply.text)}\r\n`;
  });
  const intro = sentences[input.kind].replace('%UNTIL%', formatDate(input.message.expiresAtMs));
  return `This is the mail system at host ${input.hostname}.\r\n\r\n${intro}\r\n\r\n${lines.join('\r\n')}`;
}

/** Builds the report for `message.from`, which must not be empty (RFC 5321 6.1: never a report about a report). */
export function buildReport(input: ReportInput): Report {
  const { message, hostname, returned, id } = input;
  if (message.from === '') throw new RangeError('a report needs someone to go to');
  const boundary = `=_${id}/${hostname}`;
  const status = deliveryStatus(input);
  const text = explanation(input);
  const isStatusUtf8 = !isAscii(status);
  const isReturnedUtf8 = message.isUtf8;
  const isEightBit = isStatusUtf8 || !isAscii(text) || !areAscii(returned.bytes);
  const isUtf8 = !isAscii(message.from);
  const encoding = isEightBit ? '8bit' : '7bit';
  // RFC 6533 4, 5: the types that may hold UTF-8.
  const statusType = isStatusUtf8 ? 'message/global-delivery-status' : 'message/delivery-status';
  const plainReturned = returned.isHeaderOnly ? 'text/rfc822-headers' : 'message/rfc822';
  const globalReturned = returned.isHeaderOnly ? 'message/global-headers' : 'message/global';
  const returnPath = 'Return-Path: <>\r\n';
  const head =
    `${returnPath}` +
    `Date: ${formatDate(input.nowMs)}\r\n` +
    `From: Mail Delivery System <MAILER-DAEMON@${hostname}>\r\n` +
    field('To', headerSafe(message.from)) +
    `Subject: ${subjects[input.kind]}\r\n` +
    `Message-ID: <${id}@${hostname}>\r\n` +
    'Auto-Submitted: auto-replied\r\n' +
    'MIME-Version: 1.0\r\n' +
    `Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="${boundary}"\r\n` +
    `Content-Transfer-Encoding: ${encoding}\r\n\r\n` +
    `--${boundary}\r\nContent-Description: Notification\r\nContent-Type: text/plain; charset=utf-8\r\n` +
    `Content-Transfer-Encoding: ${isAscii(text) ? '7bit' : '8bit'}\r\n\r\n${text}\r\n` +
    `--${boundary}\r\nContent-Description: Delivery report\r\nContent-Type: ${statusType}\r\n` +
    (isStatusUtf8 ? 'Content-Transfer-Encoding: 8bit\r\n' : '') +
    `\r\n${status}\r\n` +
    `--${boundary}\r\nContent-Description: ${returned.isHeaderOnly ? 'Header of the message' : 'The message'}\r\n` +
    `Content-Type: ${isReturnedUtf8 ? globalReturned : plainReturned}\r\n` +
    (!areAscii(returned.bytes) ? 'Content-Transfer-Encoding: 8bit\r\n' : '') +
    '\r\n';
  const bytes = Buffer.concat([Buffer.from(head), returned.bytes, Buffer.from(`\r\n--${boundary}--\r\n`)]);
  return { bytes, relayOffsetBytes: returnPath.length, isEightBit, isUtf8 };
}
