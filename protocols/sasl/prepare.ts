/**
 * Preparing login names and passwords for comparison: exactly as the directory prepares a password when it is set, so that what could be set can
 * be used, by every mechanism.
 */
import { maxPasswordBytes, preparePassword } from '../../store/directory/passwords.js';

/** Longer ones are refused before any hashing. UTF-8 octets; so also an upper bound of characters. */
export const maxCredentialBytes = maxPasswordBytes;

/** The prepared text (SASLprep, RFC 4013); undefined when it is empty, too long or holds a prohibited character. */
export function prepareCredential(text: string): string | undefined {
  return preparePassword(text);
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
