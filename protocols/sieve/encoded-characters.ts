/** RFC 5228 2.4.2.4: `${hex: 24 40}` and `${unicode: 20AC}` in the texts of scripts that require `encoded-character`. */
import { type Position, SieveError } from './contract.js';

/** Never longer than a text, and every digit belongs to one place only: no going back beyond one opening. */
const encoded =
  /\$\{(?:hex:([ \t\r\n]*[0-9a-f]{1,2}(?:[ \t\r\n]+[0-9a-f]{1,2})*)|unicode:([ \t\r\n]*[0-9a-f]+(?:[ \t\r\n]+[0-9a-f]+)*))[ \t\r\n]*\}/gi;

/** What does not have the form stays as it is written. @throws SieveError for a number that is no character */
export function decodeEncodedCharacters(text: string, at: Position): string {
  if (!text.includes('${')) return text;
  // Bytes, as several `hex` in a row may make up one character of UTF-8.
  const pieces: Buffer[] = [];
  let end = 0;
  for (const match of text.matchAll(encoded)) {
    pieces.push(Buffer.from(text.slice(end, match.index)));
    end = match.index + match[0].length;
    const numbers = (match[1] ?? match[2]!).trim().split(/[ \t\r\n]+/);
    if (match[1] === undefined) pieces.push(Buffer.from(numbers.map((digits) => character(digits, at)).join('')));
    else pieces.push(Buffer.from(numbers.map((digits) => Number.parseInt(digits, 16))));
  }
  if (end === 0) return text;
  return Buffer.concat([...pieces, Buffer.from(text.slice(end))]).toString('utf8');
}

function character(digits: string, at: Position): string {
  const code = Number.parseInt(digits, 16);
  if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
    throw new SieveError(`'\${unicode:…}' of ${digits.slice(0, 16)}: there is no such character`, at);
  }
  return String.fromCodePoint(code);
}
