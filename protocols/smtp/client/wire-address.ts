/** Addresses as they are written to a peer. */
import { domainToASCII } from 'node:url';

export const nonAscii = /[^\x00-\x7f]/;

/** The address for a peer without SMTPUTF8: a domain has an ASCII form, a local part has none. Undefined when there is none. */
export function asciiAddress(address: string): string | undefined {
  const at = address.lastIndexOf('@');
  if (!nonAscii.test(address)) return address;
  if (at < 0 || nonAscii.test(address.slice(0, at))) return undefined;
  const domain = domainToASCII(address.slice(at + 1));
  return domain === '' ? undefined : `${address.slice(0, at)}@${domain}`;
}

/** An address that could break out of its line is a defect of the caller. */
export function assertOneLine(address: string): void {
  if (/[\x00-\x1f\x7f<>]/.test(address) && !/^"[^\x00-\x1f\x7f]*"@[^\x00-\x1f\x7f<>]*$/.test(address)) {
    throw new TypeError(`not an address: ${JSON.stringify(address)}`);
  }
}
