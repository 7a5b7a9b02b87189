/**
 * The FoundationDB backend against a real cluster: that of `FDB_CLUSTER_FILE`, whose keys are all cleared first. Without that variable
 * only what needs no server is tried.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Clock, silentLogger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import { describeConformance } from '../conformance.suite.js';
import { KvError, type KvStore, prefixEnd } from '../contract.js';
import { describeIsolation, type FaultRun } from '../isolation/isolation.suite.js';
import { startClient } from './client.js';
import { openFoundationDbStore } from './index.js';
import { decideNextCommit, lostAnswers, openLosingStore } from './losing-answers.suite.js';

const clusterFile = process.env.FDB_CLUSTER_FILE ?? '';
const clientLibrary = process.env.FDB_CLIENT_LIBRARY;
const isClusterGiven = clusterFile !== '';
const untried = 'the FoundationDB backend was not tried: FDB_CLUSTER_FILE names no cluster file';
const canLoad = await startClient({ clientLibrary }).then(
  () => true,
  () => false,
);

function open(clock: Clock = systemClock, file = clusterFile, connectTimeoutMs?: number): Promise<KvStore> {
  const options = { clusterFile: file, clientLibrary, logger: silentLogger, clock, random: systemRandom };
  return openFoundationDbStore({ ...options, connectTimeoutMs });
}

async function failure(promise: Promise<unknown>): Promise<KvError> {
  const error = await promise.then(
    () => undefined,
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(KvError);
  return error as KvError;
}

function key(name: string): Buffer {
  return Buffer.from(`own/${name}`, 'latin1');
}

/** Commits that are applied or lost without an answer, or answered late. */
async function loseAnswers({ stores, signal, random }: FaultRun): Promise<void> {
  while (!signal.aborted) {
    const store = stores[random(stores.length)]!;
    if (random(3) > 0) await lostAnswers.makeNextCommitUnknown(store, random(2) === 0 ? 'applied' : 'lost');
    else {
      decideNextCommit(store, async (commit) => {
        await systemClock.sleep(30);
        await commit();
        await systemClock.sleep(30);
      });
    }
    await systemClock.sleep(random(10));
  }
}

if (!isClusterGiven) console.info(untried);

describe.skipIf(!canLoad)('a cluster that does not answer', () => {
  it('is an error in time, with what to look at, and nothing is left that keeps the process alive', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'fdb-unreachable-'));
    // A port that was free a moment ago, so nobody answers there.
    const port = await new Promise<number>((resolve) => {
      const server = createServer().listen(0, '127.0.0.1', () => {
        const address = server.address();
        server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
      });
    });
    const file = join(directory, 'fdb.cluster');
    writeFileSync(file, `test:abc123@127.0.0.1:${port}\n`);
    const error = await failure(open(systemClock, file, 1_500));
    expect([error.code, error.reason]).toEqual(['unavailable', 'outage']);
    expect(error.message).toMatch(new RegExp(`test:abc123 has not answered within 1500 ms: .*127\\.0\\.0\\.1:${port}`));
    rmSync(directory, { recursive: true });
  });
});

describe.skipIf(isClusterGiven)(untried, () => {
  it.skip('the contract', () => {});
});

if (isClusterGiven) {
  beforeAll(async () => {
    const store = await open();
    await store.transact(async (tx) => tx.clearRange(Buffer.alloc(0), Buffer.of(0xff)));
    await store.close();
  });
  describeConformance(
    { describe, it, beforeAll, afterAll },
    {
      name: 'foundationdb',
      takesClock: true,
      open: (clock = systemClock) => openLosingStore(clusterFile, clientLibrary, clock),
      openAnother: () => open(),
      faults: lostAnswers,
    },
  );
  describeIsolation(
    { describe, it, beforeAll, afterAll },
    {
      name: 'foundationdb',
      open: async () => {
        const stores = await Promise.all([1, 2, 3].map(() => openLosingStore(clusterFile, clientLibrary, systemClock)));
        return {
          stores,
          close: async () => {
            await Promise.all(stores.map((store) => store.close()));
          },
        };
      },
      faults: loseAnswers,
    },
  );
}

describe.skipIf(!isClusterGiven)('on a FoundationDB cluster', () => {
  let store: KvStore;
  beforeAll(async () => {
    store = await open();
  });
  afterAll(() => store.close());

  it('a versionstamped key is a phantom to those who have read where it comes to stand', async () => {
    const log = key('log/');
    const attempt = store.transact(
      async (tx) => {
        await tx.getRange(log, prefixEnd(log));
        await store.transact(async (other) => other.setVersionstampedKey(log, Buffer.from('/x'), Buffer.of(1)));
        tx.set(key('seen'), Buffer.of(1));
      },
      { maxAttempts: 1 },
    );
    expect((await failure(attempt)).code).toBe('conflict');
  });

  it('versionstamped keys may be four bytes shorter than others', async () => {
    const suffix = (keyBytes: number) => Buffer.alloc(keyBytes - 10 - key('long/').length, 0x61);
    await store.transact(async (tx) => tx.setVersionstampedKey(key('long/'), suffix(9_996), Buffer.of(1)));
    const rows = await store.read((reads) => reads.getRange(key('long/'), prefixEnd(key('long/'))));
    expect(rows.map((row) => row.key.length)).toEqual([9_996]);
    const over = store.transact(async (tx) => tx.setVersionstampedKey(key('long/'), suffix(9_997), Buffer.of(1)));
    expect((await failure(over)).code).toBe('too-large');
  });

  it('a version that the cluster has not reached can not be read', async () => {
    const now = await store.transact((tx) => tx.readVersion());
    const error = await failure(store.read((reads) => reads.get(key('k')), { atLeastVersion: now + 1_000_000_000_000n }));
    expect([error.code, error.reason]).toEqual(['unavailable', 'outage']);
  });

  it("FoundationDB's own keys are refused singly and left out of ranges", async () => {
    await expect(store.transact(async (tx) => tx.set(Buffer.of(0xff, 1), Buffer.of(1)))).rejects.toThrow(RangeError);
    await expect(store.read((reads) => reads.get(Buffer.of(0xff)))).rejects.toThrow(RangeError);
    await store.transact(async (tx) => tx.set(Buffer.of(0xfe, 0xff), Buffer.of(7)));
    const rows = await store.transact(async (tx) => {
      tx.addReadConflictRange(Buffer.of(0xfe, 0xff), Buffer.of(0xff, 0xff, 3));
      return tx.getRange(Buffer.of(0xfe, 0xff), Buffer.of(0xff, 0xff, 3));
    });
    expect(rows).toEqual([{ key: Buffer.of(0xfe, 0xff), value: Buffer.of(7) }]);
    await store.transact(async (tx) => tx.clearRange(Buffer.of(0xfe), Buffer.of(0xff, 0xff)));
  });

  it('reads ranges of many bytes completely, in both directions and up to a limit', async () => {
    const name = (at: number) => key(`wide/${String(at).padStart(4, '0')}`);
    for (let part = 0; part < 5; part++) {
      await store.transact(async (tx) => {
        for (let at = 0; at < 400; at++) tx.set(name(part * 400 + at), Buffer.alloc(3_000, at));
      });
    }
    const range = [key('wide/'), prefixEnd(key('wide/'))] as const;
    for (const options of [{}, { reverse: true }, { limit: 1_500 }, { limit: 1_500, reverse: true }, { limit: 900 }]) {
      const rows = await store.read((reads) => reads.getRange(...range, options));
      const all = Array.from({ length: 2_000 }, (_, at) => name(at).toString());
      if ('reverse' in options) all.reverse();
      expect(rows.map((row) => row.key.toString())).toEqual(all.slice(0, options.limit ?? 2_000));
    }
    await store.transact(async (tx) => tx.clearRange(...range));
  });

  it('one transaction writes and watches, and its own write does not wake it', async () => {
    let fired = false;
    const watch = await store.transact(async (tx) => {
      tx.set(key('w'), Buffer.from('mine'));
      tx.setVersionstampedKey(key('w/'), Buffer.alloc(0), Buffer.of(1));
      return tx.watch(key('w'));
    });
    void watch.fired.then(() => {
      fired = true;
    });
    await store.check();
    expect(fired).toBe(false);
    await store.transact(async (tx) => tx.set(key('w'), Buffer.from('other')));
    await watch.fired;
  });

  it('a thousand watches at once, fired, cancelled, and both at the same time', async () => {
    const keys = Array.from({ length: 1_000 }, (_, at) => key(`many/${at}`));
    const watches = await store.transact(async (tx) => keys.map((each) => tx.watch(each)));
    const change = store.transact(async (tx) => {
      for (const each of keys.slice(0, 500)) tx.set(each, Buffer.of(1));
    });
    for (const watch of watches.slice(250)) watch.cancel();
    await change;
    for (const watch of watches) watch.cancel();
    await Promise.all(watches.map((watch) => watch.fired));
  });

  it('a rerun does not begin before the commit that it repeats is decided', async () => {
    const impatient: Clock = { ...systemClock, setTimer: (ms, call, options) => systemClock.setTimer(ms / 20, call, options) };
    const losing = await openLosingStore(clusterFile, clientLibrary, impatient);
    const events: string[] = [];
    // The commit is on its way for longer than anybody waits for its answer, and arrives while the rerun would like to begin.
    decideNextCommit(losing, async (commit) => {
      await systemClock.sleep(400);
      await commit();
      events.push('arrived');
    });
    const found = await losing.transact(async (tx) => {
      events.push('run');
      if (tx.mayHaveCommitted) return tx.get(key('slow'));
      tx.set(key('slow'), Buffer.from('once'));
      return undefined;
    });
    expect(events).toEqual(['run', 'arrived', 'run']);
    expect(found?.toString()).toBe('once');
    await losing.close();
  });

  it('a commit that is never decided ends as unknown, and does not hold up others or close', async () => {
    const impatient: Clock = { ...systemClock, setTimer: (ms, call, options) => systemClock.setTimer(ms / 20, call, options) };
    const losing = await openLosingStore(clusterFile, clientLibrary, impatient);
    const stop = new AbortController();
    decideNextCommit(
      losing,
      () => new Promise((_, reject) => stop.signal.addEventListener('abort', () => reject(stop.signal.reason))),
    );
    const error = await failure(losing.transact(async (tx) => tx.set(key('never'), Buffer.of(1))));
    expect([error.code, error.reason]).toEqual(['commit-unknown', 'outage']);
    await losing.transact(async (tx) => tx.set(key('other'), Buffer.of(1)));
    stop.abort(new Error('the end of the test'));
    await losing.close();
  });

  it('a body that leaves reads alone ends no process', async () => {
    const failed = store.transact(async (tx) => {
      void tx.getRange(Buffer.alloc(0), Buffer.of(0xff));
      void tx.get(key('alone'));
      throw new Error('left');
    });
    await expect(failed).rejects.toThrow('left');
    await store.check();
  });

  it('a stopped body can not use its handle any more', async () => {
    const kept = await store.transact(async (tx) => tx);
    expect(() => kept.set(key('late'), Buffer.of(1))).toThrow(/over/);
    await expect(kept.get(key('late'))).rejects.toThrow(/over/);
  });

  it('after close nothing keeps the process alive, an open watch neither', async () => {
    expect(await child()).toEqual([0, 'unavailable closed\n']);
  });

  it('a process that exits in the middle of its work comes to its end', async () => {
    expect(await child('exit')).toEqual([3, 'in the middle\n']);
  });
});

/** Runs `close-child.ts`; its exit status (or signal) and what it printed. */
async function child(...given: string[]): Promise<[unknown, string]> {
  const script = fileURLToPath(new URL('./close-child.ts', import.meta.url));
  const running = spawn(process.execPath, ['--import', 'tsx', script, ...given], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  running.stdout.on('data', (chunk) => {
    output += chunk;
  });
  const status = await new Promise((resolve) => running.once('close', (code, signal) => resolve(signal ?? code)));
  return [status, output];
}
