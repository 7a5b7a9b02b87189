import { describe, expect, it } from 'vitest';
import { subspace } from '../keyspace.js';
import { bench, counting, tables } from '../limits/test-bench.js';
import { createLookups, lookupLimits } from './index.js';

function node(room: ReturnType<typeof bench>) {
  const store = room.store();
  const kv = counting(store);
  return { store, kv, lookups: createLookups({ kv, clock: room.clock }) };
}

describe('look-up lists', () => {
  it('answer what was set, in lower case, until it is removed or over', async () => {
    const room = bench();
    const { lookups } = node(room);
    await lookups.set('blocked-senders', [
      { key: 'Spam@Example.ORG', value: 'yes' },
      { key: 'later@example.org', value: 'Ä', expiresAtMs: room.clock.nowMs() + 60_000 },
    ]);
    expect(await lookups.get('blocked-senders', 'spam@example.org')).toBe('yes');
    expect(await lookups.get('blocked-senders', 'SPAM@example.org')).toBe('yes');
    expect(await lookups.get('blocked-senders', 'later@example.org')).toBe('Ä');
    expect(await lookups.get('other', 'spam@example.org')).toBeUndefined();
    expect(await lookups.get('blocked-senders', 'x'.repeat(600))).toBeUndefined();
    expect(await lookups.get('blocked-senders', '')).toBeUndefined();
    await room.time.advance(60_000);
    expect(await lookups.get('blocked-senders', 'later@example.org')).toBeUndefined();
    expect(await lookups.entries('blocked-senders')).toEqual([{ key: 'spam@example.org', value: 'yes' }]);
    expect(await lookups.remove('blocked-senders', ['SPAM@example.org', 'later@example.org', 'nobody'])).toBe(1);
    expect(await lookups.get('blocked-senders', 'spam@example.org')).toBeUndefined();
    expect(await lookups.lists()).toEqual([]);
  });

  it('are remembered for a second, absent ones too, and read once by those who ask at once', async () => {
    const room = bench();
    const [a, b] = [node(room), node(room)];
    for (let i = 0; i < 100; i++) await a.lookups.get('l', 'k');
    await Promise.all(Array.from({ length: 50 }, () => a.lookups.get('l', 'other')));
    expect(a.kv.reads).toBe(2);
    await b.lookups.set('l', [{ key: 'k', value: 'v' }]);
    expect(await a.lookups.get('l', 'k')).toBeUndefined();
    await room.time.advance(1_000);
    expect(await a.lookups.get('l', 'k')).toBe('v');
    await a.lookups.set('l', [{ key: 'k', value: 'w'.repeat(4_000) }]);
    expect(await a.lookups.get('l', 'k')).toBe('w'.repeat(4_000));
  });

  it('are listed page by page', async () => {
    const room = bench();
    const { lookups } = node(room);
    const entries = Array.from({ length: 1_234 }, (_, i) => ({ key: `k${String(i).padStart(5, '0')}`, value: `${i}` }));
    await lookups.set('big', entries);
    await lookups.set('a', [{ key: 'x', value: '' }]);
    expect(await lookups.lists()).toEqual(['a', 'big']);
    const seen: string[] = [];
    for (let afterKey: string | undefined; ; afterKey = seen.at(-1)) {
      const page = await lookups.entries('big', { limit: 500, ...(afterKey !== undefined && { afterKey }) });
      seen.push(...page.map(({ key }) => key));
      if (page.length < 500) break;
    }
    expect(seen).toEqual(entries.map(({ key }) => key));
    expect((await lookups.entries('big')).length).toBe(1_000);
    expect(await lookups.remove('big', seen)).toBe(1_234);
  });

  it('refuse what is beyond the limits with nothing written', async () => {
    const room = bench();
    const { lookups, kv } = node(room);
    const good = { key: 'k', value: 'v' };
    await expect(lookups.set('Bad name', [good])).rejects.toThrow(RangeError);
    await expect(lookups.get('', 'k')).rejects.toThrow(RangeError);
    await expect(lookups.set('l', [good, { key: 'ä'.repeat(257), value: '' }])).rejects.toThrow(RangeError);
    await expect(lookups.set('l', [good, { key: '', value: '' }])).rejects.toThrow(RangeError);
    await expect(lookups.set('l', [good, { key: 'x', value: 'v'.repeat(4_097) }])).rejects.toThrow(RangeError);
    await expect(lookups.set('l', [good, { key: 'x', value: 'v', expiresAtMs: -1 }])).rejects.toThrow(RangeError);
    const many = Array.from({ length: lookupLimits.maxEntriesPerCall + 1 }, (_, i) => ({ key: `${i}`, value: '' }));
    await expect(lookups.set('l', many)).rejects.toThrow(RangeError);
    expect(await tables(kv, subspace.lookups)).toEqual({});
  });

  it('count what was removed rightly after commits that nobody heard of', async () => {
    for (const outcome of ['applied', 'lost'] as const) {
      const room = bench();
      const { lookups, store } = node(room);
      await lookups.set('l', [{ key: 'a', value: '' }]);
      store.faults.nextCommit = outcome;
      expect(await room.time.until(lookups.remove('l', ['a', 'b']))).toBe(1);
    }
  });

  it('are purged hours after their end, unless they have got another', async () => {
    const room = bench();
    const { lookups, kv, store } = node(room);
    const hour = 3_600_000;
    const endMs = room.clock.nowMs() + hour;
    await lookups.set(
      'l',
      ['over', 'longer', 'everlasting', 'removed'].map((key) => ({ key, value: '', expiresAtMs: endMs })),
    );
    await lookups.set('l', [
      { key: 'longer', value: '', expiresAtMs: endMs + 24 * hour },
      { key: 'everlasting', value: '' },
    ]);
    await lookups.remove('l', ['removed']);
    await room.time.advance(6 * hour);
    await lookups.forgetExpired(room.clock.nowMs());
    expect(await tables(kv, subspace.lookups)).toEqual({ entry: 3, 'entry-expiry': 5 });
    await room.time.advance(3 * hour);
    await lookups.forgetExpired(room.clock.nowMs());
    expect(await tables(kv, subspace.lookups)).toEqual({ entry: 2, 'entry-expiry': 1 });
    await room.time.advance(24 * hour);
    await lookups.forgetExpired(room.clock.nowMs());
    expect(await tables(kv, subspace.lookups)).toEqual({ entry: 1 });
    store.faults.outage = true;
    await expect(lookups.get('l', 'x')).rejects.toMatchObject({ code: 'unavailable' });
  });
});
