/**
 * `value; name=value; …` of Content-Type and Content-Disposition (RFC 2045 5.1, RFC 2183), with RFC 2231 continuations and charsets, and with
 * what senders do instead: unquoted spaces, doubled semicolons, comments, missing closing quotes.
 */
import { trimBlanks } from './blanks.js';
import { decodeCharset, rawToUnicode, unicodeToRaw, wellFormed } from './charset.js';

export interface ParameterizedValue {
  /** What stands in front of the first semicolon, comments removed; raw, as sent. */
  value: string;
  /** Decoded, by lower-case name, in order of appearance. */
  params: Record<string, string>;
  /** The boundary parameter uncut and raw, as delimiter lines spell it. */
  boundary?: string;
}

export interface ParameterLimits {
  maxParameters: number;
  maxParameterChars: number;
}

/** One piece of an RFC 2231 parameter; `index` 0 also stands for an undivided `name*`. */
interface Segment {
  index: number;
  extended: boolean;
  value: string;
}

/** Continuations of one parameter that are read, `name*0` … */
const maxContinuations = 200;

/** Parses a raw unfolded field value. Never throws; work is linear in its length. */
export function parseParameterized(raw: string, limits: ParameterLimits): ParameterizedValue {
  const scan = new Scanner(raw);
  const value = scan.readUntilSemicolon();
  const plain = new Map<string, string>();
  const segmented = new Map<string, Segment[]>();
  while (scan.skipToName()) {
    const name = scan.readName();
    if (name === undefined) continue;
    const text = scan.readValue(name);
    if (plain.size + segmented.size >= limits.maxParameters && !segmented.has(baseName(name))) continue;
    addParameter(name, text, plain, segmented);
  }
  const result: ParameterizedValue = { value, params: collect(plain, segmented, limits.maxParameterChars) };
  const pieces = segmented.get('boundary');
  const boundary = pieces ? unicodeToRaw(joinSegments(pieces)) : plain.get('boundary');
  if (boundary) result.boundary = boundary;
  return result;
}

const baseName = (name: string) => (name.includes('*') ? name.slice(0, name.indexOf('*')) : name);

function addParameter(name: string, text: string, plain: Map<string, string>, segmented: Map<string, Segment[]>): void {
  const match = /^([^*]+)\*(?:(\d{1,3})(\*?))?$/.exec(name);
  if (!match) {
    if (!plain.has(name)) plain.set(name, text);
    return;
  }
  const base = match[1]!;
  const segment: Segment = { index: Number(match[2] ?? 0), extended: match[2] === undefined || match[3] === '*', value: text };
  const list = segmented.get(base);
  if (!list) segmented.set(base, [segment]);
  else if (list.length < maxContinuations) list.push(segment);
  // Keeps the place in the order of appearance; the decoded value wins over a plain fallback (RFC 2231 and RFC 6266 4.3).
  if (!plain.has(base)) plain.set(base, '');
}

function collect(plain: Map<string, string>, segmented: Map<string, Segment[]>, maxChars: number): Record<string, string> {
  const params: Record<string, string> = {};
  for (const [name, value] of plain) {
    if (name === '__proto__') continue;
    const segments = segmented.get(name);
    params[name] = cut(segments ? joinSegments(segments) : rawToUnicode(value), maxChars);
  }
  return params;
}

function cut(text: string, maxChars: number): string {
  return text.length > maxChars ? wellFormed(text.slice(0, maxChars)) : text;
}

/** RFC 2231 4.1: pieces in the order of their numbers, up to the first gap; charset and language stand in the first. */
function joinSegments(segments: Segment[]): string {
  segments.sort((a, b) => a.index - b.index);
  let charset: string | undefined;
  let bytes = '';
  let expected = segments[0]?.index ?? 0;
  for (const segment of segments) {
    if (segment.index < expected) continue;
    if (segment.index > expected) break;
    let text = segment.value;
    if (segment.extended) {
      const mark = expected === 0 || charset === undefined ? /^([^']*)'[^']*'/.exec(text) : null;
      if (mark) {
        charset = mark[1];
        text = text.slice(mark[0].length);
      }
      text = text.replace(/%([0-9A-Fa-f]{2})/g, (_all, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
    }
    bytes += text;
    expected++;
  }
  return decodeCharset(Buffer.from(bytes, 'latin1'), charset).replace(/[\r\n\0]/g, ' ');
}

const isSpace = (code: number) => code === 0x20 || code === 0x09 || code === 0x0d || code === 0x0a;

class Scanner {
  private at = 0;
  constructor(private readonly text: string) {}

  /** The token in front of the first semicolon. */
  readUntilSemicolon(): string {
    let out = '';
    while (this.at < this.text.length && this.text[this.at] !== ';') {
      if (this.text[this.at] === '(') this.skipComment();
      else out += this.text[this.at++];
    }
    return trimBlanks(out);
  }

  /** Passes semicolons, white space and comments; false at the end. */
  skipToName(): boolean {
    while (this.at < this.text.length) {
      const code = this.text.charCodeAt(this.at);
      if (code === 0x28) this.skipComment();
      else if (code === 0x3b || isSpace(code)) this.at++;
      else return true;
    }
    return false;
  }

  /** The lower-case name in front of `=`; undefined (and the piece passed over) when there is none. */
  readName(): string | undefined {
    const start = this.at;
    while (this.at < this.text.length && this.text[this.at] !== '=' && this.text[this.at] !== ';') this.at++;
    const name = trimBlanks(this.text.slice(start, this.at)).toLowerCase();
    if (this.text[this.at] !== '=') return undefined;
    this.at++;
    return name.length > 0 && name.length <= 128 ? name : '';
  }

  /** The raw value behind `=`, quoting removed; the scanner then stands at the next semicolon or the end. */
  readValue(name: string): string {
    while (this.at < this.text.length && isSpace(this.text.charCodeAt(this.at))) this.at++;
    if (this.text[this.at] === '"') {
      const value = this.readQuoted();
      while (this.at < this.text.length && this.text[this.at] !== ';') {
        if (this.text[this.at] === '(') this.skipComment();
        else this.at++;
      }
      return value;
    }
    const semicolon = this.text.indexOf(';', this.at);
    const end = semicolon < 0 ? this.text.length : semicolon;
    const value = trimBlanks(this.text.slice(this.at, end));
    this.at = end;
    // File names are sent unquoted with spaces and parentheses; nothing else is.
    const base = baseName(name);
    return base === 'name' || base === 'filename' ? value : (/^[^\t-\r (]*/.exec(value)?.[0] ?? '');
  }

  private readQuoted(): string {
    let from = ++this.at;
    let out = '';
    while (this.at < this.text.length) {
      const code = this.text.charCodeAt(this.at);
      if (code === 0x22) break;
      if (code === 0x5c && this.at + 1 < this.text.length) {
        out += this.text.slice(from, this.at);
        from = this.at + 1;
        this.at++;
      }
      this.at++;
    }
    out += this.text.slice(from, this.at);
    this.at++;
    return out;
  }

  private skipComment(): void {
    let depth = 0;
    while (this.at < this.text.length) {
      const code = this.text.charCodeAt(this.at++);
      if (code === 0x5c) this.at++;
      else if (code === 0x28) depth++;
      else if (code === 0x29 && --depth === 0) return;
    }
  }
}

const attributeChar = /[A-Za-z0-9!#$&+\-.^_`{|}~]/;

/** RFC 2231 4: `utf-8''percent-encoded`, for a parameter written as `name*=…` (IMAP emits non-ASCII parameters so). */
export function encodeExtendedValue(value: string): string {
  return `utf-8''${percentEncode(value)}`;
}

/** The value's UTF-8 with everything but RFC 2231 attribute characters percent-encoded. */
export function percentEncode(value: string): string {
  let out = '';
  for (const byte of Buffer.from(value, 'utf8')) {
    const character = String.fromCharCode(byte);
    out += byte < 0x80 && attributeChar.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return out;
}
