/**
 * A cluster that is killed, comes back, or is another one. Starts servers of its own with the fdbserver of `FDB_SERVER_BINARY` (its
 * fdbcli beside it); without that variable nothing of this is tried.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import { KvError, type KvStore, prefixEnd } from '../contract.js';
import { type FaultRun, isolationRound } from '../isolation/isolation.suite.js';
import { openFoundationDbStore } from './index.js';

const binary = process.env.FDB_SERVER_BINARY ?? '';
const clientLibrary = process.env.FDB_CLIENT_LIBRARY;
const untried = 'outages of FoundationDB were not tried: FDB_SERVER_BINARY names no fdbserver';
if (binary === '') console.info(untried);

const directory = mkdtempSync(join(tmpdir(), 'fdb-outage-'));
const clusterFile = join(directory, 'fdb.cluster');
let port = 0;
let server: ChildProcess | undefined;

function start(): void {
  const address = `127.0.0.1:${port}`;
  const files = ['-C', clusterFile, '-d', join(directory, 'data'), '-L', join(directory, 'log')];
  server = spawn(binary, ['-p', address, '-l', address, ...files], { stdio: 'ignore' });
}

async function kill(): Promise<void> {
  const gone = new Promise((resolve) => server!.once('exit', resolve));
  server!.kill('SIGKILL');
  await gone;
  server = undefined;
}

function open(file = clusterFile, connectTimeoutMs?: number): Promise<KvStore> {
  const options = { clusterFile: file, clientLibrary, logger: silentLogger, clock: systemClock, random: systemRandom };
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

/** Counts once under an id, however often it is run: looks for the id only when an earlier run may have been committed. */
function countOnce(store: KvStore, id: string): Promise<void> {
  const mark = Buffer.from(`done/${id}`);
  return store.transact(async (tx) => {
    if (tx.mayHaveCommitted && (await tx.get(mark))) return;
    tx.set(mark, Buffer.of(1));
    tx.add(Buffer.from('count'), 1n);
  });
}

async function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });
}

describe.skipIf(binary === '')(binary === '' ? untried : 'FoundationDB outages', () => {
  let store: KvStore;
  beforeAll(async () => {
    port = await freePort();
    mkdirSync(join(directory, 'log'));
    writeFileSync(clusterFile, `outage:abc123@127.0.0.1:${port}\n`);
    start();
    const configure = ['-C', clusterFile, '--timeout', '60', '--exec', 'configure new single ssd'];
    const { status, stdout } = spawnSync(join(dirname(binary), 'fdbcli'), configure, { encoding: 'utf8' });
    if (status !== 0) throw new Error(`fdbcli: ${stdout}`);
    store = await open();
  });
  afterAll(async () => {
    await store?.close();
    if (server) await kill();
    rmSync(directory, { recursive: true });
  });

  it('another id in the cluster file is an error in time', async () => {
    const file = join(directory, 'other.cluster');
    writeFileSync(file, `outage:zzz999@127.0.0.1:${port}\n`);
    const error = await failure(open(file, 2_000));
    expect([error.code, error.reason]).toEqual(['unavailable', 'outage']);
    expect(error.message).toContain('outage:zzz999 has not answered within 2000 ms');
  });

  it('SIGKILL under load and a restart: everything that was answered is there, everything counts once', async () => {
    let isOver = false;
    let next = 0;
    const acknowledged: string[] = [];
    const unknown: string[] = [];
    const client = async () => {
      while (!isOver) {
        const id = String(next++);
        try {
          await countOnce(store, id);
          acknowledged.push(id);
        } catch (error) {
          if (!(error instanceof KvError) || error.code !== 'commit-unknown') throw error;
          unknown.push(id);
        }
      }
    };
    const clients = Promise.all(Array.from({ length: 64 }, client));
    for (let round = 0; round < 3; round++) {
      const before = acknowledged.length;
      while (acknowledged.length < before + 500) await systemClock.sleep(20);
      await kill();
      await systemClock.sleep(200);
      start();
    }
    const before = acknowledged.length;
    while (acknowledged.length < before + 500) await systemClock.sleep(20);
    isOver = true;
    await clients;
    const rows = await store.read((reads) => reads.getRange(Buffer.from('done/'), prefixEnd(Buffer.from('done/'))));
    const marks = new Set(rows.map((row) => row.key.subarray(5).toString()));
    expect(acknowledged.filter((id) => !marks.has(id))).toEqual([]);
    const counted = await store.read((reads) => reads.get(Buffer.from('count')));
    expect(counted?.readBigInt64LE()).toBe(BigInt(marks.size));
    expect(marks.size).toBeLessThanOrEqual(acknowledged.length + unknown.length);
  });

  it('SIGKILL and restart under the isolation checker', async () => {
    const stores = [store, await open(), await open()];
    const killing = async ({ signal, random }: FaultRun) => {
      while (!signal.aborted) {
        await systemClock.sleep(300 + random(700));
        await kill();
        start();
        await systemClock.sleep(2_000);
      }
    };
    const options = { clients: 10, maxMs: 12_000, maxTransactions: 100_000, faults: killing };
    const history = await isolationRound(stores, { seed: 1, ...options });
    expect(history.length).toBeGreaterThan(100);
    await Promise.all(stores.slice(1).map((each) => each.close()));
  });

  it('while the server is away reads and commits fail in time, a watch waits, and all goes on when it is back', async () => {
    const watched = Buffer.from('watched');
    const watch = await store.transact(async (tx) => tx.watch(watched));
    await kill();
    const [read, commit, check] = await Promise.all([
      failure(store.read((reads) => reads.get(watched))),
      failure(store.transact(async (tx) => tx.set(Buffer.from('blind'), Buffer.of(1)))),
      failure(store.check()),
    ]);
    expect([read.code, read.reason]).toEqual(['unavailable', 'outage']);
    // It has no version to commit at, so nothing was sent.
    expect([commit.code, commit.reason]).toEqual(['unavailable', 'outage']);
    expect([check.code, check.reason]).toEqual(['unavailable', 'outage']);
    start();
    await store.transact(async (tx) => tx.set(watched, Buffer.from('changed')), { maxAttempts: 10 });
    await watch.fired;
  });

  it('closes while the server is away', async () => {
    const second = await open();
    const watch = await second.transact(async (tx) => tx.watch(Buffer.from('never')));
    await kill();
    const commit = failure(second.transact(async (tx) => tx.set(Buffer.from('late'), Buffer.of(1))));
    const read = failure(second.read((reads) => reads.get(Buffer.from('late'))));
    // Both are on their way by then.
    await systemClock.sleep(100);
    await second.close();
    expect((await commit).code).toBe('unavailable');
    expect((await read).code).toBe('unavailable');
    expect((await failure(watch.fired)).reason).toBe('closed');
    start();
  });
});
