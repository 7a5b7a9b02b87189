/**
 * Addresses and domains in their one comparable form: local part NFC, lower case, quoted only where it must be (RFC 5321 4.1.2, RFC 6531 3.3); domain
 * in lower-case ASCII (RFC 5890). Pure functions.
 */
import { domainToASCII } from 'node:url';
import { DirectoryError } from './contract.js';

/** RFC 5321 4.5.3.1.1 and 4.5.3.1.2, in UTF-8 octets. */
export const maxLocalBytes = 64;
export const maxDomainBytes = 255;
/** Longer text is refused before anything looks at it. */
const maxAddressCharacters = 1_000;

export interface ParsedAddress {
  /** Content of the local part: unquoted, NFC, lower case. */
  local: string;
  /** The same, NFC, in its own case: what a subaddress detail is cut from. */
  localAsGiven: string;
  domain: string;
  /** `local@domain`, the local part quoted where it must be. */
  address: string;
}

// RFC 5322 3.2.3 atext and RFC 6531 UTF8-non-ascii, lower case only, without controls, separators and lone surrogates.
const dotAtom =
  /^(?:[a-zA-Z0-9!#$%&'*+\-/=?^_`{|}~]|[^\p{ASCII}\p{Cc}\p{Cs}\p{Z}])+(?:\.(?:[a-zA-Z0-9!#$%&'*+\-/=?^_`{|}~]|[^\p{ASCII}\p{Cc}\p{Cs}\p{Z}])+)*$/u;
const plainDotAtom = /^[a-zA-Z0-9!#$%&'*+\-/=?^_`{|}~]+(?:\.[a-zA-Z0-9!#$%&'*+\-/=?^_`{|}~]+)*$/;
const quotable = /^(?:[\x20-\x7e]|[^\p{ASCII}\p{Cc}\p{Cs}\p{Zl}\p{Zp}])*$/u;
const label = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;
const plainDomain = /^[a-zA-Z0-9._-]+$/;
const unicodeDomain = /^(?:[a-zA-Z0-9._-]|[^\p{ASCII}\p{C}\p{Z}])+$/u;

/** The comparable form of an address. Throws DirectoryError `bad-address`. */
export function parseAddress(text: string): ParsedAddress {
  const parsed = tryParseAddress(text);
  if (!parsed) throw new DirectoryError('bad-address', `'${text.slice(0, 320)}' is not an address`);
  return parsed;
}

/** The same, undefined for what is no address. */
export function tryParseAddress(text: string): ParsedAddress | undefined {
  const at = text.lastIndexOf('@');
  if (at < 1 || text.length > maxAddressCharacters) return undefined;
  const domain = tryParseDomain(text.slice(at + 1)) ?? addressLiteral(text.slice(at + 1));
  const localAsGiven = localContent(text.slice(0, at));
  if (domain === undefined || localAsGiven === undefined) return undefined;
  const local = foldCase(localAsGiven);
  const written = writeLocal(local);
  if (Buffer.byteLength(written) > maxLocalBytes) return undefined;
  return { local, localAsGiven, domain, address: `${written}@${domain}` };
}

/** The comparable form of a domain name. Throws DirectoryError `bad-domain`. */
export function parseDomain(text: string): string {
  const domain = tryParseDomain(text);
  if (domain === undefined) throw new DirectoryError('bad-domain', `'${text.slice(0, 255)}' is not a domain name`);
  return domain;
}

/** The same, undefined for what is no domain name. One dot at the end is taken away. */
export function tryParseDomain(text: string): string | undefined {
  if (text.length === 0 || text.length > maxAddressCharacters) return undefined;
  const ascii = toAscii(text);
  if (ascii === undefined) return undefined;
  const domain = ascii.endsWith('.') ? ascii.slice(0, -1) : ascii;
  if (domain.length > maxDomainBytes) return undefined;
  const labels = domain.split('.');
  // A name that ends in a number is an IPv4 address to some (WHATWG URL), a host to nobody.
  if (!labels.every((one) => label.test(one)) || /^\d+$/.test(labels.at(-1)!)) return undefined;
  return domain;
}

/** A local part as it is written in an address. */
export function writeLocal(local: string): string {
  return dotAtom.test(local) ? local : `"${local.replace(/["\\]/g, '\\$&')}"`;
}

/** Lower case, still NFC. */
export function foldCase(text: string): string {
  return text.toLowerCase().normalize('NFC');
}

/** Ways to read `local` as user and detail, longest user first; at most four, so that a hostile local part costs little. */
export function subaddresses(parsed: ParsedAddress, separators: string): { local: string; detail: string }[] {
  const found: { local: string; detail: string }[] = [];
  if (separators === '') return found;
  const { local, localAsGiven } = parsed;
  const source = local.length === localAsGiven.length ? localAsGiven : local;
  for (let at = local.length - 1; at > 0 && found.length < 4; at--) {
    if (separators.includes(local[at]!)) found.push({ local: local.slice(0, at), detail: source.slice(at + 1) });
  }
  return found;
}

function toAscii(text: string): string | undefined {
  if (plainDomain.test(text)) {
    const lower = text.toLowerCase();
    return lower.includes('xn--') ? domainToASCII(lower) || undefined : lower;
  }
  // Only letters, digits and what IDNA maps may reach the URL parser, which would also decode % escapes.
  return unicodeDomain.test(text) ? domainToASCII(text.normalize('NFC')) || undefined : undefined;
}

/** RFC 5321 4.1.3. Only ever the domain of somebody else. */
function addressLiteral(text: string): string | undefined {
  return /^\[[0-9a-zA-Z.:-]{2,64}\]$/.test(text) ? text.toLowerCase() : undefined;
}

function localContent(written: string): string | undefined {
  if (plainDotAtom.test(written)) return written;
  const text = written.normalize('NFC');
  if (!text.startsWith('"')) return dotAtom.test(text) ? text : undefined;
  if (text.length < 3 || !text.endsWith('"')) return undefined;
  const inner = text.slice(1, -1);
  // RFC 5321 4.1.2: quoted-pairSMTP; a bare quote or a backslash with nothing after it is an error.
  if (!/^(?:[^"\\]|\\.)*$/su.test(inner)) return undefined;
  const content = inner.replace(/\\(.)/gsu, '$1').normalize('NFC');
  return quotable.test(content) ? content : undefined;
}
