/** Section `pop3`. */
import { z } from 'zod';

export const pop3 = z.strictObject({
  autoLogoutSeconds: z
    .number()
    .positive()
    .max(86_400)
    .default(600)
    .describe('Silence after which a session ends, with nothing removed (RFC 1939 section 3: 600 or more)'),
  marksSeen: z.boolean().default(true).describe('What was retrieved is seen for IMAP, too, once the session ends with QUIT'),
});
