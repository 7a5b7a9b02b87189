import { describe, expect, it } from 'vitest';
import { availabilityOf } from './availability.js';
import { judgeDeaths, judgeLeases } from './cluster-rules.js';
import type { Fault, History, LeaseSample } from './history.js';
import { countKinds, countReasons, judge } from './judge.js';

const calm: History = {
  faults: [],
  sent: [],
  remoteCopies: [],
  disturbed: new Set(),
  observations: [],
  appends: [],
  flagChanges: [],
  views: [],
  leases: [],
  deaths: [],
  acknowledgements: [],
  nodes: [0, 1, 2],
  loadUntilMs: 1_000,
};

describe('the verdict on leases', () => {
  const sample = (atMs: number, holder: string, epoch: number, seenBy?: number): LeaseSample => ({
    ...{ atMs, job: 'purge', holder, epoch },
    ...(seenBy === undefined ? {} : { seenBy }),
  });

  it('is silent while each epoch has one holder', () => {
    expect(
      judgeLeases([sample(0, 'a', 1), sample(1, '', 1), sample(2, 'b', 2), sample(3, 'a', 1, 0), sample(4, 'b', 2, 1)]),
    ).toEqual([]);
  });

  it('catches two holders of an epoch, in the store or by what nodes say', () => {
    expect(judgeLeases([sample(0, 'a', 1), sample(1, 'b', 1)])).toHaveLength(1);
    expect(judgeLeases([sample(0, 'a', 1), sample(1, '', 1), sample(2, 'b', 1)])).toHaveLength(1);
    expect(judgeLeases([sample(0, 'a', 1, 0), sample(1, 'b', 1, 1)])).toHaveLength(1);
  });

  it('catches an epoch that goes back in the store, not one that a node has not heard of yet', () => {
    expect(judgeLeases([sample(0, 'a', 3), sample(1, 'b', 2)])).toHaveLength(1);
    expect(judgeLeases([sample(0, 'a', 3), sample(1, 'b', 2, 1)])).toEqual([]);
  });
});

describe('the verdict on deaths', () => {
  const death = { nodeId: 'x', node: 1, atMs: 5_000 };
  const fault = (more: Partial<Fault>): Fault => ({ kind: 'kill', node: 1, nodeId: 'x', fromMs: 2_000, ...more });
  const judged = (...faults: Fault[]) => judgeDeaths({ deaths: [death], faults }).length;

  it('excuses who was killed, was away for long, or had no store', () => {
    expect(judged(fault({}))).toBe(0);
    expect(judged(fault({ untilMs: 2_500 }))).toBe(0);
    expect(judged(fault({ kind: 'pause', untilMs: 6_000 }))).toBe(0);
    expect(judged(fault({ kind: 'store-cut', untilMs: 4_500 }))).toBe(0);
  });

  it('catches verdicts on those who were well, or only for a moment away', () => {
    expect(judged()).toBe(1);
    expect(judged(fault({ nodeId: 'y' }))).toBe(1);
    expect(judged(fault({ fromMs: 6_000 }))).toBe(1);
    expect(judged(fault({ kind: 'pause', untilMs: 3_000 }))).toBe(1);
    for (const kind of ['short-pause', 'slow', 'drain', 'peers-cut', 'gossip-cut', 'store-down', 'clock', 'disk-full'] as const)
      expect(judged(fault({ kind }))).toBe(1);
  });
});

describe('availability', () => {
  const killed: Fault = { kind: 'kill', node: 1, nodeId: 'x', fromMs: 100, untilMs: 900 };
  const acknowledgements = [
    { node: 0, atMs: 90 },
    { node: 0, atMs: 200 },
    { node: 1, atMs: 300 },
    { node: 2, atMs: 600 },
    { node: 0, atMs: 950 },
  ];

  it('measures gaps from the first fault on, over the nodes that were left in peace', () => {
    const figures = availabilityOf({ ...calm, faults: [killed], acknowledgements });
    expect(figures.longestGapMs).toBe(400);
    expect(figures.longestGapByNodeMs).toEqual({ 0: 750, 1: 700, 2: 500 });
    const all = calm.nodes.map((node): Fault => ({ ...killed, node }));
    expect(availabilityOf({ ...calm, faults: all, acknowledgements }).longestGapMs).toBe(350);
    expect(availabilityOf({ ...calm, acknowledgements }).longestGapMs).toBeNull();
  });

  it('measures how long the dead were not found, and their mail stood still', () => {
    const to = (token: string) => `${token}@outside.test`;
    const sent = ['held', 'again', 'saved', 'put-off', 'elsewhere'].map((token) => ({
      ...{ token, node: token === 'elsewhere' ? 0 : 1, recipients: [to(token)], startedMs: 0, acknowledgedMs: 50 },
    }));
    const copy = (token: string, node: number, dotMs: number) => ({ token, recipient: to(token), node, dotMs });
    const remoteCopies = [copy('held', 2, 700), copy('again', 1, 95), copy('again', 2, 500), copy('saved', 1, 60)];
    remoteCopies.push(copy('put-off', 2, 800), copy('elsewhere', 0, 400));
    const deaths = [{ nodeId: 'x', node: 1, atMs: 350 }];
    const figures = availabilityOf({
      ...{ ...calm, faults: [killed], sent, remoteCopies, deaths, disturbed: new Set(['put-off']) },
    });
    expect(figures.declaredDeadMs).toEqual([250]);
    expect(figures.movedAgainMs).toEqual({ messages: 2, median: 600, longest: 600 });
  });
});

describe('the whole verdict', () => {
  it('gathers what every judge has found', () => {
    const verdict = judge({
      ...calm,
      sent: [{ token: 'a', node: 0, recipients: ['alice@example.test', 'r@outside.test'], startedMs: 0, acknowledgedMs: 1 }],
      leases: [
        { atMs: 0, job: 'purge', holder: 'a', epoch: 1 },
        { atMs: 1, job: 'purge', holder: 'b', epoch: 1 },
      ],
      deaths: [{ nodeId: 'x', node: 1, atMs: 5 }],
    });
    expect(countKinds(verdict.violations)).toBe('1 lost, 1 lost-remote, 1 lease, 1 false-death');
    expect(verdict).toMatchObject({ localAcknowledged: 1, remoteAcknowledged: 1, falseDeaths: 1, tenures: 1 });
    expect(countKinds(judge(calm).violations)).toBe('no violation');
  });

  it('counts reasons', () => {
    const extra = (reason: string) => ({ token: 'a', recipient: 'b', reason });
    expect(countReasons([extra('x'), extra('y'), extra('x')])).toEqual({ x: 2, y: 1 });
  });
});
