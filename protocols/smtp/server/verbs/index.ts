/** The table of commands. */
import type { SessionCore } from '../core.js';
import { auth } from './auth.js';
import { bdat } from './bdat.js';
import { data } from './data.js';
import { hello } from './hello.js';
import { mail } from './mail.js';
import { expn, help, noop, quit, rset, vrfy } from './plain.js';
import { rcpt } from './rcpt.js';
import { starttls } from './starttls.js';

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
]);
