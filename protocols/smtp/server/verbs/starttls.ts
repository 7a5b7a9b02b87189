/** STARTTLS (RFC 3207). */
import { reply } from '../../grammar/reply.js';
import type { SessionCore } from '../core.js';
import { offers } from '../offers.js';
import { noArgument } from './plain.js';

export function starttls(session: SessionCore, argument: string) {
  const { startTls } = session.connection;
  if (argument !== '') return session.protocolError('starttls', noArgument);
  if (session.secure) return session.protocolError('starttls', reply(503, '5.5.1', 'TLS is active already'));
  if (!startTls || !offers(session, 'STARTTLS'))
    return session.protocolError('starttls', reply(502, '5.5.1', 'STARTTLS is not offered'));
  // RFC 3207 4.2: nothing that the client said in the clear counts any more.
  session.endTransaction(false);
  session.greetingName = '';
  session.extended = false;
  session.send(reply(220, '2.0.0', 'Ready for TLS'));
  session.upgrade(startTls);
}
