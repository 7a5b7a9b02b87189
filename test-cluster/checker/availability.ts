/** How well the cluster went on: gaps in the service, and how fast the dead were found and their work was taken over. Figures, not verdicts. Milliseconds. */
import { causeOf } from './cluster-rules.js';
import { type FaultKind, type History, isRemote } from './history.js';

export interface Availability {
  /** The longest time without any acknowledgement by nodes that nothing was done to (by any node, where all were struck), from the first fault on. */
  longestGapMs: number | null;
  /** The same for each node on its own. */
  longestGapByNodeMs: Record<number, number>;
  /** From the fault to the verdict, for each node that was declared dead. */
  declaredDeadMs: number[];
  /** From the fault to the next delivery of each message that a struck node had taken and not delivered: median and longest. */
  movedAgainMs: { messages: number; median: number; longest: number } | null;
}

/** While these last, a node is not expected to work. */
const disabling: readonly FaultKind[] = ['kill', 'pause', 'short-pause', 'drain', 'store-cut', 'store-down'];
/** After these its work has to be taken over by others. */
const orphaning: readonly FaultKind[] = ['kill', 'pause', 'store-cut'];
/** What was taken so long before the fault had its turn; what is not delivered by then waits for something else. */
const justBeforeMs = 3_000;

export function availabilityOf(history: History): Availability {
  const { acknowledgements, faults, nodes, loadUntilMs } = history;
  const fromMs = Math.min(...faults.map((fault) => fault.fromMs));
  const struck = new Set(faults.filter(({ kind }) => disabling.includes(kind)).flatMap(({ node }) => node ?? [...nodes]));
  const surviving = nodes.filter((node) => !struck.has(node));
  const counted = new Set(surviving.length > 0 ? surviving : nodes);
  const gapOf = (isCounted: (node: number) => boolean) =>
    longestGap(
      acknowledgements.filter(({ node }) => isCounted(node)).map(({ atMs }) => atMs),
      fromMs,
      loadUntilMs,
    );
  return {
    longestGapMs: faults.length === 0 ? null : gapOf((node) => counted.has(node)),
    longestGapByNodeMs:
      faults.length === 0 ? {} : Object.fromEntries(nodes.map((node) => [node, gapOf((other) => other === node)])),
    declaredDeadMs: history.deaths.flatMap((death) => {
      const cause = causeOf(death, faults);
      return cause ? [Math.round(death.atMs - cause.fromMs)] : [];
    }),
    movedAgainMs: movedAgain(history),
  };
}

function longestGap(times: readonly number[], fromMs: number, untilMs: number): number {
  const within = times.filter((time) => time >= fromMs && time <= untilMs).sort((one, other) => one - other);
  let longest = 0;
  let last = fromMs;
  for (const time of [...within, untilMs]) {
    longest = Math.max(longest, time - last);
    last = time;
  }
  return Math.round(longest);
}

/** Messages for outside that a node had in its hands when it was struck, and how long after that they were delivered, or delivered once more. */
function movedAgain({ sent, remoteCopies, faults, disturbed }: History): Availability['movedAgainMs'] {
  const orphaned = faults.filter(({ kind }) => orphaning.includes(kind));
  const dots = new Map<string, { node: number | undefined; dotMs: number }[]>();
  for (const { token, recipient, node, dotMs } of remoteCopies) {
    const name = `${token} ${recipient}`;
    dots.set(name, [...(dots.get(name) ?? []), { node, dotMs }]);
  }
  const delays: number[] = [];
  for (const { token, node: acceptedBy, recipients, acknowledgedMs } of sent) {
    if (acknowledgedMs === undefined || disturbed.has(token)) continue;
    for (const recipient of recipients.filter((address) => isRemote(address) && !disturbed.has(address))) {
      const copies = dots.get(`${token} ${recipient}`) ?? [];
      const fault = orphaned.find(({ node, fromMs }) => {
        if (acknowledgedMs > fromMs || acknowledgedMs < fromMs - justBeforeMs) return false;
        return acceptedBy === node || copies.some((copy) => copy.node === node && copy.dotMs <= fromMs);
      });
      const after = fault ? copies.map(({ dotMs }) => dotMs - fault.fromMs).filter((delay) => delay > 0) : [];
      if (after.length > 0) delays.push(Math.min(...after));
    }
  }
  if (delays.length === 0) return null;
  delays.sort((one, other) => one - other);
  return {
    messages: delays.length,
    median: Math.round(delays[Math.floor(delays.length / 2)]!),
    longest: Math.round(delays.at(-1)!),
  };
}
