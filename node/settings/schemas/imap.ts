/** Section `imap`. */
import { z } from 'zod';
import { maxMessageBytes } from './common.js';

/** A top name in everybody's tree of mailboxes. */
const namespaceName = () =>
  z
    .string()
    .min(1)
    .max(60)
    .regex(/^[^/%*"\\\p{Cc}]+$/u, 'must not contain any of / % * " \\ and control characters')
    .refine((name) => name.trim() === name && name.toUpperCase() !== 'INBOX', 'must not be INBOX, nor begin or end with a space');

export const imap = z.strictObject({
  maxAppendBytes: maxMessageBytes().describe('Largest message that APPEND takes'),
  maxConnectionsPerUser: z
    .int()
    .min(1)
    .max(100_000)
    .default(50)
    .describe('Sessions of one user at once, on all nodes; programs use several each'),
  idleKeepAliveSeconds: z.number().positive().max(1_740).default(120).describe('Between signs of life to an idling client'),
  autoLogoutSeconds: z
    .number()
    .positive()
    .max(86_400)
    .default(1_800)
    .describe('Silence after which a session ends (RFC 9051 5.4: 1800 or more)'),
  maxMessagesPerCommand: z
    .int()
    .min(0)
    .max(4_294_967_295)
    .refine((count) => count === 0 || count >= 1_000, 'must be 0 or at least 1000')
    .default(4_000_000)
    .describe(
      'Messages that one command works on (MESSAGELIMIT, RFC 9738); 0 for any number. Programs that do not know of it miss the rest',
    ),
  indexCacheBytes: z
    .int()
    .min(1_048_576)
    .max(68_719_476_736)
    .default(134_217_728)
    .describe(
      "Each node's memory for mailbox indexes, about 40 bytes a message; those that sessions have open are kept beyond it",
    ),
  otherUsersName: namespaceName().default('Other Users').describe('Where people find the mailboxes that others share with them'),
  groupsName: namespaceName().default('Shared Folders').describe('Where people find the mailboxes of their groups'),
  shareWithEveryone: z.boolean().default(false).describe('Whether users may share a mailbox with all users at once (anyone)'),
  serverComment: z.string().max(1_000).default('').describe('Told to programs that ask (METADATA /shared/comment)'),
  serverAdmin: z
    .string()
    .max(1_000)
    .default('')
    .describe('How the administrator is reached, a URI such as mailto:postmaster@example.test (METADATA /shared/admin)'),
});
