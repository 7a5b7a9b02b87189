/**
 * White space as RFC 5322 means it. `String.trim` and `\s` must not touch raw strings: they take the byte 0xA0, which ends many UTF-8
 * characters, for a no-break space.
 */

const isBlank = (code: number) => code === 0x20 || (code >= 0x09 && code <= 0x0d);

/** The text without ASCII white space at its end. */
export function trimBlanksEnd(text: string): string {
  let end = text.length;
  while (end > 0 && isBlank(text.charCodeAt(end - 1))) end--;
  return end === text.length ? text : text.slice(0, end);
}

/** The text without ASCII white space at either end. */
export function trimBlanks(text: string): string {
  let start = 0;
  while (start < text.length && isBlank(text.charCodeAt(start))) start++;
  return trimBlanksEnd(start === 0 ? text : text.slice(start));
}

/** The text without any ASCII white space. */
export function withoutBlanks(text: string): string {
  return /[\t-\r ]/.test(text) ? text.replace(/[\t-\r ]+/g, '') : text;
}
