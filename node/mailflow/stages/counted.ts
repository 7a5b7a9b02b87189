/** Rates and concurrency at the stages, counted over all nodes. When the store can't tell, mail goes on. */
import type { Reply } from '../../../protocols/smtp/grammar/index.js';
import type { ConcurrencyLimiter, RateLimiter } from '../../../store/limits/contract.js';
import type { Asker } from './ask.js';
import type { ConcurrencyRule, RateRule } from './contract.js';
import type { Facts } from './facts.js';
import { stageVerdicts } from './metrics.js';
import { refusalOf, refusals, withDelay } from './refusal.js';

export interface CountingDependencies {
  asker: Asker;
  rates: Pick<RateLimiter, 'take'>;
  concurrency: ConcurrencyLimiter;
}

/** Takes one from each rule that matches; the first one that is used up refuses. What earlier rules counted stays counted. */
export async function overRate(
  { asker, rates }: Pick<CountingDependencies, 'asker' | 'rates'>,
  rules: readonly RateRule[],
  facts: () => Facts,
): Promise<Reply | undefined> {
  for (const rule of rules) {
    if (!(await asker.ask(rule.match, facts))) continue;
    const key = await asker.ask(rule.key, facts);
    const amount = await asker.ask(rule.amount, facts);
    if (key === '' || amount <= 0) continue;
    const rate = { count: Math.max(0, await asker.ask(rule.count, facts)), periodSeconds: rule.periodSeconds };
    const verdict = await asker.lenient('rate', () => rates.take(rule.name, key.toLowerCase(), rate, amount), undefined);
    if (verdict === undefined || verdict.isAllowed) continue;
    stageVerdicts.inc({ check: 'rate', result: 'deferred' });
    const own = refusalOf(await asker.ask(rule.reply, facts), refusals.rate);
    return own ?? withDelay(refusals.rate, verdict.retryAfterSeconds);
  }
  return undefined;
}

/**
 * Takes a slot of each rule that matches; the first that has none left refuses. `hold` gets the ways to give back, also where a later rule refuses: the
 * caller knows whether the session is still there, and what it is to hold.
 */
export async function overConcurrency(
  { asker, concurrency }: Pick<CountingDependencies, 'asker' | 'concurrency'>,
  rules: readonly ConcurrencyRule[],
  facts: () => Facts,
  hold: (release: () => void) => void,
): Promise<Reply | undefined> {
  for (const rule of rules) {
    if (!(await asker.ask(rule.match, facts))) continue;
    const key = await asker.ask(rule.key, facts);
    if (key === '') continue;
    const max = await asker.ask(rule.max, facts);
    const acquired = await asker.lenient(
      'concurrency',
      () => concurrency.acquire(rule.name, key.toLowerCase(), max),
      'unknown' as const,
      (release) => release?.(),
    );
    if (acquired === 'unknown') continue;
    if (acquired) {
      hold(acquired);
      continue;
    }
    stageVerdicts.inc({ check: 'concurrency', result: 'deferred' });
    return refusalOf(await asker.ask(rule.reply, facts), refusals.concurrency) ?? refusals.concurrency;
  }
  return undefined;
}
