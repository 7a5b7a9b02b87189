/**
 * The sections of the cluster-wide settings: every limit has its unit in its name, a default and a line of help here. What a section is for others to obey:
 * `sessions.ts`, `mailflow.ts`, and the rooms that `../stores.ts` opens.
 */
import { z } from 'zod';
import { secretPaths as blobSecretPaths, blobStorageSettings } from '../../store/blobs/external-settings.js';
import type { Settings, SettingsOf, SettingsRegistry } from '../../store/settings/index.js';

const port = z.int().min(1).max(65_535);
const maxMessageBytes = () => z.int().min(1_024).max(200_000_000).default(52_428_800);

const smtp = z.strictObject({
  maxMessageBytes: maxMessageBytes().describe('Largest message that is taken (SIZE)'),
  maxRecipients: z.int().min(1).max(10_000).default(1_000).describe('RCPT commands in one transaction'),
  mustMatchSender: z.boolean().default(true).describe('Who has logged in may send only as one of their own addresses'),
  mustMatchFromField: z
    .boolean()
    .default(false)
    .describe('The same for the addresses in the From field; people do send for others'),
  bareLineEnds: z.enum(['refuse', 'normalise']).default('refuse').describe('A message with a bare CR or LF in DATA'),
  commandTimeoutSeconds: z.number().positive().max(3_600).default(300).describe('Silence before a command'),
  dataTimeoutSeconds: z.number().positive().max(3_600).default(180).describe('Silence within a message'),
});

const imap = z.strictObject({
  maxAppendBytes: maxMessageBytes().describe('Largest message that APPEND takes'),
  idleKeepAliveSeconds: z.number().positive().max(1_740).default(120).describe('Between signs of life to an idling client'),
  autoLogoutSeconds: z
    .number()
    .positive()
    .max(86_400)
    .default(1_800)
    .describe('Silence after which a session ends (RFC 9051 5.4: 1800 or more)'),
});

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

const outbound = z.strictObject({
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
  maxConcurrentDeliveries: z.int().min(1).max(10_000).default(64).describe('To other servers, per node'),
});

const directory = z.strictObject({
  minPasswordCharacters: z.int().min(1).max(128).default(8).describe('Shortest password that may be set'),
});

const cluster = z.strictObject({
  failureDetection: z
    .enum(['normal', 'fast', 'patient'])
    .default('normal')
    .describe(
      'How soon a silent node is given up: normal (a killed one within 3 s), fast (1 s; for networks and stores that never stall), patient (20 s; for nodes far apart)',
    ),
});

const sections = {
  smtp: { schema: smtp, description: 'Accepting mail over SMTP, submission and LMTP' },
  imap: { schema: imap, description: 'IMAP sessions' },
  outbound: { schema: outbound, description: 'Delivering to other servers', secrets: ['relay.password'] },
  directory: { schema: directory, description: 'Accounts and their passwords' },
  blobs: { schema: blobStorageSettings, description: 'Where large messages are kept', secrets: blobSecretPaths },
  cluster: { schema: cluster, description: 'How nodes judge one another' },
} as const;

export const settingsRegistry = { sections } satisfies SettingsRegistry<typeof sections>;

/** Sections that a node reads when it starts, and not again. */
export const sectionsReadAtStart: readonly (keyof typeof sections)[] = ['blobs', 'cluster'];

/** All sections, complete: what `Settings.current` is. */
export type ClusterSettings = SettingsOf<typeof sections>;
/** The node's hold on them. */
export type NodeSettings = Settings<typeof sections>;
