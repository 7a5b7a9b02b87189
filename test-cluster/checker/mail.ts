/**
 * The verdict on mail. Local: every acknowledged message is in its mailbox exactly once. Remote: at least once, and each copy beyond the first has a reason:
 * the server outside hung up after the final dot, or the node that had delivered it was kept from saving so.
 */
import { copyOf, type Ledger } from '../harness/smtp-load.js';
import { judgeDelivery } from './delivered.js';
import { excuses, type Fault, type History, isRemote, type RemoteCopy, type Violation } from './history.js';

/** A result is saved within so long after the peer's answer, on a machine that is busy. */
const saveMs = 3_000;

export interface LocalVerdict {
  acknowledged: number;
  found: number;
  violations: Violation[];
}

/** Compares the mailboxes, as the first reader saw them, with what was sent to local recipients. */
export function judgeLocalMail({ sent, views, appends }: Pick<History, 'sent' | 'views' | 'appends'>): LocalVerdict {
  const ledger: Ledger = { acknowledged: new Set(), uncertain: new Set() };
  for (const { token, recipients, acknowledgedMs } of sent)
    for (const recipient of recipients.filter((address) => !isRemote(address)))
      (acknowledgedMs === undefined ? ledger.uncertain : ledger.acknowledged).add(copyOf(token, recipient));
  const appended = new Set(appends.map(({ token }) => token));
  const reader = views[0]?.node;
  const found = views
    .filter(({ node }) => node === reader)
    .flatMap(({ account, messages }) => messages.map(({ token }) => ({ token, account })))
    .filter(({ token }) => !appended.has(token))
    .map(({ token, account }) => copyOf(token, account));
  const verdict = judgeDelivery(ledger, found);
  return {
    acknowledged: verdict.acknowledged,
    found: found.length,
    violations: [
      ...verdict.lost.map((what) => ({ kind: 'lost', what })),
      ...verdict.doubled.map((what) => ({ kind: 'doubled', what })),
      ...verdict.unknown.map((what) => ({ kind: 'unknown', what })),
    ],
  };
}

export interface Extra {
  token: string;
  recipient: string;
  /** `unexplained` when there is none. */
  reason: string;
}

export interface RemoteVerdict {
  acknowledged: number;
  copies: number;
  extras: Extra[];
  violations: Violation[];
}

export function judgeRemoteMail({
  sent,
  remoteCopies,
  faults,
}: Pick<History, 'sent' | 'remoteCopies' | 'faults'>): RemoteVerdict {
  const byCopy = new Map<string, RemoteCopy[]>();
  for (const copy of remoteCopies) {
    const name = `${copy.token} ${copy.recipient}`;
    const list = byCopy.get(name);
    if (list) list.push(copy);
    else byCopy.set(name, [copy]);
  }
  const violations: Violation[] = [];
  let acknowledged = 0;
  const offered = new Set<string>();
  for (const { token, recipients, acknowledgedMs } of sent) {
    for (const recipient of recipients.filter(isRemote)) {
      const name = `${token} ${recipient}`;
      offered.add(name);
      if (acknowledgedMs === undefined) continue;
      acknowledged++;
      // A copy that was dropped counts: the server outside took it, and said nothing.
      if (!byCopy.has(name)) violations.push({ kind: 'lost-remote', what: name });
    }
  }
  const extras: Extra[] = [];
  for (const [name, copies] of byCopy) {
    if (!offered.has(name)) violations.push({ kind: 'unknown-remote', what: name });
    copies.sort((one, other) => one.dotMs - other.dotMs);
    for (const [index, copy] of copies.entries()) {
      if (index === 0) continue;
      const reason = reasonFor(copies[index - 1]!, faults);
      extras.push({ token: copy.token, recipient: copy.recipient, reason: reason ?? 'unexplained' });
      if (!reason) violations.push({ kind: 'unexplained', what: `${name}: copy ${index + 1} of ${copies.length}` });
    }
  }
  return { acknowledged, copies: remoteCopies.length, extras, violations };
}

/** Why the node that delivered this copy could not save that it had. */
function reasonFor({ node, dotMs, answeredMs, isDropped }: RemoteCopy, faults: readonly Fault[]): string | undefined {
  if (isDropped) return 'the server outside hung up after the final dot';
  const savedByMs = (answeredMs ?? dotMs) + saveMs;
  const excuse = faults.find(
    ({ kind, node: struck, fromMs, untilMs }) =>
      excuses[kind].mayRepeat &&
      (struck === undefined || struck === node) &&
      fromMs <= savedByMs &&
      (untilMs ?? Number.POSITIVE_INFINITY) >= dotMs,
  );
  return excuse && `node ${node ?? '?'} was ${excuses[excuse.kind].word} between the final dot and the save`;
}
