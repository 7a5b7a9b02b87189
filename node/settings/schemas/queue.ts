/** Section `queue`: how long and how often delivery is tried, what senders are told, what lists do, how the queue is divided. */
import { z } from 'zod';
import { stageSetting, stageVariables } from '../../expressions/index.js';
import { type ReportTextName, reportPlaceholders, reportTextProblem } from '../../mailflow/report-texts.js';

const day = 86_400;
const name = z.string().regex(/^[a-z0-9][a-z0-9_-]{0,62}$/, 'a name: small letters, digits, - and _');
const address = z
  .string()
  .max(320)
  .regex(/^[^\s@<>,"]+@[^\s@<>,"]+$/, 'an address');
const uri = z
  .string()
  .max(900)
  .regex(/^[a-z][a-z0-9+.-]*:[!-;=?-~]+$/i, 'a URI');
const language = z.string().regex(/^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,3}$/, 'a language tag such as de or pt-BR');

const schedule = z
  .strictObject({
    retryDelaysSeconds: z
      .array(z.number().positive().max(604_800))
      .min(1)
      .max(100)
      .describe('Waits between attempts; the last one repeats'),
    notifyAfterSeconds: z
      .array(
        z
          .number()
          .positive()
          .max(30 * day),
      )
      .max(10)
      .default([14_400])
      .describe('Ages at which the sender is told of the delay; none: never'),
    expireAfterSeconds: z
      .number()
      .positive()
      .max(30 * day)
      .default(5 * day)
      .describe('Age at which it goes back'),
  })
  .refine(({ notifyAfterSeconds }) => notifyAfterSeconds.every((one, i, all) => i === 0 || one > all[i - 1]!), {
    message: 'they must ascend',
    path: ['notifyAfterSeconds'],
  });

const texts = z
  .partialRecord(z.enum(Object.keys(reportPlaceholders) as [ReportTextName, ...ReportTextName[]]), z.string().min(1).max(2_000))
  .superRefine((given, context) => {
    for (const [key, text] of Object.entries(given)) {
      const problem = reportTextProblem(key as ReportTextName, text);
      if (problem !== undefined) context.addIssue({ code: 'custom', message: problem, path: [key] });
    }
  });

const list = z
  .strictObject({
    owner: address
      .optional()
      .describe('Gets what comes back from members, and is shown to them. Default: the postmaster of its domain, not shown'),
    moderators: z.array(address).max(100).default([]).describe('May write to it like the owner'),
    posting: z.enum(['anyone', 'members', 'owners']).default('anyone').describe('Who may write to it'),
    name: z.string().max(200).optional().describe('Shown before the List-Id'),
    help: uri.optional(),
    archive: uri.optional(),
    subscribe: uri.optional(),
    unsubscribe: z
      .strictObject({
        mailto: address.optional().describe('Default: the owner'),
        url: uri.optional(),
        isOneClick: z.boolean().default(false).describe('A POST to the url unsubscribes at once (RFC 8058)'),
      })
      .refine(({ url, isOneClick }) => !isOneClick || /^https:/i.test(url ?? ''), {
        message: 'needs an https url',
        path: ['isOneClick'],
      })
      .optional(),
    isVerp: z
      .boolean()
      .default(false)
      .describe('A copy for each outside member, whose reverse-path names the member; needs subaddresses with + in its domain'),
  })
  .describe('A mailing list of the directory');

const virtualQueue = z.strictObject({
  maxConcurrentDeliveries: z.int().min(1).max(10_000).describe('Deliveries at one time, on each node'),
  maxConcurrentPerDomain: z.int().min(1).max(10_000).optional().describe('To one domain'),
});

/** Objects under names, at most `max`. */
const named = <K extends z.ZodType<string, string>, V extends z.ZodType>(key: K, value: V, max: number) =>
  z
    .record(key as z.ZodType<string, string>, value)
    .refine((given) => Object.keys(given).length <= max, `at most ${max}`)
    .default({});

export const queue = z.strictObject({
  schedules: named(name, schedule, 100).describe('Besides the default one, which the section outbound has'),
  schedule: stageSetting('string', {
    variables: stageVariables.queue,
    default: "'default'",
    description: 'Which schedule a message waits by, asked after each attempt that was put off',
  }),
  virtualQueues: named(name, virtualQueue, 100).describe(
    'Queues with workers of their own; `default` is the one of all messages that accept.data.queueName gives no other',
  ),
  reportLanguages: z.array(language).min(1).max(5).default(['en']).describe('Of reports to senders, one after the other'),
  reportLanguagesFor: stageSetting('strings', {
    variables: stageVariables.queue,
    default: '[]',
    description: 'Languages by message, such as by sender_domain; none: reportLanguages',
  }),
  reportTexts: named(language, texts, 50).describe('Sentences of reports by language, instead of the built-in ones'),
  maxReportsPerSenderPerHour: z
    .int()
    .min(0)
    .max(1_000_000)
    .default(200)
    .describe('Failure and delay reports about mail from outside to one address, on each node; 0: without limit'),
  lists: named(address, list, 10_000).describe('Mailing lists by their primary address'),
  membersPerBatch: z.int().min(10).max(5_000).default(1_000).describe('Members of a list that share a message and a transaction'),
  keepHistoryDays: z.int().min(0).max(3_650).default(30).describe('Of messages that have left the queue'),
});
