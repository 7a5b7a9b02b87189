import { beforeEach, describe, expect, it } from 'vitest';
import { silentLogger, systemClock } from '../../ops/telemetry/index.js';
import { MemoryDatabase, openMemoryStore } from '../../store/kv/index.js';
import { createBans } from '../../store/limits/index.js';
import { createLookups } from '../../store/lookups/index.js';
import { type OperationContext, OperationRefused, operations } from './operations.js';

let nowMs: number;
let context: OperationContext;

beforeEach(() => {
  nowMs = Date.UTC(2030, 0, 1);
  const clock = { ...systemClock, nowMs: () => nowMs, monotonicMs: () => nowMs };
  const kv = openMemoryStore({ database: new MemoryDatabase({ clock }) });
  const bans = createBans({ kv, clock, logger: silentLogger });
  const lookups = createLookups({ kv, clock });
  context = { stores: { clock, kv, bans, lookups } as unknown as OperationContext['stores'] };
});

const run = (name: string, positionals: string[] = [], flags: Record<string, string> = {}) =>
  operations[name]!.run(context, { positionals, flags: { who: 'ann', ...flags } });

describe('bans', () => {
  it('are made for so long or for good, listed, and lifted', async () => {
    await run('ban add', ['192.0.2.7'], { for: '2h', note: 'scans' });
    await run('ban add', ['2001:db8::/32']);
    const rows = (await run('ban list')) as { network: string }[];
    expect(rows.sort((a, b) => (a.network < b.network ? -1 : 1))).toEqual([
      {
        network: expect.stringContaining('192.0.2.7'),
        reason: 'operator',
        since: '2030-01-01T00:00:00.000Z',
        until: '2030-01-01T02:00:00.000Z',
        note: 'scans',
      },
      { network: '2001:db8::/32', reason: 'operator', since: '2030-01-01T00:00:00.000Z', until: null, note: 'by ann' },
    ]);
    expect(await run('ban lift', ['2001:db8::/32'])).toEqual({ lifted: '2001:db8::/32' });
    await expect(run('ban lift', ['2001:db8::/32'])).rejects.toThrow('2001:db8::/32 is not banned');
    nowMs += 7_200_000;
    expect(await run('ban list')).toEqual([]);
  });

  it.each([
    ['ban add', ['mx.example'], {}],
    ['ban add', ['0.0.0.0/0'], {}],
    ['ban add', ['192.0.2.7'], { for: 'ever' }],
    ['ban lift', ['x'], {}],
  ])('%s %j %j is refused in a sentence', async (name, positionals, flags) => {
    await expect(run(name, positionals, flags as never)).rejects.toBeInstanceOf(OperationRefused);
  });
});

describe('look-up lists', () => {
  it('are filled, listed page by page, and emptied', async () => {
    await run('lookup set', ['blocked', 'Spam@Example.ORG']);
    await run('lookup set', ['blocked', 'other.test', 'some value'], { for: '1d' });
    await run('lookup set', ['routes', 'one.test', 'mx.one.test']);
    expect(await run('lookup lists')).toEqual(['blocked', 'routes']);
    const other = { key: 'other.test', value: 'some value', until: '2030-01-02T00:00:00.000Z' };
    const spam = { key: 'spam@example.org', value: '', until: null };
    expect(await run('lookup list', ['blocked'])).toEqual([other, spam]);
    expect(await run('lookup list', ['blocked'], { limit: '1' })).toEqual([other]);
    expect(await run('lookup list', ['blocked'], { after: 'other.test' })).toEqual([spam]);
    expect(await run('lookup remove', ['blocked', 'SPAM@example.org'])).toEqual({ removed: 'SPAM@example.org' });
    await expect(run('lookup remove', ['blocked', 'spam@example.org'])).rejects.toThrow('blocked has no key');
  });

  it.each([
    ['lookup set', ['Bad list', 'x'], {}],
    ['lookup set', ['list', 'x', 'y'.repeat(5_000)], {}],
    ['lookup set', ['list', ''], {}],
    ['lookup list', ['Bad list'], {}],
    ['lookup set', ['list', 'x'], { for: '0s' }],
  ])('%s %j is refused in a sentence', async (name, positionals, flags) => {
    await expect(run(name, positionals, flags as never)).rejects.toBeInstanceOf(OperationRefused);
  });
});
