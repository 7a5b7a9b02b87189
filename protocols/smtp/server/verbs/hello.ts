/** EHLO, HELO (RFC 5321 4.1.1.1) and LHLO (RFC 2033 4.1): who the client says it is, and what we can do. */
import { isGreetingName } from '../../grammar/command.js';
import { reply } from '../../grammar/reply.js';
import { localError, type SessionCore } from '../core.js';
import { capabilityLines } from '../offers.js';

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
      // RFC 5321 4.1.4: the session stays as it was.
      if (answer && answer.code >= 400) return session.refuse('ehlo', answer);
      session.endTransaction(false);
      session.greetingName = argument;
      session.extended = verb !== 'HELO';
      session.askPolicy(
        () => greet(session, argument),
        () => {
          session.greetingName = '';
          session.extended = false;
          session.refuse('ehlo', localError);
        },
      );
    },
  );
}

function greet(session: SessionCore, name: string) {
  const text = `${session.hostname} greets ${name}`;
  session.send({ code: 250, text: session.extended ? [text, ...capabilityLines(session)] : text });
}
