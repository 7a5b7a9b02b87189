/** What is announced: exactly what works in the present state. */
import { offeredMechanisms as offeredBySasl, type SaslMechanismName } from '../sasl/index.js';
import type { SessionContext } from './context.js';

const always = ['IMAP4rev1', 'IMAP4rev2', 'SASL-IR', 'ID', 'ENABLE', 'IDLE'];
const afterLogin = [
  // RFC 7888: before login short literals only may come unasked.
  'LITERAL+',
  'NAMESPACE',
  'UIDPLUS',
  'UNSELECT',
  'CHILDREN',
  'LIST-EXTENDED',
  'LIST-STATUS',
  'LIST-METADATA',
  'METADATA',
  'QUOTA',
  'QUOTA=RES-STORAGE',
  'SPECIAL-USE',
  'CREATE-SPECIAL-USE',
  'STATUS=SIZE',
  'ESEARCH',
  'SEARCHRES',
  'PARTIAL',
  'CONTEXT=SEARCH',
  'SORT',
  'SORT=DISPLAY',
  'ESORT',
  'THREAD=ORDEREDSUBJECT',
  'THREAD=REFERENCES',
  'THREAD=REFS',
  'WITHIN',
  'MOVE',
  'MULTIAPPEND',
  'BINARY',
  'CONDSTORE',
  'QRESYNC',
  'UIDONLY',
  'INPROGRESS',
  'NOTIFY',
  'OBJECTID',
  'SAVEDATE',
  'UTF8=ACCEPT',
  'PREVIEW',
  'REPLACE',
  'UNAUTHENTICATE',
];

/** Mechanisms that may be used now. */
export function offeredMechanisms(context: SessionContext): SaslMechanismName[] {
  if (!context.mayLogIn) return [];
  const { sasl, scram } = context.services;
  const channelBinding = context.isSecure ? context.connection.channelBinding : undefined;
  return offeredBySasl({ backend: sasl, scram, channelBinding });
}

/** The LOGIN command shows the password as PLAIN does: it may be used where that may. */
export function offersLogin(context: SessionContext): boolean {
  if (!context.mayLogIn) return false;
  const allowed = context.services.sasl.allowedMechanisms?.();
  return allowed === undefined || allowed.includes('PLAIN');
}

/** Space-separated, without the word CAPABILITY. */
export function capabilities(context: SessionContext): string {
  const list = [...always];
  if (context.account) {
    if (context.services.sharing) list.push('ACL', 'RIGHTS=kxte', 'LIST-MYRIGHTS');
    list.push(...afterLogin, `APPENDLIMIT=${context.services.limits.grammar.maxMessageBytes}`);
    const { maxMessagesPerCommand } = context.services.limits;
    if (maxMessagesPerCommand > 0) list.push(`MESSAGELIMIT=${maxMessagesPerCommand}`);
    if (!context.isCompressed) list.push('COMPRESS=DEFLATE');
    return list.join(' ');
  }
  list.push('LITERAL-');
  if (!context.isSecure && !context.isCompressed && context.connection.startTls) list.push('STARTTLS');
  if (!offersLogin(context)) list.push('LOGINDISABLED');
  list.push(...offeredMechanisms(context).map((name) => `AUTH=${name}`));
  return list.join(' ');
}
