/**
 * The attributes of XCLIENT and XFORWARD as Postfix documents them: what a proxy or a filter says of the client behind it. Values are
 * xtext; `[UNAVAILABLE]` and `[TEMPUNAVAIL]` say that there is none.
 */
import { isIPv4, isIPv6 } from 'node:net';
import { isGreetingName } from './command.js';
import { decodeXtext } from './xtext.js';

export const xclientAttributes = ['NAME', 'ADDR', 'PORT', 'PROTO', 'HELO', 'LOGIN', 'DESTADDR', 'DESTPORT'] as const;
export const xforwardAttributes = ['NAME', 'ADDR', 'PORT', 'PROTO', 'HELO', 'IDENT', 'SOURCE'] as const;

export type ProxiedAttribute = (typeof xclientAttributes)[number] | (typeof xforwardAttributes)[number];

/** Attributes that were given; undefined for one that is unavailable. Addresses without prefix, PROTO and SOURCE in upper case. */
export type ProxiedAttributes = Map<ProxiedAttribute, string | undefined>;

const maxValueCharacters = 255;
const unavailable = /^\[(?:UNAVAILABLE|TEMPUNAVAIL)\]$/i;
const mappedIPv4 = /^::ffff:([0-9.]+)$/i;

/** `192.0.2.1`, `IPV6:2001:db8::1`: the address, IPv4-mapped ones unwrapped; undefined when it is none. */
function address(text: string): string | undefined {
  if (isIPv4(text)) return text;
  if (!/^ipv6:/i.test(text)) return undefined;
  const inside = text.slice(5);
  if (!isIPv6(inside) || inside.includes('%')) return undefined;
  const mapped = mappedIPv4.exec(inside)?.[1];
  return mapped !== undefined && isIPv4(mapped) ? mapped : inside.toLowerCase();
}

const port = (text: string) => (/^[0-9]{1,5}$/.test(text) && Number(text) <= 65_535 ? String(Number(text)) : undefined);
const name = (text: string) => (isGreetingName(text) ? text : undefined);
const oneOf = (values: string[]) => (text: string) => (values.includes(text.toUpperCase()) ? text.toUpperCase() : undefined);
const printable = (text: string) => (/^[^\x00-\x1f\x7f]+$/.test(text) ? text : undefined);

const readers: Record<ProxiedAttribute, (text: string) => string | undefined> = {
  NAME: name,
  ADDR: address,
  PORT: port,
  PROTO: oneOf(['SMTP', 'ESMTP']),
  HELO: name,
  LOGIN: printable,
  DESTADDR: address,
  DESTPORT: port,
  IDENT: printable,
  SOURCE: oneOf(['LOCAL', 'REMOTE']),
};

/** Parses what follows XCLIENT or XFORWARD; a sentence saying what is wrong when something is. */
export function parseProxiedAttributes(text: string, known: readonly ProxiedAttribute[]): ProxiedAttributes | string {
  const attributes: ProxiedAttributes = new Map();
  for (const item of text.split(/[ \t]+/)) {
    const equals = item.indexOf('=');
    if (equals < 1) return 'Attributes are NAME=value';
    const attribute = item.slice(0, equals).toUpperCase() as ProxiedAttribute;
    if (!known.includes(attribute)) return 'There is an attribute that is not known here';
    if (attributes.has(attribute)) return `${attribute} is given twice`;
    const value = decodeXtext(item.slice(equals + 1));
    if (value === undefined || value.length > maxValueCharacters) return `The value of ${attribute} is malformed`;
    if (unavailable.test(value)) {
      attributes.set(attribute, undefined);
      continue;
    }
    const read = readers[attribute](value);
    if (read === undefined) return `The value of ${attribute} is malformed`;
    attributes.set(attribute, read);
  }
  return attributes;
}
