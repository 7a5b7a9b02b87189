/** The table of commands. */
import type { SessionCore } from '../core.js';
import { auth } from './auth.js';
import { bdat } from './bdat.js';
import { data } from './data.js';
import { hello } from './hello.js';
import { mail } from './mail.js';
import { help, noop, quit, rset } from './plain.js';
import { xclient, xforward } from './proxied.js';
import { rcpt } from './rcpt.js';
import { starttls } from './starttls.js';
import { expn, vrfy } from './verify.js';

/** Runs one command: answers through the session, at once or later. `argument` is the rest of the line, `verb` upper case. */
export type Verb = (session: SessionCore, argument: string, verb: string) => void;

export const verbs: ReadonlyMap<string, Verb> = new Map<string, Verb>([
  ['EHLO', hello],
  ['HELO', hello],
  ['LHLO', hello],
  ['MAIL', mail],
  ['RCPT', rcpt],
  ['DATA', data],
  ['BDAT', bdat],
  ['RSET', rset],
  ['NOOP', noop],
  ['QUIT', quit],
  ['VRFY', vrfy],
  ['EXPN', expn],
  ['HELP', help],
  ['STARTTLS', starttls],
  ['AUTH', auth],
  ['XCLIENT', xclient],
  ['XFORWARD', xforward],
]);

/** RFC 3207 4: what a session that requires TLS takes before it; AUTH and BDAT refuse by themselves, BDAT together with its chunk. */
const beforeTls = new Set(['EHLO', 'LHLO', 'NOOP', 'QUIT', 'STARTTLS', 'AUTH', 'BDAT']);

export function takenInClear(session: SessionCore, verb: string): boolean {
  return beforeTls.has(verb) || (verb === 'XCLIENT' && session.policy?.isTrustedPeer === true);
}
