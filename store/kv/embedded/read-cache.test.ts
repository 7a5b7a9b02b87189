import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
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
    cache.written({ points: ['a'], ranges: [] });
    expect(cache.find('a', 9)).toBeUndefined();
    expect(cache.find('none', 9)).toEqual({ value: undefined });
    cache.written({ points: [], ranges: [{ begin: 'x', end: 'y' }] });
    expect(cache.size).toBe(0);
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
