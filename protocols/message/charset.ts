/**
 * Bytes to Unicode by a MIME charset label. Labels mean what mail means by them (the WHATWG Encoding Standard's view): latin1 is
 * windows-1252, gb2312 is gb18030, ks_c_5601-1987 is cp949. Unknown or wrong labels fall back to UTF-8 where valid, else windows-1252.
 */
import { isAscii, isUtf8 } from 'node:buffer';
import iconv from 'iconv-lite';

/** Labels that mean another encoding than iconv-lite would take them for. */
const labelMeaning = new Map<string, string>([
  ['iso-8859-1', 'windows-1252'],
  ['iso8859-1', 'windows-1252'],
  ['iso_8859-1', 'windows-1252'],
  ['iso-8859-1-i', 'windows-1252'],
  ['latin1', 'windows-1252'],
  ['latin-1', 'windows-1252'],
  ['l1', 'windows-1252'],
  ['ansi', 'windows-1252'],
  ['iso-8859-9', 'windows-1254'],
  ['iso8859-9', 'windows-1254'],
  ['latin5', 'windows-1254'],
  ['iso-8859-11', 'windows-874'],
  ['tis-620', 'windows-874'],
  ['iso-8859-8-i', 'iso-8859-8'],
  ['iso-8859-8-e', 'iso-8859-8'],
  ['gb2312', 'gb18030'],
  ['gb_2312-80', 'gb18030'],
  ['gbk', 'gb18030'],
  ['x-gbk', 'gb18030'],
  ['cp936', 'gb18030'],
  ['ks_c_5601-1987', 'cp949'],
  ['ks_c_5601-1989', 'cp949'],
  ['ksc5601', 'cp949'],
  ['euc-kr', 'cp949'],
  ['windows-949', 'cp949'],
  ['shift-jis', 'shift_jis'],
  ['x-sjis', 'shift_jis'],
  ['windows-31j', 'shift_jis'],
  ['cp932', 'shift_jis'],
  ['x-euc-jp', 'euc-jp'],
  ['big5', 'big5-hkscs'],
  ['x-mac-roman', 'macintosh'],
  ['unicode-1-1-utf-7', 'utf-7'],
  ['unicode-1-1-utf-8', 'utf-8'],
  ['utf8', 'utf-8'],
  ['utf_8', 'utf-8'],
  ['csiso2022jp', 'iso-2022-jp'],
  ['iso-2022-jp-1', 'iso-2022-jp'],
  ['iso-2022-jp-2', 'iso-2022-jp'],
  ['iso-2022-jp-ms', 'iso-2022-jp'],
  ['cp50220', 'iso-2022-jp'],
]);

/** Labels that promise ASCII or nothing: 8-bit bytes under them are guessed. */
const guessedLabels = new Set([
  '',
  'us-ascii',
  'ascii',
  'ansi_x3.4-1968',
  'iso646-us',
  'unknown-8bit',
  'x-unknown',
  'unknown',
  '8bit',
  'default',
  'none',
]);

/** iconv-lite also "decodes" hex, base64 and its own internals under these names: never meant by mail. */
const notCharsets = new Set(['hex', 'base64', 'binary', 'ucs2', 'utf16le', 'internal', 'cesu8']);

let iso2022jp: InstanceType<typeof TextDecoder> | undefined;

/** Lower-case label without quotes and white space, as its meaning; `''` for a label that says nothing. */
function meaningOf(label: string | undefined): string {
  if (label === undefined || label.length > 64) return '';
  const plain = label.toLowerCase().replace(/["'\s]/g, '');
  return labelMeaning.get(plain) ?? (guessedLabels.has(plain) ? '' : plain);
}

/** True when text under this label can be decoded as what it says (RFC 9051 6.4.4: SEARCH CHARSET answers BADCHARSET otherwise). */
export function isKnownCharset(label: string): boolean {
  const plain = label.toLowerCase();
  if (plain === 'us-ascii' || plain === 'ascii') return true;
  const meaning = meaningOf(label);
  if (meaning === 'utf-8' || meaning === 'iso-2022-jp') return true;
  return meaning !== '' && !notCharsets.has(meaning) && iconv.encodingExists(meaning);
}

/** View of the same memory with Buffer's methods. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function guess(bytes: Buffer): string {
  if (isAscii(bytes)) return bytes.toString('latin1');
  return isUtf8(bytes) ? bytes.toString('utf8') : iconv.decode(bytes, 'windows-1252');
}

function withoutBom(text: string): string {
  return text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
}

/** Decodes `bytes` as `label` says. Never throws: what cannot be decoded becomes U+FFFD or is guessed. */
export function decodeCharset(bytes: Uint8Array, label?: string): string {
  const buffer = asBuffer(bytes);
  const meaning = meaningOf(label);
  if (meaning === '') return withoutBom(guess(buffer));
  if (meaning === 'utf-8') return withoutBom(isUtf8(buffer) ? buffer.toString('utf8') : mostlyUtf8(buffer));
  if (meaning === 'iso-2022-jp') return (iso2022jp ??= new TextDecoder('iso-2022-jp')).decode(buffer);
  if (notCharsets.has(meaning) || !iconv.encodingExists(meaning)) return guess(buffer);
  const text = iconv.decode(buffer, meaning);
  // Unicode's own encodings can spell half a character; no store and no protocol takes one.
  return meaning.startsWith('utf') ? wellFormed(text) : text;
}

/**
 * Text labelled UTF-8 that is not: latin1 sent under a wrong label when a large share of its non-ASCII would be replaced, else UTF-8
 * with a few damaged (or, at a cut end, incomplete) characters.
 */
function mostlyUtf8(buffer: Buffer): string {
  const text = buffer.toString('utf8');
  let replaced = 0;
  let beyondAscii = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x80) continue;
    beyondAscii++;
    if (code === 0xfffd) replaced++;
  }
  return replaced * 2 > beyondAscii && beyondAscii > 1 ? iconv.decode(buffer, 'windows-1252') : text;
}

/** A raw header string (bytes as latin1 characters) to Unicode: UTF-8 where it is valid (RFC 6532), else windows-1252. */
export function rawToUnicode(raw: string): string {
  return /[\x80-\xff]/.test(raw) ? guess(Buffer.from(raw, 'latin1')) : raw;
}

/** The text with lone surrogates replaced by U+FFFD, as its UTF-8 would show it. */
export function wellFormed(text: string): string {
  return Buffer.from(text, 'utf8').toString('utf8');
}

/** Unicode to a raw header string: its UTF-8 bytes as latin1 characters. */
export function unicodeToRaw(text: string): string {
  return /[^\x00-\x7f]/.test(text) ? Buffer.from(text, 'utf8').toString('latin1') : text;
}
