/**
 * The verdict on mailboxes as IMAP shows them: UIDs ascend and are never given twice, UIDVALIDITY stays, HIGHESTMODSEQ and UIDNEXT never go back for anybody
 * who asks later, acknowledged flags and appended messages are there, and every node shows the same.
 */
import type { Append, FlagChange, History, MailboxName, MailboxObservation, MailboxView, Violation } from './history.js';

const nameOf = ({ account, mailbox }: MailboxName): string => `${account}/${mailbox}`;

function grouped<T extends MailboxName>(items: readonly T[]): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(nameOf(item));
    if (group) group.push(item);
    else groups.set(nameOf(item), [item]);
  }
  return groups;
}

export function judgeMailboxes(history: Pick<History, 'observations' | 'appends' | 'flagChanges' | 'views'>): Violation[] {
  const { observations, appends, flagChanges, views } = history;
  return [
    ...judgeUidValidity(history),
    ...[...grouped(observations)].flatMap(([name, group]) => judgeAscent(name, group)),
    ...views.flatMap(judgeView),
    ...judgeAgreement(views),
    ...[...grouped(appends)].flatMap(([name, group]) => judgeAppends(name, group, viewOf(views, name))),
    ...[...grouped(flagChanges)].flatMap(([name, group]) => judgeFlags(name, group, viewOf(views, name))),
  ];
}

const viewOf = (views: readonly MailboxView[], name: string) => views.find((view) => nameOf(view) === name);

function judgeUidValidity({ observations, appends, views }: Pick<History, 'observations' | 'appends' | 'views'>): Violation[] {
  const values = new Map<string, Set<number>>();
  for (const item of [...observations, ...appends, ...views]) {
    if (item.uidValidity === undefined) continue;
    const known = values.get(nameOf(item)) ?? new Set();
    values.set(nameOf(item), known.add(item.uidValidity));
  }
  return [...values]
    .filter(([, known]) => known.size > 1)
    .map(([name, known]) => ({ kind: 'uidvalidity', what: `${name}: ${[...known].join(', ')}` }));
}

/** An answer that was complete before another was asked for must not show more than that one. */
function judgeAscent(name: string, observations: readonly MailboxObservation[]): Violation[] {
  const byEnd = [...observations].sort((one, other) => one.endedMs - other.endedMs);
  const byStart = [...observations].sort((one, other) => one.startedMs - other.startedMs);
  const violations: Violation[] = [];
  let next = 0;
  let highestModseq = 0;
  let uidNext = 0;
  for (const later of byStart) {
    for (; next < byEnd.length && byEnd[next]!.endedMs < later.startedMs; next++) {
      highestModseq = Math.max(highestModseq, byEnd[next]!.highestModseq);
      uidNext = Math.max(uidNext, byEnd[next]!.uidNext);
    }
    if (later.highestModseq < highestModseq)
      violations.push({ kind: 'modseq', what: `${name}: node ${later.node} said ${later.highestModseq} after ${highestModseq}` });
    if (later.uidNext < uidNext)
      violations.push({ kind: 'uidnext', what: `${name}: node ${later.node} said ${later.uidNext} after ${uidNext}` });
  }
  return violations;
}

function judgeView(view: MailboxView): Violation[] {
  let last = 0;
  for (const { uid } of view.messages) {
    if (uid <= last) return [{ kind: 'uid', what: `${nameOf(view)} on node ${view.node}: UID ${uid} after ${last}` }];
    last = uid;
  }
  if (last < view.uidNext) return [];
  return [{ kind: 'uid', what: `${nameOf(view)} on node ${view.node}: UID ${last} with UIDNEXT ${view.uidNext}` }];
}

/** All nodes show the same mailboxes with the same messages. */
function judgeAgreement(views: readonly MailboxView[]): Violation[] {
  const nodes = new Set(views.map(({ node }) => node));
  const violations: Violation[] = [];
  for (const [name, shown] of grouped(views)) {
    const texts = new Set(shown.map(asText));
    if (texts.size > 1)
      violations.push({ kind: 'disagreement', what: `${name}: nodes ${shown.map(({ node }) => node).join(', ')}` });
    if (shown.length < nodes.size) violations.push({ kind: 'disagreement', what: `${name}: not on all nodes` });
  }
  return violations;
}

const asText = ({ uidValidity, uidNext, highestModseq, messages }: MailboxView): string =>
  JSON.stringify([
    [uidValidity, uidNext, highestModseq],
    ...messages.map(({ uid, token, flags }) => [uid, token, [...flags].sort()]),
  ]);

function judgeAppends(name: string, appends: readonly Append[], view: MailboxView | undefined): Violation[] {
  const uids = new Map<string, number[]>();
  for (const { uid, token } of view?.messages ?? []) uids.set(token, [...(uids.get(token) ?? []), uid]);
  const violations: Violation[] = [];
  const given = new Map<number, string>();
  for (const { token, acknowledgedMs, uid } of appends) {
    const found = uids.get(token) ?? [];
    if (found.length > 1) violations.push({ kind: 'append-doubled', what: `${name}: ${token} is there ${found.length} times` });
    if (acknowledgedMs === undefined) continue;
    if (found.length === 0) violations.push({ kind: 'append-lost', what: `${name}: ${token}` });
    if (uid === undefined) continue;
    if (found.length > 0 && !found.includes(uid))
      violations.push({ kind: 'append-uid', what: `${name}: ${token} was said to be ${uid} and is ${found.join(', ')}` });
    if (given.has(uid)) violations.push({ kind: 'append-uid', what: `${name}: ${uid} for ${given.get(uid)} and for ${token}` });
    given.set(uid, token);
  }
  return [...violations, ...judgeAppendOrder(name, appends)];
}

/** What was acknowledged before another APPEND began has the lower UID. */
function judgeAppendOrder(name: string, appends: readonly Append[]): Violation[] {
  const done = appends.filter((append): append is Append & { acknowledgedMs: number; uid: number } => {
    return append.acknowledgedMs !== undefined && append.uid !== undefined;
  });
  const byEnd = [...done].sort((one, other) => one.acknowledgedMs - other.acknowledgedMs);
  const violations: Violation[] = [];
  let next = 0;
  let highest = 0;
  for (const { token, startedMs, uid } of [...done].sort((one, other) => one.startedMs - other.startedMs)) {
    for (; next < byEnd.length && byEnd[next]!.acknowledgedMs < startedMs; next++) highest = Math.max(highest, byEnd[next]!.uid);
    if (uid < highest) violations.push({ kind: 'reordered', what: `${name}: ${token} got ${uid} when ${highest} was given` });
  }
  return violations;
}

function judgeFlags(name: string, changes: readonly FlagChange[], view: MailboxView | undefined): Violation[] {
  // RFC 9051 2.3.2: flags are told apart without regard to case.
  const flags = new Map(view?.messages.map((message) => [message.uid, new Set(message.flags.map((flag) => flag.toLowerCase()))]));
  const byFlag = new Map<string, FlagChange[]>();
  for (const change of changes) {
    const key = `${change.uid} ${change.flag}`;
    byFlag.set(key, [...(byFlag.get(key) ?? []), change]);
  }
  return [...byFlag].flatMap(([key, all]) => {
    // A change without an answer may still be made, at any later time: the flag can't be judged any more.
    if (all.some(({ acknowledgedMs }) => acknowledgedMs === undefined)) return [];
    const last = all.reduce((one, other) => (other.acknowledgedMs! > one.acknowledgedMs! ? other : one));
    // Two at the same time: either order is right.
    if (all.some((other) => other !== last && other.acknowledgedMs! > last.startedMs && other.isSet !== last.isSet)) return [];
    const isSet = flags.get(last.uid)?.has(last.flag.toLowerCase());
    if (isSet === last.isSet) return [];
    const state = isSet === undefined ? 'the message is gone' : isSet ? 'it is set' : 'it is not set';
    return [{ kind: 'flag', what: `${name}: ${key} was ${last.isSet ? 'set' : 'cleared'} and ${state}` }];
  });
}
