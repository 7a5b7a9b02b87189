/**
 * Paths and mailboxes of RFC 5321 4.1.2 and 4.1.3, with the UTF-8 of RFC 6531 3.3 where allowed: dot-strings, quoted local parts,
 * domains, address literals, the null path, `<Postmaster>`; source routes are read and dropped.
 */
import { isIPv4, isIPv6 } from 'node:net';
import { domainToASCII } from 'node:url';

/** RFC 5321 4.5.3.1: octets. */
export const pathLimits = { maxLocalPartBytes: 64, maxDomainBytes: 255, maxPathBytes: 2048 } as const;

export interface ParsedMailbox {
  /** Without quotes and backslashes. */
  localPart: string;
  /** As written, a literal with its brackets; empty only for `<Postmaster>`. */
  domain: string;
  /** The canonical text: the local part quoted only where it must be. */
  address: string;
}

export interface ParsedPath {
  /** Undefined for the null path `<>`. */
  mailbox: ParsedMailbox | undefined;
  /** What follows the closing bracket, without the space between. */
  rest: string;
}

/** Why a path was refused, as a sentence for the reply, and the enhanced code of RFC 3463 or 6531 that fits. */
export interface PathProblem {
  problem: string;
  /** True when it is valid, but only with SMTPUTF8. */
  needsUtf8?: boolean;
}

const nonAscii = /[^\x00-\x7f]/;
const dotString = /^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*$/;
const dotStringUtf8 =
  /^[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\u{10ffff}-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\u{10ffff}-]+)*$/u;
// qtextSMTP and quoted-pairSMTP: printable ASCII and space, nothing else; controls never.
const quotedForm = /^"(?:[ !#-[\]-~]|\\[ -~])*"/;
const quotedFormUtf8 = /^"(?:[ !#-[\]-~\u0080-\u{10ffff}]|\\[ -~])*"/u;
// Underscores are no letters of RFC 5321, but hosts with them exist and send mail.
const label = '[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?';
const domainForm = new RegExp(`^${label}(?:\\.${label})*$`);

/** True for a syntactically valid ASCII domain name (no trailing dot), at most 255 octets. */
export function isDomainName(text: string): boolean {
  return text.length <= pathLimits.maxDomainBytes && domainForm.test(text);
}

/** True for `[192.0.2.1]`, `[IPv6:2001:db8::1]`. RFC 5321 4.1.3. */
export function isAddressLiteral(text: string): boolean {
  return addressOfLiteral(text) !== undefined;
}

/** The IP address inside an address literal; undefined for anything else (general literals have no meaning to us). */
export function addressOfLiteral(text: string): string | undefined {
  if (!text.startsWith('[') || !text.endsWith(']')) return undefined;
  const inside = text.slice(1, -1);
  if (isIPv4(inside)) return inside;
  if (!/^ipv6:/i.test(inside)) return undefined;
  const address = inside.slice(5);
  return isIPv6(address) && !address.includes('%') ? address : undefined;
}

function isDomain(text: string, allowUtf8: boolean): boolean {
  if (text.startsWith('[')) return isAddressLiteral(text);
  if (!nonAscii.test(text)) return isDomainName(text);
  if (!allowUtf8 || Buffer.byteLength(text) > pathLimits.maxDomainBytes || /[\x00-\x20\x7f@"\\/:%]/.test(text)) return false;
  const ascii = domainToASCII(text);
  return ascii !== '' && isDomainName(ascii);
}

/** Writes a local part for an address: bare when it is a dot-string, else quoted. */
export function formatLocalPart(localPart: string): string {
  if (dotString.test(localPart) || dotStringUtf8.test(localPart)) return localPart;
  return `"${localPart.replace(/["\\]/g, '\\$&')}"`;
}

function readMailbox(text: string, allowUtf8: boolean): ParsedMailbox | PathProblem {
  let localPart: string;
  let at: number;
  if (text.startsWith('"')) {
    const quoted = (allowUtf8 ? quotedFormUtf8 : quotedForm).exec(text)?.[0];
    if (quoted === undefined) return { problem: 'the quoted local part is malformed' };
    localPart = quoted.slice(1, -1).replace(/\\(.)/g, '$1');
    at = quoted.length;
    if (text[at] !== '@') return { problem: 'a mailbox is local-part@domain' };
  } else {
    at = text.lastIndexOf('@');
    if (at < 0) return { problem: 'a mailbox is local-part@domain' };
    localPart = text.slice(0, at);
    if (!(allowUtf8 ? dotStringUtf8 : dotString).test(localPart)) return { problem: 'the local part is malformed' };
  }
  const domain = text.slice(at + 1);
  if (!isDomain(domain, allowUtf8)) return { problem: 'the domain is malformed' };
  if (Buffer.byteLength(localPart) > pathLimits.maxLocalPartBytes) return { problem: 'the local part is longer than 64 octets' };
  return { localPart, domain, address: `${formatLocalPart(localPart)}@${domain}` };
}

/** Parses `local@domain` alone, as from a configuration or a header. */
export function parseMailbox(text: string, allowUtf8: boolean): ParsedMailbox | PathProblem {
  if (Buffer.byteLength(text) > pathLimits.maxPathBytes) return { problem: 'the mailbox is too long' };
  return readMailbox(text, allowUtf8);
}

/** The index of the bracket that closes the path: brackets inside a quoted local part don't count. */
function closingBracket(text: string): number {
  const quote = text.indexOf('"');
  const plain = text.indexOf('>');
  if (quote < 0 || plain < quote) return plain;
  for (let i = quote + 1; i < text.length; i++) {
    if (text[i] === '\\') i++;
    else if (text[i] === '"') return text.indexOf('>', i);
  }
  return -1;
}

/**
 * Parses a path and what stands after it. `kind` decides what besides a mailbox is a path: `<>` for the reverse-path,
 * `<Postmaster>` for the forward-path.
 */
export function parsePath(text: string, kind: 'reverse' | 'forward', allowUtf8: boolean): ParsedPath | PathProblem {
  if (!text.startsWith('<')) return { problem: 'the address must stand in angle brackets' };
  const end = closingBracket(text);
  if (end < 0) return { problem: 'the closing angle bracket is missing' };
  let inside = text.slice(1, end);
  let rest = text.slice(end + 1);
  if (rest !== '' && !rest.startsWith(' ')) return { problem: 'a space must stand between address and parameters' };
  rest = rest.trim();
  if (Buffer.byteLength(inside) > pathLimits.maxPathBytes) return { problem: 'the path is too long' };
  if (inside === '' && kind === 'reverse') return { mailbox: undefined, rest };
  if (kind === 'forward' && inside.toLowerCase() === 'postmaster') {
    return { mailbox: { localPart: inside, domain: '', address: 'postmaster' }, rest };
  }
  // RFC 5321 appendix C: a source route must be accepted and should be ignored.
  if (inside.startsWith('@')) {
    const colon = inside.indexOf(':');
    const route = colon < 0 ? [] : inside.slice(0, colon).split(',');
    if (route.length === 0 || !route.every((hop) => hop.startsWith('@') && isDomain(hop.slice(1), allowUtf8))) {
      return { problem: 'the source route is malformed' };
    }
    inside = inside.slice(colon + 1);
  }
  const mailbox = readMailbox(inside, allowUtf8);
  if (!('problem' in mailbox)) return { mailbox, rest };
  if (!allowUtf8 && nonAscii.test(inside) && !('problem' in readMailbox(inside, true))) {
    return { problem: 'this address needs SMTPUTF8', needsUtf8: true };
  }
  return mailbox;
}

/** The part after the last `@`, lower case; the whole of an address without one. */
export function domainOf(address: string): string {
  return address.slice(address.lastIndexOf('@') + 1).toLowerCase();
}
