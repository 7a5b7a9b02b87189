/** Section `cluster`. */
import { z } from 'zod';

export const cluster = z.strictObject({
  failureDetection: z
    .enum(['normal', 'fast', 'patient'])
    .default('normal')
    .describe(
      'How soon a silent node is given up: normal (a killed one within 3 s), fast (1 s; for networks and stores that never stall), patient (20 s; for nodes far apart)',
    ),
});
