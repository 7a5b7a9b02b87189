/** The verdict on a whole run, in figures and in words. */
import { type Availability, availabilityOf } from './availability.js';
import { judgeDeaths, judgeLeases } from './cluster-rules.js';
import type { History, Violation } from './history.js';
import { type Extra, judgeLocalMail, judgeRemoteMail } from './mail.js';
import { judgeMailboxes } from './mailboxes.js';

export interface Verdict {
  violations: Violation[];
  localAcknowledged: number;
  remoteAcknowledged: number;
  /** Copies of remote messages beyond the first. */
  extras: Extra[];
  appendsAcknowledged: number;
  flagsAcknowledged: number;
  /** Distinct tenures seen: (job, epoch). */
  tenures: number;
  deaths: number;
  falseDeaths: number;
  availability: Availability;
}

export function judge(history: History): Verdict {
  const local = judgeLocalMail(history);
  const remote = judgeRemoteMail(history);
  const falseDeaths = judgeDeaths(history);
  return {
    violations: [
      ...local.violations,
      ...remote.violations,
      ...judgeMailboxes(history),
      ...judgeLeases(history.leases),
      ...falseDeaths,
    ],
    localAcknowledged: local.acknowledged,
    remoteAcknowledged: remote.acknowledged,
    extras: remote.extras,
    appendsAcknowledged: history.appends.filter(({ acknowledgedMs }) => acknowledgedMs !== undefined).length,
    flagsAcknowledged: history.flagChanges.filter(({ acknowledgedMs }) => acknowledgedMs !== undefined).length,
    tenures: new Set(history.leases.filter(({ holder }) => holder !== '').map(({ job, epoch }) => `${job} ${epoch}`)).size,
    deaths: history.deaths.length,
    falseDeaths: falseDeaths.length,
    availability: availabilityOf(history),
  };
}

/** How many violations there are of each kind: `2 lost, 1 doubled`; `no violation`. */
export function countKinds(violations: readonly Violation[]): string {
  const counts = new Map<string, number>();
  for (const { kind } of violations) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return [...counts].map(([kind, count]) => `${count} ${kind}`).join(', ') || 'no violation';
}

/** How many extra copies there are for each reason. */
export function countReasons(extras: readonly Extra[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { reason } of extras) counts[reason] = (counts[reason] ?? 0) + 1;
  return counts;
}
