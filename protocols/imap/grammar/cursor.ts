/**
 * Reads the arguments of one complete command from left to right. Text is kept as latin1 strings (one character per byte) until somebody
 * needs it as Unicode. Every method throws `ImapSyntaxError` where the grammar is broken, and nothing else.
 */
import { type GrammarLimits, ImapSyntaxError } from './limits.js';
import type { Literal, RawCommand } from './reader.js';

const atomPattern = /[^\x00-\x20(){%*"\\\]\x7f-\xff]+/y;
const astringPattern = /[^\x00-\x20(){%*"\\\x7f-\xff]+/y;
const listMailboxPattern = /[^\x00-\x20(){"\\\x7f]+/y;
const tagPattern = /[^\x00-\x20(){%*"\\+\x7f-\xff]+/y;
const quotedPattern = /"([^"\\\r\n\0]*(?:\\["\\][^"\\\r\n\0]*)*)"/y;
const numberPattern = /[0-9]{1,20}/y;
const setPattern = /(?:\$|[0-9*][0-9*:,]*)/y;
const flagPattern = /\\?[^\x00-\x20(){%*"\\\]\x7f-\xff]+/y;

/** Text of bytes held as latin1, read as UTF-8. */
export function utf8Text(latin1: string): string {
  return /[\x80-\xff]/.test(latin1) ? Buffer.from(latin1, 'latin1').toString('utf8') : latin1;
}

export class Cursor {
  readonly limits: GrammarLimits;
  readonly #texts: readonly string[];
  readonly #literals: readonly Literal[];
  #part = 0;
  #text: string;
  #at = 0;
  #depth = 0;

  constructor(command: RawCommand, limits: GrammarLimits) {
    this.#texts = command.texts;
    this.#literals = command.literals;
    this.#text = command.texts[0] ?? '';
    this.limits = limits;
  }

  /** Nothing is left. */
  get isAtEnd(): boolean {
    return this.#at >= this.#text.length && this.#part >= this.#texts.length - 1;
  }

  /** The text ends here and a literal follows (or, while a command is still coming in, has been announced). */
  get isAtLiteral(): boolean {
    return this.#at >= this.#text.length && this.#part < this.#literals.length;
  }

  /** Whether the next character is `char`. */
  sees(char: string): boolean {
    return this.#text[this.#at] === char;
  }

  /** The next character of the text; '' at its end. */
  peek(): string {
    return this.#text[this.#at] ?? '';
  }

  /** Takes the next character. */
  next(): string {
    return this.#text[this.#at++] ?? '';
  }

  /** Whether the text goes on with `word`, in any case. */
  seesWord(word: string): boolean {
    return this.#text.slice(this.#at, this.#at + word.length).toUpperCase() === word;
  }

  /** Takes `char` if it is next. */
  takes(char: string): boolean {
    if (!this.sees(char)) return false;
    this.#at++;
    return true;
  }

  expect(char: string): void {
    if (!this.takes(char)) this.fail(`Expected ${char === ' ' ? 'a space' : char}`);
  }

  space(): void {
    this.expect(' ');
  }

  /** The command must end here. Trailing spaces are forgiven. */
  end(): void {
    while (this.takes(' '));
    if (!this.isAtEnd) this.fail('Unexpected text after the arguments');
  }

  fail(message: string): never {
    throw new ImapSyntaxError(message);
  }

  /** Opens a parenthesis; too deep is refused. */
  open(): void {
    this.expect('(');
    this.deeper();
  }

  close(): void {
    this.expect(')');
    this.#depth--;
  }

  deeper(): void {
    if (++this.#depth > this.limits.maxDepth) throw new ImapSyntaxError('Nested too deep', 'LIMIT', 'NO');
  }

  shallower(): void {
    this.#depth--;
  }

  #match(pattern: RegExp, what: string): string {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text);
    if (!match) this.fail(`Expected ${what}`);
    this.#at = pattern.lastIndex;
    return match[0];
  }

  tag(): string {
    const tag = this.#match(tagPattern, 'a tag');
    if (tag.length > 64) this.fail('Tag too long');
    return tag;
  }

  atom(): string {
    return this.#match(atomPattern, 'an atom');
  }

  /** An atom in upper case: names of commands, items and options. */
  word(): string {
    return this.atom().toUpperCase();
  }

  /** A flag or keyword as the client wrote it. */
  flag(): string {
    return this.#match(flagPattern, 'a flag');
  }

  /** Text of a sequence set. */
  setText(): string {
    return this.#match(setPattern, 'a sequence set');
  }

  /** 0 to 2^32-1. */
  number(): number {
    const value = Number(this.#match(numberPattern, 'a number'));
    if (value > 0xffff_ffff) this.fail('Number too large');
    return value;
  }

  /** 0 to 2^53-1; RFC 9051 allows 2^63-1, which no size or modseq of ours reaches. */
  number64(): number {
    const value = Number(this.#match(numberPattern, 'a number'));
    return Math.min(value, Number.MAX_SAFE_INTEGER);
  }

  quoted(): string {
    quotedPattern.lastIndex = this.#at;
    const match = quotedPattern.exec(this.#text);
    if (!match) this.fail('Bad quoted string');
    this.#at = quotedPattern.lastIndex;
    const inner = match[1]!;
    return inner.includes('\\') ? inner.replace(/\\(["\\])/g, '$1') : inner;
  }

  literal(): Literal {
    const literal = this.isAtLiteral ? this.#literals[this.#part] : undefined;
    if (!literal) this.fail('Expected a literal');
    this.#part++;
    this.#text = this.#texts[this.#part] ?? '';
    this.#at = 0;
    return literal;
  }

  #literalText(): string {
    const literal = this.literal();
    if (!literal.binary && literal.bytes.includes(0)) this.fail('NUL in a literal');
    return literal.bytes.toString('latin1');
  }

  /** Quoted string or literal. */
  string(): string {
    return this.isAtLiteral ? this.#literalText() : this.quoted();
  }

  astring(): string {
    if (this.isAtLiteral) return this.#literalText();
    return this.sees('"') ? this.quoted() : this.#match(astringPattern, 'a string');
  }

  /** A mailbox pattern of LIST: like an astring, with wildcards. */
  listMailbox(): string {
    if (this.isAtLiteral) return this.#literalText();
    return this.sees('"') ? this.quoted() : this.#match(listMailboxPattern, 'a mailbox pattern');
  }

  nstring(): string | undefined {
    if (!this.isAtLiteral && /^NIL(?![^ )])/i.test(this.#text.slice(this.#at, this.#at + 4))) {
      this.#at += 3;
      return undefined;
    }
    return this.string();
  }

  /** What is left of this line, for SASL initial responses. */
  rest(): string {
    const rest = this.#text.slice(this.#at);
    this.#at = this.#text.length;
    return rest;
  }

  /** `(` item `SP` item … `)`; at least one unless `allowEmpty`. */
  list<T>(read: () => T, allowEmpty = false): T[] {
    this.open();
    const items: T[] = [];
    if (allowEmpty && this.sees(')')) {
      this.close();
      return items;
    }
    do {
      if (items.length >= this.limits.maxArguments) throw new ImapSyntaxError('Too many arguments', 'LIMIT', 'NO');
      items.push(read());
    } while (this.takes(' '));
    this.close();
    return items;
  }
}
