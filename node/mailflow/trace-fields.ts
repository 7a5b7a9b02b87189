/** The trace fields that are put in front of an accepted message: Return-Path and Received (RFC 5321 4.4), and what a submission lacks. */
import { formatDate } from '../../protocols/message/index.js';
import { headerSafe, isAscii } from './addresses.js';

export interface TraceInput {
  hostname: string;
  /** Reverse-path, '' for null. */
  from: string;
  greetingName: string;
  remoteAddress: string;
  mode: 'mx' | 'submission' | 'lmtp';
  isExtended: boolean;
  isSecure: boolean;
  isAuthenticated: boolean;
  /** Said only when there is exactly one (RFC 5321 7.2: not to disclose the others). */
  onlyRecipient?: string;
  isUtf8: boolean;
  tls?: { protocol: string; cipher: string };
  queueId: string;
  nowMs: number;
}

/** `Return-Path: <from>` and its line end. */
export function returnPathField(from: string): string {
  return `Return-Path: <${headerSafe(from)}>\r\n`;
}

/** RFC 3848, RFC 6531 4.3. */
function withProtocol({ mode, isExtended, isSecure, isAuthenticated, isUtf8 }: TraceInput): string {
  if (!isExtended && mode !== 'lmtp') return 'SMTP';
  const base = mode === 'lmtp' ? 'LMTP' : 'ESMTP';
  const name = isUtf8 ? `UTF8${mode === 'lmtp' ? 'LMTP' : 'SMTP'}` : base;
  return `${name}${isSecure ? 'S' : ''}${isAuthenticated ? 'A' : ''}`;
}

/** RFC 5321 4.1.3: IPv6 addresses carry their tag. */
function literal(address: string): string {
  return address.includes(':') ? `[IPv6:${address}]` : `[${address}]`;
}

/** The Received field, folded, with its line end. */
export function receivedField(input: TraceInput): string {
  const helo = headerSafe(input.greetingName) || 'unknown';
  const tls = input.tls ? `\r\n\t(${headerSafe(input.tls.protocol)} ${headerSafe(input.tls.cipher)})` : '';
  const only = input.onlyRecipient === undefined ? '' : headerSafe(input.onlyRecipient);
  const forClause = only !== '' && (input.isUtf8 || isAscii(only)) ? `\r\n\tfor <${only}>` : '';
  return (
    `Received: from ${helo} (${literal(input.remoteAddress)})${tls}\r\n` +
    `\tby ${input.hostname} with ${withProtocol(input)} id ${input.queueId}${forClause};\r\n\t${formatDate(input.nowMs)}\r\n`
  );
}
