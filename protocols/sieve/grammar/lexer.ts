/** Words of a script (RFC 5228 8.1). Linear in its size, one word at a time, without regular expressions that could go back. */
import { type Position, SieveError, type SieveLimits } from '../contract.js';

export type TokenKind = 'identifier' | 'tag' | 'number' | 'string' | 'punctuation' | 'end';

/** `text` is in lower case for identifiers and tags (without the colon), unquoted for strings. */
export interface Token {
  kind: TokenKind;
  text: string;
  /** Of a number, its unit applied. */
  value: number;
  at: Position;
}

const maxIdentifierChars = 128;

const TAB = 0x09;
const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;
const QUOTE = 0x22;
const HASH = 0x23;
const STAR = 0x2a;
const DOT = 0x2e;
const SLASH = 0x2f;
const COLON = 0x3a;
const BACKSLASH = 0x5c;

const isDigit = (code: number) => code >= 0x30 && code <= 0x39;
const isIdentifierStart = (code: number) => (code >= 0x61 && code <= 0x7a) || (code >= 0x41 && code <= 0x5a) || code === 0x5f;
const isIdentifierPart = (code: number) => isIdentifierStart(code) || isDigit(code);

/** RFC 5228 2.4.1. */
const units: Readonly<Record<string, number>> = { k: 1024, m: 1_048_576, g: 1_073_741_824 };

export class Lexer {
  readonly #text: string;
  readonly #maxTextBytes: number;
  #index = 0;
  #line = 1;
  #lineStart = 0;

  constructor(text: string, limits: Pick<SieveLimits, 'maxTextBytes'>) {
    this.#text = text;
    this.#maxTextBytes = limits.maxTextBytes;
  }

  /** @throws SieveError */
  next(): Token {
    this.#skipBlanks();
    const at = this.#here();
    const code = this.#codeAt(this.#index);
    if (Number.isNaN(code)) return { kind: 'end', text: '', value: 0, at };
    if (isIdentifierStart(code)) return this.#identifier(at);
    if (isDigit(code)) return this.#number(at);
    if (code === QUOTE) return this.#quoted(at);
    if (code === COLON) return this.#tag(at);
    const text = this.#text[this.#index]!;
    if (!';,()[]{}'.includes(text)) {
      throw new SieveError(`${describe(this.#text.codePointAt(this.#index)!)} can't stand here`, at);
    }
    this.#index++;
    return { kind: 'punctuation', text, value: 0, at };
  }

  #codeAt(index: number): number {
    return this.#text.charCodeAt(index);
  }

  #here(index = this.#index): Position {
    return { line: this.#line, column: index - this.#lineStart + 1 };
  }

  #newLine(lineStart: number): void {
    this.#line++;
    this.#lineStart = lineStart;
  }

  #skipBlanks(): void {
    for (;;) {
      const code = this.#codeAt(this.#index);
      if (code === SPACE || code === TAB) this.#index++;
      else if (code === LF) this.#newLine(++this.#index);
      else if (code === CR) this.#skipCr();
      else if (code === HASH) this.#index = this.#lineEnd();
      else if (code === SLASH && this.#codeAt(this.#index + 1) === STAR) this.#skipBracketComment();
      else return;
    }
  }

  #skipCr(): void {
    if (this.#codeAt(this.#index + 1) !== LF) throw new SieveError("a CR without LF can't stand here", this.#here());
    this.#index++;
  }

  /** Where the line's LF is, or the script ends. */
  #lineEnd(): number {
    const end = this.#text.indexOf('\n', this.#index);
    return end < 0 ? this.#text.length : end;
  }

  /** RFC 5228 2.3: they do not nest. */
  #skipBracketComment(): void {
    const end = this.#text.indexOf('*/', this.#index + 2);
    if (end < 0) throw new SieveError("this comment has no end: '*/' is missing", this.#here());
    for (let lf = this.#text.indexOf('\n', this.#index); lf >= 0 && lf < end; lf = this.#text.indexOf('\n', lf + 1)) {
      this.#newLine(lf + 1);
    }
    this.#index = end + 2;
  }

  #word(start: number): string {
    let end = start;
    while (isIdentifierPart(this.#codeAt(end))) end++;
    if (end - start > maxIdentifierChars) {
      throw new SieveError(`this name is too long: at most ${maxIdentifierChars} characters`, this.#here(start));
    }
    this.#index = end;
    return this.#text.slice(start, end).toLowerCase();
  }

  #identifier(at: Position): Token {
    const text = this.#word(this.#index);
    if (text === 'text' && this.#codeAt(this.#index) === COLON) return this.#multiLine(at);
    return { kind: 'identifier', text, value: 0, at };
  }

  #tag(at: Position): Token {
    if (!isIdentifierStart(this.#codeAt(this.#index + 1))) throw new SieveError("a name is missing behind ':'", at);
    return { kind: 'tag', text: this.#word(this.#index + 1), value: 0, at };
  }

  #number(at: Position): Token {
    let value = 0;
    while (isDigit(this.#codeAt(this.#index))) {
      value = value * 10 + (this.#codeAt(this.#index++) - 0x30);
      if (value > Number.MAX_SAFE_INTEGER) throw new SieveError('this number is too large', at);
    }
    const unit = units[this.#text.charAt(this.#index).toLowerCase()];
    if (unit !== undefined) {
      this.#index++;
      value *= unit;
      if (value > Number.MAX_SAFE_INTEGER) throw new SieveError('this number is too large', at);
    }
    if (isIdentifierPart(this.#codeAt(this.#index))) {
      throw new SieveError("a number ends with a digit, 'K', 'M' or 'G'", this.#here());
    }
    return { kind: 'number', text: '', value, at };
  }

  #quoted(at: Position): Token {
    const pieces: string[] = [];
    let start = ++this.#index;
    const cut = (to: number) => pieces.push(this.#text.slice(start, to));
    for (;;) {
      const code = this.#codeAt(this.#index);
      if (code === QUOTE) break;
      if (Number.isNaN(code)) throw new SieveError("this text has no end: '\"' is missing", at);
      if (code === BACKSLASH) {
        // RFC 5228 2.4.2: an escaped character other than '"' and '\' stands for itself.
        cut(this.#index++);
        start = this.#index;
        const escaped = this.#codeAt(this.#index);
        if (escaped !== LF && escaped !== CR && escaped > 0) this.#index++;
      } else if (code === LF) {
        cut(this.#index);
        pieces.push('\r\n');
        start = ++this.#index;
        this.#newLine(start);
      } else if (code === CR) {
        cut(this.#index);
        this.#skipCr();
        start = this.#index;
      } else if (code === 0) {
        throw new SieveError("a NUL can't stand in a text", this.#here());
      } else this.#index++;
    }
    cut(this.#index++);
    return this.#string(pieces.length === 1 ? pieces[0]! : pieces.join(''), at);
  }

  /** RFC 5228 8.1 multi-line: behind `text:`. */
  #multiLine(at: Position): Token {
    this.#index++;
    while (this.#codeAt(this.#index) === SPACE || this.#codeAt(this.#index) === TAB) this.#index++;
    if (this.#codeAt(this.#index) === HASH) this.#index = this.#withoutCr(this.#lineEnd());
    if (this.#codeAt(this.#index) === CR) this.#skipCr();
    if (this.#codeAt(this.#index) !== LF) {
      throw new SieveError("behind 'text:' the line must end", this.#here());
    }
    this.#newLine(++this.#index);
    const lines: string[] = [];
    for (;;) {
      if (this.#index >= this.#text.length) throw new SieveError("this text has no end: a line with '.' alone is missing", at);
      const lf = this.#lineEnd();
      const end = this.#withoutCr(lf);
      let line = this.#text.slice(this.#index, end);
      this.#checkLine(line);
      const isLast = line === '.';
      this.#index = Math.min(lf + 1, this.#text.length);
      if (lf < this.#text.length) this.#newLine(this.#index);
      if (isLast) break;
      if (line.charCodeAt(0) === DOT) line = line.slice(1);
      lines.push(line, '\r\n');
    }
    return this.#string(lines.join(''), at);
  }

  #withoutCr(lf: number): number {
    return lf > this.#index && this.#codeAt(lf - 1) === CR ? lf - 1 : lf;
  }

  #checkLine(line: string): void {
    const cr = line.indexOf('\r');
    if (cr >= 0) throw new SieveError("a CR without LF can't stand here", this.#here(this.#index + cr));
    const nul = line.indexOf('\0');
    if (nul >= 0) throw new SieveError("a NUL can't stand in a text", this.#here(this.#index + nul));
  }

  #string(text: string, at: Position): Token {
    // Three bytes per UTF-16 unit at most: only long ones are counted.
    if (text.length * 3 > this.#maxTextBytes && Buffer.byteLength(text) > this.#maxTextBytes) {
      throw new SieveError(`this text is too long: at most ${this.#maxTextBytes} bytes`, at);
    }
    return { kind: 'string', text, value: 0, at };
  }
}

function describe(codePoint: number): string {
  if (codePoint > 0x20 && codePoint !== 0x7f && codePoint < 0x80) return `'${String.fromCodePoint(codePoint)}'`;
  return `the character U+${codePoint.toString(16).toUpperCase().padStart(4, '0')}`;
}
