/** The verdict on the cluster's own rules: a job's epoch has one holder, epochs never go back, and nobody is declared dead who was not struck. */
import { type Death, excuses, type Fault, type History, type LeaseSample, type Violation } from './history.js';

/** Between breaking a fence and our hearing of it. */
const hearsayMs = 1_500;

export function judgeLeases(samples: readonly LeaseSample[]): Violation[] {
  const holders = new Map<string, Set<string>>();
  const epochs = new Map<string, number>();
  const violations: Violation[] = [];
  for (const { job, holder, epoch, seenBy, atMs } of [...samples].sort((one, other) => one.atMs - other.atMs)) {
    if (holder !== '') {
      const key = `${job} epoch ${epoch}`;
      const known = holders.get(key) ?? new Set();
      if (known.size === 1 && !known.has(holder))
        violations.push({ kind: 'lease', what: `${key} has two holders: ${[...known][0]} and ${holder}` });
      holders.set(key, known.add(holder));
    }
    // A node may be behind; the store may not.
    if (seenBy !== undefined) continue;
    const highest = epochs.get(job) ?? 0;
    if (epoch < highest)
      violations.push({ kind: 'lease', what: `${job} went back from epoch ${highest} to ${epoch} at ${atMs} ms` });
    epochs.set(job, Math.max(highest, epoch));
  }
  return violations;
}

/** The fault that a death is the consequence of. */
export function causeOf(death: Death, faults: readonly Fault[]): Fault | undefined {
  return faults.find(
    ({ kind, nodeId, fromMs, untilMs }) =>
      excuses[kind].mayDie &&
      nodeId === death.nodeId &&
      fromMs <= death.atMs &&
      // Who was killed is dead for ever; who was only away may be declared so until it is back.
      (kind === 'kill' || death.atMs <= (untilMs ?? Number.POSITIVE_INFINITY) + hearsayMs),
  );
}

export function judgeDeaths({ deaths, faults }: Pick<History, 'deaths' | 'faults'>): Violation[] {
  return deaths
    .filter((death) => !causeOf(death, faults))
    .map(({ node, nodeId, atMs }) => ({
      kind: 'false-death',
      what: `node ${node} (${nodeId.slice(0, 8)}) was declared dead at ${Math.round(atMs)} ms without a reason`,
    }));
}
