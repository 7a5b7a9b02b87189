/**
 * What FETCH asks for (RFC 9051 6.4.5, RFC 3501 6.4.5, with MODSEQ, EMAILID, THREADID, SAVEDATE), and its macros.
 */
import type { Cursor } from './cursor.js';
import { formatAstring } from './format.js';
import { ImapSyntaxError } from './limits.js';

export type SimpleItem =
  | 'UID'
  | 'FLAGS'
  | 'INTERNALDATE'
  | 'RFC822.SIZE'
  | 'ENVELOPE'
  | 'BODY'
  | 'BODYSTRUCTURE'
  | 'MODSEQ'
  | 'EMAILID'
  | 'THREADID'
  | 'SAVEDATE'
  | 'PREVIEW';

/** A section of a message: part numbers, then perhaps what of that part. */
export interface Section {
  path: number[];
  text?: 'HEADER' | 'HEADER.FIELDS' | 'HEADER.FIELDS.NOT' | 'TEXT' | 'MIME';
  /** Of HEADER.FIELDS and HEADER.FIELDS.NOT, as the client wrote them (latin1). */
  fields?: string[];
}

export interface SectionItem {
  kind: 'section' | 'binary' | 'binary-size';
  section: Section;
  /** `<offset.length>`, counted in the bytes that the item would give without it. */
  partial?: { offset: number; length: number };
  /** False when reading it sets \Seen. */
  peek: boolean;
  /** How the item is named in the response, without `<offset>`. */
  label: string;
}

export interface FetchRequest {
  items: Set<SimpleItem>;
  sections: SectionItem[];
}

const macros: Record<string, readonly SimpleItem[]> = {
  FAST: ['FLAGS', 'INTERNALDATE', 'RFC822.SIZE'],
  ALL: ['FLAGS', 'INTERNALDATE', 'RFC822.SIZE', 'ENVELOPE'],
  FULL: ['FLAGS', 'INTERNALDATE', 'RFC822.SIZE', 'ENVELOPE', 'BODY'],
};
const simpleItems: ReadonlySet<string> = new Set<SimpleItem>([
  'UID',
  'FLAGS',
  'INTERNALDATE',
  'RFC822.SIZE',
  'ENVELOPE',
  'BODY',
  'BODYSTRUCTURE',
  'MODSEQ',
  'EMAILID',
  'THREADID',
  'SAVEDATE',
  'PREVIEW',
]);
const maxPathLength = 64;
/** Sections of one FETCH; each may cost a read per message. */
const maxSections = 256;

/** Reads a macro, one item, or a list of items. */
export function readFetchItems(cursor: Cursor): FetchRequest {
  const request: FetchRequest = { items: new Set(), sections: [] };
  if (cursor.sees('(')) {
    cursor.list(() => readItem(cursor, request));
    return request;
  }
  for (const [name, items] of Object.entries(macros)) {
    if (cursor.seesWord(name)) {
      if (cursor.word() !== name) cursor.fail('Unknown fetch item');
      for (const item of items) request.items.add(item);
      return request;
    }
  }
  readItem(cursor, request);
  return request;
}

function readItem(cursor: Cursor, request: FetchRequest): void {
  const name = itemName(cursor);
  if (cursor.sees('[')) {
    if (request.sections.length >= maxSections) throw new ImapSyntaxError('Too many sections', 'LIMIT', 'NO');
    request.sections.push(readSectionItem(cursor, name));
    return;
  }
  const legacy = legacyItem(name);
  if (legacy) request.sections.push(legacy);
  else if (simpleItems.has(name)) {
    request.items.add(name as SimpleItem);
    // RFC 8970 3.2: a preview that is ready is given to the lazy, too, and ours always are.
    if (name === 'PREVIEW' && cursor.seesWord(' (LAZY)')) {
      cursor.space();
      cursor.list(() => cursor.word());
    }
  } else cursor.fail(`Unknown fetch item ${name.slice(0, 40)}`);
}

/** An atom up to `[`, which is an ordinary atom character. */
function itemName(cursor: Cursor): string {
  let name = '';
  while (/^[A-Za-z0-9.]$/.test(cursor.peek())) name += cursor.next();
  if (name === '') cursor.fail('Expected a fetch item');
  return name.toUpperCase();
}

// RFC 3501 6.4.5: the RFC822 items are BODY items under older names.
function legacyItem(name: string): SectionItem | undefined {
  switch (name) {
    case 'RFC822':
      return { kind: 'section', section: { path: [] }, peek: false, label: name };
    case 'RFC822.HEADER':
      return { kind: 'section', section: { path: [], text: 'HEADER' }, peek: true, label: name };
    case 'RFC822.TEXT':
      return { kind: 'section', section: { path: [], text: 'TEXT' }, peek: false, label: name };
    default:
      return undefined;
  }
}

function readSectionItem(cursor: Cursor, name: string): SectionItem {
  const isBinary = name.startsWith('BINARY');
  if (!/^(?:BODY(?:\.PEEK)?|BINARY(?:\.PEEK|\.SIZE)?)$/.test(name)) cursor.fail(`Unknown fetch item ${name.slice(0, 40)}`);
  const section = readSection(cursor, isBinary);
  const kind = name === 'BINARY.SIZE' ? 'binary-size' : isBinary ? 'binary' : 'section';
  const label = `${kind === 'binary-size' ? name : isBinary ? 'BINARY' : 'BODY'}[${sectionText(section)}]`;
  const item: SectionItem = { kind, section, peek: name !== 'BODY' && name !== 'BINARY', label };
  if (kind !== 'binary-size' && cursor.takes('<')) {
    const offset = cursor.number64();
    cursor.expect('.');
    const length = cursor.number64();
    if (length === 0) cursor.fail('A partial range needs a length');
    cursor.expect('>');
    item.partial = { offset, length };
  }
  return item;
}

function readSection(cursor: Cursor, partOnly: boolean): Section {
  cursor.expect('[');
  const path: number[] = [];
  const section: Section = { path };
  if (cursor.takes(']')) return section;
  for (;;) {
    if (/^[0-9]$/.test(cursor.peek())) {
      const number = cursor.number();
      if (number === 0 || path.length >= maxPathLength) cursor.fail('Bad part number');
      path.push(number);
    } else {
      if (partOnly) cursor.fail('Only part numbers are allowed here');
      readSectionText(cursor, section);
      break;
    }
    if (!cursor.takes('.')) break;
  }
  cursor.expect(']');
  return section;
}

function readSectionText(cursor: Cursor, section: Section): void {
  const name = itemName(cursor);
  switch (name) {
    case 'MIME':
      if (section.path.length === 0) cursor.fail('MIME needs a part number');
      section.text = 'MIME';
      return;
    case 'HEADER':
    case 'TEXT':
      section.text = name;
      return;
    case 'HEADER.FIELDS':
    case 'HEADER.FIELDS.NOT':
      section.text = name;
      cursor.space();
      section.fields = cursor.list(() => cursor.astring());
      return;
    default:
      cursor.fail(`Unknown section ${name.slice(0, 40)}`);
  }
}

function sectionText(section: Section): string {
  const path = section.path.join('.');
  if (!section.text) return path;
  const fields = section.fields ? ` (${section.fields.map(formatAstring).join(' ')})` : '';
  return `${path}${path === '' ? '' : '.'}${section.text}${fields}`;
}
