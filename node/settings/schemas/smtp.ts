/** Section `smtp`: what a session may do. Expressions are asked again whenever more is known of the client: at EHLO, STARTTLS, AUTH, XCLIENT. */
import { z } from 'zod';
import { type FactName, onceConstant, stageSetting, stageVariables } from '../../expressions/index.js';

const session: readonly FactName[] = [...stageVariables.connect, ...stageVariables.ehlo];
const ofSender: readonly FactName[] = [...session, ...stageVariables.mail];

/** A number within bounds, or an expression that gives one. */
const limit = (standard: number, min: number, max: number, description: string) =>
  stageSetting('int', { variables: session, default: standard, min, max, description });

export const smtp = z.strictObject({
  maxMessageBytes: limit(52_428_800, 1_024, 200_000_000, 'Largest message that is taken (SIZE)'),
  maxRecipients: limit(1_000, 1, 10_000, 'RCPT commands in one transaction'),
  maxRecipientDomains: limit(0, 0, 999_999, 'Domains of all recipients of a session, announced as RCPTDOMAINMAX; 0: any number'),
  maxMessagesPerSession: limit(1_000, 1, 1_000_000, 'Transactions of one session'),
  maxErrors: limit(20, 1, 10_000, 'Commands that were refused for syntax or order, then the session ends'),
  maxRefusedRecipients: limit(
    100,
    0,
    1_000_000,
    'Recipients refused for good in a session of who has not logged in, then it ends; 0: any number. LMTP is not counted',
  ),
  mustMatchSender: stageSetting('bool', {
    variables: ofSender,
    default: true,
    description: 'Who has logged in may send only as one of their own addresses',
  }),
  mustMatchFromField: stageSetting('bool', {
    variables: ofSender,
    default: false,
    fallback: true,
    description: 'The same for the addresses in the From field; people do send for others',
  }),
  bareLineEnds: stageSetting('string', {
    variables: session,
    words: ['refuse', 'normalise'],
    default: 'refuse',
    description: `A message with a bare CR or LF in it: refuse or normalise, settled before any of it has come; ${onceConstant}`,
  }),
  commandTimeoutSeconds: limit(300, 1, 3_600, 'Silence before a command'),
  dataTimeoutSeconds: limit(180, 1, 3_600, 'Silence within a message'),
  sessionTimeoutSeconds: limit(14_400, 10, 86_400, 'A whole session'),
  requireTls: stageSetting('bool', {
    variables: session,
    default: false,
    fallback: true,
    description: 'Without TLS nothing but EHLO and STARTTLS is taken',
  }),
  offerAuth: stageSetting('bool', {
    variables: session,
    default: "protocol == 'submission'",
    description: 'Logging in is offered',
  }),
  authMechanisms: stageSetting('strings', {
    variables: session,
    default: '[]',
    description: 'SASL mechanisms that are offered, in this order; [] for all that there are',
  }),
  withheldExtensions: stageSetting('strings', {
    variables: session,
    default: '[]',
    description: "Extensions that are not offered, such as ['CHUNKING', 'BINARYMIME']",
  }),
  isTrustedPeer: stageSetting('bool', {
    variables: session,
    default: false,
    fallback: false,
    description: 'The client is a proxy or filter of ours and may say for whom it speaks (XCLIENT, XFORWARD)',
  }),
  tarpitMilliseconds: limit(0, 0, 30_000, 'Wait before a refusal is said'),
  greetingDelayMilliseconds: limit(
    0,
    0,
    60_000,
    'Wait before the greeting; who talks into it is no mail server and is sent away',
  ),
  maxHoldSeconds: limit(2_592_000, 0, 31_536_000, 'How far ahead a message may be submitted (FUTURERELEASE); 0: not at all'),
  minDeliverBySeconds: limit(60, 0, 86_400, 'Shortest time after which a sender may want mail back (DELIVERBY)'),
});
