import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock } from '../ops/telemetry/index.js';
import { MemoryDatabase, openMemoryStore } from '../store/kv/index.js';
import { createLimits } from '../store/limits/index.js';
import { createLookups } from '../store/lookups/index.js';
import { createHistory } from '../store/queue/index.js';
import { forgetExpired } from './forgetting.js';

const hourMs = 3_600_000;

async function start() {
  const kv = openMemoryStore({ database: new MemoryDatabase() });
  let nowMs = systemClock.nowMs();
  const clock = { ...systemClock, nowMs: () => nowMs };
  const limits = createLimits({ kv, clock, logger: silentLogger, nodeId: () => 'n' });
  const lookups = createLookups({ kv, clock });
  await lookups.set('l', [{ key: 'k', value: '', expiresAtMs: nowMs + hourMs }]);
  nowMs += 12 * hourMs;
  const rooms = { clock, lookups, limits, history: createHistory({ kv }), keepHistoryDays: () => 1 };
  return { rooms, lookups };
}

describe('forgetting what is over', () => {
  it('goes on with the other rooms when one fails, and says so', async () => {
    const { rooms, lookups } = await start();
    const limits = { forgetExpired: () => Promise.reject(new Error('this can not be read')) };
    await expect(forgetExpired({ ...rooms, limits }, async () => {}, new AbortController().signal)).rejects.toThrow(
      'can not be read',
    );
    expect(await lookups.lists()).toEqual([]);
  });

  it('removes nothing without the lease, nor when it is to end', async () => {
    const { rooms, lookups } = await start();
    const lost = () => Promise.reject(new Error('the lease is lost'));
    await expect(forgetExpired(rooms, lost, new AbortController().signal)).rejects.toThrow('the lease is lost');
    expect(await lookups.lists()).toEqual(['l']);
    await forgetExpired(rooms, async () => {}, AbortSignal.abort());
    expect(await lookups.lists()).toEqual(['l']);
    await forgetExpired(rooms, async () => {}, new AbortController().signal);
    expect(await lookups.lists()).toEqual([]);
  });
});
