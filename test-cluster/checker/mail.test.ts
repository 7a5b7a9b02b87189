import { describe, expect, it } from 'vitest';
import type { Fault, MailboxView, RemoteCopy, Sent } from './history.js';
import { judgeLocalMail, judgeRemoteMail } from './mail.js';

const sentTo = (token: string, recipients: string[], acknowledgedMs?: number): Sent => ({
  token,
  node: 0,
  recipients,
  startedMs: 0,
  ...(acknowledgedMs === undefined ? {} : { acknowledgedMs }),
});
const view = (account: string, tokens: string[], node = 0): MailboxView => ({
  node,
  account,
  mailbox: 'INBOX',
  uidValidity: 1,
  uidNext: tokens.length + 1,
  highestModseq: 1,
  messages: tokens.map((token, index) => ({ uid: index + 1, token, flags: [] })),
});
const kinds = (violations: readonly { kind: string; what: string }[]) => violations.map(({ kind, what }) => `${kind} ${what}`);

describe('the verdict on local mail', () => {
  const sent = [
    sentTo('one', ['alice@example.test'], 5),
    sentTo('two', ['alice@example.test', 'bob@example.test'], 6),
    sentTo('maybe', ['bob@example.test']),
    sentTo('away', ['someone@outside.test'], 7),
  ];
  const judged = (views: MailboxView[]) => kinds(judgeLocalMail({ sent, views, appends: [] }).violations);

  it('is silent when every copy is there once, and when one without an answer is there or not', () => {
    expect(judged([view('alice', ['two', 'one']), view('bob', ['two'])])).toEqual([]);
    expect(judged([view('alice', ['two', 'one']), view('bob', ['two', 'maybe'])])).toEqual([]);
    expect(judgeLocalMail({ sent, views: [view('alice', ['one'])], appends: [] }).acknowledged).toBe(3);
  });

  it('names what is lost, doubled and unknown', () => {
    expect(judged([view('alice', ['one']), view('bob', ['two'])])).toEqual(['lost two alice']);
    expect(judged([view('alice', ['one', 'two', 'one']), view('bob', ['two'])])).toEqual(['doubled one alice']);
    expect(judged([view('alice', ['one', 'two']), view('bob', ['two', 'maybe', 'maybe'])])).toEqual(['doubled maybe bob']);
    expect(judged([view('alice', ['one', 'two', 'x']), view('bob', ['two'])])).toEqual(['unknown x alice']);
    expect(judged([view('alice', ['one', 'two']), view('bob', ['two', 'one'])])).toEqual(['unknown one bob']);
  });

  it('finds a double that lies in two mailboxes of one account', () => {
    expect(
      judged([view('alice', ['one', 'two']), { ...view('alice', ['one']), mailbox: 'Other' }, view('bob', ['two'])]),
    ).toEqual(['doubled one alice']);
  });

  it('counts what several nodes show once, and leaves out what was appended', () => {
    const appends = [{ account: 'bob', mailbox: 'Own', token: 'mine', startedMs: 0, acknowledgedMs: 1 }];
    const views = [0, 1].flatMap((node) => [view('alice', ['one', 'two'], node), view('bob', ['two', 'mine'], node)]);
    expect(judgeLocalMail({ sent, views, appends }).violations).toEqual([]);
  });
});

describe('the verdict on remote mail', () => {
  const to = 'a@outside.test';
  const sent = [sentTo('one', [to], 5), sentTo('maybe', [to])];
  const copy = (token: string, dotMs: number, more: Partial<RemoteCopy> = {}): RemoteCopy => ({
    ...{ token, recipient: to, node: 1, dotMs, answeredMs: dotMs + 10 },
    ...more,
  });
  const judged = (remoteCopies: RemoteCopy[], faults: Fault[] = []) => judgeRemoteMail({ sent, remoteCopies, faults });

  it('wants one copy of what was acknowledged, and allows one of what was not', () => {
    expect(judged([copy('one', 20)]).violations).toEqual([]);
    expect(judged([copy('one', 20), copy('maybe', 20)])).toMatchObject({ violations: [], extras: [], acknowledged: 1 });
    expect(kinds(judged([copy('maybe', 20)]).violations)).toEqual([`lost-remote one ${to}`]);
    expect(kinds(judged([copy('one', 1), copy('x', 2)]).violations)).toEqual([`unknown-remote x ${to}`]);
  });

  it('gives the reason for each copy beyond the first', () => {
    const killed: Fault = { kind: 'kill', node: 1, fromMs: 25, untilMs: 9_000 };
    const dropped = judged([copy('one', 20, { isDropped: true }), copy('one', 900)]);
    expect(dropped.extras).toEqual([{ token: 'one', recipient: to, reason: 'the server outside hung up after the final dot' }]);
    expect(dropped.violations).toEqual([]);
    const interrupted = judged([copy('one', 900), copy('one', 20)], [killed]);
    expect(interrupted.extras[0]?.reason).toBe('node 1 was killed between the final dot and the save');
    expect(interrupted.violations).toEqual([]);
  });

  it('calls a copy unexplained when no fault kept that node from saving the one before', () => {
    const faults: Fault[] = [
      { kind: 'kill', node: 2, fromMs: 25 },
      { kind: 'kill', node: 1, fromMs: 8_000 },
      { kind: 'kill', node: 1, fromMs: 1, untilMs: 10 },
      { kind: 'short-pause', node: 1, fromMs: 25, untilMs: 2_000 },
      { kind: 'peers-cut', node: 1, fromMs: 25, untilMs: 2_000 },
      { kind: 'drain', node: 1, fromMs: 25, untilMs: 2_000 },
    ];
    expect(kinds(judged([copy('one', 20), copy('one', 9_000)], faults).violations)).toEqual([
      `unexplained one ${to}: copy 2 of 2`,
    ]);
    // The first extra copy is explained, the second is not.
    const three = judged([copy('one', 20, { isDropped: true }), copy('one', 900), copy('one', 2_000)]);
    expect(three.extras.map(({ reason }) => reason)).toEqual(['the server outside hung up after the final dot', 'unexplained']);
    expect(three.violations).toHaveLength(1);
  });
});
