/**
 * The sections of the cluster-wide settings, put together from `schemas/`: every limit has its unit in its name, a default and a line of help there. What a section is for others to obey:
 * `sessions.ts`, `mailflow.ts`, and the rooms that `../stores.ts` opens.
 */
import { secretPaths as blobSecretPaths, blobStorageSettings } from '../../store/blobs/external-settings.js';
import type { Settings, SettingsOf, SettingsRegistry } from '../../store/settings/index.js';
import { abuse } from './schemas/abuse.js';
import { accept } from './schemas/accept.js';
import { cluster } from './schemas/cluster.js';
import { directory } from './schemas/directory.js';
import { imap } from './schemas/imap.js';
import { limits } from './schemas/limits.js';
import { login, loginSecrets } from './schemas/login.js';
import { outbound, outboundSecrets } from './schemas/outbound.js';
import { pop3 } from './schemas/pop3.js';
import { queue } from './schemas/queue.js';
import { screening } from './schemas/screening.js';
import { scripts } from './schemas/scripts.js';
import { search } from './schemas/search.js';
import { smtp } from './schemas/smtp.js';
import { scriptProblems } from './scripts.js';

const sections = {
  smtp: { schema: smtp, description: 'Sessions of SMTP, submission and LMTP' },
  accept: { schema: accept, description: 'What is decided of mail on its way in' },
  scripts: { schema: scripts, description: 'Sieve scripts for mail on its way in' },
  limits: { schema: limits, description: 'Rates, concurrency and quotas, counted over all nodes' },
  screening: { schema: screening, description: 'Greylisting, spam traps, DNS blocklists' },
  imap: { schema: imap, description: 'IMAP sessions' },
  pop3: { schema: pop3, description: 'POP3 sessions' },
  search: { schema: search, description: 'The full-text index' },
  outbound: { schema: outbound, description: 'Delivering to other servers', secrets: outboundSecrets },
  queue: { schema: queue, description: 'Schedules, reports, lists and virtual queues' },
  login: { schema: login, description: 'How users and their programs prove who they are', secrets: loginSecrets },
  abuse: { schema: abuse, description: 'Guessed passwords: delays and bans' },
  directory: { schema: directory, description: 'Accounts and their passwords' },
  blobs: { schema: blobStorageSettings, description: 'Where large messages are kept', secrets: blobSecretPaths },
  cluster: { schema: cluster, description: 'How nodes judge one another' },
} as const;

export const settingsRegistry = { sections, checks: [scriptProblems] } satisfies SettingsRegistry<typeof sections>;

/** Sections that a node reads when it starts, and not again. */
export const sectionsReadAtStart: readonly (keyof typeof sections)[] = ['blobs', 'cluster'];

/** All sections, complete: what `Settings.current` is. */
export type ClusterSettings = SettingsOf<typeof sections>;
/** The node's hold on them. */
export type NodeSettings = Settings<typeof sections>;
