import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { KvError, type KvStore } from '../contract.js';
import { openEmbeddedStore } from './store.js';

const root = mkdtempSync(join(tmpdir(), 'starling-kv-crash-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const rounds = 10;
/** What a child has acknowledged at least when it is killed, however slow the disk. */
const acknowledgedBefore = 16;

const sources = fileURLToPath(new URL('../../..', import.meta.url));

/** When something was last changed in a folder. */
function changedMs(folder: string): number {
  const times = readdirSync(folder, { withFileTypes: true, recursive: true }).map((entry) =>
    entry.isFile() ? statSync(join(entry.parentPath, entry.name)).mtimeMs : 0,
  );
  return Math.max(0, ...times);
}

/** `npm test` has compiled everything before. */
const stamp = join(sources, 'dist', '.compiled');
const isCompiled =
  existsSync(stamp) && ['store', 'ops'].every((room) => changedMs(join(sources, room)) < statSync(stamp).mtimeMs);
const compiled = isCompiled ? join(sources, 'dist') : join(root, 'compiled');
const childScript = join(compiled, 'store/kv/embedded/crash-child.js');

const compiledStore = pathToFileURL(join(compiled, 'store/kv/embedded/store.js')).href;

/** The children and who inspects what they leave run from compiled files, as production does; the other tests from the sources. */
beforeAll(() => {
  if (isCompiled) return;
  const compiler = join(sources, 'node_modules/typescript7/bin/tsc');
  const result = spawnSync(process.execPath, [compiler, '-p', join(sources, 'tsconfig.build.json'), '--outDir', compiled]);
  if (!existsSync(childScript)) throw new Error(`the compiler wrote nothing: ${result.stdout}${result.stderr}`);
  writeFileSync(join(compiled, 'package.json'), '{"type":"module"}');
  symlinkSync(join(sources, 'node_modules'), join(compiled, 'node_modules'));
});

/** A child process, started ahead of its turn because that takes longer than its life. */
class Victim {
  /** Numbers that it has acknowledged so far. */
  readonly acknowledged: number[] = [];
  readonly process: ChildProcess;
  #errors = '';

  constructor() {
    this.process = spawn(process.execPath, [childScript], { stdio: 'pipe' });
    this.process.stderr!.on('data', (chunk) => (this.#errors += chunk));
    this.process.stdin!.on('error', () => {});
  }

  /** Resolves when it has opened the store and commits. */
  async begin(directory: string, first: number): Promise<void> {
    this.process.stdin!.write(`${first} ${directory}\n`);
    await new Promise<void>((resolve, reject) => {
      let rest = '';
      this.process.stdout!.on('data', (chunk) => {
        const lines = (rest + chunk).split('\n');
        rest = lines.pop()!;
        for (const line of lines) {
          if (line === 'ready') resolve();
          else this.acknowledged.push(Number(line));
        }
      });
      this.process.once('exit', () => reject(new Error(`the child ended: ${this.#errors}`)));
    });
  }
}

async function kill(victim: Victim): Promise<void> {
  const closed = once(victim.process, 'close');
  victim.process.kill('SIGKILL');
  await closed;
}

async function readAll(store: KvStore, prefix: string): Promise<Map<string, string>> {
  const rows = await store.read((reads) => reads.getRange(Buffer.from(`${prefix}/`), Buffer.from(`${prefix}0`)));
  return new Map(rows.map((row) => [row.key.toString().slice(prefix.length + 1), row.value.toString('latin1')]));
}

/** Checks the file that a killed process left behind; tells the number after the highest. */
async function inspect(directory: string, acknowledged: ReadonlySet<number>): Promise<number> {
  const { openEmbeddedStore: openCompiled } = (await import(compiledStore)) as typeof import('./store.js');
  const store = await openCompiled({ directory });
  try {
    const [left, right] = [await readAll(store, 'left'), await readAll(store, 'right')];
    expect(left).toEqual(right);
    const found = [...left.keys()].map(Number);
    const lost = [...acknowledged].filter((number) => !left.has(String(number).padStart(9, '0')));
    expect(lost).toEqual([]);
    for (const [name, value] of left) expect(value.length).toBe(50 + ((Number(name) * 7919) % 9000));
    const count = await store.read((reads) => reads.get(Buffer.from('count')));
    expect(Number(count?.readBigInt64LE() ?? 0n)).toBe(found.length);
    await store.check();
    return Math.max(0, ...found) + 1;
  } finally {
    await store.close();
  }
}

describe('a process killed with SIGKILL', () => {
  it('loses no acknowledged commit and leaves none half done', async () => {
    const directory = join(root, 'killed');
    const acknowledged = new Set<number>();
    let next = 0;
    const ahead = [new Victim(), new Victim()];
    for (let round = 0; round < rounds; round++) {
      const victim = ahead.shift()!;
      if (round + 2 < rounds) ahead.push(new Victim());
      await victim.begin(directory, next);
      while (victim.acknowledged.length < acknowledgedBefore) await new Promise((resolve) => setTimeout(resolve, 1));
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 250));
      await kill(victim);
      for (const number of victim.acknowledged) acknowledged.add(number);
      // Numbers of commits that nobody heard of are left out, so that each is used once.
      next = Math.max(next, await inspect(directory, acknowledged)) + 100;
    }
    expect(acknowledged.size).toBeGreaterThanOrEqual(rounds * acknowledgedBefore);
  });

  it('keeps others out while it lives, and not a moment longer', async () => {
    const directory = join(root, 'locked');
    const victim = new Victim();
    await victim.begin(directory, 0);
    const second = openEmbeddedStore({ directory });
    await expect(second).rejects.toMatchObject({ name: 'KvError', code: 'unavailable' });
    await expect(second).rejects.toThrow(`the store in ${directory} is in use by another process`);
    await kill(victim);
    await (await openEmbeddedStore({ directory })).close();
  });
});

it('one process opens a directory once, too', async () => {
  const directory = join(root, 'twice');
  const first = await openEmbeddedStore({ directory });
  await expect(openEmbeddedStore({ directory })).rejects.toMatchObject({ code: 'unavailable' });
  await first.close();
  await (await openEmbeddedStore({ directory })).close();
});

it('a file that is no database is refused with its name', async () => {
  const directory = join(root, 'garbage');
  mkdirSync(directory);
  writeFileSync(join(directory, 'kv.sqlite'), Buffer.alloc(8192, 0x41));
  await expect(openEmbeddedStore({ directory })).rejects.toThrow(/kv\.sqlite can't be opened/);
});

/** Fills until there is no space; the number of values that were acknowledged. */
async function fillUp(store: KvStore): Promise<number> {
  for (let at = 0; ; at++) {
    try {
      await store.transact(async (tx) => {
        tx.set(Buffer.from(`fill/a${at}`), Buffer.alloc(40_000, at));
        tx.set(Buffer.from(`fill/b${at}`), Buffer.alloc(40_000, at));
      });
    } catch (error) {
      expect(error).toBeInstanceOf(KvError);
      expect(error).toMatchObject({ code: 'unavailable', reason: 'no-space' });
      return at;
    }
  }
}

/** Every acknowledged pair is there, nothing else is, and both halves agree. */
async function expectFilled(store: KvStore, pairs: number): Promise<void> {
  const rows = await store.read((reads) => reads.getRange(Buffer.from('fill/'), Buffer.from('fill0')));
  expect(rows.length).toBe(pairs * 2);
  for (const { key, value } of rows) expect(value.equals(Buffer.alloc(40_000, Number(key.subarray(6).toString())))).toBe(true);
}

describe('no space', () => {
  it('fails with no-space at a size limit, keeps all, and goes on after room was made', async () => {
    const store = await openEmbeddedStore({ directory: join(root, 'limited'), maxFileBytes: 3_000_000 });
    const pairs = await fillUp(store);
    expect(pairs).toBeGreaterThan(20);
    await expectFilled(store, pairs);
    // The failed attempt left no conflict behind: reading and writing the same keys works at once.
    const contested = store.transact(
      async (tx) => {
        await tx.get(Buffer.from(`fill/a${pairs}`));
        tx.clearRange(Buffer.from('fill/'), Buffer.from('fill/a9'));
      },
      { maxAttempts: 1 },
    );
    await contested;
    await store.transact(async (tx) => tx.set(Buffer.from('fill/a1'), Buffer.alloc(40_000)));
    await store.check();
    await store.close();
  });

  it.runIf(canMount())('fails with no-space on a full disk, and goes on by itself when it has room again', async () => {
    const mountPoint = join(root, 'disk');
    mkdirSync(mountPoint);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', mountPoint]);
    try {
      const ballast = join(mountPoint, 'ballast');
      writeFileSync(ballast, Buffer.alloc(12_000_000));
      const directory = join(mountPoint, 'store');
      let store = await openEmbeddedStore({ directory });
      const watch = await store.transact(async (tx) => tx.watch(Buffer.from('watched')));
      const first = await fillUp(store);
      expect(first).toBeGreaterThan(10);
      await expectFilled(store, first);
      // A small commit may still fit where a large one did not.
      const checks = async () => {
        for (let n = 0; n < 100; n++) await store.check();
      };
      await expect(checks()).rejects.toMatchObject({ reason: 'no-space' });
      rmSync(ballast);
      await store.check();
      await store.transact(async (tx) => tx.set(Buffer.from('watched'), Buffer.from('1')));
      await watch.fired;
      const second = await fillUp(store);
      expect(second).toBeGreaterThan(first);
      await store.close();
      store = await openEmbeddedStore({ directory });
      await expectFilled(store, second);
      await store.close();
    } finally {
      execFileSync('umount', ['-l', mountPoint]);
    }
  });
});

/** Whether this process may mount file systems (root with the capability). */
function canMount(): boolean {
  if (process.getuid?.() !== 0) return false;
  const probe = mkdtempSync(join(root, 'probe-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', probe], { stdio: 'ignore' });
    execFileSync('umount', [probe], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
