/** The table of DESIGN 4, and nothing else: what one node makes of another, from what gossip says and from how long ago its row moved. */
import type { FailureTiming, Verdict } from './contract.js';

/** `unknown`: the other does not gossip, or nobody was ever heard by gossip at all. */
export type Hearing = 'yes' | 'no' | 'unknown';

export interface Signs {
  hasFence: boolean;
  gossip: Hearing;
  /** Since this node last saw the row change. */
  rowAgeMs: number;
}

/**
 * A row counts as still after `standstillMs` where gossip is silent (both sides hurry then, so it would move several times in that), else after half a term
 * (a round in peace, a look in peace, and a stall of the store).
 */
export function verdictOf(
  { hasFence, gossip, rowAgeMs }: Signs,
  { standstillMs, termMs }: Pick<FailureTiming, 'standstillMs' | 'termMs'>,
): Verdict {
  if (!hasFence) return 'dead';
  if (gossip === 'no') return rowAgeMs < standstillMs ? 'isolated' : 'suspect';
  if (rowAgeMs < termMs / 2) return 'alive';
  return gossip === 'yes' ? 'store-less' : 'suspect';
}
