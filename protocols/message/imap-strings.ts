/**
 * Strings of IMAP responses as latin1 text (one character per byte): quoted where that is possible, a literal where not. Here and not with the protocol,
 * because what FETCH tells of a message is rendered when the message is filed.
 */

/** Longest value that is sent as a quoted string. */
const maxQuotedBytes = 1_000;
const plainPattern = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/;

/** UTF-8 bytes of Unicode text, as latin1. */
export function rawUtf8(text: string): string {
  return /[^\x00-\x7f]/.test(text) ? Buffer.from(text, 'utf8').toString('latin1') : text;
}

/** A string from bytes held as latin1. RFC 9051 section 9: 8-bit bytes, CR, LF and long values need a literal; NUL can't be sent at all. */
export function formatString(raw: string): string {
  if (raw.length <= maxQuotedBytes) {
    if (plainPattern.test(raw)) return `"${raw}"`;
    if (!/[\x00\r\n\x7f-\xff]/.test(raw)) return `"${raw.replace(/["\\]/g, '\\$&')}"`;
  }
  const sendable = raw.includes('\0') ? raw.replaceAll('\0', '') : raw;
  return `{${sendable.length}}\r\n${sendable}`;
}

export function formatNstring(raw: string | null | undefined): string {
  return raw === null || raw === undefined ? 'NIL' : formatString(raw);
}
