/**
 * Section `accept`: what is decided of mail on its way in, step by step. A `refuse` gives '' or a reply: `550 5.7.1 Not from there`, or a sentence alone,
 * which takes the code that is usual there.
 */
import { z } from 'zod';
import { type FactName, stageSetting, stageVariables } from '../../expressions/index.js';

const atConnect: readonly FactName[] = stageVariables.connect;
const atEhlo: readonly FactName[] = [...atConnect, ...stageVariables.ehlo];
const atMail: readonly FactName[] = [...atEhlo, ...stageVariables.mail];
const atRcpt: readonly FactName[] = [...atMail, ...stageVariables.rcpt];
const atData: readonly FactName[] = [...atMail, 'rcpt_count'];

/** What can't be decided is to be tried again. */
const undecided = '451 4.3.5 This can not be decided now, please try again later';
/** No address: the mail is put off. */
const noAddress = '<undecided>';

/** No name of a script can be this: what becomes of mail whose script fails is done. */
const noScript = '<undecided>';

const script = (variables: readonly FactName[], description: string) =>
  stageSetting('string', {
    variables,
    default: "''",
    fallback: noScript,
    description: `Name of a script of the section scripts, such as "'no-bots'": ${description}; '' for none`,
  });

const refuse = (variables: readonly FactName[], description: string) =>
  stageSetting('string', { variables, default: "''", fallback: undecided, description });

export const accept = z.strictObject({
  connect: z
    .strictObject({
      refuse: refuse(atConnect, 'Refuses a client before the greeting'),
      script: script(atConnect, 'it may refuse the client'),
      greeting: stageSetting('string', {
        variables: atConnect,
        default: "''",
        description: "Text of the greeting, which begins with our name; '' for the usual one",
      }),
    })
    .prefault({}),
  ehlo: z
    .strictObject({
      refuse: refuse(atEhlo, 'Refuses a client for its name'),
      script: script(atEhlo, 'it may refuse the client'),
    })
    .prefault({}),
  auth: z
    .strictObject({
      refuse: refuse(atEhlo, 'Refuses a login whose password was right'),
      script: script(atEhlo, 'it may refuse the login'),
    })
    .prefault({}),
  mail: z
    .strictObject({
      refuse: refuse(atMail, 'Refuses a sender'),
      script: script(atMail, 'it may refuse the sender, or have the mail thrown away'),
      rewrite: stageSetting('string', {
        variables: atMail,
        default: 'sender',
        fallback: noAddress,
        description: "Reverse-path that is used instead of the sender's; '' for none",
      }),
      minPriority: stageSetting('int', {
        variables: atMail,
        default: -9,
        min: -9,
        max: 9,
        description: 'Lowest priority that a client may ask for (MT-PRIORITY)',
      }),
      maxPriority: stageSetting('int', {
        variables: atMail,
        default: "authenticated_as == '' ? 0 : 9",
        min: -9,
        max: 9,
        description: 'Highest priority that a client may ask for',
      }),
    })
    .prefault({}),
  rcpt: z
    .strictObject({
      refuse: refuse(atRcpt, 'Refuses a recipient'),
      script: script(atRcpt, 'it may refuse the recipient, send its mail elsewhere, or have it thrown away'),
      rewrite: stageSetting('string', {
        variables: atRcpt,
        default: 'recipient',
        fallback: noAddress,
        description: 'Address that is used instead of the recipient',
      }),
      relay: stageSetting('bool', {
        variables: atRcpt,
        default: "authenticated_as != ''",
        fallback: false,
        description: 'Mail for domains that are not ours is taken',
      }),
    })
    .prefault({}),
  data: z
    .strictObject({
      refuse: refuse(atData, 'Refuses a message when all of it is there'),
      script: script(atData, 'it may refuse the message, edit its header, send it elsewhere, or have it thrown away'),
      maxBytes: stageSetting('int', {
        variables: atData,
        default: 0,
        min: 0,
        max: 200_000_000,
        description: "Largest message from this sender; 0: the session's limit alone",
      }),
      maxReceivedFields: stageSetting('int', {
        variables: atData,
        default: 50,
        min: 1,
        max: 1_000,
        description: 'Received fields; more mean that the message goes in circles',
      }),
      addReturnPath: stageSetting('bool', { variables: atData, default: true, description: 'Puts a Return-Path in front' }),
      addReceived: stageSetting('bool', { variables: atData, default: true, description: 'Puts a Received field in front' }),
      addDate: stageSetting('bool', {
        variables: atData,
        default: "protocol == 'submission'",
        description: 'Adds a Date field where there is none',
      }),
      addMessageId: stageSetting('bool', {
        variables: atData,
        default: "protocol == 'submission'",
        description: 'Adds a Message-ID where there is none',
      }),
      queueName: stageSetting('string', {
        variables: atData,
        default: "'default'",
        description: 'Virtual queue that the message waits in when it goes to other servers',
      }),
    })
    .prefault({}),
});
