/**
 * How many deliveries go to one destination at a time: begins low, grows with each round of good ones by one, halves when a round meets a host that
 * can't be reached or has enough (additive increase, multiplicative decrease). What is at rest is forgotten.
 */
import type { DestinationPacer, PaceResult } from './contract.js';

const initialLimit = 5;
/** Domains that are remembered although nothing runs to them. */
const maxIdleDomains = 10_000;

interface Lane {
  limit: number;
  running: number;
  waiting: (() => void)[];
  /** Raised by each decrease: what began before says nothing about the limit since. */
  round: number;
}

/** `maxLimit`: asked each time, may change. */
export function createPacer(maxLimit: () => number): DestinationPacer {
  const lanes = new Map<string, Lane>();
  const fresh = (): Lane => ({ limit: initialLimit, running: 0, waiting: [], round: 0 });
  const allowed = (lane: Lane) => Math.max(1, Math.min(Math.floor(lane.limit), maxLimit()));

  function laneOf(domain: string): Lane {
    let lane = lanes.get(domain);
    if (!lane) lanes.set(domain, (lane = fresh()));
    return lane;
  }

  function learn(lane: Lane, result: PaceResult, round: number): void {
    if (result === 'good') lane.limit = Math.min(lane.limit + 1 / lane.limit, maxLimit());
    else if (result === 'bad' && round === lane.round) {
      lane.limit = Math.max(1, Math.min(lane.limit, maxLimit()) / 2);
      lane.round++;
    }
  }

  function leave(domain: string, lane: Lane): void {
    lane.running--;
    while (lane.waiting.length > 0 && lane.running < allowed(lane)) {
      lane.running++;
      lane.waiting.shift()!();
    }
    if (lane.running > 0) return;
    // Last used, last forgotten.
    lanes.delete(domain);
    lanes.set(domain, lane);
    if (lanes.size > maxIdleDomains) forgetOldest();
  }

  function forgetOldest(): void {
    for (const [domain, lane] of lanes) {
      if (lane.running > 0 || lane.waiting.length > 0) continue;
      lanes.delete(domain);
      return;
    }
  }

  function place(domain: string, lane: Lane): (result: PaceResult) => void {
    const { round } = lane;
    let isLeft = false;
    return (result) => {
      if (isLeft) return;
      isLeft = true;
      learn(lane, result, round);
      leave(domain, lane);
    };
  }

  return {
    limitOf: (domain) => allowed(lanes.get(domain) ?? fresh()),
    runningOf: (domain) => lanes.get(domain)?.running ?? 0,
    async enter(domain, signal) {
      signal.throwIfAborted();
      const lane = laneOf(domain);
      if (lane.running < allowed(lane) && lane.waiting.length === 0) {
        lane.running++;
        return place(domain, lane);
      }
      await new Promise<void>((resolve, reject) => {
        const admit = () => {
          signal.removeEventListener('abort', stop);
          resolve();
        };
        const stop = () => {
          lane.waiting.splice(lane.waiting.indexOf(admit), 1);
          reject(signal.reason);
        };
        lane.waiting.push(admit);
        signal.addEventListener('abort', stop, { once: true });
      });
      return place(domain, lane);
    },
  };
}
