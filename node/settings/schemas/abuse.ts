/** Section `abuse`: what guessing passwords costs. What it counts, and for whom, is told in `node/abuse`. */
import { z } from 'zod';

const day = 86_400;

export const abuse = z.strictObject({
  guardsLogins: z.boolean().default(true).describe('Wrong passwords cost time, and in the end a ban'),
  freeFailures: z.int().min(0).max(100).default(3).describe('Wrong passwords of one address for one login before delays begin'),
  firstDelayMilliseconds: z.int().min(0).max(60_000).default(500).describe('The first delay; each further failure doubles it'),
  maxDelayMilliseconds: z.int().min(0).max(60_000).default(8_000).describe('The longest delay before a password is checked'),
  maxFailuresPerLogin: z
    .int()
    .min(1)
    .max(10_000)
    .default(10)
    .describe(
      'Wrong passwords of one address for one login, after which it may not try that login unless it has worked from there',
    ),
  loginWindowSeconds: z.int().min(10).max(day).default(900).describe('Within which those are counted'),
  maxFailuresPerAddress: z
    .int()
    .min(1)
    .max(100_000)
    .default(30)
    .describe(
      'Points of one address (IPv6: /64), after which only logins that have worked from there may try, and the address is banned',
    ),
  addressWindowSeconds: z
    .int()
    .min(10)
    .max(7 * day)
    .default(3_600)
    .describe('Within which those are counted'),
  newLoginPoints: z
    .int()
    .min(1)
    .max(1_000)
    .default(2)
    .describe('Points for the first failure of a login: one password over many logins'),
  unknownLoginPoints: z.int().min(1).max(1_000).default(3).describe('Points for a failure of a login that does not exist'),
  bansAddresses: z.boolean().default(true).describe('Such addresses are banned, unless users have logged in from there'),
  banSeconds: z
    .int()
    .min(1)
    .max(365 * day)
    .default(3_600)
    .describe('The first ban of an address; each further one within 30 days doubles it'),
  maxBanSeconds: z
    .int()
    .min(1)
    .max(365 * day)
    .default(7 * day)
    .describe('The longest ban'),
  knownNetworkDays: z
    .int()
    .min(1)
    .max(3_650)
    .default(90)
    .describe('So long a network (/24, /64) is known as one that a login has worked from'),
});

export type AbuseSettings = z.infer<typeof abuse>;
