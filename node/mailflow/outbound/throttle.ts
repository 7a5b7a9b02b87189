/** Rates and concurrency that hold for the whole cluster (`outbound.rates`, `outbound.concurrency`). Trouble of the store lets mail pass, and is counted. */
import { counter, type Logger } from '../../../ops/telemetry/index.js';
import type { ConcurrencyLimiter, RateLimiter } from '../../../store/limits/contract.js';
import { isStoreTrouble } from '../settle.js';
import type { Facts, OutboundChoices } from './choices.js';
import type { OutboundSettings } from './contract.js';

const throttledTotal = counter(
  'starling_outbound_throttled_total',
  'Deliveries put off by a rate or a concurrency limit, or let pass.',
  ['limit', 'result'],
);

/** How soon somebody whose place is taken looks again, seconds. */
const crowdedRetrySeconds = 2;
/** A quick delivery takes about so long: its place is free for the next one then. */
const quickDeliverySeconds = 0.1;

export interface ThrottleDependencies {
  rates?: Pick<RateLimiter, 'take'>;
  concurrency?: ConcurrencyLimiter;
  logger: Logger;
}

/** `release` gives the places back (to be called in any case). */
export type Admittance =
  | { isAllowed: true; release(): void }
  | {
      isAllowed: false;
      retryAfterSeconds: number;
      /** Of the limit. */
      name: string;
      /** What was counted apart. */
      key: string;
      /** One after another is let through about so often, once there is room. */
      gapSeconds: number;
    };

/** Asks all limits that match. A rate that let it through before another refused has been used: limits err to the strict side. */
export async function admit(
  d: ThrottleDependencies,
  settings: Pick<OutboundSettings, 'rates' | 'concurrency'>,
  choices: OutboundChoices,
  facts: Facts,
): Promise<Admittance> {
  const places: (() => void)[] = [];
  const release = () => {
    for (const giveBack of places.splice(0)) giveBack();
  };
  const refuse = (name: string, key: string, retryAfterSeconds: number, gapSeconds: number): Admittance => {
    release();
    throttledTotal.inc({ limit: name, result: 'put-off' });
    return { isAllowed: false, retryAfterSeconds, name, key, gapSeconds };
  };
  const leniently = async <T>(name: string, ask: () => Promise<T>, otherwise: T): Promise<T> => {
    try {
      return await ask();
    } catch (error) {
      if (!isStoreTrouble(error)) throw error;
      throttledTotal.inc({ limit: name, result: 'unchecked' });
      d.logger.warn({ limit: name, err: error }, 'a limit of outgoing mail can not be checked; the delivery goes on');
      return otherwise;
    }
  };
  try {
    for (const rule of d.concurrency ? settings.concurrency : []) {
      if (!(await choices.matches(rule, facts))) continue;
      const key = await choices.keyOf(rule, facts);
      const free = () => undefined;
      const place = await leniently(rule.name, () => d.concurrency!.acquire(`outbound.${rule.name}`, key, rule.max), free);
      if (!place) return refuse(rule.name, key, crowdedRetrySeconds, quickDeliverySeconds / rule.max);
      places.push(place);
    }
    for (const rule of d.rates ? settings.rates : []) {
      if (!(await choices.matches(rule, facts))) continue;
      const key = await choices.keyOf(rule, facts);
      const verdict = await leniently(rule.name, () => d.rates!.take(`outbound.${rule.name}`, key, rule), { isAllowed: true });
      if (!verdict.isAllowed) return refuse(rule.name, key, verdict.retryAfterSeconds, rule.periodSeconds / rule.count);
    }
  } catch (error) {
    release();
    throw error;
  }
  return { isAllowed: true, release };
}
