import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { openEmbeddedStore } from './store.js';

const workers = vi.hoisted(() => [] as Worker[]);
vi.mock('node:worker_threads', async (importOriginal) => {
  const original = await importOriginal<typeof import('node:worker_threads')>();
  class Recorded extends original.Worker {
    constructor(...parameters: ConstructorParameters<typeof Worker>) {
      super(...parameters);
      workers.push(this);
    }
  }
  return { ...original, Worker: Recorded };
});

const root = mkdtempSync(join(tmpdir(), 'starling-kv-lost-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const key = (name: string | number) => Buffer.from(`k/${name}`);

/** Sends what the writer can't bear, in front of the batch that goes out at the end of this turn of the event loop. */
function loseWriter(): void {
  workers.at(-1)!.postMessage(null);
}

describe('a lost writer thread', () => {
  it('leaves what it was writing unknown, and is replaced; idempotent bodies count once', async () => {
    const store = await openEmbeddedStore({ directory: join(root, 'lost') });
    const countOnce = (id: number) =>
      store.transact(async (tx) => {
        if (await tx.get(key(id))) return;
        tx.set(key(id), Buffer.alloc(500));
        tx.add(Buffer.from('count'), 1n);
      });
    for (let round = 0; round < 3; round++) {
      const running = Promise.all(Array.from({ length: 40 }, (_, at) => countOnce(round * 40 + at)));
      loseWriter();
      await running;
      // The next round's victim is up and at work.
      await store.check();
    }
    expect(workers.length).toBe(4);
    expect((await store.read((reads) => reads.get(Buffer.from('count'))))!.readBigInt64LE()).toBe(120n);
    expect(await store.read((reads) => reads.getRange(key(''), Buffer.from('k0')))).toHaveLength(120);
    await store.close();
  });

  it('costs nobody anything when it was idle, and commits gather until it is replaced', async () => {
    const store = await openEmbeddedStore({ directory: join(root, 'idle') });
    for (let round = 0; round < 3; round++) {
      const victim = workers.at(-1)!;
      const gone = new Promise((resolve) => victim.once('exit', resolve));
      loseWriter();
      await gone;
      const put = (name: string) => store.transact(async (tx) => tx.set(key(name), Buffer.alloc(500)), { maxAttempts: 1 });
      await Promise.all([put(`a${round}`), put(`b${round}`)]);
      await put(`c${round}`);
    }
    expect(await store.read((reads) => reads.getRange(key(''), Buffer.from('k0')))).toHaveLength(9);
    await store.close();
  });

  it('is told as commit-unknown to who does not retry', async () => {
    const store = await openEmbeddedStore({ directory: join(root, 'unknown') });
    const committing = store.transact(async (tx) => tx.set(key('a'), Buffer.alloc(5000)), { maxAttempts: 1 });
    const failing = expect(committing).rejects.toMatchObject({ code: 'commit-unknown' });
    loseWriter();
    await failing;
    await store.check();
    await store.close();
  });
});
