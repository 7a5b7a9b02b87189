/** What people read in a message: decoded text of its parts, plain text for search, and the preview shown in lists. */
import { asBuffer, decodeCharset, wellFormed } from './charset.js';
import { decodeEncodedWords } from './encoded-words.js';
import { htmlToText } from './html-text.js';
import { previewMaxChars } from './limits.js';
import { decodeTransfer } from './transfer-encoding.js';
import type { MessageStructure, Part } from './types.js';

/** The decoded body of any part; a view of the message where nothing is encoded. */
export function decodeBody(bytes: Uint8Array, part: Part): Buffer {
  return decodeTransfer(asBuffer(bytes).subarray(part.headerEnd, part.bodyEnd), part.encoding);
}

/** The text of a text part in Unicode, line ends as sent. Reads at most `maxBytes` of the encoded body when given. */
export function decodeText(bytes: Uint8Array, part: Part, maxBytes = Number.POSITIVE_INFINITY): string {
  const end = Math.min(part.bodyEnd, part.headerEnd + maxBytes);
  const body = decodeTransfer(asBuffer(bytes).subarray(part.headerEnd, end), part.encoding);
  return decodeCharset(body, part.params['charset'] ?? (part.subtype === 'html' ? htmlCharset(body) : undefined));
}

/** The charset that an HTML document declares in its first kilobyte. */
function htmlCharset(body: Buffer): string | undefined {
  return /<meta[^>]{0,200}charset\s{0,8}=\s{0,8}["']?([A-Za-z0-9_:.-]{1,40})/i.exec(body.toString('latin1', 0, 1024))?.[1];
}

/** Encoded bytes read of one part for `plainText`, per character wanted: markup, base64 and multi-byte characters leave that much room. */
const bytesPerChar = 64;

/** The plain text of a text part (HTML stripped), at most about `maxChars` characters. */
export function plainText(bytes: Uint8Array, part: Part, maxChars: number): string {
  const text = decodeText(bytes, part, maxChars * bytesPerChar);
  return part.subtype === 'html' ? htmlToText(text, maxChars) : text.slice(0, maxChars);
}

/** All text parts in the message's order, those of embedded messages included when asked for. */
export function* textParts(structure: MessageStructure, options: { embedded?: boolean } = {}): Generator<Part> {
  const pending: Part[] = [structure];
  for (let part = pending.pop(); part; part = pending.pop()) {
    if (part.type === 'text') yield part;
    if (part.children) for (let i = part.children.length - 1; i >= 0; i--) pending.push(part.children[i]!);
    if (part.message && options.embedded) pending.push(part.message.structure);
  }
}

/** True for parts that are meant to be saved rather than shown. */
export function isAttachment(part: Part): boolean {
  return part.disposition === 'attachment';
}

/**
 * The file name that the part suggests, Unicode; undefined when it has none. RFC 2047 words inside parameters are forbidden, sent
 * by many, and decoded here.
 */
export function fileNameOf(part: Part): string | undefined {
  const name = part.dispositionParams?.['filename'] ?? part.params['name'];
  if (!name) return undefined;
  return name.includes('=?') ? decodeEncodedWords(Buffer.from(name, 'utf8').toString('latin1')) : name;
}

/**
 * The part whose text represents the message: the first shown text/plain with content, else the first shown text/html, else any other
 * text that is no attachment.
 */
export function mainTextPart(structure: MessageStructure): Part | undefined {
  let html: Part | undefined;
  let other: Part | undefined;
  for (const part of textParts(structure)) {
    if (isAttachment(part) || part.size === 0) continue;
    if (part.subtype === 'plain') return part;
    if (part.subtype === 'html') html ??= part;
    else if (part.subtype !== 'calendar' && part.subtype !== 'rfc822-headers') other ??= part;
  }
  return html ?? other;
}

/** The first words of the message on one line, at most `previewMaxChars` UTF-16 units; undefined when it has no text. */
export function preview(bytes: Uint8Array, structure: MessageStructure): string | undefined {
  const part = mainTextPart(structure);
  if (!part) return undefined;
  const line = plainText(bytes, part, previewMaxChars * 4)
    .replace(/[\s\0]+/g, ' ')
    .trim();
  if (line === '') return undefined;
  return line.length > previewMaxChars ? wellFormed(line.slice(0, previewMaxChars)).replace(/\ufffd$/, '') : line;
}
