import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { systemClock } from '../../../ops/telemetry/index.js';
import type { Snapshot } from '../backend.js';
import { CommitHistory } from '../history.js';
import { ReadCache } from './read-cache.js';
import { SnapshotPool } from './snapshots.js';
import { openWriteConnection } from './sqlite.js';

it('tells everybody who waits for a view when the file can not be read any more', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'snapshots-'));
  const file = join(directory, 'kv.sqlite');
  openWriteConnection({ file, durability: 'none', maxFileBytes: 0 }).close();
  let nowMs = 0;
  const clock = { ...systemClock, monotonicMs: () => nowMs };
  const pool = new SnapshotPool(file, clock, new CommitHistory(), new ReadCache(0));
  // Views that are too old to be shared, until there are no more connections.
  const views: Snapshot[] = [];
  let next = pool.acquire(0);
  while (!(next instanceof Promise)) {
    views.push(next);
    nowMs += 1_000;
    next = pool.acquire(0);
  }
  // More who wait than views whose end could wake them.
  const asked = [next, ...views.map(() => pool.acquire(0)), pool.acquire(0)];
  const waiting = asked.map((one) => Promise.resolve(one).catch((error: unknown) => error));
  for (const view of views) {
    (view as unknown as { view: { connection: { end: { run(): void } } } }).view.connection.end = {
      run() {
        throw new Error('disk I/O error');
      },
    };
  }
  rmSync(directory, { recursive: true });
  for (const view of views) view.release();
  for (const one of waiting) expect(await one).toMatchObject({ code: 'unavailable', reason: 'io' });
  pool.close();
});
