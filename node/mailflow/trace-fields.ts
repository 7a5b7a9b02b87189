/** The trace fields that are put in front of an accepted message: Return-Path and Received (RFC 5321 4.4), and what a submission lacks. */
import { formatDate } from '../../protocols/message/index.js';
import { headerSafe, isAscii } from './addresses.js';

export interface TraceInput {
  hostname: string;
  /** Reverse-path, '' for null. */
  from: string;
  greetingName: string;
  remoteAddress: string;
  /** Its host name, where somebody whom we trust has looked it up. */
  remoteName?: string | undefined;
  mode: 'mx' | 'submission' | 'lmtp';
  isExtended: boolean;
  isSecure: boolean;
  isAuthenticated: boolean;
  /** Said only when there is exactly one (RFC 5321 7.2: not to disclose the others). */
  onlyRecipient?: string;
  isUtf8: boolean;
  tls?: { protocol: string; cipher: string };
  /** The client behind a filter of ours (XFORWARD), as that one says. */
  forwarded?: { name?: string; address?: string; helo?: string };
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

/** Characters that could end a comment are left out. */
function commentSafe(text: string): string {
  return headerSafe(text.replace(/[()\\]/g, '').replace(/[^ -~]/g, '?'));
}

function forwardedComment({ name, address, helo }: NonNullable<TraceInput['forwarded']>): string {
  const said = [name, address && `[${address}]`, helo && `helo=${helo}`].filter(Boolean).join(' ');
  const safe = commentSafe(said);
  return safe === '' ? '' : `\r\n\t(forwarded for ${safe.slice(0, 400)})`;
}

/** The Received field, folded, with its line end. */
export function receivedField(input: TraceInput): string {
  const helo = headerSafe(input.greetingName) || 'unknown';
  const tls = input.tls ? `\r\n\t(${headerSafe(input.tls.protocol)} ${headerSafe(input.tls.cipher)})` : '';
  const name = input.remoteName === undefined ? '' : `${commentSafe(input.remoteName).slice(0, 255)} `;
  const behind = input.forwarded ? forwardedComment(input.forwarded) : '';
  const only = input.onlyRecipient === undefined ? '' : headerSafe(input.onlyRecipient);
  const forClause = only !== '' && (input.isUtf8 || isAscii(only)) ? `\r\n\tfor <${only}>` : '';
  return (
    `Received: from ${helo} (${name}${literal(input.remoteAddress)})${tls}${behind}\r\n` +
    `\tby ${input.hostname} with ${withProtocol(input)} id ${input.queueId}${forClause};\r\n\t${formatDate(input.nowMs)}\r\n`
  );
}
