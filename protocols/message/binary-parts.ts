/**
 * Messages with NUL in them, as a client may append them in binary (RFC 3516): IMAP can't give such bytes in BODY, nor SMTP send them on. Parts that have it are
 * encoded as base64 when the message comes in (section 4.3), so that all who look at it later see one and the same message.
 */
import { asBuffer } from './charset.js';
import { headerFields } from './headers.js';
import { parseMessage } from './parse.js';
import { encodeBase64 } from './transfer-encoding.js';
import type { Part } from './types.js';

const nul = 0;
const encodedField = Buffer.from('Content-Transfer-Encoding: base64\r\n', 'latin1');

interface Replacement {
  start: number;
  end: number;
  bytes: Buffer;
}

/** The message itself where there is no NUL in it, or only where no part could be encoded (in headers, or outside of all parts). Never throws. */
export function withoutNulParts(message: Uint8Array): Buffer {
  const bytes = asBuffer(message);
  if (!bytes.includes(nul)) return bytes;
  const replacements: Replacement[] = [];
  gather(bytes, parseMessage(bytes), replacements);
  const pieces: Buffer[] = [];
  let at = 0;
  for (const { start, end, bytes: instead } of replacements) {
    pieces.push(bytes.subarray(at, start), instead);
    at = end;
  }
  return pieces.length === 0 ? bytes : Buffer.concat([...pieces, bytes.subarray(at)]);
}

/** In the order of the message. */
function gather(bytes: Buffer, part: Part, into: Replacement[]): void {
  const { headerStart, headerEnd, bodyEnd } = part;
  const first = bytes.indexOf(nul, headerEnd);
  if (first < 0 || first >= bodyEnd) return;
  if (part.opaque) return;
  if (part.children) for (const child of part.children) gather(bytes, child, into);
  else if (part.message) gather(bytes, part.message.structure, into);
  // RFC 2045 6.4: text in base64 or quoted-printable has no such bytes unless it is broken; encoded once more it would be something else.
  else if (headerEnd > headerStart && /^(?:7bit|8bit|binary)$/.test(part.encoding)) {
    const fields = headerFields(bytes, part).filter(({ name }) => name === 'content-transfer-encoding');
    if (fields.length === 0) into.push({ start: headerStart, end: headerStart, bytes: encodedField });
    for (const [n, { start, end }] of fields.entries())
      into.push({ start, end, bytes: n === 0 ? encodedField : Buffer.alloc(0) });
    into.push({ start: headerEnd, end: bodyEnd, bytes: encodeBase64(bytes.subarray(headerEnd, bodyEnd)) });
  }
}
