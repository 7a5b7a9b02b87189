/**
 * Builds messages: header, text in the lightest encoding that carries it, attachments, inline parts, alternatives, embedded messages and delivery
 * reports. Time, identifier and randomness are the caller's. Lines end with CRLF.
 */
import { isAscii } from 'node:buffer';
import type { Random } from '../../ops/telemetry/index.js';
import {
  addressHeader,
  type BuildAddress,
  type BuildMailbox,
  dateHeader,
  isMessageId,
  MessageBuildError,
  messageIdHeader,
  parameterizedHeader,
  structuredHeader,
  textHeader,
} from './build-headers.js';
import { asBuffer, wellFormed } from './charset.js';
import { parseMessage } from './parse.js';
import { encodeBase64, encodeQuotedPrintable } from './transfer-encoding.js';

/** What any part may carry besides its content. */
export interface PartOptions {
  disposition?: 'inline' | 'attachment';
  /** Unicode. Implies an attachment unless `disposition` says otherwise. */
  fileName?: string;
  /** Without angle brackets; what `cid:` URLs name. */
  contentId?: string;
  description?: string;
}

/** Name and value of a delivery-status field (RFC 3464), e.g. `['Action', 'failed']`. */
export type StatusField = readonly [name: string, value: string];

export type BodyTree =
  /** Text in Unicode; any line ends. `subtype` defaults to `plain`. */
  | ({ kind: 'text'; text: string; subtype?: string; params?: Readonly<Record<string, string>> } & PartOptions)
  /** Bytes that arrive as they are. `contentType` is `type/subtype`. */
  | ({ kind: 'file'; contentType: string; content: Uint8Array; params?: Readonly<Record<string, string>> } & PartOptions)
  /** A whole message, embedded untouched. */
  | ({ kind: 'message'; message: Uint8Array } & PartOptions)
  /** Only the header of a message (text/rfc822-headers, RFC 6522 4). */
  | ({ kind: 'headers'; message: Uint8Array } & PartOptions)
  /** RFC 3464 2: the fields per message, then those of each recipient. */
  | { kind: 'delivery-status'; message: readonly StatusField[]; recipients: readonly (readonly StatusField[])[] }
  | { kind: 'multipart'; subtype: string; parts: readonly BodyTree[]; params?: Readonly<Record<string, string>> };

export interface ExtraHeader {
  name: string;
  value: string;
  /** `text` is encoded where needed; `structured` (the default) is in wire form already. */
  kind?: 'text' | 'structured';
}

export interface MessageDraft {
  /** Stand on top, in this order. */
  trace?: readonly ExtraHeader[];
  from: readonly BuildAddress[];
  sender?: BuildMailbox;
  replyTo?: readonly BuildAddress[];
  to?: readonly BuildAddress[];
  cc?: readonly BuildAddress[];
  bcc?: readonly BuildAddress[];
  subject?: string;
  date: { epochMs: number; offsetMinutes?: number };
  /** Without angle brackets, as are those below. */
  messageId: string;
  inReplyTo?: readonly string[];
  references?: readonly string[];
  extra?: readonly ExtraHeader[];
  body: BodyTree;
}

export interface BuildOptions {
  /** For boundaries. */
  random: Random;
  /** Internationalized mail: UTF-8 in header fields (RFC 6532). The message then needs SMTPUTF8. */
  eai?: boolean;
  /** Text bodies may be sent as 8bit. The message then needs 8BITMIME. */
  allow8bit?: boolean;
}

/** The message's bytes. Throws `MessageBuildError`. */
export function buildMessage(draft: MessageDraft, options: BuildOptions): Buffer {
  const header = messageHeader(draft, options.eai ?? false);
  const chunks: Buffer[] = [];
  const partHeader = renderPart(draft.body, options, chunks, 0);
  chunks.unshift(Buffer.from(`${header}MIME-Version: 1.0\r\n${partHeader}\r\n`, 'utf8'));
  const last = chunks[chunks.length - 1]!;
  if (last.length > 0 && last[last.length - 1] !== 0x0a) chunks.push(crlf);
  return Buffer.concat(chunks);
}

function messageHeader(draft: MessageDraft, eai: boolean): string {
  const extra = (one: ExtraHeader) => (one.kind === 'text' ? textHeader : structuredHeader)(one.name, one.value, eai);
  const addresses = (name: string, list: readonly BuildAddress[] | undefined) =>
    list && list.length > 0 ? addressHeader(name, list, eai) : '';
  const ids = (name: string, list: readonly string[] | undefined) => {
    // These come from foreign mail: one that cannot be written is no reason to write nothing.
    const writable = (list ?? []).filter(isMessageId);
    return writable.length > 0 ? messageIdHeader(name, writable) : '';
  };
  if (draft.from.length === 0) throw new MessageBuildError('bad-address', 'a message needs an author');
  return [
    ...(draft.trace ?? []).map(extra),
    addresses('From', draft.from),
    addresses('Sender', draft.sender && [draft.sender]),
    addresses('Reply-To', draft.replyTo),
    addresses('To', draft.to),
    addresses('Cc', draft.cc),
    addresses('Bcc', draft.bcc),
    draft.subject === undefined ? '' : textHeader('Subject', draft.subject, eai),
    dateHeader('Date', draft.date.epochMs, draft.date.offsetMinutes),
    messageIdHeader('Message-ID', [draft.messageId]),
    ids('In-Reply-To', draft.inReplyTo),
    ids('References', draft.references),
    ...(draft.extra ?? []).map(extra),
  ].join('');
}

const crlf = Buffer.from('\r\n');
/** Deeper trees are a caller's mistake; our own parser would not divide them. */
const maxBuildDepth = 32;

/** Appends the body's bytes to `chunks` and returns the Content-* fields that go in front of them. */
function renderPart(tree: BodyTree, options: BuildOptions, chunks: Buffer[], depth: number): string {
  if (depth > maxBuildDepth) throw new MessageBuildError('bad-header', 'the parts are nested too deeply');
  switch (tree.kind) {
    case 'text':
      return renderText(tree, options, chunks);
    case 'file':
      return renderFile(tree, chunks);
    case 'message':
      return renderEmbedded(tree, options, chunks);
    case 'headers':
      return renderHeaders(tree, options, chunks);
    case 'delivery-status':
      return renderStatus(tree, options, chunks);
    case 'multipart':
      return renderMultipart(tree, options, chunks, depth);
  }
}

function contentHeader(type: string, params: Readonly<Record<string, string>>, encoding: string, part: PartOptions): string {
  if (!/^[A-Za-z0-9!#$&^_.+-]+\/[A-Za-z0-9!#$&^_.+-]+$/.test(type))
    throw new MessageBuildError('bad-header', `not a media type: ${JSON.stringify(type)}`);
  const disposition = part.disposition ?? (part.fileName === undefined ? undefined : 'attachment');
  return [
    parameterizedHeader('Content-Type', type, params),
    encoding === '7bit' ? '' : `Content-Transfer-Encoding: ${encoding}\r\n`,
    disposition
      ? parameterizedHeader('Content-Disposition', disposition, part.fileName === undefined ? {} : { filename: part.fileName })
      : '',
    part.contentId === undefined ? '' : messageIdHeader('Content-ID', [part.contentId]),
    part.description === undefined ? '' : textHeader('Content-Description', part.description),
  ].join('');
}

/** True when bytes can stand as they are: no NUL, only CRLF line ends, no line beyond 998 bytes (RFC 2045 2.7, 2.8). */
function hasPlainLines(bytes: Buffer): boolean {
  if (bytes.includes(0)) return false;
  let at = 0;
  while (at <= bytes.length) {
    const found = bytes.indexOf(0x0a, at);
    const end = found < 0 ? bytes.length : found;
    if (end - at > 998) return false;
    if (found >= 0 && (found === at || bytes[found - 1] !== 0x0d)) return false;
    const cr = bytes.subarray(at, end).indexOf(0x0d);
    if (cr >= 0 && at + cr !== end - 1) return false;
    if (found < 0) return true;
    at = found + 1;
  }
  return true;
}

function countBeyondAscii(bytes: Buffer): number {
  let count = 0;
  for (let i = 0; i < bytes.length; i++) if (bytes[i]! > 0x7e) count++;
  return count;
}

/** The lightest encoding of text that has been brought to CRLF. */
function encodeTextBytes(bytes: Buffer, allow8bit: boolean): { encoding: string; body: Buffer } {
  const ascii = isAscii(bytes);
  if (hasPlainLines(bytes)) {
    if (ascii) return { encoding: '7bit', body: bytes };
    if (allow8bit) return { encoding: '8bit', body: bytes };
  }
  // Quoted-printable costs two bytes per foreign one, base64 a third of all.
  if (countBeyondAscii(bytes) * 6 <= bytes.length) return { encoding: 'quoted-printable', body: encodeQuotedPrintable(bytes) };
  return { encoding: 'base64', body: encodeBase64(bytes) };
}

function renderText(tree: BodyTree & { kind: 'text' }, options: BuildOptions, chunks: Buffer[]): string {
  const bytes = Buffer.from(wellFormed(tree.text).replace(/\r\n|\r|\n/g, '\r\n'), 'utf8');
  const { encoding, body } = encodeTextBytes(bytes, options.allow8bit ?? false);
  chunks.push(body);
  const charset = isAscii(bytes) ? 'us-ascii' : 'utf-8';
  return contentHeader(`text/${tree.subtype ?? 'plain'}`, { charset, ...tree.params }, encoding, tree);
}

function renderFile(tree: BodyTree & { kind: 'file' }, chunks: Buffer[]): string {
  const content = asBuffer(tree.content);
  const plain = /^text\//i.test(tree.contentType) && isAscii(content) && hasPlainLines(content);
  chunks.push(plain ? content : encodeBase64(content));
  return contentHeader(tree.contentType, tree.params ?? {}, plain ? '7bit' : 'base64', tree);
}

/** RFC 2046 5.2.1: an embedded message is never encoded; one with UTF-8 in its header is message/global (RFC 6532 3.7), which may be. */
function renderEmbedded(tree: BodyTree & { kind: 'message' }, options: BuildOptions, chunks: Buffer[]): string {
  const message = asBuffer(tree.message);
  const { headerEnd } = parseMessage(message, { maxParts: 1 });
  const global = !isAscii(message.subarray(0, headerEnd));
  const encoding = isAscii(message) && hasPlainLines(message) ? '7bit' : hasPlainLines(message) ? '8bit' : 'binary';
  if (global && !options.eai) {
    chunks.push(encodeBase64(message));
    return contentHeader('message/global', {}, 'base64', tree);
  }
  chunks.push(message);
  return contentHeader(global ? 'message/global' : 'message/rfc822', {}, encoding, tree);
}

function renderHeaders(tree: BodyTree & { kind: 'headers' }, options: BuildOptions, chunks: Buffer[]): string {
  const message = asBuffer(tree.message);
  const header = message.subarray(0, parseMessage(message, { maxParts: 1 }).headerEnd);
  const { encoding, body } = encodeTextBytes(header, options.eai ?? false);
  chunks.push(body);
  // RFC 6533 6.3: with UTF-8 in it, the header is message/global-headers.
  return contentHeader(isAscii(header) ? 'text/rfc822-headers' : 'message/global-headers', {}, encoding, tree);
}

function renderStatus(tree: BodyTree & { kind: 'delivery-status' }, options: BuildOptions, chunks: Buffer[]): string {
  const groups = [tree.message, ...tree.recipients].map((fields) =>
    // RFC 3464 2.1: fields are folded like a message's; UTF-8 is for the global form.
    fields.map(([name, value]) => structuredHeader(name, foldable(value), true)).join(''),
  );
  const bytes = Buffer.from(groups.join('\r\n'), 'utf8');
  const global = !isAscii(bytes);
  const { encoding, body } = encodeTextBytes(bytes, options.eai ?? false);
  chunks.push(body);
  return contentHeader(global ? 'message/global-delivery-status' : 'message/delivery-status', {}, encoding, {});
}

/** Diagnostic text comes from foreign servers: no control characters, and no word that would overflow a line. */
function foldable(value: string): string {
  return value.replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/g, '?').replace(/\S{300}(?=\S)/g, '$& ');
}

function renderMultipart(tree: BodyTree & { kind: 'multipart' }, options: BuildOptions, chunks: Buffer[], depth: number): string {
  if (tree.parts.length === 0) throw new MessageBuildError('bad-header', 'a multipart needs a part');
  const children = tree.parts.map((part) => {
    const own: Buffer[] = [];
    return { header: renderPart(part, options, own, depth + 1), chunks: own };
  });
  const boundary = freshBoundary(
    options.random,
    children.flatMap((child) => child.chunks),
  );
  let bits = '7bit';
  for (const child of children) {
    chunks.push(Buffer.from(`--${boundary}\r\n${child.header}\r\n`, 'utf8'), ...child.chunks, crlf);
    // RFC 2045 6.4: a multipart announces the widest encoding inside it.
    const inner = /^Content-Transfer-Encoding: (8bit|binary)\r$/m.exec(child.header)?.[1];
    if (inner && bits !== 'binary') bits = inner;
  }
  chunks.push(Buffer.from(`--${boundary}--\r\n`));
  return contentHeader(`multipart/${tree.subtype}`, { ...tree.params, boundary }, bits, {});
}

/** A boundary that occurs nowhere in `contents`. "=_" is in no base64 and no quoted-printable body. */
function freshBoundary(random: Random, contents: readonly Buffer[]): string {
  for (let attempt = 0; ; attempt++) {
    // The number helps where the given randomness repeats itself.
    const boundary = `=_${random.bytes(15).toString('hex')}${attempt === 0 ? '' : `.${attempt}`}`;
    if (!contents.some((content) => content.includes(boundary))) return boundary;
  }
}

/** What most messages consist of. */
export interface SimpleBody {
  text?: string;
  html?: string;
  /** Shown inside the HTML by their `contentId`. */
  inline?: readonly BodyTree[];
  attachments?: readonly BodyTree[];
}

/** Nests a simple body as readers expect it: mixed(alternative(text, related(html, inline…)), attachments…), without needless layers. */
export function composeBody(body: SimpleBody): BodyTree {
  const multipart = (subtype: string, parts: BodyTree[], params?: Record<string, string>): BodyTree => {
    if (parts.length === 1) return parts[0]!;
    return params ? { kind: 'multipart', subtype, parts, params } : { kind: 'multipart', subtype, parts };
  };
  const shown: BodyTree[] = [];
  if (body.text !== undefined || body.html === undefined) shown.push({ kind: 'text', text: body.text ?? '' });
  if (body.html !== undefined) {
    const html: BodyTree = { kind: 'text', subtype: 'html', text: body.html };
    shown.push(multipart('related', [html, ...(body.inline ?? [])], { type: 'text/html' }));
  }
  return multipart('mixed', [multipart('alternative', shown), ...(body.attachments ?? [])]);
}

/** multipart/report (RFC 6522): an explanation for people, a part for machines, and what the report is about. */
export function reportBody(reportType: string, explanation: BodyTree, machine: BodyTree, subject?: BodyTree): BodyTree {
  const parts = subject ? [explanation, machine, subject] : [explanation, machine];
  return { kind: 'multipart', subtype: 'report', params: { 'report-type': reportType }, parts };
}
