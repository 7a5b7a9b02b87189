/** Section `scripts`: Sieve scripts (RFC 5228) of operators for mail on its way in. Which of them runs where is said by `accept.….script`. */
import { z } from 'zod';
import { defaultMaxSeenBytes, defaultMaxSteps, scriptLimits } from '../../mailflow/stages/script-rules.js';
import { scriptProblem } from '../script-check.js';

const maxScripts = 100;

const name = z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, "a name of small letters, digits, '.', '_' and '-'");

export const scripts = z.strictObject({
  sieve: z
    .record(name as z.ZodType<string, string>, z.string().max(scriptLimits.maxScriptBytes))
    .superRefine((texts, context) => {
      const names = Object.keys(texts);
      if (names.length > maxScripts) {
        context.addIssue({ code: 'custom', message: `at most ${maxScripts} scripts` });
        return;
      }
      for (const one of names) {
        const problem = scriptProblem(one, texts[one]!);
        if (problem !== undefined) context.addIssue({ code: 'custom', message: problem, path: [one] });
      }
    })
    .default({})
    .describe('Scripts by name; all of them together have room in 80,000 bytes'),
  onFailure: z
    .enum(['defer', 'accept'])
    .default('defer')
    .describe('Mail whose script fails or takes too long is put off (defer), or goes on without it (accept)'),
  maxSeenBytes: z
    .int()
    .min(0)
    .max(8_388_608)
    .default(defaultMaxSeenBytes)
    .describe('Of a message, from its start, for tests of its body and parts; kept in memory while it arrives'),
  maxSteps: z
    .int()
    .min(1_000)
    .max(1_000_000)
    .default(defaultMaxSteps)
    .describe(
      'Of one run: each command and test is one, and so is each hundred bytes or so that a test compares; the node does nothing else meanwhile',
    ),
});
