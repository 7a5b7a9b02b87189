/** Section `screening`: clients that nobody knows. Who has logged in, delivers over LMTP or is among `knownClients` is not screened. */
import { z } from 'zod';
import { parseNetwork } from '../../../store/limits/index.js';
import {
  compiledSetting,
  ExpressionError,
  type FactName,
  onceConstant,
  stageSetting,
  stageVariables,
} from '../../expressions/index.js';

const atConnect: readonly FactName[] = [...stageVariables.connect, ...stageVariables.ehlo];
const atRcpt: readonly FactName[] = [...atConnect, ...stageVariables.mail, ...stageVariables.rcpt];

const network = z.string().refine((text) => parseNetwork(text) !== undefined, 'an IP address, or a network such as 10.0.0.0/8');
const hours = 3_600;

/** Asked at RCPT, and only where it counts: of a client that is greylisted, a trap that was named, a zone that lists the client. */
const atScreening = (standard: number, min: number, max: number, description: string) =>
  stageSetting('int', { variables: atRcpt, default: standard, min, max, description: `${description}; ${onceConstant}` });

const zone = z.strictObject({
  zone: z
    .string()
    .regex(/^[a-z0-9_]([a-z0-9._-]*[a-z0-9])?$/i, 'a domain')
    .describe('Domain that the reversed address is looked up in'),
  answers: z.array(network).min(1).max(20).default(['127.0.0.0/8']).describe('Answers that mean: listed'),
  weight: atScreening(10, 0, 1_000, 'What a listing counts for; 0: nothing'),
  timeoutMilliseconds: z.int().min(100).max(30_000).default(3_000).describe('A zone that takes longer says nothing'),
});

const greylist = z.strictObject({
  enabled: stageSetting('bool', {
    variables: atRcpt,
    default: false,
    fallback: false,
    description: 'Puts off what comes from an unknown client, sender and recipient for the first time',
  }),
  delaySeconds: atScreening(300, 1, 24 * hours, 'Attempts before that are put off'),
  windowSeconds: atScreening(
    2 * 24 * hours,
    60,
    30 * 24 * hours,
    'A second attempt must come within this; where an expression gives no more than delaySeconds, twice that counts',
  ),
  lifetimeSeconds: atScreening(36 * 24 * hours, 60, 365 * 24 * hours, 'Who has passed passes for so long, renewed by use'),
});

const traps = z.strictObject({
  match: stageSetting('bool', {
    variables: atRcpt,
    default: false,
    fallback: false,
    description: 'The recipient is an address that only spammers know',
  }),
  lists: z
    .array(z.string().regex(/^[a-z0-9-]{1,64}$/, 'the name of a look-up list'))
    .max(8)
    .default([])
    .describe('Look-up lists with such addresses'),
  action: stageSetting('string', {
    variables: atRcpt,
    words: ['drop', 'refuse'],
    default: 'drop',
    description: `Mail for them is taken and thrown away (drop), or refused (refuse); ${onceConstant}`,
  }),
  banSeconds: atScreening(hours, 0, 365 * 24 * hours, 'The client is banned for so long; 0: it is not'),
});

const blocklists = z.strictObject({
  enabled: stageSetting('bool', {
    variables: atConnect,
    default: true,
    fallback: true,
    description: 'Whom to look up, where there are zones',
  }),
  zones: z.array(zone).max(20).default([]).describe('DNS blocklists'),
  refuseAtWeight: atScreening(10, 1, 20_000, 'Sum of weights from which a client is refused'),
  cacheSeconds: z
    .int()
    .min(0)
    .max(24 * hours)
    .default(600)
    .describe('How long an answer is remembered'),
  reply: stageSetting('string', {
    variables: atConnect,
    default: "''",
    description: "What is said; '' for the zone's own words",
  }),
});

/** The settings of this section that may be expressions, for whoever compiles them. */
export const screeningStages = {
  greylist: greylist.shape,
  traps: traps.shape,
  blocklists: blocklists.shape,
  zone: zone.shape,
};

/** Only constants can be compared when they are saved. */
function leavesTimeToComeBack({ delaySeconds, windowSeconds }: z.infer<typeof greylist>): boolean {
  try {
    const { constant: delay } = compiledSetting(greylist.shape.delaySeconds, delaySeconds).expression;
    const { constant: window } = compiledSetting(greylist.shape.windowSeconds, windowSeconds).expression;
    return delay === undefined || window === undefined || delay < window;
  } catch (error) {
    if (!(error instanceof ExpressionError)) throw error;
    return true; // It is refused for itself.
  }
}

export const screening = z.strictObject({
  knownClients: z
    .array(network)
    .max(1_000)
    .default(['127.0.0.0/8', '::1', '10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7'])
    .describe('Clients that are not screened'),
  greylist: greylist
    .refine(leavesTimeToComeBack, { message: 'it must be longer than delaySeconds', path: ['windowSeconds'] })
    .prefault({}),
  traps: traps.prefault({}),
  blocklists: blocklists.prefault({}),
});
