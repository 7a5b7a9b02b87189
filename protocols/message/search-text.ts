/**
 * The texts of a message in which a search looks: what SEARCH compares with is made here, and the full-text index is filled with the same, so that
 * the two never differ.
 */
import { rawToUnicode } from './charset.js';
import { decodeHeaderText, headerFields, unfold } from './headers.js';
import { htmlToText } from './html-text.js';
import { decodeBody, decodeText, fileNameOf, textParts } from './text.js';
import type { EnvelopeAddress, MessageSummary, Part } from './types.js';

/** Where SEARCH looks; `header` are all fields with their names, `body` all that is no header of the message itself. */
export type SearchTextField = 'from' | 'to' | 'cc' | 'bcc' | 'subject' | 'header' | 'body';

/** Longest body text that SEARCH takes from one message, in characters (it stops behind the part that passes it). */
const maxBodyChars = 16_777_216;

const maxDepth = 64;

/** Names and addresses as SEARCH FROM, TO, CC, BCC see them: `name <local@host>`, one per line. */
export function addressText(addresses: readonly EnvelopeAddress[]): string {
  let text = '';
  for (const { name, mailbox, host } of addresses) {
    if (name !== null) text += `${decodeHeaderText(name)} `;
    if (mailbox !== null) text += `<${rawToUnicode(mailbox)}${host === null ? '' : `@${rawToUnicode(host)}`}>\n`;
  }
  return text;
}

/** The subject as SEARCH SUBJECT sees it. */
export function subjectText(subject: string | null): string {
  return decodeHeaderText(subject ?? '');
}

/** All fields of a header, `name: value` with values decoded, one per line. */
export function headerText(bytes: Buffer, root: Part): string {
  let text = '';
  for (const { name, valueStart, end } of headerFields(bytes, root)) {
    text += `${name}: ${decodeHeaderText(unfold(bytes.toString('latin1', valueStart, end)))}\n`;
  }
  return text;
}

/** All that can be read in a message: its text parts decoded, HTML also without markup, names of attachments, headers of embedded messages. */
export function bodyText(bytes: Buffer, structure: Part): string {
  let text = '';
  for (const part of textParts(structure, { embedded: true })) {
    const decoded = decodeText(bytes, part);
    text += decoded;
    text += '\n';
    if (part.subtype === 'html') text += `${htmlToText(decoded, decoded.length)}\n`;
    if (text.length > maxBodyChars) break;
  }
  return text + namesAndHeaders(bytes, structure, 0);
}

function namesAndHeaders(bytes: Buffer, part: Part, depth: number): string {
  if (depth > maxDepth) return '';
  const name = fileNameOf(part);
  let text = name === undefined ? '' : `${name}\n`;
  for (const child of part.children ?? []) text += namesAndHeaders(bytes, child, depth + 1);
  if (part.message && part.message.structure !== part) {
    text += headerText(bytes, part.message.structure) + namesAndHeaders(bytes, part.message.structure, depth + 1);
  } else if (part.type === 'message' && !part.message) {
    text += decodeBody(bytes, part).toString('latin1');
  }
  return text;
}

export interface SearchTextOptions {
  /** Characters of body text that are read; what is behind them is left out. */
  maxBodyChars: number;
  /** Awaited between pieces of work, so that others get their turn. */
  pause?: () => Promise<void>;
}

export interface SearchTexts {
  texts: { field: SearchTextField; text: string }[];
  /** Fields of which `texts` has not all. */
  partial: SearchTextField[];
}

/** Encoded bytes per character of text, at most: base64 of four-byte characters, and soft line breaks. */
const maxBytesPerChar = 8;
/** What a cut in the middle of an encoded character may have left. */
const cutMarginChars = 16;

/**
 * The texts of a message by field, as `addressText`, `subjectText`, `headerText` and `bodyText` give them; long bodies only in part. Bytes that are not those of
 * the summary give other texts, never an error.
 */
export async function searchTexts(bytes: Buffer, summary: MessageSummary, options: SearchTextOptions): Promise<SearchTexts> {
  const { structure } = summary;
  const texts = searchTextsOfSummary(summary);
  const header = headerText(bytes, structure);
  if (header !== '') texts.push({ field: 'header', text: header });
  const body = await bodyPieces(bytes, structure, options);
  for (const text of body.texts) if (text !== '') texts.push({ field: 'body', text });
  return { texts, partial: body.isPartial ? ['body'] : [] };
}

/** What is known without the message's bytes: addresses and subject. */
export function searchTextsOfSummary({ envelope }: MessageSummary): SearchTexts['texts'] {
  const texts: SearchTexts['texts'] = [];
  for (const field of ['from', 'to', 'cc', 'bcc'] as const) texts.push({ field, text: addressText(envelope[field]) });
  texts.push({ field: 'subject', text: subjectText(envelope.subject) });
  return texts.filter(({ text }) => text !== '');
}

/** How many of a message's bytes `searchTexts` looks at: it does the same with the rest cut off. */
export function textEnd(structure: Part, maxBodyChars: number): number {
  let end = structure.headerEnd;
  const visit = (part: Part, depth: number): void => {
    if (part.type === 'text') end = Math.max(end, Math.min(part.bodyEnd, part.headerEnd + maxBodyChars * maxBytesPerChar));
    if (part.type === 'message' && !part.message) end = Math.max(end, part.bodyEnd);
    if (depth > maxDepth) {
      end = Math.max(end, part.bodyEnd);
      return;
    }
    for (const child of part.children ?? []) visit(child, depth + 1);
    if (part.message && part.message.structure !== part) {
      end = Math.max(end, part.message.structure.headerEnd);
      visit(part.message.structure, depth + 1);
    }
  };
  visit(structure, 0);
  return end;
}

/** What `bodyText` gives, in pieces: line ends part them, so that no word of the whole goes over two. */
async function bodyPieces(
  bytes: Buffer,
  structure: Part,
  { maxBodyChars: maxChars, pause }: SearchTextOptions,
): Promise<{ texts: string[]; isPartial: boolean }> {
  const texts: string[] = [];
  let room = maxChars;
  let isPartial = false;
  const take = (text: string) => {
    if (text.length > room) isPartial = true;
    texts.push(text.length > room ? text.slice(0, room) : text);
    room -= Math.min(room, text.length);
  };
  // Names and embedded headers are short and say much: they come first.
  take(namesAndHeaders(bytes, structure, 0));
  for (const part of textParts(structure, { embedded: true })) {
    if (room === 0) {
      isPartial ||= part.size > 0;
      continue;
    }
    await pause?.();
    const maxBytes = room * maxBytesPerChar;
    let decoded = decodeText(bytes, part, maxBytes);
    if (part.size > maxBytes) {
      isPartial = true;
      decoded = decoded.slice(0, -cutMarginChars);
    }
    take(decoded);
    if (part.subtype !== 'html') continue;
    if (room === 0) {
      // The markup filled all the room: words that it cuts in pieces are not known.
      isPartial = true;
      continue;
    }
    await pause?.();
    take(htmlToText(decoded, decoded.length));
  }
  return { texts, isPartial };
}
