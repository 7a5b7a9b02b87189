/** RFC 2047 encoded words, both ways, with the mistakes of the field: words split inside a multi-byte character, spaces inside Q words. */
import { trimBlanks } from './blanks.js';
import { decodeCharset, rawToUnicode, wellFormed } from './charset.js';

/** `=?charset[*language]?B|Q?text?=`; every part is bounded by the next `?`, which keeps matching linear. */
const encodedWord = /=\?([^?\s*]{1,64})(?:\*[^?\s]*)?\?([bBqQ])\?([^?]*)\?=/g;

/** Characters of one encoded word, RFC 2047 2. */
const maxEncodedWordChars = 75;

/**
 * Decodes a raw unfolded header value to Unicode. White space between adjacent words disappears (6.2); adjacent words of one charset are
 * joined as bytes before decoding, so that a character split between them survives.
 */
export function decodeEncodedWords(raw: string): string {
  let out = '';
  let after = 0;
  let charset = '';
  let pending: Buffer[] = [];
  const flush = () => {
    if (pending.length === 0) return;
    out += decodeCharset(pending.length === 1 ? pending[0]! : Buffer.concat(pending), charset).replace(/[\r\n\0]/g, ' ');
    pending = [];
  };
  for (const match of raw.matchAll(encodedWord)) {
    const between = raw.slice(after, match.index);
    const adjacent = pending.length > 0 && trimBlanks(between) === '';
    const wordCharset = match[1]!.toLowerCase();
    if (!adjacent) {
      flush();
      out += rawToUnicode(between);
    } else if (wordCharset !== charset) {
      flush();
    }
    charset = wordCharset;
    pending.push(match[2] === 'b' || match[2] === 'B' ? Buffer.from(match[3]!, 'base64') : decodeQ(match[3]!));
    after = match.index + match[0].length;
  }
  flush();
  return out + rawToUnicode(raw.slice(after));
}

/** RFC 2047 4.2. */
function decodeQ(text: string): Buffer {
  const plain = text.replaceAll('_', ' ');
  if (!plain.includes('=')) return Buffer.from(plain, 'latin1');
  return Buffer.from(
    plain.replace(/=([0-9A-Fa-f]{2})/g, (_all, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1',
  );
}

/** ASCII characters that stand for themselves in Q words even inside a phrase (RFC 2047 5.3). */
const isQLiteral = (code: number) =>
  (code >= 0x30 && code <= 0x39) ||
  (code >= 0x41 && code <= 0x5a) ||
  (code >= 0x61 && code <= 0x7a) ||
  code === 0x21 ||
  code === 0x2a ||
  code === 0x2b ||
  code === 0x2d ||
  code === 0x2f;

function qOf(character: string): string {
  let out = '';
  for (const byte of Buffer.from(character, 'utf8')) {
    if (byte === 0x20) out += '_';
    else if (isQLiteral(byte)) out += String.fromCharCode(byte);
    else out += `=${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return out;
}

/**
 * `text` as UTF-8 encoded words, each at most 75 characters and holding whole characters. The first is made short enough for
 * `firstLineChars` characters already on its line. Join them with a space or a fold.
 */
export function encodeWords(text: string, firstLineChars = 0): string[] {
  const well = wellFormed(text);
  const bytes = Buffer.byteLength(well, 'utf8');
  const qLength = qOf(well).length;
  const base64 = qLength > Math.ceil(bytes / 3) * 4;
  const frame = '=?utf-8?q??='.length;
  const words: string[] = [];
  let budget = Math.max(20, Math.min(maxEncodedWordChars, 76 - firstLineChars)) - frame;
  let current = '';
  let cost = 0;
  const close = () => {
    if (current === '') return;
    words.push(base64 ? `=?utf-8?b?${Buffer.from(current, 'utf8').toString('base64')}?=` : `=?utf-8?q?${current}?=`);
    current = '';
    cost = 0;
    budget = maxEncodedWordChars - frame;
  };
  for (const character of well) {
    const piece = base64 ? character : qOf(character);
    const pieceCost = base64 ? Buffer.byteLength(character, 'utf8') : piece.length;
    if ((base64 ? Math.ceil((cost + pieceCost) / 3) * 4 : cost + pieceCost) > budget) close();
    current += piece;
    cost += pieceCost;
  }
  close();
  return words;
}
