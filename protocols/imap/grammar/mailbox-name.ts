/**
 * Mailbox names on the wire: modified UTF-7 (RFC 3501 5.1.3) until the client has enabled UTF-8, then UTF-8. Inside, a name is a path of
 * NFC names; `/` separates them on the wire, and the top INBOX is written in any case.
 */
import { utf8Text } from './cursor.js';
import { ImapSyntaxError } from './limits.js';

export const separator = '/';

/** Unicode from modified UTF-7 (latin1 in). Throws ImapSyntaxError (`NO [CANNOT]`) where it is none. */
export function decodeUtf7(text: string): string {
  if (!text.includes('&')) return text;
  return text.replace(/&([^-]*)(-?)/g, (_, code: string, end: string) => {
    if (end === '') throw badName();
    if (code === '') return '&';
    if (!/^[A-Za-z0-9+,]+$/.test(code) || code.length % 4 === 1) throw badName();
    const bytes = Buffer.from(code.replaceAll(',', '/'), 'base64');
    if (bytes.length < 2) throw badName();
    const units = bytes.subarray(0, bytes.length & ~1);
    const decoded = Buffer.from(units).swap16().toString('utf16le');
    if (/\p{Surrogate}/u.test(decoded)) throw badName();
    return decoded;
  });
}

/** Modified UTF-7 of Unicode text; pure ASCII. */
export function encodeUtf7(text: string): string {
  return text.replace(/&|[^\x20-\x7e]+/g, (run) => {
    if (run === '&') return '&-';
    const code = Buffer.from(run, 'utf16le').swap16().toString('base64');
    return `&${code.replace(/=+$/, '').replaceAll('/', ',')}-`;
  });
}

function badName(): ImapSyntaxError {
  return new ImapSyntaxError('Bad mailbox name', 'CANNOT', 'NO');
}

/** Unicode of a mailbox name or pattern as it came (latin1). Raw UTF-8 is understood in both modes. */
export function decodeMailboxName(latin1: string, utf8: boolean): string {
  if (/[\x80-\xff]/.test(latin1)) {
    const text = utf8Text(latin1);
    if (text.includes('\ufffd')) throw badName();
    return text.normalize('NFC');
  }
  return (utf8 ? latin1 : decodeUtf7(latin1)).normalize('NFC');
}

/** The path of a mailbox name. A trailing separator (CREATE `a/`) is dropped; an empty part is refused by the store. */
export function mailboxPath(latin1: string, utf8: boolean): string[] {
  const name = decodeMailboxName(latin1, utf8);
  if (name === '' || /[\x00-\x1f\x7f\u2028\u2029]/.test(name)) throw badName();
  const path = (name.length > 1 && name.endsWith(separator) ? name.slice(0, -1) : name).split(separator);
  if (path.some((part) => part === '')) throw badName();
  if (path[0]!.toUpperCase() === 'INBOX') path[0] = 'INBOX';
  return path;
}

/**
 * A matcher for LIST patterns: `*` takes anything, `%` anything but the separator. Runs in pattern × name steps whatever the pattern
 * (no backtracking). INBOX matches in any case.
 */
export function mailboxPattern(pattern: string): (name: string) => boolean {
  const collapsed = pattern.replace(/[*%]*\*[*%]*/g, '*').replace(/%+/g, '%');
  if (collapsed === '*') return () => true;
  const matches = (name: string, against: string): boolean => {
    let reachable = new Uint8Array(against.length + 1);
    reachable[0] = 1;
    spread(reachable, against);
    for (const char of name) {
      const next = new Uint8Array(against.length + 1);
      let any = false;
      let unit = 0;
      for (const patternChar of against) {
        const width = patternChar.length;
        if (reachable[unit]) {
          const wild = patternChar === '*' || (patternChar === '%' && char !== separator);
          if (wild) next[unit] = 1;
          else if (patternChar === char) next[unit + width] = 1;
          any ||= wild || patternChar === char;
        }
        unit += width;
      }
      if (!any) return false;
      spread(next, against);
      reachable = next;
    }
    return reachable[against.length] === 1;
  };
  const folded = collapsed.replace(/^[a-z]+/i, (first) => (isInboxPrefix(first) ? first.toUpperCase() : first));
  return (name) => matches(name, collapsed) || (name.startsWith('INBOX') && matches(name, folded));
}

/** A pattern that begins with letters of INBOX, in any case, is also tried in upper case against INBOX. */
function isInboxPrefix(letters: string): boolean {
  return 'INBOX'.startsWith(letters.toUpperCase());
}

/** A wildcard also matches nothing: what stands after it is reachable with it. */
function spread(reachable: Uint8Array, pattern: string): void {
  for (let i = 0; i < pattern.length; i++) {
    if (reachable[i] && (pattern[i] === '*' || pattern[i] === '%')) reachable[i + 1] = 1;
  }
}
