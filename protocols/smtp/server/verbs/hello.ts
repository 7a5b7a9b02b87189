/** EHLO, HELO (RFC 5321 4.1.1.1) and LHLO (RFC 2033 4.1): who the client says it is, and what we can do. */
import { saslMechanisms } from '../../../sasl/index.js';
import { isGreetingName } from '../../grammar/command.js';
import { reply } from '../../grammar/reply.js';
import type { SessionCore } from '../core.js';

export function hello(session: SessionCore, argument: string, verb: string) {
  if ((session.mode === 'lmtp') !== (verb === 'LHLO')) {
    // RFC 2033 4.1: HELO and EHLO must not work on an LMTP port, nor LHLO on any other.
    const wanted = session.mode === 'lmtp' ? 'This is LMTP: say LHLO' : 'This is SMTP: say EHLO';
    return session.protocolError('ehlo', reply(500, '5.5.1', wanted));
  }
  if (!isGreetingName(argument))
    return session.protocolError('ehlo', reply(501, '5.5.4', `${verb} takes a host name or an address literal`));
  session.run(
    'ehlo',
    () => session.handler.ehlo?.(session, argument),
    (answer) => {
      if (answer && answer.code >= 400) return session.refuse('ehlo', answer);
      session.endTransaction(false);
      session.greetingName = argument;
      session.extended = verb !== 'HELO';
      if (session.extended) session.send({ code: 250, text: capabilities(session) });
      else session.send({ code: 250, text: `${session.hostname} greets ${argument}` });
    },
  );
}

/** AUTH is for users, and only where nobody else can listen. */
export function offersAuth(session: SessionCore): boolean {
  return session.mode === 'submission' && session.secure && session.handler.authBackend !== undefined;
}

function capabilities(session: SessionCore): string[] {
  const lines = [
    `${session.hostname} greets ${session.greetingName}`,
    'PIPELINING',
    `SIZE ${session.limits.maxMessageBytes}`,
    '8BITMIME',
    'SMTPUTF8',
    'CHUNKING',
    'BINARYMIME',
    'ENHANCEDSTATUSCODES',
    'DSN',
  ];
  if (!session.secure && session.connection.startTls) lines.push('STARTTLS');
  if (offersAuth(session)) {
    const mechanisms = saslMechanisms.filter((mechanism) => mechanism !== 'SCRAM-SHA-256' || session.scram);
    lines.push(`AUTH ${mechanisms.join(' ')}`);
  }
  return lines;
}
