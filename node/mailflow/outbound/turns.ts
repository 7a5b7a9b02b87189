/**
 * When deliveries that a limit has refused come back: one behind the other as the limit lets them through, so that a crowd of them is not claimed, refused and
 * given back again and again. What is remembered here is a guess of this node alone; the limit itself decides.
 */
import type { Clock, Random } from '../../../ops/telemetry/index.js';

const maxKeys = 10_000;
/** Nobody is sent further away: a limit may have been changed by then. */
const maxAheadSeconds = 3600;

export interface Refusal {
  /** Of the limit. */
  name: string;
  key: string;
  retryAfterSeconds: number;
  gapSeconds: number;
}

/** Answers in how many seconds (from now) a refused delivery is to come back, never earlier than the limit has said. */
export function createTurns({ clock, random }: { clock: Pick<Clock, 'monotonicMs'>; random: Random }) {
  /** By limit and key, in the order of their last use: the turn of the next one, seconds of the monotonic clock. */
  const next = new Map<string, number>();
  return ({ name, key, retryAfterSeconds, gapSeconds }: Refusal): number => {
    const nowSeconds = clock.monotonicMs() / 1000;
    const earliest = nowSeconds + retryAfterSeconds;
    const what = `${name} ${key}`;
    const turn = Math.max(next.get(what) ?? 0, earliest);
    const latest = Math.max(earliest, nowSeconds + maxAheadSeconds);
    next.delete(what);
    next.set(what, Math.min(turn + gapSeconds, latest));
    if (next.size > maxKeys) next.delete(next.keys().next().value!);
    // Who is too far behind for a turn of his own comes back at some time before.
    const isTooFar = turn + gapSeconds > latest && turn > earliest;
    return (isTooFar ? earliest + (0.5 + random.float() / 2) * (latest - earliest) : turn) - nowSeconds;
  };
}
