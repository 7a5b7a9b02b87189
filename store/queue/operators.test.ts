import { beforeEach, describe, expect, it } from 'vitest';
import type { MemoryStore } from '../kv/index.js';
import { allShards, ClaimLost, type HistoryRecord, type QueueFilter } from './index.js';
import { type Bench, openBench, startSeconds } from './test-bench.js';

let bench: Bench;
let told: { id: string; record: HistoryRecord }[];

beforeEach(async () => {
  told = [];
  const book = { append: (_tx: unknown, id: string, record: HistoryRecord) => void told.push({ id, record }) };
  bench = await openBench({ history: { book, nodeId: 'n1' } });
});

const dueNow = async () => (await bench.queue.due(allShards, bench.clock.nowMs() / 1000, 1000)).entries;
const cancelReply = { code: 550, enhanced: '5.7.1', text: 'Cancelled by the postmaster' };

/** Tried already, and scheduled. */
async function putOff(domain: string, seconds: number) {
  const { id, claimed } = await bench.put([domain], {}, bench.node);
  await bench.queue.release(claimed, startSeconds + seconds);
  return { id };
}

async function idsOf(filter: QueueFilter): Promise<string[]> {
  return (await bench.queue.search({ filter })).found.map(({ message }) => message.id);
}

describe('search', () => {
  it('finds by sender, recipient, domain, state, virtual queue and age', async () => {
    const one = await bench.put(['a.test', 'b.test'], { from: 'Ann@one.test' });
    const two = await bench.put(['b.test'], { from: 'bob@one.test', queueName: 'bulk' });
    const three = await bench.put(['c.test'], { from: '', receivedAtMs: startSeconds * 1000 - 5000 });
    await bench.queue.hold(three.id);
    const all = [one.id, two.id, three.id];
    expect(await idsOf({ sender: 'ann@one.test' })).toEqual([one.id]);
    expect((await idsOf({ sender: '@ONE.test' })).sort()).toEqual([one.id, two.id].sort());
    expect(await idsOf({ sender: '<>' })).toEqual([three.id]);
    expect(await idsOf({ recipient: 'X@a.test' })).toEqual([one.id]);
    expect((await idsOf({ domain: 'B.test' })).sort()).toEqual([one.id, two.id].sort());
    expect(await idsOf({ state: 'held' })).toEqual([three.id]);
    expect(await idsOf({ queueName: 'bulk' })).toEqual([two.id]);
    expect(await idsOf({ receivedBeforeMs: startSeconds * 1000 })).toEqual([three.id]);
    expect(await idsOf({ domain: 'a.test', recipient: 'x@b.test' })).toEqual([]);
    await bench.queue.park(await dueNow(), ({ domain }) => domain);
    expect((await idsOf({ state: 'waiting' })).sort()).toEqual([one.id, two.id].sort());
    expect((await idsOf({})).sort()).toEqual(all.sort());
  });

  it('reads no more than it is told to, and says where to go on', async () => {
    const ids: string[] = [];
    for (let n = 0; n < 25; n++) ids.push((await bench.put([n === 24 ? 'rare.test' : 'a.test'])).id);
    ids.sort();
    const found: string[] = [];
    let afterQueueId: string | undefined;
    let calls = 0;
    do {
      const page = await bench.queue.search({ filter: { domain: 'rare.test' }, afterQueueId, maxRead: 10 });
      found.push(...page.found.map(({ message }) => message.id));
      afterQueueId = page.readOnAfter;
      calls++;
    } while (afterQueueId !== undefined);
    expect(calls).toBe(3);
    expect(found).toHaveLength(1);
    const page = await bench.queue.search({ filter: { domain: 'a.test' }, limit: 5 });
    expect(page.found).toHaveLength(5);
    expect(page.readOnAfter).toBe(page.found.at(-1)!.message.id);
  });
});

describe('changes of many', () => {
  it('are resumable, and change only what the filter means', async () => {
    for (let n = 0; n < 25; n++) await bench.put(['a.test', 'b.test']);
    let changed = 0;
    let afterQueueId: string | undefined;
    do {
      const answer = await bench.queue.changeAll({
        filter: { domain: 'a.test' },
        action: { kind: 'hold' },
        nowSeconds: startSeconds,
        by: 'op',
        afterQueueId,
        maxRead: 10,
      });
      changed += answer.changed;
      afterQueueId = answer.readOnAfter;
    } while (afterQueueId !== undefined);
    expect(changed).toBe(25);
    expect((await dueNow()).map(({ domain }) => domain)).toEqual(Array(25).fill('b.test'));
    expect(told).toHaveLength(25);
    expect(told[0]!.record).toMatchObject({ nodeId: 'n1', event: { kind: 'operator', action: 'hold', by: 'op' } });
    const freed = await bench.queue.changeAll({
      filter: { state: 'held' },
      action: { kind: 'unhold' },
      nowSeconds: startSeconds,
    });
    expect(freed).toEqual({ changed: 25, readOnAfter: undefined });
    expect(await dueNow()).toHaveLength(50);
  });

  it('retry what is scheduled and leave what waits in a line; one message is forced', async () => {
    const { id } = await bench.put(['down.test']);
    await bench.queue.park(await dueNow(), ({ domain }) => domain);
    const later = await putOff('a.test', 1000);
    const action = { kind: 'retry' } as const;
    expect((await bench.queue.changeAll({ filter: {}, action, nowSeconds: startSeconds })).changed).toBe(1);
    expect((await dueNow()).map(({ queueId }) => queueId)).toEqual([later.id]);
    expect(await bench.queue.retryNow(id, startSeconds)).toBe(1);
    const forced = (await dueNow()).find(({ queueId }) => queueId === id)!;
    expect(forced.isForced).toBe(true);
    expect((await bench.queue.claim(bench.node, [forced]))[0]).toMatchObject({ isForced: true });
    expect(await bench.queue.lines(undefined, 10)).toEqual([]);
  });

  it('hold and cancel what waits in a line, with nothing left', async () => {
    const { id } = await bench.put(['down.test']);
    await bench.queue.park(await dueNow(), ({ domain }) => domain);
    expect(await bench.queue.hold(id)).toBe(1);
    expect((await bench.rows()).map(([kind]) => kind).sort()).toEqual(['destination', 'message']);
    await bench.queue.unhold(id, startSeconds);
    await bench.queue.park(await dueNow(), ({ domain }) => domain);
    expect(await bench.queue.cancel(id)).toBe(true);
    expect(await bench.rows()).toEqual([]);
  });

  it('cancel one destination of several, and the message with the last', async () => {
    const { id } = await bench.put(['a.test', 'b.test']);
    const options = { nowSeconds: startSeconds, domain: 'A.test' };
    expect(await bench.queue.change(id, { kind: 'cancel' }, options)).toBe(1);
    expect((await bench.queue.show(id))!.destinations.map(({ domain }) => domain)).toEqual(['b.test']);
    expect(await bench.queue.change(id, { kind: 'cancel' }, { nowSeconds: startSeconds })).toBe(1);
    expect(await bench.rows()).toEqual([]);
  });

  it('cancel with a report: running claims lose, and the next one is told what to say', async () => {
    const { id, claimed } = await bench.put(['a.test'], {}, bench.node);
    expect(await bench.queue.change(id, { kind: 'cancel', reply: cancelReply }, { nowSeconds: startSeconds })).toBe(1);
    await expect(bench.kv.transact((tx) => bench.queue.current(tx, claimed[0]!))).rejects.toThrow(ClaimLost);
    const [entry] = await dueNow();
    // Not even a pause keeps it back.
    expect((await bench.queue.park([entry!], () => '*')).overdue).toEqual([entry]);
    const [again] = await bench.queue.claim(bench.node, [entry!]);
    expect(again!.destination).toMatchObject({ epoch: 3, cancelReply });
  });

  it('reroute: what is due goes the new way at once, a running one when it is tried again', async () => {
    const route = { host: 'relay.test', port: 2525 };
    const due = await putOff('a.test', 99);
    const running = await bench.put(['b.test'], {}, bench.node);
    for (const { id } of [due, running]) await bench.queue.change(id, { kind: 'reroute', route }, { nowSeconds: startSeconds });
    const [entry] = await dueNow();
    expect(entry).toMatchObject({ queueId: due.id, isForced: true });
    expect((await bench.queue.claim(bench.node, [entry!]))[0]!.destination.route).toEqual(route);
    const save = { results: [], nextDueAtSeconds: startSeconds };
    await bench.kv.transact((tx) => bench.queue.save(tx, running.claimed[0]!, save));
    expect((await bench.queue.claim(bench.node, await dueNow()))[0]!.destination.route).toEqual(route);
  });

  it('reroute nothing that is delivered here', async () => {
    const recipients = [{ address: 'x@here.test' }];
    const { id } = await bench.put([], { destinations: [{ domain: 'here.test', isLocal: true, recipients }] });
    const action = { kind: 'reroute', route: { host: 'relay.test' } } as const;
    expect(await bench.queue.change(id, action, { nowSeconds: startSeconds })).toBe(0);
    expect((await bench.queue.show(id))!.destinations[0]!.route).toBeUndefined();
  });

  it('are told under one time, however often the transaction runs', async () => {
    const { id } = await bench.put(['a.test']);
    const { faults } = bench.kv as MemoryStore;
    faults.commitUnknownApplied = 0.7;
    const { nowMs } = bench.clock;
    let passed = 0;
    bench.clock.nowMs = () => nowMs.call(bench.clock) + passed++;
    for (let n = 0; n < 8; n++) {
      told = [];
      await bench.queue.change(id, { kind: 'cancel', reply: cancelReply }, { nowSeconds: startSeconds });
      expect(new Set(told.map(({ record }) => record.atMs)).size).toBe(1);
    }
    faults.clear();
  });

  it('tell the history when claims come free', async () => {
    const { claimed, id } = await bench.put(['a.test'], {}, bench.node);
    await bench.queue.release(claimed, startSeconds);
    expect(told).toEqual([
      {
        id,
        record: {
          atMs: startSeconds * 1000,
          nodeId: 'n1',
          event: { kind: 'freed', domain: 'a.test', fromNode: bench.node.nodeId, reason: 'handed-back' },
        },
      },
    ]);
  });
});
