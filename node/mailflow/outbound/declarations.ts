/** The settings of outgoing mail that may be expressions: which facts they know, and what holds when nothing is set. Used by the schema and by `choices.ts`. */
import { onceConstant, stageSetting, stageVariables } from '../../expressions/index.js';

const queue = stageVariables.queue;
const host = [...stageVariables.queue, ...stageVariables.host];

export const tlsDemands = ['none', 'opportunistic', 'required', 'verified'] as const;

/** No host is known to these two. */
export const addressOrderStage = stageSetting('string', {
  variables: queue,
  words: ['prefer6', 'prefer4', 'only6', 'only4'],
  default: 'prefer6',
  description: `Of a host's addresses: the families take turns, this one first; or only this one; ${onceConstant}`,
});
export const routeStage = stageSetting('string', {
  variables: queue,
  default: "''",
  description:
    "Name of the route, or local: the mailboxes here; '' for the usual one: the relay host where one is set, else the domain's mail exchangers",
});
export const tlsStage = stageSetting('string', {
  variables: host,
  default: "'opportunistic'",
  choices: tlsDemands,
  // Whoever demands TLS by an expression wants it more than the mail.
  fallback: 'required',
  description: 'none, opportunistic, required (encrypted, whoever the peer is) or verified (its certificate fits its name)',
});
const address = (family: string) =>
  stageSetting('string', {
    variables: host,
    default: "''",
    description: `Local ${family} address to send from; '' leaves it to the system, and so does one that this machine does not have`,
  });
export const sourceAddress4Stage = address('IPv4');
export const sourceAddress6Stage = address('IPv6');
export const heloNameStage = stageSetting('string', {
  variables: host,
  default: "''",
  description: "Our name in EHLO; '' for the node's own",
});
export const eightBitStage = stageSetting('string', {
  variables: host,
  words: ['send', 'return'],
  default: 'send',
  description: `A message with octets above 127 for a server without 8BITMIME: as it is (send; nearly all take it), or back to its sender (return); ${onceConstant}`,
});
/** Made for each list, so that one list's texts do not push out another's. */
const match = () =>
  stageSetting('bool', { variables: queue, default: true, fallback: true, description: 'Which deliveries it is for' });
const key = () => stageSetting('string', { variables: queue, default: 'rcpt_domain', description: 'What is counted apart' });
export const throttleStages = { match: match(), key: key() };
