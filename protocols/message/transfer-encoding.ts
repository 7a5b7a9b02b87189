/**
 * Content-Transfer-Encoding (RFC 2045 6): decoding that forgives what senders and gateways do, whole or piece by piece, and encoding with lines of
 * at most 76 characters.
 */
import { asBuffer } from './charset.js';

/** Characters of an encoded line, RFC 2045 6.7 (5) and 6.8. */
const maxLineChars = 76;
const equals = 0x3d;
const lf = 0x0a;
const cr = 0x0d;
const space = 0x20;
const tab = 0x09;

/** Decodes a whole body. Unknown encodings and 7bit, 8bit, binary give the bytes themselves (a view, not a copy). Never throws. */
export function decodeTransfer(bytes: Uint8Array, encoding: string): Buffer {
  const buffer = asBuffer(bytes);
  switch (encoding.toLowerCase()) {
    case 'base64':
      return decodeBase64(buffer);
    case 'quoted-printable':
      return decodeQuotedPrintable(buffer);
    default:
      return buffer;
  }
}

/** True when `decodeTransfer` knows what to do (RFC 9051 6.4.5: BINARY answers UNKNOWN-CTE otherwise). */
export function isKnownTransferEncoding(encoding: string): boolean {
  return /^(?:7bit|8bit|binary|base64|quoted-printable)$/i.test(encoding);
}

/** Foreign characters are passed over; padding in the middle (bodies glued together) ends one run and starts the next. */
export function decodeBase64(bytes: Uint8Array): Buffer {
  const text = asBuffer(bytes).toString('latin1');
  const padding = text.indexOf('=');
  if (padding < 0 || (/^[=\s]*$/.test(text.slice(padding, padding + 64)) && text.length - padding <= 64))
    return nativeBase64(text);
  return Buffer.concat(text.split(/=+/).map(nativeBase64));
}

/** Node passes over foreign characters, but takes the URL-safe alphabet for data, which RFC 2045 does not. */
function nativeBase64(text: string): Buffer {
  return Buffer.from(/[-_]/.test(text) ? text.replace(/[-_]+/g, '') : text, 'base64');
}

const hexValue = new Int8Array(256).fill(-1);
for (let i = 0; i < 16; i++) {
  hexValue['0123456789abcdef'.charCodeAt(i)] = i;
  hexValue['0123456789ABCDEF'.charCodeAt(i)] = i;
}

/** RFC 2045 6.7: soft line breaks vanish, white space at line ends too; an `=` that escapes nothing stands for itself. */
export function decodeQuotedPrintable(bytes: Uint8Array): Buffer {
  const source = asBuffer(bytes);
  if (source.indexOf(equals) < 0 && !/[ \t]\r?(?:\n|$)/.test(source.toString('latin1'))) return source;
  const out = Buffer.allocUnsafe(source.length);
  let length = 0;
  /** One past the last byte written that is not blank: where a line's padding begins. */
  let solid = 0;
  for (let i = 0; i < source.length; i++) {
    const byte = source[i]!;
    if (byte === equals) {
      const high = hexValue[source[i + 1] ?? 0]!;
      const low = hexValue[source[i + 2] ?? 0]!;
      if (high >= 0 && low >= 0) {
        out[length++] = (high << 4) | low;
        solid = length;
        i += 2;
        continue;
      }
      const after = softBreakEnd(source, i + 1);
      if (after >= 0) {
        i = after - 1;
        solid = length;
        continue;
      }
    } else if (byte === space || byte === tab) {
      out[length++] = byte;
      continue;
    } else if (byte === lf || (byte === cr && source[i + 1] === lf)) {
      length = solid;
    }
    out[length++] = byte;
    solid = length;
  }
  return out.subarray(0, solid);
}

/** Index behind a soft line break whose `=` precedes `at`; -1 when there is none. The end of the bytes counts as a line's end. */
function softBreakEnd(source: Buffer, at: number): number {
  let i = at;
  while (source[i] === space || source[i] === tab) i++;
  if (i >= source.length) return i;
  if (source[i] === lf) return i + 1;
  if (source[i] === cr && (source[i + 1] === lf || i + 1 >= source.length)) return Math.min(i + 2, source.length);
  return -1;
}

/** A decoder that is fed piece by piece; the pieces together give what `decodeTransfer` gives for the whole. */
export interface TransferDecoder {
  push(chunk: Uint8Array): Buffer;
  /** What was held back until now. */
  end(): Buffer;
}

export function createTransferDecoder(encoding: string): TransferDecoder {
  switch (encoding.toLowerCase()) {
    case 'base64':
      return base64Decoder();
    case 'quoted-printable':
      return quotedPrintableDecoder();
    default:
      return { push: asBuffer, end: () => Buffer.alloc(0) };
  }
}

function base64Decoder(): TransferDecoder {
  let carry = '';
  return {
    push(chunk) {
      const text =
        carry +
        asBuffer(chunk)
          .toString('latin1')
          .replace(/[^A-Za-z0-9+/=]+/g, '');
      // A padded quantum starts a new run, so only what follows the last padding counts towards a group of four.
      const runStart = text.lastIndexOf('=') + 1;
      const end = text.length - ((text.length - runStart) % 4);
      carry = text.slice(end);
      return decodeBase64(Buffer.from(text.slice(0, end), 'latin1'));
    },
    end() {
      const rest = decodeBase64(Buffer.from(carry, 'latin1'));
      carry = '';
      return rest;
    },
  };
}

/** White space held back at a chunk's end; a longer run is let through, so that a hostile body cannot fill memory. */
const maxHeldBytes = 64 * 1024;

function quotedPrintableDecoder(): TransferDecoder {
  let carry: Buffer = Buffer.alloc(0);
  return {
    push(chunk) {
      const all = carry.length === 0 ? asBuffer(chunk) : Buffer.concat([carry, chunk]);
      const end = all.length <= maxHeldBytes ? safeEnd(all) : Math.max(safeEnd(all), all.length - maxHeldBytes);
      carry = Buffer.from(all.subarray(end));
      return decodeQuotedPrintable(all.subarray(0, end));
    },
    end() {
      const rest = decodeQuotedPrintable(carry);
      carry = Buffer.alloc(0);
      return rest;
    },
  };
}

/**
 * Where bytes can be parted so that no escape, soft break or trailing blank is torn: in front of blanks and line ends, and of an `=` whose
 * meaning hangs on what follows.
 */
function safeEnd(bytes: Buffer): number {
  let end = bytes.length;
  for (;;) {
    while (end > 0 && isBlankOrEnd(bytes[end - 1]!)) end--;
    if (end >= 1 && bytes[end - 1] === equals) end -= 1;
    else if (end >= 2 && bytes[end - 2] === equals) end -= 2;
    else return end;
  }
}

function isBlankOrEnd(byte: number): boolean {
  return byte === space || byte === tab || byte === cr || byte === lf;
}

/** Base64 in lines of 76 characters with CRLF behind each. */
export function encodeBase64(bytes: Uint8Array): Buffer {
  const plain = Buffer.from(asBuffer(bytes).toString('base64'), 'latin1');
  const lines = Math.ceil(plain.length / maxLineChars);
  const out = Buffer.allocUnsafe(plain.length + lines * 2);
  let to = 0;
  for (let from = 0; from < plain.length; from += maxLineChars) {
    to += plain.copy(out, to, from, Math.min(from + maxLineChars, plain.length));
    out[to++] = cr;
    out[to++] = lf;
  }
  return out;
}

const hexDigits = '0123456789ABCDEF';

/**
 * Quoted-printable of text whose lines end with CRLF (they stay line ends). A leading "From " and a lone "." are escaped, so that
 * neither mbox files nor SMTP's dots alter the text.
 */
export function encodeQuotedPrintable(bytes: Uint8Array): Buffer {
  const source = asBuffer(bytes);
  // At most three characters a byte, and a soft break (three more) per 73 of them.
  const out = Buffer.allocUnsafe(source.length * 3 + Math.ceil((source.length * 3) / 73) * 3 + 3);
  let to = 0;
  let column = 0;
  for (let i = 0; i < source.length; i++) {
    const byte = source[i]!;
    if (byte === cr && source[i + 1] === lf) {
      out[to++] = cr;
      out[to++] = lf;
      i++;
      column = 0;
      continue;
    }
    const literal = isQpLiteral(source, i, column);
    const width = literal ? 1 : 3;
    // One column stays free for the '=' of a soft break, unless the line ends right behind this byte.
    const last = i + 1 >= source.length || (source[i + 1] === cr && source[i + 2] === lf);
    if (column + width > (last ? maxLineChars : maxLineChars - 1)) {
      out[to++] = equals;
      out[to++] = cr;
      out[to++] = lf;
      column = 0;
    }
    if (literal) {
      out[to++] = byte;
    } else {
      out[to++] = equals;
      out[to++] = hexDigits.charCodeAt(byte >> 4);
      out[to++] = hexDigits.charCodeAt(byte & 15);
    }
    column += width;
  }
  return out.subarray(0, to);
}

function isQpLiteral(source: Buffer, at: number, column: number): boolean {
  const byte = source[at]!;
  if (byte === equals || byte > 0x7e) return false;
  if (byte === space || byte === tab) return at + 1 < source.length && source[at + 1] !== cr && source[at + 1] !== lf;
  if (byte < 0x20) return false;
  // A byte that a soft break could move to a line's start is judged as if it stood there.
  if (column > 0 && column < maxLineChars - 3) return true;
  if (byte === 0x2e) return false;
  return !(byte === 0x46 && source.toString('latin1', at, at + 5) === 'From ');
}
