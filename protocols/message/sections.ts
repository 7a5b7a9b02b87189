/** IMAP section numbers (RFC 9051 6.4.5) to parts and byte ranges. */
import type { MessageStructure, Part } from './types.js';

export type SectionText = 'HEADER' | 'TEXT' | 'MIME';

/** `1.2.HEADER` is `{ numbers: [1, 2], text: 'HEADER' }`; the whole message is `{ numbers: [] }`. */
export interface SectionPath {
  numbers: readonly number[];
  text?: SectionText;
}

/** Bytes `[start, end)` of the message. */
export interface ByteRange {
  start: number;
  end: number;
}

/** Deeper paths name nothing that the parser would have found. */
const maxSectionNumbers = 256;

/** Parses `''`, `TEXT`, `1.2`, `1.2.MIME` …; undefined when it is no section (MIME without a number is none). */
export function parseSectionPath(text: string): SectionPath | undefined {
  if (text === '') return { numbers: [] };
  const match = /^((?:[1-9]\d{0,9}\.)*)(?:([1-9]\d{0,9})|(HEADER|TEXT|MIME))$/i.exec(text);
  if (!match) return undefined;
  const numbers = match[1]!.split('.').filter(Boolean).map(Number);
  if (match[2]) numbers.push(Number(match[2]));
  if (numbers.length > maxSectionNumbers) return undefined;
  const kind = match[3]?.toUpperCase() as SectionText | undefined;
  if (kind === 'MIME' && numbers.length === 0) return undefined;
  return kind ? { numbers, text: kind } : { numbers };
}

/**
 * The part that the numbers name; undefined when there is none. `[]` is the root. A message that is no multipart has itself as part 1,
 * and numbers behind an embedded message count inside it.
 */
export function findPart(structure: MessageStructure, numbers: readonly number[]): Part | undefined {
  let container: Part = structure;
  let part: Part = structure;
  for (const [index, number] of numbers.entries()) {
    if (index > 0) {
      // Below an embedded message its own structure is numbered; below a multipart its children; below anything else nothing.
      if (part.message) container = part.message.structure;
      else if (part.children) container = part;
      else return undefined;
    }
    const next: Part | undefined = container.children ? container.children[number - 1] : number === 1 ? container : undefined;
    if (!next) return undefined;
    part = next;
  }
  return part;
}

/** The entity whose header and text `n.HEADER` and `n.TEXT` mean: the message itself or an embedded one; undefined for other parts. */
export function messageAt(structure: MessageStructure, numbers: readonly number[]): MessageStructure | undefined {
  return numbers.length === 0 ? structure : findPart(structure, numbers)?.message?.structure;
}

/** The bytes of a section, HEADER including its empty line; undefined when the message has no such section. */
export function resolveSection(structure: MessageStructure, path: SectionPath | string): ByteRange | undefined {
  const section = typeof path === 'string' ? parseSectionPath(path) : path;
  if (!section) return undefined;
  const { numbers, text } = section;
  if (text === 'HEADER' || text === 'TEXT') {
    const message = messageAt(structure, numbers);
    if (!message) return undefined;
    return text === 'HEADER'
      ? { start: message.headerStart, end: message.headerEnd }
      : { start: message.headerEnd, end: message.bodyEnd };
  }
  const part = findPart(structure, numbers);
  if (!part) return undefined;
  if (text === 'MIME') return numbers.length === 0 ? undefined : { start: part.headerStart, end: part.headerEnd };
  return { start: numbers.length === 0 ? part.headerStart : part.headerEnd, end: part.bodyEnd };
}
