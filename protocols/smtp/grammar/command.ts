/** Command lines (RFC 5321 4.1.1): the verb and what follows it, and the arguments of the commands with a grammar of their own. */
import { isUtf8 } from 'node:buffer';

export interface CommandLine {
  /** Upper case; empty when the line starts with no letter. */
  verb: string;
  /** The rest after one separating space, trailing white space dropped (RFC 5321 4.1.1 tolerates it). */
  argument: string;
}

const high = /[\x80-\xff]/;

/** The text of a line (without CRLF); undefined when it is not UTF-8 or holds control characters other than TAB. */
export function decodeLine(line: Buffer): string | undefined {
  const text = line.toString('latin1');
  if (/[\x00-\x08\x0a-\x1f\x7f]/.test(text)) return undefined;
  if (!high.test(text)) return text;
  return isUtf8(line) ? line.toString('utf8') : undefined;
}

/** Splits a decoded line. */
export function splitCommand(line: string): CommandLine {
  const space = line.search(/[ \t]/);
  const verb = space < 0 ? line : line.slice(0, space);
  return {
    verb: /^[A-Za-z0-9]{1,20}$/.test(verb) ? verb.toUpperCase() : '',
    argument: space < 0 ? '' : line.slice(space + 1).trim(),
  };
}

/**
 * The path and parameters of `FROM:<…> …` or `TO:<…> …`; undefined when the keyword is not there. Space after the colon is no RFC
 * grammar, but clients write it and it can't be misread.
 */
export function afterKeyword(argument: string, keyword: 'FROM' | 'TO'): string | undefined {
  const colon = keyword.length;
  if (argument[colon] !== ':' || argument.slice(0, colon).toUpperCase() !== keyword) return undefined;
  return argument.slice(colon + 1).trimStart();
}

/**
 * The name in EHLO, HELO and LHLO. RFC 5321 4.1.1.1 asks for a domain or an address literal; what clients really send is nearly
 * anything without spaces, so only what could harm a log or a header is refused.
 */
export function isGreetingName(name: string): boolean {
  return name.length > 0 && name.length <= 255 && /^[A-Za-z0-9._:[\]%-]+$/.test(name);
}

/** `BDAT 1000 LAST` (RFC 3030 2). Undefined when malformed: the stream can't be followed any further then. */
export function parseBdat(argument: string): { sizeBytes: number; last: boolean } | undefined {
  const match = /^([0-9]{1,15})(?:[ \t]+(LAST))?$/i.exec(argument);
  return match ? { sizeBytes: Number(match[1]), last: match[2] !== undefined } : undefined;
}

/** What EHLO told: the extension keywords, upper case, with their parameters as written. */
export function parseCapabilities(lines: readonly string[]): Map<string, string> {
  const capabilities = new Map<string, string>();
  for (const line of lines.slice(1)) {
    // Old servers write AUTH=LOGIN besides AUTH LOGIN.
    const match = /^([A-Za-z0-9][A-Za-z0-9-]*)(?:[ =](.*))?$/.exec(line.trim());
    if (!match) continue;
    const keyword = match[1]!.toUpperCase();
    const parameters = (match[2] ?? '').trim();
    const known = capabilities.get(keyword);
    capabilities.set(keyword, known ? `${known} ${parameters}` : parameters);
  }
  return capabilities;
}
