import { beforeEach, describe, expect, it } from 'vitest';
import { silentLogger, systemRandom } from '../../ops/telemetry/index.js';
import { openMemoryStore } from '../kv/index.js';
import { createDestinations, type Destinations } from './index.js';
import { type Bench, openBench, startSeconds } from './test-bench.js';

let bench: Bench;
let one: Destinations;
let other: Destinations;
const reply = { code: 421, enhanced: '4.3.2', text: 'Not now', host: 'mx.down.test' };

function open(nodeId: string): Destinations {
  const kv = openMemoryStore({ database: bench.database });
  return createDestinations({ kv, clock: bench.clock, random: systemRandom, logger: silentLogger, nodeId });
}

beforeEach(async () => {
  bench = await openBench();
  one = open('one');
  other = open('other');
});

async function bringDown(domain = 'down.test'): Promise<void> {
  for (let n = 0; n < 3; n++) await one.report({ domain, result: 'unreachable', reply });
}

describe('health of destinations', () => {
  it('is bad after three failures in a row, for all nodes', async () => {
    await one.report({ domain: 'down.test', result: 'unreachable', reply });
    await one.report({ domain: 'down.test', result: 'unreachable', reply });
    await one.report({ domain: 'down.test', result: 'reached' });
    await one.report({ domain: 'down.test', result: 'unreachable', reply });
    await one.report({ domain: 'down.test', result: 'unreachable', reply });
    expect(one.mayAttempt('down.test', '')).toBe('yes');
    await one.report({ domain: 'down.test', result: 'unreachable', reply });
    expect(one.mayAttempt('down.test', '')).toBe('no');
    expect(other.mayAttempt('down.test', '')).toBe('yes');
    await other.reload();
    expect(other.obstacle('down.test', '')).toEqual({ line: 'down.test', kind: 'down', reply });
    expect(other.down()).toMatchObject([{ domain: 'down.test', failures: 3, lastReply: reply }]);
  });

  it('is asked for by one probe of the cluster at a time, ever more seldom', async () => {
    await bringDown();
    await other.reload();
    const waits: number[] = [];
    for (let n = 0; n < 12; n++) {
      const before = bench.clock.seconds;
      while (one.mayAttempt('down.test', '') !== 'probe') bench.clock.seconds += 1;
      waits.push(bench.clock.seconds - before);
      expect(one.probesDue()).toEqual(['down.test']);
      const won = await Promise.all([one.winProbe('down.test'), other.winProbe('down.test')]);
      expect(won.filter(Boolean)).toHaveLength(1);
      const prober = won[0] ? one : other;
      expect(prober.mayAttempt('down.test', '')).toBe('no');
      await prober.report({ domain: 'down.test', result: 'unreachable', reply });
      await one.reload();
      await other.reload();
    }
    expect(waits[0]).toBeGreaterThanOrEqual(22);
    expect(waits[0]).toBeLessThanOrEqual(39);
    expect(waits[4]!).toBeGreaterThan(waits[1]! * 2);
    expect(Math.max(...waits)).toBeLessThanOrEqual(3600 * 1.25 + 1);
    expect(one.health('down.test')!.failures).toBe(15);
  });

  it('is not made worse by attempts that were under way when it went down', async () => {
    await bringDown();
    const before = one.health('down.test');
    for (let n = 0; n < 10; n++) await one.report({ domain: 'down.test', result: 'unreachable', reply });
    expect(one.health('down.test')).toEqual(before);
  });

  it('is good again with the first success, and everybody is told', async () => {
    await bringDown();
    await other.reload();
    const told: (string | undefined)[] = [];
    other.onChanged((line) => told.push(line));
    await one.report({ domain: 'down.test', result: 'reached' });
    expect(one.mayAttempt('down.test', '')).toBe('yes');
    await other.reload();
    expect(told).toEqual(['down.test']);
    expect(other.down()).toEqual([]);
    expect((await bench.rows()).map(([kind]) => kind)).toEqual(['destinations-generation']);
  });

  it('finds out by a probe whose outcome nobody tells when the next one is due', async () => {
    await bringDown();
    bench.clock.seconds += 60;
    expect(await one.winProbe('down.test')).toBe(true);
    expect(await one.winProbe('down.test')).toBe(false);
    bench.clock.seconds += 100;
    await other.reload();
    expect(await other.winProbe('down.test')).toBe(true);
  });

  it('puts off a probe that could not be made, and no longer than until its back-off is over', async () => {
    await bringDown();
    bench.clock.seconds += 60;
    await one.putOffProbe('down.test', 1);
    expect(await one.winProbe('down.test')).toBe(true);
    const { failures } = one.health('down.test')!;
    await one.putOffProbe('down.test', 3);
    expect(one.probesDue()).toEqual([]);
    bench.clock.seconds += 3;
    expect(one.probesDue()).toEqual(['down.test']);
    await other.reload();
    expect(await other.winProbe('down.test')).toBe(true);
    // It is the other's now.
    await one.putOffProbe('down.test', 1);
    await other.putOffProbe('down.test', 1_000_000);
    expect(other.health('down.test')!.failures).toBe(failures);
    bench.clock.seconds += 100;
    expect(other.probesDue()).toEqual(['down.test']);
  });

  it('learns from a lost probe that the domain is up', async () => {
    await bringDown();
    await other.reload();
    await one.forget('down.test');
    bench.clock.seconds += 60;
    expect(await other.winProbe('down.test')).toBe(false);
    expect(other.mayAttempt('down.test', '')).toBe('yes');
  });

  it('is asked for soon of all that a host was down for which has come back', async () => {
    const relay = { ...reply, host: 'relay.test' };
    const many = Array.from({ length: 30 }, (_, n) => `d${n}.test`);
    for (const domain of many) for (let n = 0; n < 3; n++) await one.report({ domain, result: 'unreachable', reply: relay });
    await bringDown();
    await other.reload();
    bench.clock.seconds += 1;
    await other.report({ domain: 'd7.test', result: 'reached' });
    expect(other.down()).toHaveLength(30);
    bench.clock.seconds += 10;
    expect(other.probesDue().sort()).toEqual(many.filter((domain) => domain !== 'd7.test').sort());
    // On the other node too, and not of those that are down for another reason.
    await one.reload();
    expect(one.probesDue()).toHaveLength(29);
    expect(one.mayAttempt('down.test', '')).toBe('no');
    expect(await one.winProbe('d8.test')).toBe(true);
    expect(await other.winProbe('d8.test')).toBe(false);
  });

  it('never throws at a delivery, whatever the store does', async () => {
    await bringDown();
    const kv = openMemoryStore({ database: bench.database });
    const cut = createDestinations({ kv, clock: bench.clock, random: systemRandom, logger: silentLogger, nodeId: 'cut' });
    await cut.reload();
    await kv.close();
    await cut.report({ domain: 'down.test', result: 'reached' });
    expect(cut.mayAttempt('down.test', '')).toBe('no');
  });

  it('writes nothing for those that are well', async () => {
    await one.report({ domain: 'up.test', result: 'reached' });
    await one.report({ domain: 'up.test', result: 'unreachable', reply });
    expect(await bench.rows()).toEqual([]);
  });
});

describe('pauses', () => {
  it('hold for a domain, a virtual queue, or all, on every node, until they are lifted', async () => {
    await one.pause('Slow.test', 'op', 'asked us to');
    expect(one.mayAttempt('slow.test', '')).toBe('no');
    await other.reload();
    expect(other.obstacle('slow.test', '')).toMatchObject({ line: 'slow.test', kind: 'paused' });
    expect(other.pauses()).toEqual([{ what: 'slow.test', by: 'op', note: 'asked us to', sinceMs: startSeconds * 1000 }]);
    expect(await other.resume('slow.test')).toBe(true);
    expect(await other.resume('slow.test')).toBe(false);
    await one.pause('queue:bulk', 'op', '');
    expect(one.obstacle('a.test', 'bulk')?.line).toBe('queue:bulk');
    expect(one.mayAttempt('a.test', '')).toBe('yes');
    await one.pause('*', 'op', '');
    expect(one.obstacle('a.test', '')?.line).toBe('*');
    await expect(one.pause('two words', 'op', '')).rejects.toThrow(RangeError);
  });

  it('and bad health are known to a node from its start on', async () => {
    await one.pause('*', 'op', '');
    await bringDown();
    await other.start();
    expect(other.pauses()).toHaveLength(1);
    expect(other.down()).toHaveLength(1);
    expect(await bench.kv.read((reads) => other.readGeneration(reads))).toBe('2');
    await other.stop();
  });
});
