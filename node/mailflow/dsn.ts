/**
 * Delivery status notifications: multipart/report of RFC 6522 with the delivery-status of RFC 3464 and, where an address or the message needs
 * it, the internationalized types of RFC 6533. Pure: facts in, bytes out.
 */
import { isAscii as areAscii } from 'node:buffer';
import { encodeQuotedPrintable, formatDate, textHeader } from '../../protocols/message/index.js';
import { headerSafe, isAscii } from './addresses.js';
import { deliveryStatus, field, type ReportAction, type StatusInput } from './dsn-status.js';
import { defaultReportLanguages, type ReportTextName, type ReportTexts, reportText, reportTexts } from './report-texts.js';

export type { ReportAction, ReportedRecipient } from './dsn-status.js';

export type ReportKind = 'failed' | 'delayed' | 'success';

export interface ReportInput extends Omit<StatusInput, 'mayUseUtf8' | 'expiresAtMs'> {
  kind: ReportKind;
  /** Default: the message's own. */
  expiresAtMs?: number;
  /** The message as it was received, or only its header; without our Return-Path. */
  returned: { bytes: Buffer; isHeaderOnly: boolean };
  nowMs: number;
  /** Unique; for Message-ID and boundary. */
  id: string;
  /** The first one is also the subject's. Default: English. */
  languages?: readonly string[];
  texts?: Readonly<Record<string, ReportTexts>>;
}

export interface Report {
  bytes: Buffer;
  /** Length of the Return-Path field at the front. */
  relayOffsetBytes: number;
  isEightBit: boolean;
  /** The report's own header holds UTF-8: it needs SMTPUTF8 on its way. */
  isUtf8: boolean;
}

const subjects: Record<ReportKind, ReportTextName> = {
  failed: 'subjectFailed',
  delayed: 'subjectDelayed',
  success: 'subjectSuccess',
};

/** Remarks behind an address. */
const remarks: Partial<Record<ReportAction, ReportTextName>> = {
  delivered: 'delivered',
  relayed: 'relayed',
  expanded: 'expanded',
};

const lineColumns = 76;

/** Broken at spaces; what has none stays whole. */
function wrapped(text: string): string {
  return text
    .split(/\r?\n/)
    .map((line) => line.replace(new RegExp(`(?=.{${lineColumns + 1}})(.{1,${lineColumns}}) `, 'gu'), '$1\r\n'))
    .join('\r\n');
}

/** The reader's part: in every language what has happened, then the recipients. */
function explanation(input: ReportInput, expiresAtMs: number): string {
  const { hostname, kind, returned, recipients, languages = defaultReportLanguages, texts = reportTexts } = input;
  const values = { hostname, until: formatDate(expiresAtMs) };
  const say = (language: string, name: ReportTextName, more = {}) => reportText(texts, language, name, { ...values, ...more });
  const intros = languages.map((language) => {
    const sentences = [say(language, 'greeting'), say(language, kind)];
    if (returned.bytes.length > 0) sentences.push(say(language, returned.isHeaderOnly ? 'headerOnly' : 'whole'));
    return `${sentences.map(wrapped).join('\r\n\r\n')}\r\n`;
  });
  const first = languages[0] ?? 'en';
  const lines = recipients.map(({ recipient, action, reply }) => {
    const said = reply.host === undefined ? '' : `${headerSafe(say(first, 'said', { host: reply.host }))} `;
    const code = reply.code > 0 ? `${reply.code} ` : '';
    const remark = remarks[action];
    const note = remark ? ` (${headerSafe(say(first, remark))})` : '';
    return `<${headerSafe(recipient.address)}>${note}:\r\n    ${said}${code}${reply.enhanced} ${headerSafe(reply.text)}\r\n`;
  });
  return [...intros, ...lines].join('\r\n');
}

/** Header and body of the reader's part; what goes beyond ASCII is encoded, so that it passes every relay. */
function explanationPart(text: string, languages: readonly string[]): string {
  const isPlain = isAscii(text) && text.split('\r\n').every((line) => line.length <= 900);
  const tags = languages.filter((language) => /^[A-Za-z0-9-]{2,35}$/.test(language));
  return (
    'Content-Description: Notification\r\nContent-Type: text/plain; charset=utf-8\r\n' +
    (tags.length > 0 ? `Content-Language: ${tags.join(', ')}\r\n` : '') +
    `Content-Transfer-Encoding: ${isPlain ? '7bit' : 'quoted-printable'}\r\n\r\n` +
    `${isPlain ? text : encodeQuotedPrintable(Buffer.from(text)).toString('latin1')}\r\n`
  );
}

/** Builds the report for `message.from`, which must not be empty (RFC 5321 6.1: never a report about a report). */
export function buildReport(input: ReportInput): Report {
  const { message, hostname, returned, id, languages = defaultReportLanguages, texts = reportTexts } = input;
  if (message.from === '') throw new RangeError('a report needs someone to go to');
  // RFC 2046 5.1.1: 70 characters at most.
  const boundary = `=_${id}/${hostname}`.slice(0, 70);
  const expiresAtMs = input.expiresAtMs ?? message.expiresAtMs;
  const isUtf8 = !isAscii(message.from);
  const status = deliveryStatus({ ...input, expiresAtMs, mayUseUtf8: message.isUtf8 || isUtf8 });
  const isStatusUtf8 = !isAscii(status);
  const isReturnedEightBit = !areAscii(returned.bytes);
  const isEightBit = isStatusUtf8 || isReturnedEightBit || isUtf8;
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
    textHeader('Subject', reportText(texts, languages[0] ?? 'en', subjects[input.kind])) +
    `Message-ID: <${id}@${hostname}>\r\n` +
    // RFC 3834 5: answers itself to nothing, and wants no answer.
    'Auto-Submitted: auto-replied\r\n' +
    'MIME-Version: 1.0\r\n' +
    `Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="${boundary}"\r\n` +
    `Content-Transfer-Encoding: ${isEightBit ? '8bit' : '7bit'}\r\n\r\n` +
    `--${boundary}\r\n${explanationPart(explanation(input, expiresAtMs), languages)}` +
    `--${boundary}\r\nContent-Description: Delivery report\r\nContent-Type: ${statusType}\r\n` +
    (isStatusUtf8 ? 'Content-Transfer-Encoding: 8bit\r\n' : '') +
    `\r\n${status}\r\n` +
    `--${boundary}\r\nContent-Description: ${returned.isHeaderOnly ? 'Header of the message' : 'The message'}\r\n` +
    `Content-Type: ${message.isUtf8 ? globalReturned : plainReturned}\r\n` +
    (isReturnedEightBit ? 'Content-Transfer-Encoding: 8bit\r\n' : '') +
    '\r\n';
  const bytes = Buffer.concat([Buffer.from(head), returned.bytes, Buffer.from(`\r\n--${boundary}--\r\n`)]);
  return { bytes, relayOffsetBytes: returnPath.length, isEightBit, isUtf8 };
}
