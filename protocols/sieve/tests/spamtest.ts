/** RFC 5235: `spamtest` and `virustest`, answered from the run's environment. */
import type { Run, TestDefinition } from '../contract.js';
import { comparisonOf, comparisonTags } from '../matching/index.js';

/**
 * Items of `environment` that whoever has examined the message puts there: the likelihood of spam from "0" to "100" percent, and RFC 5235's
 * own number from "1" to "10", which goes before it; what is known of viruses, "1" to "5" (RFC 5235 3.3). Absent: not examined.
 */
export const spamPercentItem = 'vnd.starling.spam-percent';
export const spamScoreItem = 'vnd.starling.spam-score';
export const virusScoreItem = 'vnd.starling.virus-score';

const positional = [{ name: 'key', type: 'string' }] as const;

export const spamtest: TestDefinition = {
  name: 'spamtest',
  requires: ['spamtest', 'spamtestplus'],
  tags: { ...comparisonTags, percent: { requires: 'spamtestplus' } },
  positional,
  compile(arguments_, context) {
    const comparison = comparisonOf(arguments_, context, { keys: 'key' });
    const value = arguments_.hasTag('percent') ? spamPercent : spamScore;
    return (run) => {
      const found = value(run);
      // RFC 5235 3.1: `:count` tells whether the message was examined.
      return comparison.holds(run, comparison.onlyCounts && found === undefined ? [] : [found ?? '0']);
    };
  },
};

export const virustest: TestDefinition = {
  name: 'virustest',
  requires: ['virustest'],
  tags: comparisonTags,
  positional,
  compile(arguments_, context) {
    const comparison = comparisonOf(arguments_, context, { keys: 'key' });
    return (run) => {
      const found = itemOf(run, virusScoreItem, 1, 5);
      return comparison.holds(run, comparison.onlyCounts && found === undefined ? [] : [String(found ?? 0)]);
    };
  },
};

function spamScore(run: Run): string | undefined {
  const score = itemOf(run, spamScoreItem, 1, 10);
  if (score !== undefined) return String(score);
  const percent = itemOf(run, spamPercentItem, 0, 100);
  // 10 is certainty (RFC 5235 3.2.1), and so is 100 %.
  return percent === undefined ? undefined : String(1 + Math.floor((percent * 9) / 100));
}

function spamPercent(run: Run): string | undefined {
  const percent = itemOf(run, spamPercentItem, 0, 100);
  if (percent !== undefined) return String(percent);
  const score = itemOf(run, spamScoreItem, 1, 10);
  return score === undefined ? undefined : String(Math.round(((score - 1) * 100) / 9));
}

/** Values out of range are those at its ends; undefined: there is no such number. */
function itemOf({ input: { environment } }: Run, item: string, least: number, most: number): number | undefined {
  const text = Object.hasOwn(environment, item) ? environment[item]! : '';
  if (!/^\d{1,6}(?:\.\d{1,6})?$/.test(text)) return undefined;
  return Math.min(most, Math.max(least, Math.floor(Number(text))));
}
