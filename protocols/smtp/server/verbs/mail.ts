/** MAIL FROM (RFC 5321 4.1.1.2): opens a transaction. */
import { afterKeyword } from '../../grammar/command.js';
import { parseMailParameters } from '../../grammar/parameters.js';
import { parsePath } from '../../grammar/path.js';
import { type Reply, reply } from '../../grammar/reply.js';
import type { SessionCore } from '../core.js';
import type { MailCommand } from '../handler.js';
import { offered } from '../offers.js';
import { tooLarge } from '../transfer.js';

const accepted = reply(250, '2.1.0', 'Sender accepted');

/** RFC 6710 5: the client learns which priority it has got instead. */
const newPriority = ({ parameters }: MailCommand) =>
  reply(250, '2.3.6', `${parameters.mtPriority ?? 0} is the new priority assigned to the message`);

/** What must hold before MAIL; undefined when it does. */
function outOfOrder(session: SessionCore): Reply | undefined {
  if (session.greetingName === '') return reply(503, '5.5.1', session.mode === 'lmtp' ? 'Say LHLO first' : 'Say EHLO first');
  if (session.mail) return reply(503, '5.5.1', 'A transaction is open already');
  if (session.mode === 'submission' && !session.principal) {
    // RFC 3207 4.2 and RFC 4954 6, the same code for both.
    return reply(530, '5.7.0', session.secure ? 'Authentication is required' : 'STARTTLS is required first');
  }
  return undefined;
}

/** The command's value, or why it has none. */
function parse(session: SessionCore, argument: string): MailCommand | Reply {
  const text = afterKeyword(argument, 'FROM');
  if (text === undefined) return reply(501, '5.5.4', 'MAIL is followed by FROM:<address>');
  const path = parsePath(text, 'reverse', true);
  if ('problem' in path) return reply(501, '5.1.7', `Bad sender address: ${path.problem}`);
  if (path.rest !== '' && !session.extended) return reply(555, '5.5.4', 'Parameters need EHLO');
  const { maxHoldSeconds, minDeliverBySeconds } = session.limits;
  const parameters = parseMailParameters(path.rest, {
    offered: path.rest === '' ? 0 : offered(session),
    nowMs: session.clock.nowMs(),
    maxHoldSeconds,
    minDeliverBySeconds,
  });
  if (!parameters.ok) return parameters.reply;
  const address = path.mailbox?.address ?? '';
  if (!parameters.value.smtpUtf8 && /[^\x00-\x7f]/.test(address)) return reply(553, '5.6.7', 'This address needs SMTPUTF8');
  return { address, parameters: parameters.value };
}

export function mail(session: SessionCore, argument: string) {
  const order = outOfOrder(session);
  if (order) return session.protocolError('mail', order);
  if (session.transactionCount >= session.limits.maxMessages) {
    return session.refuse('mail', reply(421, '4.7.0', 'Enough messages for one session, please connect again'));
  }
  const command = parse(session, argument);
  if ('code' in command) return session.protocolError('mail', command);
  const { maxMessageBytes } = session.limits;
  // RFC 1870 6.1: told beforehand, it need not be sent.
  if ((command.parameters.sizeBytes ?? 0) > maxMessageBytes) return session.refuse('mail', tooLarge(maxMessageBytes));
  const { mtPriority } = command.parameters;
  session.run(
    'mailFrom',
    () => session.handler.mailFrom(session, command),
    (answer) => {
      if (answer && answer.code >= 400) return session.refuse('mail', answer);
      session.mail = command;
      session.transactionCount++;
      // Who has asked for no priority is told of none.
      const isChanged = mtPriority !== undefined && command.parameters.mtPriority !== mtPriority;
      session.send(answer ?? (isChanged ? newPriority(command) : accepted));
    },
  );
}
