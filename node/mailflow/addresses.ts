/** Addresses as the mail flow needs them: their domain in one form, and safe to be written into a header field. */
import { domainToASCII } from 'node:url';

/** The part after the last `@`, lower-case ASCII (punycode); '' when there is none or it is no domain. */
export function domainOfAddress(address: string): string {
  const domain = address.slice(address.lastIndexOf('@') + 1);
  if (domain.length === address.length) return '';
  if (domain.startsWith('[')) return domain.toLowerCase();
  for (let i = 0; i < domain.length; i++) {
    if (domain.charCodeAt(i) > 0x7f) return domainToASCII(domain);
  }
  return domain.toLowerCase();
}

/** Without control characters, for a header line. */
export function headerSafe(text: string): string {
  return text.replace(/[\x00-\x1f\x7f]+/g, ' ').trim();
}

/** Whether a text has characters beyond ASCII. */
export function isAscii(text: string): boolean {
  return !/[^\x00-\x7f]/.test(text);
}
