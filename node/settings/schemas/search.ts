/** Section `search`: the full-text index and the work that fills it. */
import { z } from 'zod';
import { type StemLanguage, stemLanguages } from '../../../store/search/analysis/contract.js';

const mebibyte = 1_048_576;

export const search = z.strictObject({
  enabled: z.boolean().default(true).describe('Mail is indexed; without, searches look through the messages themselves'),
  cacheBytes: z
    .int()
    .min(mebibyte)
    .max(1_024 * 1_024 * mebibyte)
    .default(64 * mebibyte)
    .describe('Memory for parts of indexes on each node; taken up at its start'),
  delaySeconds: z.number().min(0).max(3_600).default(5).describe('Mail is collected for so long before it is indexed'),
  cpuSharePercent: z.number().min(1).max(100).default(30).describe('Of one core, that a node gives to indexing'),
  patienceSeconds: z
    .number()
    .min(0)
    .max(3_600)
    .default(30)
    .describe('Indexing waits for so long for a node that is at work for others; then it goes on with a third of its share'),
  patienceMessages: z
    .int()
    .min(0)
    .max(1_000_000)
    .default(2_000)
    .describe('It does not wait while an account has more mail than this that is not indexed: searches look through all of it'),
  batchMessages: z.int().min(1).max(5_000).default(500).describe('Messages that are added to an index at one time'),
  batchTextCharacters: z
    .int()
    .min(10_000)
    .max(50_000_000)
    .default(4_000_000)
    .describe('Text that is added to an index at one time'),
  maxBodyCharacters: z
    .int()
    .min(1_000)
    .max(16_777_216)
    .default(1_048_576)
    .describe('Text of one message that is indexed; searches look through the message itself where there is more'),
  languages: z
    .array(z.enum([...stemLanguages] as [StemLanguage, ...StemLanguage[]]))
    .max(stemLanguages.length)
    .default([...stemLanguages])
    .describe('Languages that are recognised, so that other forms of a word are found as well'),
});
