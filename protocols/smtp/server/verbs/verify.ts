/**
 * VRFY and EXPN (RFC 5321 4.1.1.6 and 4.1.1.7). Whether an address exists is nobody's business (3.5.3): only who has logged in gets an answer that
 * says something.
 */
import { type Reply, reply } from '../../grammar/reply.js';
import type { SessionCore } from '../core.js';
import type { Verdict } from '../handler.js';
import { offers } from '../offers.js';
import { hasAuth } from './auth-offer.js';

const nonAscii = /[^\x00-\x7f]/;
const noVerdict = reply(252, '2.0.0', 'Not verified, but mail for it would be tried');
const loginFirst = reply(530, '5.7.0', 'Authentication is required');

/** RFC 6531 3.7.4.2: the argument, and whether the answer may have UTF-8 in it. */
function withoutUtf8Flag(argument: string): { text: string; smtpUtf8: boolean } {
  // Not by one expression for all of it: thousands of spaces would take it the square of their number.
  if (!/[ \t]SMTPUTF8$/i.test(argument)) return { text: argument, smtpUtf8: false };
  return { text: argument.slice(0, -'SMTPUTF8'.length).trimEnd(), smtpUtf8: true };
}

/** RFC 6531 3.7.4.2: who did not say SMTPUTF8 learns that there is an answer, which it can't have. */
function readable(answer: Reply, smtpUtf8: boolean): Reply {
  const texts = typeof answer.text === 'string' ? [answer.text] : answer.text;
  if (smtpUtf8 || !texts.some((text) => nonAscii.test(text))) return answer;
  const text = 'The answer has UTF-8 in it: ask with SMTPUTF8';
  return answer.code < 400
    ? reply(252, '2.6.8', text)
    : reply(answer.code < 500 ? 450 : 553, answer.code < 500 ? '4.6.8' : '5.6.8', text);
}

function ask(
  session: SessionCore,
  argument: string,
  verb: string,
  call: ((argument: string) => Verdict | Promise<Verdict>) | undefined,
) {
  if (argument === '') return session.protocolError('command', reply(501, '5.5.4', `${verb} takes a name or an address`));
  const { text, smtpUtf8 } = withoutUtf8Flag(argument);
  if (smtpUtf8 && !(session.extended && offers(session, 'SMTPUTF8'))) {
    return session.protocolError('command', reply(504, '5.5.4', 'SMTPUTF8 is not offered'));
  }
  if (nonAscii.test(text) && !smtpUtf8) return session.protocolError('command', reply(553, '5.6.7', 'This needs SMTPUTF8'));
  session.run(
    verb.toLowerCase(),
    () => call?.(text),
    (answer) => {
      if (!answer) return session.send(noVerdict);
      const told = readable(answer, smtpUtf8);
      if (told.code >= 400) session.refuse('command', told);
      else session.send(told);
    },
  );
}

export function vrfy(session: SessionCore, argument: string, verb: string) {
  if (session.policy?.extensions?.VRFY === false) {
    return session.protocolError('command', reply(502, '5.5.1', 'VRFY is not offered'));
  }
  const { handler } = session;
  if (session.principal) return ask(session, argument, verb, (text) => handler.vrfy?.(session, text));
  if (hasAuth(session)) return session.protocolError('command', loginFirst);
  ask(session, argument, verb, undefined);
}

export function expn(session: SessionCore, argument: string, verb: string) {
  const { handler, policy } = session;
  const isOffered = handler.expn !== undefined && policy?.extensions?.EXPN !== false;
  if (isOffered && session.principal) return ask(session, argument, verb, (text) => handler.expn!(session, text));
  if (isOffered && hasAuth(session)) return session.protocolError('command', loginFirst);
  session.protocolError('command', reply(502, '5.5.1', 'EXPN is not offered'));
}
