/** A run in words and as one JSON line. */
import { countKinds, countReasons } from '../checker/judge.js';
import type { RunResult } from './run.js';

const maxShown = 20;
const seconds = (milliseconds: number) => `${(milliseconds / 1000).toFixed(1)} s`;

/** Verdict, figures and timeline, as one object of plain values. */
export function summaryOf({ scenario, seed, harness, verdict, timeline, recoveryMs, messages, logs }: RunResult) {
  const { availability } = verdict;
  const count = (kind: string) => verdict.violations.filter((violation) => violation.kind === kind).length;
  return {
    scenario,
    ok: verdict.violations.length === 0,
    harness,
    seed,
    messages,
    acknowledged: { local: verdict.localAcknowledged, remote: verdict.remoteAcknowledged },
    lost: count('lost') + count('lost-remote') + count('append-lost'),
    localDoubled: count('doubled') + count('append-doubled'),
    remoteExtra: countReasons(verdict.extras),
    unexplained: count('unexplained'),
    appends: verdict.appendsAcknowledged,
    flags: verdict.flagsAcknowledged,
    leaseTenures: verdict.tenures,
    deaths: verdict.deaths,
    falseDeaths: verdict.falseDeaths,
    ...availability,
    recoveryMs: recoveryMs ?? null,
    violations: verdict.violations.slice(0, maxShown),
    timeline,
    ...(logs === undefined ? {} : { logs }),
  };
}

/** For people. */
export function describe(result: RunResult): string {
  const { scenario, verdict, timeline, recoveryMs, messages, harness, seed, logs } = result;
  const { longestGapMs, longestGapByNodeMs, declaredDeadMs, movedAgainMs } = verdict.availability;
  const reasons = Object.entries(countReasons(verdict.extras)).map(([reason, count]) => `${count} because ${reason}`);
  const gaps = Object.entries(longestGapByNodeMs).map(([node, gap]) => `node ${node} ${seconds(gap)}`);
  const moved =
    movedAgainMs &&
    `${movedAgainMs.messages} messages, median ${seconds(movedAgainMs.median)}, longest ${seconds(movedAgainMs.longest)}`;
  const isWell = verdict.violations.length === 0;
  return [
    '',
    `${scenario}: ${isWell ? 'nothing lost, nothing doubled, every rule kept' : `FAILED: ${countKinds(verdict.violations)}`}  (${harness}, seed ${seed})`,
    `  mail          ${messages} sent; ${verdict.localAcknowledged} local copies and ${verdict.remoteAcknowledged} remote ones acknowledged`,
    `  remote extra  ${reasons.join('; ') || 'none'}`,
    `  mailboxes     ${verdict.appendsAcknowledged} appended, ${verdict.flagsAcknowledged} flags changed`,
    `  leases        ${verdict.tenures} tenures`,
    `  deaths        ${verdict.deaths} (${declaredDeadMs.map(seconds).join(', ') || '-'} after the fault), false ${verdict.falseDeaths}`,
    `  longest gap   ${longestGapMs === null ? '-' : seconds(longestGapMs)}; ${gaps.join(', ') || '-'}`,
    `  moved again   ${moved ?? '-'}`,
    `  recovered     ${recoveryMs === undefined ? '-' : `every node took mail ${seconds(recoveryMs)} after the last fault`}`,
    ...(logs === undefined ? [] : [`  logs          ${logs}`]),
    '  timeline',
    ...timeline.map(({ atMs, what }) => `    ${(atMs / 1000).toFixed(1).padStart(6)}  ${what}`),
    ...verdict.violations.slice(0, maxShown).map(({ kind, what }) => `  ! ${kind}: ${what}`),
    '',
  ].join('\n');
}
