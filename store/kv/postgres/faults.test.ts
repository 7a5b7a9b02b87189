import { spawnSync } from 'node:child_process';
import { chownSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Clock, silentLogger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import { PostgresServer } from '../../../test-cluster/harness/postgres-server.js';
import { TcpProxy } from '../../../test-cluster/harness/tcp-proxy.js';
import { KvError, type KvStore, type KvTransaction } from '../contract.js';
import { describeIsolation } from '../isolation/isolation.suite.js';
import { openPostgresStore, type PostgresStoreOptions } from './index.js';

let server: PostgresServer;
let databases = 0;
beforeAll(async () => {
  server = await PostgresServer.start();
});
afterAll(() => server.remove());

const open = (connectionString: string, options: Partial<PostgresStoreOptions> = {}): Promise<KvStore> =>
  openPostgresStore({ connectionString, logger: silentLogger, clock: systemClock, random: systemRandom, ...options });
/** Patience runs out sooner. */
const hurried: Clock = {
  ...systemClock,
  monotonicMs: () => systemClock.monotonicMs() * 10,
  sleep: (delayMs, signal) => systemClock.sleep(delayMs / 10, signal),
};
const database = () => server.createDatabase(`faults${databases++}`);
const name = (url: string) => url.slice(url.lastIndexOf('/') + 1);
const k = (text: string) => Buffer.from(text);

async function number(store: KvStore, key: string): Promise<number> {
  return Number((await store.read((reads) => reads.get(k(key))))?.readBigInt64LE() ?? 0n);
}

/** Counts by reading and writing beside an addition, so that a commit which is done twice or half shows. */
async function count(tx: KvTransaction, client: number): Promise<void> {
  const key = k(`client/${client}`);
  const next = Buffer.alloc(8);
  next.writeBigInt64LE(((await tx.get(key))?.readBigInt64LE() ?? 0n) + 1n);
  tx.set(key, next);
  tx.add(k('sum'), 1n);
}

/** Waits until the store works again by itself. */
async function backAgain(store: KvStore): Promise<void> {
  for (;;) {
    const error = await store.check().catch((failure) => failure);
    if (!error) return;
    expect(error).toMatchObject({ code: expect.stringMatching(/^(unavailable|commit-unknown)$/) });
    await systemClock.sleep(50);
  }
}

interface Load {
  acknowledged: number;
  unknown: number;
  failed: number;
  stop(): Promise<void>;
}

/** Clients that count without a pause until they are stopped. */
function underLoad(store: KvStore, clients: number): Load {
  let running = true;
  const load: Load = { acknowledged: 0, unknown: 0, failed: 0, stop: async () => {} };
  const client = async (at: number) => {
    while (running) {
      try {
        await store.transact((tx) => count(tx, at));
        load.acknowledged++;
      } catch (error) {
        if (!(error instanceof KvError)) throw error;
        if (error.code === 'commit-unknown') load.unknown++;
        else if (error.code === 'unavailable') load.failed++;
        else throw error;
        await systemClock.sleep(20);
      }
    }
  };
  const all = Promise.all(Array.from({ length: clients }, (_, at) => client(at)));
  load.stop = async () => {
    running = false;
    await all;
  };
  return load;
}

async function expectCounts(store: KvStore, load: Load, clients: number): Promise<void> {
  const sum = await number(store, 'sum');
  expect(sum).toBeGreaterThanOrEqual(load.acknowledged);
  expect(sum).toBeLessThanOrEqual(load.acknowledged + load.unknown);
  let each = 0;
  for (let at = 0; at < clients; at++) each += await number(store, `client/${at}`);
  expect(each).toBe(sum);
}

describeIsolation(
  { describe, it, beforeAll, afterAll },
  {
    name: 'postgres',
    async open() {
      const url = await database();
      const stores = await Promise.all([1, 2, 3].map(() => open(url, { maxConnections: 5 })));
      return { stores, close: async () => void (await Promise.all(stores.map((store) => store.close()))) };
    },
    /** Kills connections, of commits above all, and now and then the whole server. */
    async faults({ signal, random }) {
      while (!signal.aborted) {
        await systemClock.sleep(30 + random(100));
        if (random(12) === 0) {
          await server.stop('immediate');
          await server.start();
        } else {
          const role = ['committer', 'committer', 'reader', 'listener'][random(4)]!;
          await server.query(
            `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'starling ${role}' and random() < 0.5`,
          );
        }
      }
    },
  },
);

describe('postgres under faults', () => {
  it('the server crashes under load and comes back: nothing acknowledged is lost, nothing is done twice', async () => {
    const store = await open(await database());
    const load = underLoad(store, 12);
    for (let crash = 0; crash < 2; crash++) {
      const before = load.acknowledged;
      while (load.acknowledged < before + 24) await systemClock.sleep(10);
      await server.stop('immediate');
      await server.start();
      const crashed = load.acknowledged;
      while (load.acknowledged < crashed + 24) await systemClock.sleep(10);
    }
    await load.stop();
    await expectCounts(store, load, 12);
    // The server was back before anybody ran out of patience, and batches have ids: nobody had to be told anything.
    expect(load.unknown).toBe(0);
    await store.close();
  });

  it('connections are killed at the commit, again and again', async () => {
    const url = await database();
    const store = await open(url);
    const load = underLoad(store, 8);
    for (let kill = 0; kill < 25; kill++) {
      // Something has gone through since the last one, so that a machine with little time does not kill all the time.
      const before = load.acknowledged;
      do await systemClock.sleep(20);
      while (load.acknowledged === before);
      await server.query(
        `select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and application_name like '%${kill % 3 ? 'committer' : ''}'`,
        [name(url)],
      );
    }
    await load.stop();
    expect([load.unknown, load.failed]).toEqual([0, 0]);
    expect(await number(store, 'sum')).toBe(load.acknowledged);
    await expectCounts(store, load, 8);
    await store.close();
  });

  it('a server that hangs is unavailable within seconds, and everything goes on when it wakes', async () => {
    const store = await open(await database(), { answerTimeoutMs: 800 });
    await store.transact(async (tx) => tx.add(k('sum'), 1n));
    const view = await store.openView!();
    server.signalAll('SIGSTOP');
    try {
      const read = store.read((reads) => reads.get(k('sum')));
      const write = store.transact(async (tx) => tx.add(k('sum'), 1n), { maxAttempts: 1 });
      const [reading, writing] = await Promise.allSettled([read, write]);
      expect(reading).toMatchObject({ status: 'rejected', reason: { code: 'unavailable', reason: 'outage' } });
      expect(writing).toMatchObject({ status: 'rejected', reason: { code: 'commit-unknown' } });
      // Once it is known to be out, nobody waits any more.
      await expect(store.read((reads) => reads.get(k('sum')))).rejects.toMatchObject({ code: 'unavailable', reason: 'outage' });
      await expect(store.check()).rejects.toMatchObject({ code: 'unavailable', reason: 'outage' });
    } finally {
      server.signalAll('SIGCONT');
    }
    await backAgain(store);
    expect([1, 2]).toContain(await number(store, 'sum'));
    await view.close();
    await store.close();
  });
});

// Each of these troubles a database of its own, and most of their time is waiting.
describe.concurrent('postgres under faults of one database', () => {
  it('answers get lost on the way, before and after the server has committed: each batch counts once', async () => {
    const url = await database();
    const proxy = await TcpProxy.start({ host: '127.0.0.1', port: server.port });
    const store = await open(url.replace(String(server.port), String(proxy.port)));
    for (let at = 0; at < 12; at++) {
      const cut = proxy.cutAt({ pattern: 'commit_1', verdict: (['cut-before', 'cut-on-reply', 'cut-after'] as const)[at % 3]! });
      await Promise.all([1, 2, 3].map(() => store.transact(async (tx) => tx.add(k('n'), 1n), { maxAttempts: 1 })));
      expect(cut.hit).toBe(true);
    }
    expect(await number(store, 'n')).toBe(36);
    await store.close();
    await proxy.stop();
  });

  it('a batch that was given up is not committed later by a server that wakes', async () => {
    const url = await database();
    const store = await open(url, { answerTimeoutMs: 1_000 });
    await store.transact(async (tx) => tx.set(k('a'), k('1')));
    // Somebody holds the lock, so the call waits inside the server until after its node has given up.
    const pg = await import('pg');
    const holder = new pg.default.Client({ connectionString: url });
    await holder.connect();
    await holder.query('begin; select starling.lock_1()');
    const outcome = await store.transact(async (tx) => tx.set(k('a'), k('2')), { maxAttempts: 1 }).catch((error) => error);
    expect(outcome).toMatchObject({ code: 'commit-unknown' });
    await holder.query('commit');
    await holder.end();
    // The connection that abandons it waits for the same lock; until it has it, the store is out.
    await backAgain(store);
    await store.transact(async (tx) => tx.set(k('b'), k('3')));
    const [{ pending }] = (await server.query(
      `select count(*)::int as pending from pg_stat_activity where datname = $1 and wait_event = 'advisory'`,
      [name(url)],
    )) as [{ pending: number }];
    expect(pending).toBe(0);
    const [a, b] = await store.read((reads) => reads.getMany([k('a'), k('b')]));
    const [{ abandoned }] = (await server.query(
      'select count(*)::int as abandoned from starling.commits where abandoned',
      [],
      name(url),
    )) as [{ abandoned: number }];
    // Either it had been committed before it was abandoned, or never.
    expect([String(a), abandoned]).toEqual(abandoned ? ['1', 1] : ['2', 0]);
    expect(String(b)).toBe('3');
    await store.close();
  });

  it('a snapshot whose connection is killed is taken anew, and the body runs again', async () => {
    const url = await database();
    const store = await open(url);
    await store.transact(async (tx) => tx.set(k('a'), k('1')));
    let runs = 0;
    const seen = await store.transact(async (tx) => {
      await tx.get(k('b'));
      if (runs++ === 0) {
        await server.query(
          `select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and application_name like '%reader'`,
          [name(url)],
        );
        await systemClock.sleep(50);
      }
      return String(await tx.get(k('a')));
    });
    expect([seen, runs]).toEqual(['1', 2]);
    await store.close();
  });

  it('a check whose connection is killed asks again', async () => {
    const url = await database();
    const store = await open(url);
    const holding = 'begin; lock table starling.kv in access exclusive mode; select pg_sleep(3); commit';
    const held = server.query(holding, [], name(url));
    const count = async (what: string) => (await server.query(what, [name(url)])).length;
    const sleeping = "select pid from pg_stat_activity where datname = $1 and wait_event = 'PgSleep'";
    while ((await count(sleeping)) === 0) await systemClock.sleep(10);
    const asked = store.check();
    const waiting = `select pid from pg_stat_activity where datname = $1 and application_name like '%reader' and wait_event_type = 'Lock'`;
    while ((await count(`select pg_terminate_backend(pid) from (${waiting}) r`)) === 0) await systemClock.sleep(10);
    await held;
    await asked;
    await store.close();
  });

  it('works with the connections that it gets, and says so when it gets none', async () => {
    const url = await database();
    await server.query('create role few login connection limit 4');
    await server.query(`grant all on database "${name(url)}" to few`);
    const limited = url.replace('starling@', 'few@');
    const store = await open(limited, { maxConnections: 10 });
    const slow = async (at: number) =>
      store.transact(async (tx) => {
        await tx.get(k(`slow/${at}`));
        await systemClock.sleep(5);
        tx.set(k(`slow/${at}`), k(String(await tx.get(k('other')))));
      });
    const waves = Array.from({ length: 60 }, async (_, at) => {
      await systemClock.sleep(at);
      await slow(at);
    });
    await Promise.all(waves);
    expect(await store.read((reads) => reads.getRange(k('slow/'), k('slow0')))).toHaveLength(60);
    await expect(open(limited, { maxConnections: 3, clock: hurried })).rejects.toMatchObject({
      code: 'unavailable',
      reason: 'outage',
    });
    await store.close();
  });

  it('watches survive a killed listener and a notice that never comes', async () => {
    const url = await database();
    const [store, other] = [await open(url), await open(url)];
    const watched = () => store.transact(async (tx) => ({ value: await tx.get(k('w')), watch: tx.watch(k('w')) }));
    for (let at = 0; at < 3; at++) {
      const { watch } = await watched();
      await server.query(
        `select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and application_name like '%listener'`,
        [name(url)],
      );
      await other.transact(async (tx) => tx.set(k('w'), k(String(at))));
      await watch.fired;
    }
    // Let the listeners come back; then a commit by somebody who sends no notice.
    const listening = `select count(*)::int as n from pg_stat_activity
      where datname = $1 and application_name like '%listener' and query like 'select max%'`;
    while ((await server.query(listening, [name(url)]))[0]!['n'] !== 2) await systemClock.sleep(20);
    const { watch } = await watched();
    await server.query(
      `begin; select starling.lock_1(); update starling.kv set v = 'x' where k = 'w';
       insert into starling.commits(version, previous) select max(version) + 1, max(version) from starling.commits; commit`,
      [],
      name(url),
    );
    await watch.fired;
    await Promise.all([store.close(), other.close()]);
  });

  it('a disk that is full refuses commits with no-space, reads go on, and commits do when there is space again', async ({
    skip,
  }) => {
    const folder = mkdtempSync(join(tmpdir(), 'starling-full-'));
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=24m,mode=0777', 'starling', folder]).status === 0;
    if (!mounted) {
      rmSync(folder, { recursive: true });
      skip('needs the right to mount a small file system');
    }
    try {
      const space = join(folder, 'space');
      spawnSync('mkdir', [space]);
      chownSync(space, 65_534, 65_534);
      await server.query(`create tablespace small location '${space}'`);
      await server.query('create database full_disk tablespace small');
      const store = await open(server.url('full_disk'));
      let written = 0;
      const value = systemRandom.bytes(90_000);
      const fill = () =>
        store.transact(async (tx) => {
          for (let part = 0; part < 10; part++) tx.set(k(`fill/${written}/${part}`), value);
        });
      let failure: unknown;
      for (; !failure; written++) failure = await fill().catch((error) => error);
      expect(failure).toMatchObject({ code: 'unavailable', reason: 'no-space' });
      expect(await store.read((reads) => reads.get(k('fill/0/9')))).toEqual(value);
      await expect(fill()).rejects.toMatchObject({ code: 'unavailable', reason: 'no-space' });
      spawnSync('mount', ['-o', 'remount,size=48m', folder]);
      await fill();
      await store.close();
      await server.query('drop database full_disk with (force)');
      await server.query('drop tablespace small');
    } finally {
      spawnSync('umount', ['-l', folder]);
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
