import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { applyAtomic } from '../atomic.js';
import type { KvStore } from '../contract.js';
import { ReadCache } from './read-cache.js';
import { openEmbeddedStore } from './store.js';

const text = (value: Buffer | undefined) => value?.toString();

describe('the cache', () => {
  it('answers readers of the version that was read, and of later ones, until the key is written', () => {
    const cache = new ReadCache(10_000);
    expect(cache.find('a', 5)).toBeUndefined();
    expect(text(cache.note('a', Buffer.from('1'), 5))).toBe('1');
    expect(cache.note('none', undefined, 5)).toBeUndefined();
    expect(cache.find('a', 4)).toBeUndefined();
    expect(text(cache.find('a', 5)?.value)).toBe('1');
    expect(text(cache.find('a', 9)?.value)).toBe('1');
    expect(cache.find('none', 6)).toEqual({ value: undefined });
    cache.written({ version: 10, points: ['a'], ranges: [] }, new Map());
    expect(cache.find('a', 9)).toBeUndefined();
    expect(cache.find('none', 9)).toEqual({ value: undefined });
  });

  it('knows what a commit wrote from its version on, and what was there before', () => {
    const cache = new ReadCache(10_000);
    cache.note('a', Buffer.from('1'), 5);
    cache.written({ version: 7, points: ['a', 'b'], ranges: [] }, new Map([['a', Buffer.from('2')]]));
    expect(cache.find('b', 7)).toBeUndefined();
    expect(cache.find('a', 4)).toBeUndefined();
    expect(text(cache.find('a', 6)?.value)).toBe('1');
    expect(text(cache.find('a', 7)?.value)).toBe('2');
    // Another commit of the same version: nobody sees what the first one wrote alone.
    cache.written({ version: 7, points: ['a'], ranges: [] }, new Map([['a', null]]));
    expect(text(cache.find('a', 6)?.value)).toBe('1');
    expect(cache.find('a', 7)).toEqual({ value: undefined });
    cache.written({ version: 8, points: ['a'], ranges: [] }, new Map([['a', [{ kind: 'add', operand: 3n }]]]));
    expect(cache.find('a', 6)).toBeUndefined();
    expect(cache.find('a', 7)).toEqual({ value: undefined });
    expect(cache.find('a', 8)?.value?.readBigUInt64LE()).toBe(3n);
  });

  it('forgets what lies in a cleared range, and nothing else', () => {
    const cache = new ReadCache(10_000);
    cache.note('a', Buffer.from('1'), 5);
    cache.note('b', Buffer.from('1'), 5);
    const both = { version: 6, points: ['a'], ranges: [{ begin: 'a', end: 'b' }] };
    cache.written(both, new Map([['a', Buffer.from('2')]]));
    expect(cache.find('a', 6)).toBeUndefined();
    expect(text(cache.find('b', 6)?.value)).toBe('1');
    cache.note('a', Buffer.from('3'), 6);
    expect(text(cache.find('a', 6)?.value)).toBe('3');
    for (let n = 0; n < 100; n++) cache.written({ version: 7 + n, points: [], ranges: [{ begin: 'x', end: 'y' }] }, new Map());
    expect(text(cache.find('a', 200)?.value ?? Buffer.from('3'))).toBe('3');
  });

  it('never answers what was not there at that version', () => {
    let seed = 7;
    const random = (below: number) => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
      return Math.floor((seed / 2_147_483_648) * below);
    };
    const names = ['a', 'b', 'c', 'd', 'e'];
    const cache = new ReadCache(2_000);
    /** What each version has; the last one may be on its way. */
    const states: Map<string, Buffer>[] = [new Map()];
    const lastWritten = new Map<string, number>();
    let found = 0;
    for (let step = 0; step < 20_000; step++) {
      const version = states.length - 1;
      const name = names[random(names.length)]!;
      const what = random(10);
      if (what < 3) {
        const isNew = random(2) === 0;
        if (isNew) states.push(new Map(states.at(-1)));
        const state = states.at(-1)!;
        const at = states.length - 1;
        const kind = random(6);
        if (kind === 0) {
          const range = { begin: name, end: names[random(names.length)]! };
          for (const key of names)
            if (key >= range.begin && key < range.end) {
              state.delete(key);
              lastWritten.set(key, at);
            }
          if (range.begin < range.end) cache.written({ version: at, points: [], ranges: [range] }, new Map());
        } else {
          const write = kind === 1 ? null : kind === 2 ? [{ kind: 'add' as const, operand: 1n }] : Buffer.from(`${step}`);
          if (write === null) state.delete(name);
          else state.set(name, Buffer.isBuffer(write) ? write : applyAtomic('add', 1n, state.get(name)));
          lastWritten.set(name, at);
          cache.written({ version: at, points: [name], ranges: [] }, new Map([[name, write]]));
        }
        continue;
      }
      const at = Math.max(0, version - random(3));
      const known = cache.find(name, at);
      if (known) {
        found++;
        expect(known.value ?? null).toEqual(states[at]!.get(name) ?? null);
      } else if ((lastWritten.get(name) ?? 0) <= at) cache.note(name, states[at]!.get(name), at);
    }
    expect(found).toBeGreaterThan(1_000);
  });

  it('gives copies', () => {
    const cache = new ReadCache(10_000);
    cache.note('a', Buffer.from('1'), 1)!.fill('x');
    cache.find('a', 1)!.value!.fill('y');
    expect(text(cache.find('a', 1)?.value)).toBe('1');
  });

  it('stays within its bound, keeps what is asked for, and takes no large values', () => {
    const cache = new ReadCache(100_000);
    for (let n = 0; n < 2_000; n++) {
      cache.note(`key ${n}`, Buffer.alloc(100), 1);
      cache.note('often', Buffer.from('!'), 1);
      expect(cache.size).toBeLessThanOrEqual(400);
      if (n >= 1) expect(cache.find('often', 1)).toBeDefined();
    }
    cache.note('large', Buffer.alloc(100_000), 1);
    expect(cache.find('large', 1)).toBeUndefined();
  });
});

describe('reads of a store', () => {
  let directory: string;
  let store: KvStore;
  const key = (name: string) => Buffer.from(name);
  const read = (name: string) => store.read((reads) => reads.get(key(name)));
  const write = (name: string, value: string) => store.transact(async (tx) => tx.set(key(name), Buffer.from(value)));

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'starling-read-cache-'));
    store = await openEmbeddedStore({ directory, durability: 'none' });
  });

  afterEach(async () => {
    await store.close();
    rmSync(directory, { recursive: true, force: true });
  });

  it('see each commit, in whichever way it has written', async () => {
    expect(await read('a')).toBeUndefined();
    await write('a', '1');
    expect(text(await read('a'))).toBe('1');
    await store.transact(async (tx) => tx.clear(key('a')));
    expect(await read('a')).toBeUndefined();
    await write('a', '2');
    expect(text(await read('a'))).toBe('2');
    await store.transact(async (tx) => tx.clearRange(key('a'), key('b')));
    expect(await read('a')).toBeUndefined();
    await store.transact(async (tx) => tx.add(key('a'), 7n));
    expect((await read('a'))?.readBigUInt64LE()).toBe(7n);
    await store.transact(async (tx) => tx.add(key('a'), 1n));
    expect((await read('a'))?.readBigUInt64LE()).toBe(8n);
  });

  it('keep their view, and leave nothing of it behind for later ones', async () => {
    await write('a', 'old');
    await store.read(async (before) => {
      // Fixes the version without reading the key.
      await before.get(key('other'));
      await write('a', 'new');
      expect(text(await before.get(key('a')))).toBe('old');
      expect(text(await read('a'))).toBe('new');
      expect(text(await before.get(key('a')))).toBe('old');
    });
    expect(text(await read('a'))).toBe('new');
  });

  it('do not find what was read while a commit was on its way', async () => {
    await write('a', 'old');
    const writing = write('a', 'new');
    // The commit is checked by now, but not visible yet: readers see what was before it.
    const during = await read('a');
    await writing;
    expect(['old', 'new']).toContain(text(during));
    expect(text(await read('a'))).toBe('new');
  });
});
