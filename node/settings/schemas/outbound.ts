/** Section `outbound`: delivering to other servers. */
import { z } from 'zod';
import { compiledSetting, ExpressionError, type ExpressionSource } from '../../expressions/index.js';
import {
  addressOrderStage,
  eightBitStage,
  heloNameStage,
  routeStage,
  sourceAddress4Stage,
  sourceAddress6Stage,
  throttleStages,
  tlsDemands,
  tlsStage,
} from '../../mailflow/outbound/declarations.js';
import { port } from './common.js';

/** Paths of the section that are kept sealed. */
export const outboundSecrets = ['relay.password', 'routes.*.password', 'routes.*.token'] as const;

const relay = z
  .strictObject({
    host: z.string().min(1).max(255).describe('Name or address'),
    port: port.default(587),
    user: z.string().min(1).max(255).optional(),
    password: z.string().min(1).max(1_000).optional(),
    tls: z.enum(['none', 'opportunistic', 'required', 'implicit']).default('required'),
  })
  .refine(({ user, password }) => (user === undefined) === (password === undefined), 'user and password go together')
  .refine(({ password, tls }) => password === undefined || tls === 'required' || tls === 'implicit', {
    message: 'with a password it must be required or implicit: the password would go out in the clear',
    path: ['tls'],
  });

const name = z.string().regex(/^[a-z0-9][a-z0-9-]{0,39}$/, 'small letters, digits and -, at most 40');

const routeHost = z.strictObject({
  host: z.string().min(1).max(255).describe('Name or address'),
  port: port.optional().describe("Default: the route's"),
  order: z.int().min(0).max(1_000).default(0).describe('Lower ones are tried first'),
  weight: z
    .int()
    .min(1)
    .max(1_000)
    .default(1)
    .describe('Among hosts of the same order: the share of deliveries that try it first'),
});

const isSafe = (tls: string | undefined) => tls === 'verified' || tls === 'implicit';

const route = z
  .strictObject({
    name: name.refine((one) => one !== 'mx' && one !== 'relay', 'mx and relay have a meaning already'),
    kind: z.enum(['mx', 'relay', 'lmtp']).describe("The domain's mail exchangers, or these hosts by SMTP or LMTP"),
    hosts: z.array(routeHost).max(50).default([]),
    port: port.optional().describe('Default: outbound.port; 24 for lmtp'),
    tls: z
      .enum([...tlsDemands, 'implicit'])
      .optional()
      .describe('Default: what outbound.tls says'),
    user: z.string().min(1).max(255).optional(),
    password: z.string().min(1).max(1_000).optional(),
    token: z.string().min(1).max(8_000).optional().describe('OAuth 2 access token, instead of a password'),
    mechanisms: z.array(z.string().toUpperCase()).max(10).optional().describe('SASL mechanisms that may be used; default: any'),
  })
  .refine(({ kind, hosts }) => (kind === 'mx') === (hosts.length === 0), {
    message: 'relay and lmtp need hosts, mx has none',
    path: ['hosts'],
  })
  .refine(({ user, password, token }) => (user === undefined) === (password === undefined && token === undefined), {
    message: 'user and password (or token) go together',
    path: ['user'],
  })
  .refine(({ password, token }) => password === undefined || token === undefined, 'either a password or a token')
  .refine(({ kind, user }) => kind !== 'mx' || user === undefined, "there is no login at other domains' mail exchangers")
  .refine(({ user, tls }) => user === undefined || isSafe(tls), {
    message: 'with a login it must be verified or implicit: the password would go to whoever answers',
    path: ['tls'],
  });

const rate = z.strictObject({
  name: name.describe('For counting and in logs'),
  match: throttleStages.match,
  key: throttleStages.key,
  count: z.int().min(1).max(100_000_000).describe('Deliveries'),
  periodSeconds: z.int().min(1).max(2_592_000),
});

const concurrency = z.strictObject({
  name,
  match: throttleStages.match,
  key: throttleStages.key,
  max: z.int().min(1).max(100_000).describe('Deliveries at a time'),
});

const unique = <T extends { name: string }>(items: readonly T[]) => new Set(items.map((item) => item.name)).size === items.length;
const uniquely = { message: 'names are given once' };

/** A wait of RFC 5321 4.5.3.2. */
const wait = (seconds: number, help: string) => z.number().positive().max(3_600).default(seconds).describe(help);

const timeouts = z.strictObject({
  connectSeconds: wait(30, 'Until a connection stands'),
  greetingSeconds: wait(300, 'For the greeting'),
  commandSeconds: wait(300, 'For the answer to EHLO, STARTTLS, AUTH and RSET'),
  tlsHandshakeSeconds: wait(60, 'For a TLS handshake'),
  mailSeconds: wait(300, 'For the answer to MAIL'),
  rcptSeconds: wait(300, 'For the answer to RCPT'),
  dataInitiationSeconds: wait(120, 'For the answer to DATA'),
  dataBlockSeconds: wait(180, 'Until the peer takes more of the message'),
  dataTerminationSeconds: wait(600, 'For the answer to the whole message'),
});

const shape = z.strictObject({
  port: port.default(25).describe("Port of other domains' mail exchangers"),
  relay: relay.optional().describe("A host that all outgoing mail goes through instead of the recipients' mail exchangers"),
  retryScheduleSeconds: z
    .array(z.number().positive().max(604_800))
    .min(1)
    .max(100)
    .default([60, 300, 900, 1_800, 3_600, 7_200])
    .describe('Waits between attempts; the last one repeats'),
  delayNoticeAfterSeconds: z
    .number()
    .positive()
    .default(14_400)
    .describe('Waiting mail is reported to its sender as delayed, once'),
  expireAfterSeconds: z.number().positive().max(2_592_000).default(432_000).describe('Waiting mail goes back to its sender'),
  routes: z
    .array(route)
    .max(100)
    .default([])
    .refine(unique, uniquely)
    .describe('Ways that mail can take, chosen by outbound.route'),
  route: routeStage,
  fallbackHosts: z
    .array(routeHost)
    .max(10)
    .default([])
    .describe('Tried when all mail exchangers of a domain have failed for now'),
  tls: tlsStage,
  sourceAddress4: sourceAddress4Stage,
  sourceAddress6: sourceAddress6Stage,
  heloName: heloNameStage,
  addressOrder: addressOrderStage,
  eightBit: eightBitStage,
  rates: z
    .array(rate)
    .max(50)
    .default([])
    .refine(unique, uniquely)
    .describe('So many deliveries within a time, in the whole cluster; what is more waits, without an attempt'),
  concurrency: z
    .array(concurrency)
    .max(50)
    .default([])
    .refine(unique, uniquely)
    .describe('So many deliveries at a time, in the whole cluster'),
  maxConnectionsPerDomain: z
    .int()
    .min(1)
    .max(1_000)
    .default(10)
    .describe('Deliveries to one domain at a time, per node, when all goes well; fewer while its servers fail'),
  maxHostsPerAttempt: z.int().min(1).max(50).default(5).describe('Addresses that one attempt tries'),
  maxMessagesPerConnection: z.int().min(1).max(100_000).default(100).describe('Before a new connection is opened'),
  maxSecondsPerConnection: z.number().positive().max(86_400).default(300).describe('Before a new connection is opened'),
  tlsFailureMemorySeconds: z
    .number()
    .min(0)
    .max(604_800)
    .default(3_600)
    .describe('How long a host whose TLS handshake failed is spoken to without TLS (opportunistic only)'),
  timeouts: timeouts.prefault({}).describe('How long to wait for other servers (RFC 5321 4.5.3.2)'),
  maxConcurrentDeliveries: z.int().min(1).max(10_000).default(64).describe('To other servers, per node'),
});

/** None of an expression that is refused for itself. */
function outcomesOf(source: ExpressionSource): readonly { constant: unknown }[] {
  try {
    return compiledSetting(routeStage, source).expression.outcomes;
  } catch (error) {
    if (error instanceof ExpressionError) return [];
    throw error;
  }
}

/** An expression that names a route which is not there is a slip of the pen. */
export const outbound = shape.superRefine(({ route: source, routes, relay: usual }, context) => {
  const known = new Set(['', 'mx', 'local', ...(usual ? ['relay'] : []), ...routes.map((one) => one.name)]);
  for (const { constant } of outcomesOf(source)) {
    if (typeof constant !== 'string' || known.has(constant)) continue;
    context.addIssue({ code: 'custom', path: ['route'], message: `there is no route '${constant.slice(0, 60)}'` });
  }
});
