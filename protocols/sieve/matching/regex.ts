/**
 * `:regex` (draft-ietf-sieve-regex): POSIX extended regular expressions, leftmost-longest, by RE2's engine, whose time is linear in the text.
 * What POSIX leaves undefined is refused, but for the escapes and groups that everybody writes (`\d`, `\w`, `\s`, `\b`, `(?:`).
 */
import { RE2JS } from 're2js';
import { maxCaptures } from './wildcard.js';

/** Characters of one expression. */
export const maxRegexChars = 2048;
/** Instructions that RE2 makes of one: work for one character of the text. */
const maxRegexProgram = 5_000;
/** POSIX' RE_DUP_MAX. */
const maxRepeat = 255;

export interface Regex {
  /** Work for one character of the text, in characters compared. */
  readonly testCost: number;
  readonly matchCost: number;
  test(text: string): boolean;
  /** What was matched and the groups, in their order; undefined: none of the text matches. Many times dearer than `test`. */
  match(text: string): string[] | undefined;
}

/** Why an expression can't be taken. */
export class RegexError extends Error {
  override readonly name = 'RegexError';
}

/** Throws RegexError. */
export function compileRegex(pattern: string, ignoresCase: boolean): Regex {
  if (pattern.length > maxRegexChars) throw new RegexError(`longer than ${maxRegexChars} characters`);
  const regex = compiled(new Translation(pattern).translate(), ignoresCase);
  const instructions = regex.programSize();
  if (instructions > maxRegexProgram) throw new RegexError('too large');
  const groups = Math.min(regex.groupCount(), maxCaptures - 1);
  return {
    testCost: 6 + instructions / 5,
    matchCost: 24 + instructions * 4,
    test: (text) => regex.test(text),
    match(text) {
      const matcher = regex.matcher(text);
      if (!matcher.find()) return undefined;
      const captures: string[] = [];
      for (let group = 0; group <= groups; group++) captures.push(matcher.group(group) ?? '');
      return captures;
    },
  };
}

function compiled(pattern: string, ignoresCase: boolean): RE2JS {
  try {
    return RE2JS.compile(pattern, RE2JS.DOTALL | RE2JS.LONGEST_MATCH | (ignoresCase ? RE2JS.CASE_INSENSITIVE : 0));
  } catch (error) {
    // Behind the reason stands the expression as RE2 sees it, which nobody has written.
    throw new RegexError(String(error instanceof Error ? error.message : error).replace(/^error parsing regexp: |: `.*/gs, ''));
  }
}

const letterEscapes = 'dDwWsSbB';
const bounds = /\{(\d*)(?:(,)(\d*))?\}/y;
/** POSIX' names, without the brackets around them. */
const classes = /\[:(alnum|alpha|blank|cntrl|digit|graph|lower|print|punct|space|upper|xdigit):\]/y;

/** From POSIX' way of writing to RE2's. */
class Translation {
  private at = 0;
  private out = '';

  constructor(private readonly pattern: string) {}

  translate(): string {
    while (this.at < this.pattern.length) this.next();
    return this.out;
  }

  private next(): void {
    const character = this.pattern[this.at]!;
    if (character === '\\') this.escape();
    else if (character === '[') this.bracket();
    else if (character === '{') this.repeat();
    else if (character === '(' && this.pattern[this.at + 1] === '?') this.group();
    else {
      this.out += character;
      this.at++;
    }
  }

  private escape(): void {
    const next = this.pattern[this.at + 1];
    if (next === undefined) throw new RegexError('ends with a backslash');
    if (/[A-Za-z0-9]/.test(next) && !letterEscapes.includes(next)) throw new RegexError(`unknown escape \\${next}`);
    this.out += next === '<' || next === '>' ? '\\b' : /[A-Za-z]/.test(next) ? `\\${next}` : literal(next);
    this.at += 2;
  }

  private group(): void {
    if (this.pattern[this.at + 2] !== ':') throw new RegexError('unknown group (?');
    this.out += '(?:';
    this.at += 3;
  }

  private repeat(): void {
    bounds.lastIndex = this.at;
    const match = bounds.exec(this.pattern);
    if (!match || (match[1] === '' && !match[3])) throw new RegexError('a brace that bounds nothing; \\{ stands for itself');
    const [all, least = '', comma, most = ''] = match;
    if (Number(least) > maxRepeat || Number(most) > maxRepeat) throw new RegexError(`more than ${maxRepeat} repetitions`);
    this.out += `{${least === '' ? '0' : least}${comma ?? ''}${most}}`;
    this.at += all.length;
  }

  /** In brackets, a backslash stands for itself (POSIX 9.3.5). */
  private bracket(): void {
    let i = this.at + 1;
    let out = '[';
    if (this.pattern[i] === '^') {
      out += '^';
      i++;
    }
    const first = i;
    for (; ; i++) {
      const character = this.pattern[i];
      if (character === undefined) throw new RegexError('a bracket that is not closed');
      if (character === ']' && i > first) break;
      const next = this.pattern[i + 1];
      if (character === '[' && next === ':') {
        classes.lastIndex = i;
        const name = classes.exec(this.pattern);
        if (!name) throw new RegexError('unknown character class');
        out += name[0];
        i += name[0].length - 1;
      } else if (character === '[' && (next === '.' || next === '=')) {
        // One character, whatever the locale: there is no other collating element.
        const element = this.pattern.slice(i + 2).match(/^(.)([.=])\]/su);
        if (!element || element[2] !== next) throw new RegexError('unknown collating element');
        out += literal(element[1]!);
        i += element[0].length + 1;
      } else if (character === '-') {
        out += i === first || next === ']' ? '\\-' : '-';
      } else out += literal(character);
    }
    this.out += `${out}]`;
    this.at = i + 1;
  }
}

/** What stands for itself in and out of brackets. */
function literal(character: string): string {
  return /^[!-/:-@[-`{-~]$/.test(character) ? `\\${character}` : character;
}
