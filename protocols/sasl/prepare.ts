/**
 * Preparing login names and passwords for comparison. Not the whole of SASLprep (RFC 4013), whose tables are frozen at Unicode 3.2, but
 * what matters of it: compatibility normalisation, other spaces as spaces, invisible characters dropped, control characters refused.
 */

/** Characters; longer ones are refused before any hashing. */
export const maxCredentialCharacters = 1024;

const mappedToNothing = /\u00ad|\u034f|\u1806|[\u180b-\u180d]|[\u200b-\u200d]|\u2060|[\ufe00-\ufe0f]|\ufeff/g;
const otherSpaces = /[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]/g;
// Controls, lone surrogates, private use, line and paragraph separators, noncharacters.
const prohibited = /[\p{Cc}\p{Cs}\p{Co}\u2028\u2029\ufdd0-\ufdef\ufff9-\uffff]/u;
const printableAscii = /^[ -~]*$/;

/** The prepared text; undefined when it is empty, too long or holds a prohibited character. */
export function prepareCredential(text: string): string | undefined {
  if (text.length === 0 || text.length > maxCredentialCharacters) return undefined;
  if (printableAscii.test(text)) return text;
  const prepared = text.replace(otherSpaces, ' ').replace(mappedToNothing, '').normalize('NFKC');
  return prepared === '' || prohibited.test(prepared) ? undefined : prepared;
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The text of UTF-8 octets; undefined when they are not UTF-8. */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return utf8.decode(bytes);
  } catch {
    return undefined;
  }
}
