/**
 * Header fields as byte ranges: iterate, find, unfold, and the exact subsets that IMAP asks for. Offsets are absolute in the message.
 * Lines end with CRLF or a bare LF; a bare CR ends nothing.
 */
import { trimBlanks, trimBlanksEnd } from './blanks.js';
import { asBuffer, rawToUnicode } from './charset.js';
import { decodeEncodedWords } from './encoded-words.js';
import { defaultMessageLimits } from './limits.js';

/** One header field. `[start, end)` covers name, value and the final line end; the value begins at `valueStart`, behind the colon. */
export interface HeaderField {
  /** Lower case. */
  name: string;
  start: number;
  valueStart: number;
  end: number;
}

/** The part of an entity that says where its header lies. */
export interface HeaderRange {
  headerStart: number;
  headerEnd: number;
}

const colon = 0x3a;
const space = 0x20;
const tab = 0x09;
const maxFieldNameChars = 998;

/**
 * Where the field name that starts at `at` ends: the index of its colon, or -1 when no field starts here. RFC 5322 4.5.9 allows
 * white space in front of the colon.
 */
export function findNameEnd(codeAt: (index: number) => number, at: number, end: number): number {
  const stop = Math.min(end, at + maxFieldNameChars);
  let i = at;
  while (i < stop) {
    const code = codeAt(i);
    if (code === colon) return i > at ? i : -1;
    if (code <= space || code >= 0x7f) break;
    i++;
  }
  if (i === at) return -1;
  while (i < stop && (codeAt(i) === space || codeAt(i) === tab)) i++;
  return i < stop && codeAt(i) === colon ? i : -1;
}

/**
 * Visits the fields of header text (bytes as latin1), in order; offsets are relative to `text`. Lines that are no field, such as an mbox
 * "From " line, are passed over together with their continuation. Stops when `visit` returns false or after `maxFields`.
 */
export function forEachField(
  text: string,
  visit: (name: string, start: number, valueStart: number, end: number) => boolean | undefined,
  maxFields = Number.POSITIVE_INFINITY,
): void {
  const codeAt = (index: number) => text.charCodeAt(index);
  let at = 0;
  let count = 0;
  while (at < text.length && count < maxFields) {
    const nameEnd = findNameEnd(codeAt, at, text.length);
    let end = lineEnd(text, nameEnd < 0 ? at : nameEnd);
    while (end < text.length && (codeAt(end) === space || codeAt(end) === tab)) end = lineEnd(text, end);
    if (nameEnd >= 0) {
      count++;
      const name = trimBlanksEnd(text.slice(at, nameEnd)).toLowerCase();
      if (visit(name, at, nameEnd + 1, end) === false) return;
    }
    at = end;
  }
}

function lineEnd(text: string, from: number): number {
  const lf = text.indexOf('\n', from);
  return lf < 0 ? text.length : lf + 1;
}

/** The header's bytes as latin1, without what lies beyond `maxBytes`. */
function headerText(bytes: Uint8Array, range: HeaderRange, maxBytes: number): string {
  return asBuffer(bytes).toString('latin1', range.headerStart, Math.min(range.headerEnd, range.headerStart + maxBytes));
}

/** All fields of an entity's header in the message's order, at most `maxFields`. */
export function headerFields(
  bytes: Uint8Array,
  range: HeaderRange,
  limits: { maxHeaderBytes: number; maxHeaderFields: number } = defaultMessageLimits,
): HeaderField[] {
  const fields: HeaderField[] = [];
  const base = range.headerStart;
  forEachField(
    headerText(bytes, range, limits.maxHeaderBytes),
    (name, start, valueStart, end) => {
      fields.push({ name, start: base + start, valueStart: base + valueStart, end: base + end });
      return undefined;
    },
    limits.maxHeaderFields,
  );
  return fields;
}

/**
 * The raw, unfolded value of the first (or with `occurrence: 'last'` the last) field of that name; undefined when there is none.
 * `name` in any case.
 */
export function findHeader(
  bytes: Uint8Array,
  range: HeaderRange,
  name: string,
  occurrence: 'first' | 'last' = 'first',
): string | undefined {
  const wanted = name.toLowerCase();
  const text = headerText(bytes, range, defaultMessageLimits.maxHeaderBytes);
  let found: string | undefined;
  forEachField(
    text,
    (field, _start, valueStart, end) => {
      if (field !== wanted) return undefined;
      found = unfold(text.slice(valueStart, end));
      return occurrence === 'last';
    },
    defaultMessageLimits.maxHeaderFields,
  );
  return found;
}

/** The raw, unfolded values of all fields of that name, in the message's order. */
export function findHeaders(bytes: Uint8Array, range: HeaderRange, name: string): string[] {
  const wanted = name.toLowerCase();
  const text = headerText(bytes, range, defaultMessageLimits.maxHeaderBytes);
  const found: string[] = [];
  forEachField(
    text,
    (field, _start, valueStart, end) => {
      if (field === wanted) found.push(unfold(text.slice(valueStart, end)));
      return undefined;
    },
    defaultMessageLimits.maxHeaderFields,
  );
  return found;
}

/** RFC 5322 2.2.3: removes line ends (and stray CR, LF, NUL, which no protocol string may carry) and outer white space. */
export function unfold(value: string): string {
  return trimBlanks(/[\r\n\0]/.test(value) ? value.replace(/[\r\n\0]+/g, '') : value);
}

/** A raw unfolded value as a person reads it: RFC 2047 words decoded, 8-bit bytes as UTF-8 or windows-1252. */
export function decodeHeaderText(raw: string): string {
  return raw.includes('=?') ? decodeEncodedWords(raw) : rawToUnicode(raw);
}

/**
 * The bytes of IMAP `BODY[HEADER.FIELDS (names)]`, or with `not` of `HEADER.FIELDS.NOT`: whole fields exactly as sent, in the message's
 * order, closed by an empty line (RFC 9051 6.4.5). For an embedded message pass its root (`part.message.structure`).
 */
export function headerFieldsSubset(bytes: Uint8Array, range: HeaderRange, names: readonly string[], not = false): Buffer {
  const wanted = new Set(names.map((name) => name.toLowerCase()));
  const header = asBuffer(bytes).subarray(range.headerStart, range.headerEnd);
  // The whole header counts here, without limits: a subset that silently ends early would be a lie about the message.
  const text = header.toString('latin1');
  const out = Buffer.allocUnsafe(header.length + 2 * crlf.length);
  let length = 0;
  forEachField(text, (name, start, _valueStart, end) => {
    if (wanted.has(name) === not) return undefined;
    length += header.copy(out, length, start, end);
    // Only the last field of a message that ends with its header can lack its line end.
    if (out[length - 1] !== 0x0a) length += crlf.copy(out, length);
    return undefined;
  });
  length += crlf.copy(out, length);
  return out.subarray(0, length);
}

const crlf = Buffer.from('\r\n');
