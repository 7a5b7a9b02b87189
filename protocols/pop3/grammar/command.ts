/** Command lines of POP3 (RFC 1939 section 3, RFC 2449 section 4): a keyword and what follows it. */

export interface CommandLine {
  /** Upper case; empty when the line begins with no letter. */
  keyword: string;
  /** Behind the first space, as it came (latin1). PASS takes all of it, spaces included. */
  rest: string;
}

export function parseCommand(line: string): CommandLine {
  const space = line.indexOf(' ');
  const word = space < 0 ? line : line.slice(0, space);
  const keyword = /^[A-Za-z][A-Za-z0-9]{0,15}$/.test(word) ? word.toUpperCase() : '';
  return { keyword, rest: space < 0 ? '' : line.slice(space + 1) };
}

/** The arguments of commands that take words; more than one space between them, or at the end, is forgiven. */
export function words(rest: string): string[] {
  return rest.split(' ').filter((word) => word !== '');
}

/** A message number or a number of lines: digits only, up to 2^31. Undefined for anything else. */
export function parseNumber(word: string | undefined): number | undefined {
  if (word === undefined || !/^[0-9]{1,10}$/.test(word)) return undefined;
  const value = Number(word);
  return value <= 0x7fff_ffff ? value : undefined;
}
