/** The syntax and the arithmetic of DIGEST-MD5 that both sides share (RFC 2831 sections 2.1 and 7). Pure. */
import { createHash } from 'node:crypto';
import { digestText } from '../../store/directory/index.js';
import { decodeUtf8 } from './prepare.js';

/** Names in lower case to values, quotes taken off. Those that may come once came once. */
export type DigestDirectives = ReadonlyMap<string, string>;

const maxDirectives = 40;
/** RFC 2831 2.1.1: what a server may say several times; the first one counts. */
const repeatable = new Set(['realm', 'auth-param']);
// A token, or a quoted string with backslash pairs; empty elements of the list are allowed (RFC 2831 7.1).
const directive = /[\s,]*([A-Za-z][A-Za-z0-9-]*)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\[\s\S])*)"|([^\s,"]+))[ \t\r\n]*(?:,|$)/y;

/** A challenge or a response; undefined when it is malformed, has a directive twice, or is neither UTF-8 nor says that it is ISO 8859-1. */
export function parseDigest(bytes: Buffer): DigestDirectives | undefined {
  // RFC 2831 2.1.2: without `charset=utf-8` it is ISO 8859-1.
  const isUtf8 = /(?:^|[,\s])charset\s*=\s*"?utf-8/i.test(bytes.toString('latin1'));
  const text = isUtf8 ? decodeUtf8(bytes) : bytes.toString('latin1');
  if (text === undefined || text.includes('\0')) return undefined;
  const found = new Map<string, string>();
  directive.lastIndex = 0;
  while (directive.lastIndex < text.length) {
    if (/^[\s,]*$/.test(text.slice(directive.lastIndex))) break;
    const match = directive.exec(text);
    if (!match || found.size >= maxDirectives) return undefined;
    const name = match[1]!.toLowerCase();
    if (found.has(name) && repeatable.has(name)) continue;
    if (found.has(name)) return undefined;
    found.set(name, match[2] === undefined ? match[3]! : match[2].replace(/\\([\s\S])/g, '$1'));
  }
  return found.size > 0 ? found : undefined;
}

/** A quoted string (RFC 2831 7.2). */
export function quoteDigest(text: string): string {
  return `"${text.replace(/["\\]/g, '\\$&')}"`;
}

const md5 = (...parts: (string | Buffer)[]) => {
  const hash = createHash('md5');
  for (const part of parts) hash.update(part);
  return hash.digest();
};

/**
 * The response value of RFC 2831 2.1.2.1 (32 hexadecimal digits) for the directives of a response. `method`: `AUTHENTICATE` for the client's, empty for the server's
 * `rspauth`. `ha1`: H(login ":" realm ":" password).
 */
export function digestResponse(ha1: Buffer, directives: DigestDirectives, method: 'AUTHENTICATE' | ''): string {
  const value = (name: string) => directives.get(name) ?? '';
  const authzid = directives.get('authzid');
  const a1 = md5(ha1, `:${value('nonce')}:`, value('cnonce'), ...(authzid ? [':', Buffer.from(authzid)] : [])).toString('hex');
  const a2 = md5(`${method}:`, digestText(value('digest-uri'))).toString('hex');
  const qop = directives.get('qop') ?? 'auth';
  return md5(`${a1}:${value('nonce')}:${value('nc')}:${value('cnonce')}:${qop}:${a2}`).toString('hex');
}
