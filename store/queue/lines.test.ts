import { beforeEach, describe, expect, it } from 'vitest';
import { allShards, type ClaimedDestination, type DueEntry } from './index.js';
import { dueKey, expressKey, lineKey } from './records.js';
import { type Bench, openBench, startSeconds } from './test-bench.js';

let bench: Bench;

beforeEach(async () => {
  bench = await openBench();
});

const dueNow = async (limit = 1000) => (await bench.queue.due(allShards, bench.clock.nowMs() / 1000, limit)).entries;
const lineOf = (entry: { domain: string }) => entry.domain;

async function parkAll(): Promise<number> {
  return (await bench.queue.park(await dueNow(), lineOf)).parked;
}

const finish = (claimed: ClaimedDestination) =>
  bench.kv.transact((tx) =>
    bench.queue.save(tx, claimed, {
      results: claimed.destination.recipients.map(({ address }) => ({ address, status: 'relayed' as const })),
    }),
  );

describe('lines', () => {
  it('take what is due out of the way until it is claimed out of them', async () => {
    for (let n = 0; n < 30; n++) await bench.put(['down.test']);
    await bench.put(['up.test']);
    const down = (await dueNow()).filter(({ domain }) => domain === 'down.test');
    expect(await bench.queue.park(down, lineOf)).toEqual({ parked: 30, overdue: [] });
    expect((await dueNow()).map(({ domain }) => domain)).toEqual(['up.test']);
    expect(await bench.queue.lines(undefined, 10)).toEqual(['down.test']);
    expect(await bench.queue.counts(startSeconds)).toMatchObject({ dueNow: 1, scheduled: 30, waiting: 30 });
    const waiting = await bench.queue.lineEntries('down.test', allShards, 20);
    expect(waiting).toHaveLength(20);
    const claimed = await bench.queue.claim(bench.node, waiting);
    expect(claimed).toHaveLength(20);
    expect(claimed[0]!.destination).toMatchObject({ state: 'claimed', domain: 'down.test' });
    expect(claimed[0]!.destination.line).toBeUndefined();
    for (const one of claimed) await finish(one);
    for (const one of await bench.queue.claim(bench.node, await bench.queue.lineEntries('down.test', allShards, 20)))
      await finish(one);
    for (const one of await bench.queue.claim(bench.node, await dueNow())) await finish(one);
    expect(await bench.rows()).toEqual([]);
  });

  it('keep the deadline: the due entry stands there, and is claimed then with the line left behind', async () => {
    await bench.put(['down.test'], { expiresAtMs: (startSeconds + 500) * 1000 });
    expect(await parkAll()).toBe(1);
    bench.clock.seconds += 499;
    expect(await dueNow()).toEqual([]);
    bench.clock.seconds += 1;
    const [entry] = await dueNow();
    expect(await bench.queue.park([entry!], lineOf)).toEqual({ parked: 0, overdue: [entry] });
    const [claimed] = await bench.queue.claim(bench.node, [entry!]);
    expect(await bench.queue.lines(undefined, 10)).toEqual([]);
    await finish(claimed!);
    expect(await bench.rows()).toEqual([]);
  });

  it('ask for the deadline: a notice comes before the end', async () => {
    bench.queue.admitBy({ lineFor: () => undefined, deadlineSecondsOf: () => startSeconds + 60 });
    await bench.put(['down.test']);
    await parkAll();
    bench.clock.seconds += 60;
    expect(await dueNow()).toHaveLength(1);
  });

  it('are where a new message begins that can not be worked: neither claimed nor due, and found by its receipt', async () => {
    bench.queue.admitBy({
      lineFor: (domain) => (domain === 'down.test' ? domain : undefined),
      deadlineSecondsOf: () => Number.POSITIVE_INFINITY,
    });
    const { claimed } = await bench.put(['down.test', 'up.test'], {}, bench.node);
    expect(claimed.map(({ destination }) => destination.domain)).toEqual(['up.test']);
    const alone = await bench.put(['down.test'], {}, bench.node);
    expect(alone.claimed).toEqual([]);
    expect(await dueNow()).toEqual([]);
    expect(await bench.queue.lineEntries('down.test', allShards, 10)).toHaveLength(2);
  });

  it('lose a stale entry to whoever meets it, and one that a node of an earlier release has left', async () => {
    const { id } = await bench.put(['down.test']);
    const ref = { queueId: id, domain: 'down.test', part: 0 };
    await parkAll();
    const [waiting] = await bench.queue.lineEntries('down.test', allShards, 10);
    // Such a node claims by the due entry, and knows nothing of the line.
    await bench.queue.retryNow(id, startSeconds);
    await bench.kv.transact(async (tx) => tx.set(lineKey('down.test', ref), Buffer.alloc(0)));
    expect(await bench.queue.claim(bench.node, [waiting!])).toEqual([]);
    expect(await bench.queue.lines(undefined, 10)).toEqual([]);
    expect(await dueNow()).toHaveLength(1);
  });

  it('are left for another one without a moment in which it is reachable by neither or both', async () => {
    await bench.put(['down.test']);
    await parkAll();
    const waiting = await bench.queue.lineEntries('down.test', allShards, 10);
    expect(await bench.queue.park(waiting, () => 'queue:bulk')).toMatchObject({ parked: 1 });
    expect(await bench.queue.lines(undefined, 10)).toEqual(['queue:bulk']);
    expect((await bench.rows()).filter(([kind]) => kind === 'due')).toHaveLength(1);
  });

  it('remember of whom it does not matter whether his domain is down', async () => {
    const { id } = await bench.put(['down.test']);
    await bench.put(['down.test']);
    await bench.queue.change(id, { kind: 'reroute', route: { host: 'else.test' } }, { nowSeconds: startSeconds });
    expect((await bench.queue.park(await dueNow(), () => '*')).parked).toBe(2);
    const waiting = await bench.queue.lineEntries('*', allShards, 10);
    expect(waiting.filter(({ isForced }) => isForced).map(({ queueId }) => queueId)).toEqual([id]);
    const claimed = await bench.queue.claim(bench.node, waiting);
    expect(claimed.filter(({ isForced }) => isForced).map(({ message }) => message.id)).toEqual([id]);
  });

  it('write nothing of what another node has claimed meanwhile', async () => {
    for (const priority of [0, 1]) await bench.put(['down.test'], { priority });
    const seen = await dueNow();
    const other = await openBench({ database: bench.database });
    const won = await other.queue.claim(other.node, seen);
    expect(won).toHaveLength(2);
    const cleared: Uint8Array[] = [];
    const { transact } = bench.kv;
    bench.kv.transact = (body, options) =>
      transact.call(
        bench.kv,
        (tx) => {
          const { clear } = tx;
          tx.clear = (key) => {
            cleared.push(key);
            clear.call(tx, key);
          };
          return body(tx);
        },
        options,
      ) as never;
    expect(await bench.queue.park(seen, lineOf)).toEqual({ parked: 0, overdue: [] });
    expect(await bench.queue.claim(bench.node, seen)).toEqual([]);
    expect(cleared).toEqual([]);
    for (const one of won) await finish(one);
    expect(await bench.rows()).toEqual([]);
  });

  it('are found by name, page by page', async () => {
    for (const domain of ['a.test', 'b.test', 'c.test']) for (let n = 0; n < 3; n++) await bench.put([domain]);
    await parkAll();
    expect(await bench.queue.lines(undefined, 2)).toEqual(['a.test', 'b.test']);
    expect(await bench.queue.lines('b.test', 2)).toEqual(['c.test']);
  });
});

describe('express', () => {
  it('comes before whatever else is due, and never takes all of a look', async () => {
    for (let n = 0; n < 200; n++) await bench.put([`d${n}.test`]);
    bench.clock.seconds += 10;
    for (let n = 0; n < 40; n++) await bench.put([`e${n}.test`], { priority: 4 });
    const entries = await dueNow(40);
    expect(entries.filter(({ traits }) => traits?.isExpress)).toHaveLength(30);
    expect(entries.slice(0, 30).every(({ traits }) => traits?.isExpress)).toBe(true);
    // None of them twice, although each has a due entry as well.
    expect(new Set(entries.map(({ queueId }) => queueId)).size).toBe(entries.length);
    expect(entries.some(({ traits }) => !traits?.isExpress)).toBe(true);
  });

  it('leaves no entry behind when it is claimed, put off and done', async () => {
    await bench.put(['a.test'], { priority: 1 });
    const [claimed] = await bench.queue.claim(bench.node, await dueNow());
    await bench.kv.transact((tx) => bench.queue.save(tx, claimed!, { results: [], nextDueAtSeconds: startSeconds + 60 }));
    expect(await dueNow()).toEqual([]);
    bench.clock.seconds += 60;
    expect((await bench.rows()).filter(([kind]) => kind === 'express')).toHaveLength(1);
    const [again] = await bench.queue.claim(bench.node, await dueNow());
    await finish(again!);
    expect(await bench.rows()).toEqual([]);
  });

  it('clears what a node of an earlier release has left', async () => {
    const { id } = await bench.put(['a.test'], { priority: 1 });
    const [entry] = (await dueNow()) as [DueEntry];
    await bench.queue.cancel(id);
    await bench.put(['a.test'], { priority: 1, id });
    const [claimed] = await bench.queue.claim(bench.node, await dueNow());
    await finish(claimed!);
    // Only the express entry is there again, as if its due entry had been claimed without it.
    await bench.kv.transact(async (tx) => {
      tx.set(expressKey(entry, entry.dueAtSeconds), Buffer.from([4, 0, 0, 0, 0]));
      tx.clear(dueKey(entry, entry.dueAtSeconds));
    });
    const left = await dueNow();
    expect(left).toHaveLength(1);
    expect(await bench.queue.claim(bench.node, left)).toEqual([]);
    expect(await bench.rows()).toEqual([]);
  });
});

describe('a message for later', () => {
  it('goes no sooner for what an operator does with many; but for a retry of itself', async () => {
    const { id } = await bench.put(['a.test'], { notBeforeSeconds: startSeconds + 100 });
    const due = async () => (await bench.queue.show(id))!.destinations[0]!.dueAtSeconds;
    const all = { filter: {}, nowSeconds: startSeconds + 1 };
    expect(await bench.queue.changeAll({ ...all, action: { kind: 'retry' } })).toMatchObject({ changed: 0 });
    expect(await bench.queue.changeAll({ ...all, action: { kind: 'reroute', route: { host: 'r.test' } } })).toMatchObject({
      changed: 1,
    });
    expect(await due()).toBe(startSeconds + 100);
    await bench.queue.changeAll({ ...all, action: { kind: 'hold' } });
    await bench.queue.changeAll({ ...all, action: { kind: 'unhold' } });
    expect(await due()).toBe(startSeconds + 100);
    await bench.queue.retryNow(id, startSeconds + 2);
    expect(await due()).toBe(startSeconds + 2);
  });

  it('is not born claimed and not due before', async () => {
    const { claimed } = await bench.put(['a.test'], { notBeforeSeconds: startSeconds + 100 }, bench.node);
    expect(claimed).toEqual([]);
    expect(await bench.queue.due(allShards, startSeconds, 10)).toEqual({ entries: [], nextDueAtSeconds: startSeconds + 100 });
    bench.clock.seconds += 100;
    expect(await dueNow()).toHaveLength(1);
  });
});

describe('usage', () => {
  it('counts what is queued under the names that it was given, until it is done or cancelled', async () => {
    const countedUnder = ['total', 'from:sender@example.org'];
    const first = await bench.put(['a.test', 'b.test'], { countedUnder });
    await bench.put(['a.test'], { countedUnder: ['total'] });
    expect(await bench.queue.usage('total')).toEqual({ messages: 2, bytes: 46 });
    expect(await bench.queue.usage('from:sender@example.org')).toEqual({ messages: 1, bytes: 23 });
    bench.clock.seconds += 2;
    await bench.queue.cancel(first.id);
    for (const one of await bench.queue.claim(bench.node, await dueNow())) await finish(one);
    expect(await bench.queue.usage('total')).toEqual({ messages: 0, bytes: 0 });
    await bench.queue.forgetReceipts(startSeconds);
    expect(await bench.rows()).toEqual([]);
  });
});
