/**
 * Header fields for messages that we write: folding at 78 and never beyond 998 characters (RFC 5322 2.1.1), RFC 2047 words only where ASCII does not
 * do, RFC 2231 parameters, addresses with or without internationalized e-mail (RFC 6532). Values can hold no line end, so nothing can be smuggled in.
 */
import { domainToASCII } from 'node:url';
import { formatAddressSpec } from './addresses.js';
import { wellFormed } from './charset.js';
import { formatDate } from './dates.js';
import { encodeWords } from './encoded-words.js';
import { percentEncode } from './parameters.js';

export type BuildErrorCode = 'eai-required' | 'bad-address' | 'bad-header' | 'line-too-long';

/** The caller asked for a message that cannot be written. */
export class MessageBuildError extends Error {
  override name = 'MessageBuildError';
  constructor(
    readonly code: BuildErrorCode,
    message: string,
  ) {
    super(message);
  }
}

/** A mailbox; Unicode throughout. */
export interface BuildMailbox {
  name?: string;
  /** Before the last `@`, unquoted. */
  local: string;
  domain: string;
}

export interface BuildGroup {
  group: string;
  members: readonly BuildMailbox[];
}

export type BuildAddress = BuildMailbox | BuildGroup;

const preferredLineChars = 78;
const maxLineBytes = 998;
/** A word longer than this is encoded rather than left to overflow the line together with its field's name. */
const maxPlainWordChars = 900;

const oneLine = (text: string) => wellFormed(text).replace(/[\r\n\0]+/g, ' ');
const isAsciiText = (text: string) => /^[\x20-\x7e\t]*$/.test(text);

function checkName(name: string): void {
  if (!/^[\x21-\x39\x3b-\x7e]{1,120}$/.test(name))
    throw new MessageBuildError('bad-header', `not a header field name: ${JSON.stringify(name)}`);
}

/**
 * `Name: pieces` with a fold in front of each piece that would overflow its line. Every piece but the first begins with the white space
 * that a fold keeps.
 */
function fold(name: string, pieces: readonly string[]): string {
  checkName(name);
  let out = `${name}:`;
  let column = out.length;
  for (const [index, given] of pieces.entries()) {
    const piece = index === 0 && given !== '' ? ` ${given.trimStart()}` : given;
    const bytes = Buffer.byteLength(piece);
    if (index > 0 && column + bytes > preferredLineChars) {
      out += '\r\n';
      column = 0;
    }
    column += bytes;
    if (column > maxLineBytes) throw new MessageBuildError('line-too-long', `a part of ${name} cannot be folded`);
    out += piece;
  }
  return `${out}\r\n`;
}

/** Pieces that begin with their white space. */
const piecesOf = (text: string): string[] => text.match(/[ \t]*[^ \t]+/g) ?? [''];

/** An unstructured field such as Subject; with `eai`, UTF-8 stands as it is (RFC 6532). */
export function textHeader(name: string, value: string, eai = false): string {
  const text = oneLine(value).trim();
  const plain = (eai ? !/[\x00-\x08\x0b-\x1f\x7f]/.test(text) : isAsciiText(text)) && !text.includes('=?');
  const pieces = piecesOf(text);
  if (plain && pieces.every((piece) => Buffer.byteLength(piece) <= maxPlainWordChars)) return fold(name, pieces);
  return fold(
    name,
    encodeWords(text, name.length + 2).map((word) => ` ${word}`),
  );
}

/**
 * A structured field whose value is already in wire form (Received, Auto-Submitted …): folded at its white space, otherwise untouched. Throws
 * `bad-header` for 8-bit characters without `eai`.
 */
export function structuredHeader(name: string, value: string, eai = false): string {
  const text = oneLine(value).trim();
  if (!eai && !isAsciiText(text)) throw new MessageBuildError('bad-header', `${name} holds characters beyond ASCII`);
  return fold(name, piecesOf(text));
}

/** Date and its like. */
export function dateHeader(name: string, epochMs: number, offsetMinutes = 0): string {
  return fold(name, [formatDate(epochMs, offsetMinutes)]);
}

/** True for what can stand between `<` and `>` on one line. */
export function isMessageId(id: string): boolean {
  return id.length <= maxPlainWordChars && /^[\x21-\x3b\x3d\x3f-\x7e]+$/.test(id);
}

/** Message-ID, In-Reply-To, References; identifiers without angle brackets. */
export function messageIdHeader(name: string, ids: readonly string[]): string {
  for (const id of ids) {
    if (!isMessageId(id)) throw new MessageBuildError('bad-header', `not a message identifier: ${JSON.stringify(id)}`);
  }
  return fold(
    name,
    ids.map((id) => ` <${id}>`),
  );
}

/** An address field. Throws `eai-required` for a non-ASCII local part without `eai`, `bad-address` for what is no address. */
export function addressHeader(name: string, addresses: readonly BuildAddress[], eai = false): string {
  const pieces: string[] = [];
  for (const [index, address] of addresses.entries()) {
    const own = 'group' in address ? groupPieces(address, eai) : mailboxPieces(address, eai);
    if (index < addresses.length - 1) own[own.length - 1] += ',';
    pieces.push(...own);
  }
  return fold(name, pieces);
}

function groupPieces(group: BuildGroup, eai: boolean): string[] {
  const pieces = phrasePieces(group.group || 'Undisclosed recipients', eai);
  pieces[pieces.length - 1] += ':';
  for (const [index, member] of group.members.entries()) {
    const own = mailboxPieces(member, eai);
    if (index < group.members.length - 1) own[own.length - 1] += ',';
    pieces.push(...own);
  }
  pieces[pieces.length - 1] += ';';
  return pieces;
}

function mailboxPieces(mailbox: BuildMailbox, eai: boolean): string[] {
  const spec = addressSpec(mailbox, eai);
  const name = oneLine(mailbox.name ?? '').trim();
  return name === '' ? [` ${spec}`] : [...phrasePieces(name, eai), ` <${spec}>`];
}

function addressSpec({ local, domain }: BuildMailbox, eai: boolean): string {
  if (local === '' || /[\x00-\x1f\x7f]/.test(local))
    throw new MessageBuildError('bad-address', `not a local part: ${JSON.stringify(local)}`);
  if (!eai && !isAsciiText(local))
    throw new MessageBuildError('eai-required', `${JSON.stringify(local)} needs internationalized mail`);
  const literal = /^\[[\x21-\x5a\x5e-\x7e]+\]$/.test(domain);
  const wire = literal || eai ? domain : domainToASCII(domain);
  if (wire === '' || (!literal && /[\x00-\x20\x7f()<>@,;:\\"[\]]/.test(wire))) {
    throw new MessageBuildError('bad-address', `not a domain: ${JSON.stringify(domain)}`);
  }
  return formatAddressSpec({ local, domain: wire });
}

const atomWord = /^[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\x80-\u{10ffff}]+$/u;

/** A display name as atoms, a quoted string, or encoded words. */
function phrasePieces(name: string, eai: boolean): string[] {
  const text = oneLine(name).trim();
  const pieces = piecesOf(text);
  const plain = (eai ? !/[\x00-\x1f\x7f]/.test(text) : isAsciiText(text) && !text.includes('\t')) && !text.includes('=?');
  if (!plain || pieces.some((piece) => Buffer.byteLength(piece) > maxPlainWordChars))
    return encodeWords(text).map((word) => ` ${word}`);
  if (pieces.every((piece) => atomWord.test(piece.trimStart())) && !/ {2}/.test(text))
    return pieces.map((piece) => ` ${piece.trimStart()}`);
  const quoted = piecesOf(`"${text.replace(/["\\]/g, '\\$&')}"`);
  return quoted.map((piece, index) => (index === 0 ? ` ${piece}` : piece));
}

/** `Name: value; a=b; c*=…`: parameters as tokens, quoted strings or RFC 2231, each on a line where it fits. */
export function parameterizedHeader(name: string, value: string, params: Readonly<Record<string, string>> = {}): string {
  const pieces = [` ${value}`];
  for (const [key, given] of Object.entries(params)) {
    for (const piece of parameterPieces(key, oneLine(given))) {
      pieces[pieces.length - 1] += ';';
      pieces.push(` ${piece}`);
    }
  }
  return fold(name, pieces);
}

/** Characters of one parameter piece, so that it fits on a line with its name. */
const maxParameterPieceChars = 60;

function parameterPieces(key: string, value: string): string[] {
  if (!/^[A-Za-z0-9!#$&+\-.^_`{|}~]{1,60}$/.test(key))
    throw new MessageBuildError('bad-header', `not a parameter name: ${JSON.stringify(key)}`);
  const ascii = /^[\x20-\x7e]*$/.test(value);
  if (ascii && value.length <= maxParameterPieceChars) {
    if (/^[A-Za-z0-9!#$&+\-.^_`{|}~]+$/.test(value)) return [`${key}=${value}`];
    return [`${key}="${value.replace(/["\\]/g, '\\$&')}"`];
  }
  // RFC 2231 3 and 4: everything percent-encoded, also where only the length asks for it: fewer forms, fewer readers' mistakes.
  const units = percentEncode(value).match(/%[0-9A-F]{2}|[^%]/g) ?? [];
  const segments: string[] = [];
  let current = "utf-8''";
  for (const unit of units) {
    if (current.length + unit.length > maxParameterPieceChars) {
      segments.push(current);
      current = '';
    }
    current += unit;
  }
  segments.push(current);
  if (segments.length === 1) return [`${key}*=${segments[0]}`];
  return segments.map((segment, index) => `${key}*${index}*=${segment}`);
}
