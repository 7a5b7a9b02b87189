/** RCPT TO (RFC 5321 4.1.1.3): adds a recipient. */
import { afterKeyword } from '../../grammar/command.js';
import { parseRecipientParameters } from '../../grammar/parameters.js';
import { domainOf, parsePath } from '../../grammar/path.js';
import { type Reply, reply } from '../../grammar/reply.js';
import type { SessionCore } from '../core.js';
import type { RecipientCommand } from '../handler.js';
import { offers } from '../offers.js';

const accepted = reply(250, '2.1.5', 'Recipient accepted');
const noTransaction = reply(503, '5.5.1', 'Say MAIL first');
const chunksBegun = reply(503, '5.5.1', 'The message has begun already');
const tooMany = reply(452, '4.5.3', 'Too many recipients, send the rest in another message');
const tooManyRefused = reply(421, '4.7.0', 'Too many recipients were refused');
const tooManyDomains = reply(452, '4.5.3', 'Too many domains, send the rest over another connection');

/** RFC 9422 4.3: the limit holds for the session. */
function isOneDomainTooMany({ limits, recipientDomains }: SessionCore, { address }: RecipientCommand): boolean {
  if (limits.maxRecipientDomains <= 0 || !recipientDomains) return false;
  return recipientDomains.size >= limits.maxRecipientDomains && !recipientDomains.has(domainOf(address));
}

function parse(session: SessionCore, argument: string): RecipientCommand | Reply {
  const smtpUtf8 = session.mail!.parameters.smtpUtf8;
  const text = afterKeyword(argument, 'TO');
  if (text === undefined) return reply(501, '5.5.4', 'RCPT is followed by TO:<address>');
  const path = parsePath(text, 'forward', smtpUtf8);
  if ('problem' in path) {
    return path.needsUtf8
      ? reply(553, '5.6.7', 'This address needs SMTPUTF8')
      : reply(501, '5.1.3', `Bad recipient address: ${path.problem}`);
  }
  if (path.rest !== '' && !session.extended) return reply(555, '5.5.4', 'Parameters need EHLO');
  const parameters = parseRecipientParameters(path.rest, smtpUtf8, path.rest === '' || offers(session, 'DSN'));
  return parameters.ok ? { address: path.mailbox!.address, parameters: parameters.value } : parameters.reply;
}

/** RFC 5321 7.3: who names one address after the other that is not there wants to know which are. */
function refused(session: SessionCore, answer: Reply) {
  session.refuse('rcpt', answer);
  const { limits, mode, principal } = session;
  if (answer.code < 500 || mode === 'lmtp' || principal || limits.maxRefusedRecipients <= 0) return;
  if (++session.refusedRecipientCount >= limits.maxRefusedRecipients) session.replyAndClose(tooManyRefused);
}

export function rcpt(session: SessionCore, argument: string) {
  const transaction = session.mail;
  if (!transaction) return session.protocolError('rcpt', noTransaction);
  if (session.transfer) return session.protocolError('rcpt', chunksBegun);
  session.recipientAttempts++;
  // RFC 5321 4.5.3.1.10: the others stay, and the client sends again for the rest. No error of the client's.
  if (session.recipients.length >= session.limits.maxRecipients) return session.refuse('rcpt', tooMany);
  const command = parse(session, argument);
  if ('code' in command) return session.protocolError('rcpt', command);
  if (isOneDomainTooMany(session, command)) return session.refuse('rcpt', tooManyDomains);
  session.run(
    'rcptTo',
    () => session.handler.rcptTo(session, transaction, command),
    (answer) => {
      if (answer && answer.code >= 400) return refused(session, answer);
      session.recipients.push(command);
      if (session.limits.maxRecipientDomains > 0) (session.recipientDomains ??= new Set()).add(domainOf(command.address));
      session.send(answer ?? accepted);
    },
  );
}
