import { describe, expect, it } from 'vitest';
import type { Append, FlagChange, History, MailboxObservation, MailboxView } from './history.js';
import { judgeMailboxes } from './mailboxes.js';

const box = { account: 'alice', mailbox: 'Own' };
const message = (uid: number, token: string, ...flags: string[]) => ({ uid, token, flags });
const view = (messages: MailboxView['messages'], more: Partial<MailboxView> = {}): MailboxView => ({
  ...{ ...box, node: 0, uidValidity: 7, uidNext: 100, highestModseq: 50, messages },
  ...more,
});
const observed = (startedMs: number, endedMs: number, more: Partial<MailboxObservation> = {}): MailboxObservation => ({
  ...{ ...box, node: 0, startedMs, endedMs, uidValidity: 7, uidNext: 5, highestModseq: 10 },
  ...more,
});
const appended = (token: string, startedMs: number, acknowledgedMs?: number, uid?: number): Append => ({
  ...{ ...box, token, startedMs },
  ...(acknowledgedMs === undefined ? {} : { acknowledgedMs }),
  ...(uid === undefined ? {} : { uid, uidValidity: 7 }),
});
const changed = (isSet: boolean, startedMs: number, acknowledgedMs?: number): FlagChange => ({
  ...{ ...box, uid: 1, flag: '$Chaos', isSet, startedMs },
  ...(acknowledgedMs === undefined ? {} : { acknowledgedMs }),
});
const judged = (history: Partial<History>) =>
  judgeMailboxes({ observations: [], appends: [], flagChanges: [], views: [], ...history }).map(({ kind }) => kind);

describe('the verdict on mailboxes', () => {
  it('is silent when all is in order', () => {
    const views = [0, 1].map((node) => view([message(1, 'a', '\\Seen'), message(4, 'b')], { node }));
    const observations = [observed(0, 5), observed(6, 9, { highestModseq: 11, uidNext: 6 }), observed(3, 8)];
    expect(judged({ views, observations, appends: [appended('a', 0, 1, 1), appended('b', 2, 3, 4), appended('c', 4)] })).toEqual(
      [],
    );
  });

  it('catches a UIDVALIDITY that changes', () => {
    expect(judged({ observations: [observed(0, 1), observed(2, 3, { uidValidity: 8 })] })).toEqual(['uidvalidity']);
    expect(judged({ views: [view([message(1, 'a')], { uidValidity: 8 })], appends: [appended('a', 0, 1, 1)] })).toEqual([
      'uidvalidity',
    ]);
  });

  it('catches MODSEQ and UIDNEXT that go back, on whichever node, but not between answers that overlap', () => {
    const first = observed(0, 5, { highestModseq: 20, uidNext: 9 });
    expect(judged({ observations: [first, observed(6, 7, { node: 1, highestModseq: 19, uidNext: 9 })] })).toEqual(['modseq']);
    expect(judged({ observations: [observed(6, 7, { highestModseq: 20, uidNext: 8 }), first] })).toEqual(['uidnext']);
    expect(judged({ observations: [first, observed(4, 7, { highestModseq: 19, uidNext: 8 })] })).toEqual([]);
  });

  it('catches UIDs that do not ascend, or reach UIDNEXT', () => {
    expect(judged({ views: [view([message(4, 'a'), message(1, 'b')])] })).toEqual(['uid']);
    expect(judged({ views: [view([message(4, 'a'), message(4, 'b')])] })).toEqual(['uid']);
    expect(judged({ views: [view([message(4, 'a')], { uidNext: 4 })] })).toEqual(['uid']);
  });

  it('catches nodes that show different things', () => {
    const one = view([message(1, 'a', '$x', '\\Seen')]);
    expect(judged({ views: [one, view([message(1, 'a', '\\Seen', '$x')], { node: 1 })] })).toEqual([]);
    for (const other of [
      view([]),
      view([message(1, 'a')]),
      view([message(2, 'a', '$x', '\\Seen')]),
      view([message(1, 'b', '$x', '\\Seen')]),
    ])
      expect(judged({ views: [one, { ...other, node: 1 }] })).toEqual(['disagreement']);
    expect(judged({ views: [one, view([], { node: 1, mailbox: 'Other' })] })).toContain('disagreement');
  });

  it('catches appended messages that are lost, doubled, renumbered or reordered', () => {
    expect(judged({ views: [view([])], appends: [appended('a', 0, 1, 1)] })).toEqual(['append-lost']);
    expect(judged({ views: [], appends: [appended('a', 0, 1, 1)] })).toEqual(['append-lost']);
    expect(judged({ views: [view([message(1, 'a'), message(2, 'a')])], appends: [appended('a', 0)] })).toEqual([
      'append-doubled',
    ]);
    expect(judged({ views: [view([message(2, 'a')])], appends: [appended('a', 0, 1, 1)] })).toEqual(['append-uid']);
    const both = view([message(1, 'b'), message(2, 'a')]);
    expect(judged({ views: [both], appends: [appended('a', 0, 1, 2), appended('b', 2, 3, 1)] })).toEqual(['reordered']);
    // At the same time: either order is right.
    expect(judged({ views: [both], appends: [appended('a', 0, 3, 2), appended('b', 2, 4, 1)] })).toEqual([]);
    const twice = [appended('a', 0, 5, 1), appended('b', 1, 4, 1)];
    expect(judged({ views: [view([message(1, 'a'), message(2, 'b')])], appends: twice })).toEqual(['append-uid', 'append-uid']);
  });

  it('catches acknowledged flags that are missing, or are there though they were cleared', () => {
    const set = view([message(1, 'a', '$chaos')]);
    const clear = view([message(1, 'a')]);
    expect(judged({ views: [set], flagChanges: [changed(true, 0, 1)] })).toEqual([]);
    expect(judged({ views: [clear], flagChanges: [changed(true, 0, 1)] })).toEqual(['flag']);
    expect(judged({ views: [set], flagChanges: [changed(true, 0, 1), changed(false, 2, 3)] })).toEqual(['flag']);
    expect(judged({ views: [clear], flagChanges: [changed(false, 2, 3), changed(true, 0, 1)] })).toEqual([]);
    expect(judged({ views: [view([])], flagChanges: [changed(true, 0, 1)] })).toEqual(['flag']);
  });

  it('does not judge flags after a change whose answer never came, or between two at the same time', () => {
    const clear = view([message(1, 'a')]);
    expect(judged({ views: [clear], flagChanges: [changed(true, 2, 3), changed(false, 0)] })).toEqual([]);
    expect(judged({ views: [clear], flagChanges: [changed(false, 0, 3), changed(true, 2, 4)] })).toEqual([]);
  });
});
