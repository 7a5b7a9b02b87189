/** The commands that need little: RSET, NOOP, QUIT, VRFY, EXPN, HELP (RFC 5321 4.1.1.5 to 4.1.1.10). */
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

export function vrfy(session: SessionCore, argument: string) {
  if (argument === '') return session.protocolError('command', reply(501, '5.5.4', 'VRFY takes an address'));
  session.run(
    'vrfy',
    () => session.handler.vrfy?.(session, argument),
    // RFC 5321 3.5.3: whether an address exists is nobody's business; mail to it will be tried.
    (answer) => session.send(answer ?? reply(252, '2.0.0', 'Not verified, but mail for it would be tried')),
  );
}

export function expn(session: SessionCore) {
  session.protocolError('command', reply(502, '5.5.1', 'EXPN is not offered'));
}

export function help(session: SessionCore) {
  session.send(reply(214, '2.0.0', 'RFC 5321 tells what can be said here'));
}
