/**
 * Whether a failure may be blamed on the domain that it happened with. Where mail to one domain after the other fails and nobody at all can be reached, it is our
 * network or our name server that is down: then no further domain is held for down, or all of them would be for an hour after it is over.
 */
import type { Clock } from '../../../ops/telemetry/index.js';

/** So many domains may be out of reach at a time in which none is in reach. */
const maxDomains = 20;
/** Failures that are older say nothing about now. */
const rememberedMs = 300_000;

export interface OwnTrouble {
  /** Some host of another installation did its work. */
  reached(): void;
  /** Notes a failure; false when it is likelier ours. */
  isTheirs(domain: string): boolean;
}

export function createOwnTrouble(clock: Pick<Clock, 'monotonicMs'>): OwnTrouble {
  /** Failed since somebody was reached, in the order of their last failure, with its time. */
  const failed = new Map<string, number>();
  return {
    reached: () => failed.clear(),
    isTheirs(domain) {
      const nowMs = clock.monotonicMs();
      for (const [other, atMs] of failed) {
        if (nowMs - atMs < rememberedMs) break;
        failed.delete(other);
      }
      failed.delete(domain);
      failed.set(domain, nowMs);
      // One more than may be: enough to know.
      if (failed.size > maxDomains + 1) failed.delete(failed.keys().next().value!);
      return failed.size <= maxDomains;
    },
  };
}
