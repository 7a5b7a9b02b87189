import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Bird, Flock } from './test-flock.js';

let flock: Flock;
let a: Bird;
let b: Bird;
beforeEach(async () => {
  flock = new Flock();
  [a, b] = (await flock.start(2)) as [Bird, Bird];
});
afterEach(async () => flock.close());

describe('generations', () => {
  it('are compared when another node says so, once for many that say it together', async () => {
    const startMs = flock.time.nowMs;
    for (let i = 0; i < 50; i++) {
      await flock.raise();
      a.bus.raised('counter');
    }
    await flock.time.advance(50);
    expect(b.told).toHaveLength(1);
    expect(b.told[0]!.atMs - startMs).toBeLessThanOrEqual(5);
    expect(b.reads).toBeLessThanOrEqual(2);
    for (let i = 0; i < 500; i++) {
      await flock.raise();
      a.bus.raised('counter');
      await flock.time.advance(2);
    }
    // A second of it: at most every tenth of a second.
    expect(b.reads).toBeLessThanOrEqual(14);
    await flock.time.advance(200);
    const value = Buffer.alloc(8);
    value.writeBigInt64LE(550n);
    expect(b.told.at(-1)!.generation).toBe(value.toString('hex'));
    a.bus.raised('unheard-of');
    expect(() => a.bus.raised('No name')).toThrow(RangeError);
    expect(() => a.bus.follow({ name: 'counter', read: async () => '', onChanged: () => undefined })).toThrow('already');
  });

  it('are seen on the timer when nobody says anything', async () => {
    await flock.raise();
    await flock.time.advance(11_001);
    expect(b.told).toHaveLength(1);
    expect(b.bus.status.comparedAgeMs).toBeLessThanOrEqual(11_000);
  });

  it('are read after the hint that tells of them', async () => {
    // A read that is under way when the hint comes may have begun before the change.
    b.kv.faults.delayMs = (operation) => (operation === 'read' ? 80 : 0);
    b.bus.raised('counter');
    await flock.time.advance(20);
    const changed = Buffer.alloc(8, 0);
    changed[0] = 1;
    await flock.raise();
    a.bus.raised('counter');
    await flock.time.advance(400);
    expect(b.told.map(({ generation }) => generation)).toContain(changed.toString('hex'));
  });

  it('survive an outage of the store', async () => {
    b.kv.faults.outage = true;
    await flock.raise();
    a.bus.raised('counter');
    await flock.time.advance(30_000);
    expect(b.told).toEqual([]);
    expect(b.bus.status.isHealthy).toBe(false);
    expect(b.bus.status.comparedAgeMs).toBeGreaterThan(29_000);
    b.kv.faults.clear();
    await flock.time.advance(2_300);
    expect(b.told).toHaveLength(1);
    expect(b.bus.status.isHealthy).toBe(true);
  });

  it('harm one another in nothing: neither by what they throw nor by how long they take', async () => {
    let isBroken = true;
    const told: string[] = [];
    b.bus.follow({
      name: 'unreadable',
      read: async () => {
        throw new Error('broken');
      },
      onChanged: () => undefined,
    });
    b.bus.follow({
      name: 'refusing',
      read: async () => 'x',
      onChanged: (generation) => {
        if (isBroken) throw new Error('not now');
        told.push(generation);
      },
    });
    let slow = 0;
    b.bus.follow({
      name: 'slow',
      read: async () => `${flock.time.nowMs}`,
      onChanged: async () => {
        slow++;
        await b.clock.sleep(30_000);
      },
    });
    await flock.time.advance(200);
    await flock.raise();
    a.bus.raised('counter');
    await flock.time.advance(200);
    expect(b.told).toHaveLength(1);
    expect(b.bus.status.isHealthy).toBe(false);
    await flock.time.advance(10_000);
    // Never two at a time of one source.
    expect(slow).toBe(1);
    expect(told).toEqual([]);
    isBroken = false;
    await flock.time.advance(2_300);
    expect(told).toEqual(['x']);
    await flock.time.advance(20_000);
    expect(told).toEqual(['x']);
  });

  it('are well again when what could not be read can be, also where it has not changed', async () => {
    let isBroken = false;
    b.bus.follow({
      name: 'fragile',
      read: async () => {
        if (isBroken) throw new Error('broken');
        return 'always the same';
      },
      onChanged: () => undefined,
    });
    await flock.time.advance(3_000);
    expect(b.bus.status.isHealthy).toBe(true);
    isBroken = true;
    await flock.time.advance(12_000);
    expect(b.bus.status.isHealthy).toBe(false);
    isBroken = false;
    await flock.time.advance(3_000);
    expect(b.bus.status.isHealthy).toBe(true);
  });

  it('that change while they are being taken over are told of right afterwards', async () => {
    const told: string[] = [];
    let generation = 1;
    b.bus.follow({
      name: 'reloaded',
      read: async () => `${generation}`,
      onChanged: async (text) => {
        told.push(text);
        await b.clock.sleep(500);
      },
    });
    await flock.time.advance(1_000);
    for (let i = 0; i < 2; i++) {
      generation++;
      a.bus.raised('reloaded');
      await flock.time.advance(200);
    }
    await flock.time.advance(200);
    expect(told).toEqual(['1', '2', '3']);
  });

  it('that hang while they are being taken over make the bus unwell', async () => {
    b.bus.follow({ name: 'stuck', read: async () => 'x', onChanged: () => new Promise(() => undefined) });
    await flock.time.advance(3_000);
    expect(b.bus.status.isHealthy).toBe(true);
    await flock.time.advance(11_000);
    expect(b.bus.status.isHealthy).toBe(false);
  });
});
