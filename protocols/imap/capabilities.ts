/** What is announced: exactly what works in the present state. */
import { saslMechanisms } from '../sasl/index.js';
import type { SessionContext } from './context.js';

const always = ['IMAP4rev1', 'IMAP4rev2', 'LITERAL+', 'SASL-IR', 'ID', 'ENABLE', 'IDLE'];
const afterLogin = [
  'NAMESPACE',
  'UIDPLUS',
  'UNSELECT',
  'CHILDREN',
  'LIST-EXTENDED',
  'LIST-STATUS',
  'SPECIAL-USE',
  'CREATE-SPECIAL-USE',
  'STATUS=SIZE',
  'ESEARCH',
  'SEARCHRES',
  'WITHIN',
  'MOVE',
  'MULTIAPPEND',
  'BINARY',
  'CONDSTORE',
  'OBJECTID',
  'SAVEDATE',
  'UTF8=ACCEPT',
];

/** Mechanisms that may be used now. */
export function offeredMechanisms(context: SessionContext): string[] {
  if (!context.mayLogIn) return [];
  return saslMechanisms.filter((name) => name !== 'SCRAM-SHA-256' || context.services.scram !== undefined);
}

/** Space-separated, without the word CAPABILITY. */
export function capabilities(context: SessionContext): string {
  const list = [...always];
  if (context.account) {
    list.push(...afterLogin, `APPENDLIMIT=${context.services.limits.grammar.maxMessageBytes}`);
    return list.join(' ');
  }
  if (!context.isSecure && context.connection.startTls) list.push('STARTTLS');
  if (!context.mayLogIn) list.push('LOGINDISABLED');
  list.push(...offeredMechanisms(context).map((name) => `AUTH=${name}`));
  return list.join(' ');
}
