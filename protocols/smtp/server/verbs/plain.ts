/** The commands that need little: RSET, NOOP, QUIT, HELP (RFC 5321 4.1.1.5 to 4.1.1.10). */
import { type Reply, reply } from '../../grammar/reply.js';
import type { SessionCore } from '../core.js';

export const noArgument: Reply = reply(501, '5.5.4', 'This command takes no argument');

export function rset(session: SessionCore, argument: string) {
  if (argument !== '') return session.protocolError('command', noArgument);
  session.endTransaction(false);
  session.send(reply(250, '2.0.0', 'Reset'));
}

export function noop(session: SessionCore) {
  session.send(reply(250, '2.0.0', 'OK'));
}

export function quit(session: SessionCore, argument: string) {
  if (argument !== '') return session.protocolError('command', noArgument);
  if (session.mail) session.endTransaction(false);
  session.replyAndClose(reply(221, '2.0.0', 'Bye'));
}

export function help(session: SessionCore) {
  const hello = session.mode === 'lmtp' ? 'LHLO' : 'EHLO HELO';
  session.send(reply(214, '2.0.0', `${hello} STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY EXPN HELP QUIT: see RFC 5321`));
}
