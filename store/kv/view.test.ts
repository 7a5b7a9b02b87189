import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { type KvStore, type KvView, keyAfter, openEmbeddedStore, openEmbeddedView, openMemoryStore } from './index.js';

const root = mkdtempSync(join(tmpdir(), 'starling-view-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let directories = 0;

const numbered = (n: number) => Buffer.from(`row/${String(n).padStart(6, '0')}`);
const [first, last] = [Buffer.from('row/'), Buffer.from('row0')];

async function fill(store: KvStore, count: number, valueBytes: number): Promise<void> {
  for (let from = 0; from < count; from += 100) {
    await store.transact(async (tx) => {
      for (let n = from; n < Math.min(count, from + 100); n++) tx.set(numbered(n), Buffer.alloc(valueBytes, n));
    });
  }
}

async function pages(view: KvView, limit: number): Promise<string[]> {
  const found: string[] = [];
  for (let begin: Buffer = first; ; ) {
    const rows = await view.getRange(begin, last, { limit });
    for (const { key } of rows) found.push(key.toString());
    if (rows.length < limit) return found;
    begin = keyAfter(rows.at(-1)!.key);
  }
}

describe.each([
  { name: 'memory', open: async () => openMemoryStore() as KvStore },
  { name: 'embedded', open: () => openEmbeddedStore({ directory: join(root, String(directories++)), durability: 'none' }) },
])('a view of the $name store', ({ open }) => {
  it('shows what was acknowledged before it was opened, and nothing of what comes after', async () => {
    const store = await open();
    await fill(store, 300, 10);
    const { version } = await store.transactVersioned(async (tx) => tx.set(numbered(0), Buffer.from('before')));
    const view = await store.openView!();
    expect(view.version).toBeGreaterThanOrEqual(version);
    await store.transact(async (tx) => {
      tx.set(numbered(0), Buffer.from('after'));
      tx.set(numbered(1000), Buffer.from('new'));
      tx.clearRange(numbered(100), numbered(200));
    });
    expect((await view.get(numbered(0)))?.toString()).toBe('before');
    expect(await view.get(numbered(1000))).toBeUndefined();
    const many = await view.getMany([numbered(150), numbered(1000), numbered(5)]);
    expect(many.map((value) => value?.length)).toEqual([10, undefined, 10]);
    const all = Array.from({ length: 300 }, (_, n) => numbered(n).toString());
    expect(await pages(view, 7)).toEqual(all);
    expect(await pages(view, 10_000)).toEqual(all);
    const backwards = await view.getRange(first, last, { reverse: true });
    expect(backwards.map(({ key }) => key.toString())).toEqual(all.reverse());
    expect((await view.getRange(numbered(10), numbered(20), { reverse: true, limit: 2 })).map(({ key }) => key)).toEqual([
      numbered(19),
      numbered(18),
    ]);
    await view.close();
    await expect(view.get(numbered(0))).rejects.toMatchObject({ code: 'unavailable' });
    await store.close();
  });

  it('reads ranges that are longer than a page, and others write meanwhile', async () => {
    const store = await open();
    await fill(store, 400, 20_000);
    const view = await store.openView!();
    const reading = view.getRange(first, last);
    const writing = Promise.all(
      Array.from({ length: 50 }, (_, n) => store.transact(async (tx) => tx.set(numbered(n), Buffer.from('changed')))),
    );
    const rows = await reading;
    await writing;
    expect(rows.map(({ value }) => value.length)).toEqual(Array(400).fill(20_000));
    expect(rows.every(({ value }, n) => value[19_999] === n % 256)).toBe(true);
    expect((await view.getRange(first, last, { reverse: true })).map(({ key }) => key)).toEqual(
      rows.map(({ key }) => key).reverse(),
    );
    expect((await view.getMany(rows.map(({ key }) => key))).map((value) => value!.length)).toEqual(Array(400).fill(20_000));
    await store.close();
    await expect(view.get(numbered(0))).rejects.toMatchObject({ code: 'unavailable' });
    await view.close();
  });
});

it('a view beside the process that has the embedded store shows its commits, and one without a store says so', async () => {
  const directory = join(root, 'beside');
  await expect(openEmbeddedView(directory)).rejects.toThrow(/there is no store/);
  const store = await openEmbeddedStore({
    directory,
    durability: 'none',
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
  });
  await fill(store, 10, 10);
  const view = await openEmbeddedView(directory);
  await store.close();
  expect(await pages(view, 100)).toHaveLength(10);
  await view.close();
  // Where no process has it, too.
  const alone = await openEmbeddedView(directory);
  expect(await pages(alone, 100)).toHaveLength(10);
  await alone.close();
});
