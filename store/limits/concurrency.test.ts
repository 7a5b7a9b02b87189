import { describe, expect, it } from 'vitest';
import { KvError } from '../kv/contract.js';
import { createConcurrencyLimiter, purgeDeadSlots } from './concurrency.js';
import { bench, breakFence, counting, raiseFence, tables } from './test-bench.js';

async function node(room: ReturnType<typeof bench>, nodeId: string, faults = {}) {
  const store = room.store(faults);
  const kv = counting(store);
  await raiseFence(room.store(), nodeId);
  const limiter = createConcurrencyLimiter({ kv, clock: room.clock, logger: room.logger, nodeId: () => nodeId });
  return { store, kv, limiter };
}

describe('concurrency limiter', () => {
  it('gives out so many in the whole cluster, and again what was given back', async () => {
    const room = bench();
    const [a, b] = [await node(room, 'a'), await node(room, 'b')];
    const releases = [
      await a.limiter.acquire('smtp', 'k', 3),
      await b.limiter.acquire('smtp', 'k', 3),
      await b.limiter.acquire('smtp', 'k', 3),
    ];
    expect(releases.every((release) => release !== undefined)).toBe(true);
    expect(await a.limiter.acquire('smtp', 'k', 3)).toBeUndefined();
    expect(await a.limiter.acquire('smtp', 'other', 3)).toBeDefined();
    releases[1]!();
    releases[1]!();
    await room.time.advance(1_500);
    expect(await a.limiter.acquire('smtp', 'k', 3)).toBeDefined();
    expect(await a.limiter.acquire('smtp', 'k', 3)).toBeUndefined();
    expect(await b.limiter.acquire('smtp', 'k', 3)).toBeUndefined();
  });

  it('asks the store seldom where there are plenty, and leaves nothing there in the end', async () => {
    const room = bench();
    const { limiter, kv } = await node(room, 'a');
    const releases: (() => void)[] = [];
    for (let i = 0; i < 1_000; i++) releases.push((await limiter.acquire('smtp', 'k', 10_000))!);
    expect(kv.transactions).toBeLessThan(20);
    for (let i = 0; i < 1_000; i++) {
      releases.pop()!();
      releases.push((await limiter.acquire('smtp', 'k', 10_000))!);
    }
    expect(kv.transactions).toBeLessThan(20);
    for (const release of releases) release();
    await room.time.advance(5_000);
    expect(await tables(kv)).toEqual({});
  });

  it('frees what a dead node held once its fence is broken', async () => {
    const room = bench();
    const [a, b] = [await node(room, 'a'), await node(room, 'b')];
    await a.limiter.acquire('smtp', 'k', 1);
    expect(await b.limiter.acquire('smtp', 'k', 1)).toBeUndefined();
    await breakFence(a.kv, 'a');
    expect(await b.limiter.acquire('smtp', 'k', 1)).toBeDefined();
    await b.limiter.acquire('smtp', 'other', 1);
    await breakFence(a.kv, 'b');
    await purgeDeadSlots(b.kv);
    expect(await tables(b.kv)).toEqual({});
  });

  it('gives nothing out while the store can not be used, and forgets nothing', async () => {
    const room = bench();
    const [a, b] = [await node(room, 'a'), await node(room, 'b')];
    const first = await a.limiter.acquire('smtp', 'k', 2);
    a.store.faults.outage = true;
    await expect(a.limiter.acquire('smtp', 'k', 2)).rejects.toMatchObject({ code: 'unavailable' });
    first!();
    await room.time.advance(3_000);
    a.store.faults.clear();
    await room.time.advance(3_000);
    expect(await b.limiter.acquire('smtp', 'k', 2)).toBeDefined();
    expect(await b.limiter.acquire('smtp', 'k', 2)).toBeDefined();
    expect(await b.limiter.acquire('smtp', 'k', 2)).toBeUndefined();
  });

  it('counts without noting while the store is full, and notes it when there is space again', async () => {
    const room = bench();
    const [a, b] = [await node(room, 'a'), await node(room, 'b')];
    await b.limiter.acquire('imap', 'k', 3);
    const { transact } = a.kv;
    a.kv.transact = async () => {
      throw new KvError('unavailable', 'no space left on the device', 'no-space');
    };
    const releases = await Promise.all([1, 2, 3].map(() => a.limiter.acquire('imap', 'k', 3)));
    expect(releases.map((release) => release !== undefined)).toEqual([true, true, false]);
    expect(await a.limiter.acquire('imap', 'k', 3)).toBeUndefined();
    releases[0]!();
    expect(await a.limiter.acquire('imap', 'k', 3)).toBeDefined();
    a.kv.transact = transact;
    await room.time.advance(3_000);
    expect(await b.limiter.acquire('imap', 'k', 3)).toBeUndefined();
    releases[1]!();
    await room.time.advance(3_000);
    expect(await b.limiter.acquire('imap', 'k', 3)).toBeDefined();
  });

  it('never has more at once, whatever becomes of commits', async () => {
    for (const max of [1, 7, 60]) {
      const room = bench(max);
      const flaws = { conflict: 0.2, commitUnknownApplied: 0.05, commitUnknownLost: 0.05 };
      const members = await Promise.all(['a', 'b', 'c'].map((id) => node(room, id, flaws)));
      let held = 0;
      let most = 0;
      let given = 0;
      const releases: (() => void)[] = [];
      const running: Promise<void>[] = [];
      for (let step = 0; step < 400; step++) {
        for (let i = 0; i < max / 4 + 1; i++) {
          const { limiter } = members[Math.floor(room.random.float() * 3)]!;
          const acquired = limiter.acquire('smtp', 'k', max).then((release) => {
            if (!release) return;
            held++;
            given++;
            most = Math.max(most, held);
            releases.push(() => {
              held--;
              release();
            });
          });
          running.push(acquired.catch(() => {}));
        }
        if (room.random.float() < 0.7) await room.time.advance(50 * room.random.float());
        const some = releases.splice(0, Math.round(releases.length * room.random.float()));
        for (const release of some) release();
      }
      await room.time.until(Promise.all(running));
      expect(most).toBeLessThanOrEqual(max);
      expect(most).toBeGreaterThan(max * 0.6);
      expect(given).toBeGreaterThan(max * 10);
      for (const release of releases) release();
      await room.time.advance(20_000);
      expect(await tables(room.store())).toEqual({});
    }
  });
});
