import { describe, expect, it } from 'vitest';
import { bench, counting, tables } from './test-bench.js';
import { createUseCounter } from './use-counter.js';

function nodes(room: ReturnType<typeof bench>, count: number) {
  return Array.from({ length: count }, () => {
    const kv = counting(room.store());
    return { kv, counter: createUseCounter({ kv, clock: room.clock, logger: room.logger }) };
  });
}

describe('use counter', () => {
  it('counts on all nodes, a second late', async () => {
    const room = bench();
    const [a, b] = nodes(room, 2) as [ReturnType<typeof nodes>[0], ReturnType<typeof nodes>[0]];
    expect(await a.counter.count('mail', 'k', 60)).toBe(1);
    expect(await a.counter.count('mail', 'k', 60, 4)).toBe(5);
    expect(await b.counter.count('mail', 'k', 60)).toBe(2);
    await room.time.advance(2_000);
    expect(await b.counter.uses('mail', 'k', 60)).toBe(6);
    expect(await a.counter.uses('mail', 'k', 60)).toBe(6);
    expect(await a.counter.uses('mail', 'other', 60)).toBe(0);
    await room.time.advance(70_000);
    expect(await a.counter.count('mail', 'k', 60)).toBe(1);
  });

  it('asks the store once in a second, and for those who ask at once once', async () => {
    const room = bench();
    const [{ kv, counter }] = nodes(room, 1) as [ReturnType<typeof nodes>[0]];
    await Promise.all(Array.from({ length: 50 }, () => counter.count('mail', 'k', 60)));
    expect(kv.transactions).toBe(1);
    for (let i = 0; i < 500; i++) {
      await counter.count('mail', 'k', 60);
      await room.time.advance(10);
    }
    expect(kv.transactions).toBeLessThan(15);
    await room.time.advance(1_100);
    expect(await counter.uses('mail', 'k', 60)).toBe(550);
  });

  it('keeps what the store could not take, and adds it when it can', async () => {
    const room = bench();
    const kv = room.store();
    const counter = createUseCounter({ kv, clock: room.clock, logger: room.logger });
    await counter.count('mail', 'k', 600);
    kv.faults.outage = true;
    await room.time.advance(1_500);
    await expect(counter.count('mail', 'k', 600)).rejects.toMatchObject({ code: 'unavailable' });
    kv.faults.clear();
    await room.time.advance(5_000);
    const other = createUseCounter({ kv: room.store(), clock: room.clock, logger: room.logger });
    expect(await other.uses('mail', 'k', 600)).toBe(2);
  });

  it('begins again after a reset, and adds what waits when it stops', async () => {
    const room = bench();
    const [{ kv, counter }] = nodes(room, 1) as [ReturnType<typeof nodes>[0]];
    await counter.count('mail', 'k', 600, 7);
    await counter.reset('mail', 'k', 600);
    expect(await counter.uses('mail', 'k', 600)).toBe(0);
    await counter.count('mail', 'k', 600, 2);
    await counter.stop();
    const other = createUseCounter({ kv, clock: room.clock, logger: room.logger });
    expect(await other.uses('mail', 'k', 600)).toBe(2);
    expect(await tables(kv)).toEqual({ count: 1, 'count-expiry': 1 });
  });
});
