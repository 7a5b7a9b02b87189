/**
 * The wall clock as most nodes of the cluster have it. A node whose own clock is hours wrong would write due times that make mail wait for hours once another
 * node has to go on with it; so its date is corrected by what most of the others say. Ownership never depends on it (TRAPS 20), and membership, which
 * compares the clocks, keeps the machine's own.
 */

import type { Membership, NodeView } from '../cluster/membership/index.js';
import { type Clock, gauge, type Logger, sleepOn, type Timer } from '../ops/telemetry/index.js';

/** Below this a clock is left as it is: heartbeats tell it to a second or two only. */
const tolerableMs = 10_000;
/** A correction that is in force stays as it is while it is so near to the truth. */
const nearMs = 3_000;
/** The machine's clock was set: what was known of the others' says nothing until their next heartbeats have come. */
const jumpMs = 5_000;
const distrustMs = 30_000;
const intervalMs = 2_000;
/** Looks are as close as this until the others' clocks are known. */
const firstIntervalMs = 100;
/** Two heartbeats and a little tell every clock. */
const maxWaitMs = 5_000;

const correctionGauge = gauge('starling_clock_correction_seconds', "By how much this node corrects its machine's wall clock.");

/** A clock whose date can be corrected. Intervals and timers are the machine's. */
export class ClusterClock implements Clock {
  correctionMs = 0;

  constructor(readonly machine: Clock) {}

  nowMs(): number {
    return this.machine.nowMs() + this.correctionMs;
  }

  monotonicMs(): number {
    return this.machine.monotonicMs();
  }

  setTimer(delayMs: number, callback: () => void, options?: { background?: boolean }): Timer {
    return this.machine.setTimer(delayMs, callback, options);
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return sleepOn(this.machine, delayMs, signal);
  }
}

/** The clock of the machine, for whoever compares clocks. */
export const machineClockOf = (clock: Clock): Clock => (clock instanceof ClusterClock ? clock.machine : clock);

/**
 * By how much a clock is behind (or, negative, ahead of) what most have: the median of its own 0 and the others' differences. 0 with fewer than three clocks,
 * where the two in the middle disagree, and where it is right enough.
 */
export function correctionOf(skewsMs: readonly number[]): number {
  const all = [0, ...skewsMs].sort((a, b) => a - b);
  if (all.length < 3) return 0;
  const [low, high] = [all[(all.length - 1) >> 1]!, all[all.length >> 1]!];
  if (high - low > tolerableMs) return 0;
  const median = (low + high) / 2;
  return Math.abs(median) > tolerableMs ? Math.round(median) : 0;
}

export interface TimeKeeper {
  /**
   * Resolves when the clock may be written with: at once where it looks right, else when the heartbeats of the others have told by how much it is wrong (a
   * row by itself may be old), after some seconds in any case.
   */
  readonly known: Promise<void>;
  end(): void;
}

/** Corrects `clock` by what the heartbeats of the others tell, until it is ended. */
export function keepTime({
  clock,
  membership,
  logger,
}: {
  clock: ClusterClock;
  membership: Pick<Membership, 'nodes'>;
  logger: Logger;
}): TimeKeeper {
  const { machine } = clock;
  const offset = () => machine.nowMs() - machine.monotonicMs();
  let lastOffsetMs = offset();
  let trustedAtMs = machine.monotonicMs();
  let timer: Timer | undefined;
  const correct = (correctionMs: number) => {
    if (Math.abs(correctionMs - clock.correctionMs) <= (correctionMs === 0 ? 0 : nearMs)) return;
    const facts = { correctionSeconds: Math.round(correctionMs / 1000) };
    if (correctionMs !== 0)
      logger.warn(facts, "this machine's clock differs from most of the cluster's: its date is corrected, set it right");
    else logger.info(facts, "this machine's clock is taken as it is again");
    clock.correctionMs = correctionMs;
    correctionGauge.set(correctionMs / 1000);
  };
  let nowKnown!: () => void;
  const known = new Promise<void>((resolve) => {
    nowKnown = resolve;
  });
  const waitUntilMs = machine.monotonicMs() + maxWaitMs;
  let isKnown = false;
  const look = () => {
    const offsetMs = offset();
    if (Math.abs(offsetMs - lastOffsetMs) > jumpMs) trustedAtMs = machine.monotonicMs() + distrustMs;
    lastOffsetMs = offsetMs;
    const nodes = membership.nodes();
    correct(machine.monotonicMs() < trustedAtMs ? 0 : correctionOf(skewsOf(nodes)));
    isKnown ||= machine.monotonicMs() >= waitUntilMs || !othersOf(nodes).some((node) => isDoubtful(node, machine.nowMs()));
    if (isKnown) nowKnown();
    timer = machine.setTimer(isKnown ? intervalMs : firstIntervalMs, look, { background: true });
  };
  look();
  return {
    known,
    end() {
      timer?.cancel();
      nowKnown();
    },
  };
}

const othersOf = (nodes: readonly NodeView[]): NodeView[] => nodes.filter(({ isSelf, health }) => !isSelf && health === 'alive');

/** Its heartbeats have not told its clock yet, and what its row says is far from ours. */
function isDoubtful({ clockSkewMs, row }: NodeView, nowMs: number): boolean {
  return clockSkewMs === undefined && row !== undefined && Math.abs(row.sentAtMs - nowMs) > tolerableMs;
}

function skewsOf(nodes: readonly NodeView[]): number[] {
  return othersOf(nodes)
    .map(({ clockSkewMs }) => clockSkewMs)
    .filter((skewMs) => skewMs !== undefined);
}
