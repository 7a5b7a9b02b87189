import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Clock, silentLogger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import { PostgresServer } from '../../../test-cluster/harness/postgres-server.js';
import { TcpProxy } from '../../../test-cluster/harness/tcp-proxy.js';
import { describeConformance } from '../conformance.suite.js';
import type { KvStore, KvTransaction } from '../contract.js';
import { openPostgresStore, type PostgresStoreOptions, roundTrips } from './index.js';

let server: PostgresServer;
let proxy: TcpProxy;
let url: string;
let proxied: string;
beforeAll(async () => {
  server = await PostgresServer.start();
  url = await server.createDatabase('conformance');
  proxy = await TcpProxy.start({ host: '127.0.0.1', port: server.port });
  proxied = url.replace(String(server.port), String(proxy.port));
});
afterAll(async () => {
  await proxy.stop();
  await server.remove();
});

const open = (connectionString: string, options: Partial<PostgresStoreOptions> = {}): Promise<KvStore> =>
  openPostgresStore({ connectionString, logger: silentLogger, clock: systemClock, random: systemRandom, ...options });

describeConformance(
  { describe, it, beforeAll, afterAll },
  {
    name: 'postgres',
    takesClock: true,
    open: (clock?: Clock) => open(proxied, clock && { clock }),
    openAnother: () => open(url),
    faults: {
      findsOut: true,
      makeNextCommitUnknown: (_store, outcome) => {
        proxy.cutAt({ pattern: 'commit_1', verdict: outcome === 'applied' ? 'cut-on-reply' : 'cut-before' });
      },
    },
  },
);

const k = (name: string) => Buffer.from(`own/${name}`);

describe('postgres store', () => {
  let store: KvStore;
  beforeAll(async () => {
    store = await open(url, { schema: 'own' });
  });
  afterAll(() => store.close());
  const sql = (text: string) => server.query(text, [], 'conformance');

  async function flightsOf(run: () => Promise<unknown>): Promise<Record<string, number>> {
    const before = { ...roundTrips };
    await run();
    return {
      begin: roundTrips.begin - before.begin,
      read: roundTrips.read - before.read,
      commit: roundTrips.commit - before.commit,
    };
  }

  it('costs a round trip for the first reads and one for the commit', async () => {
    const getAndSet = async (tx: KvTransaction) => {
      await tx.get(k('a'));
      tx.set(k('a'), Buffer.from('1'));
    };
    expect(await flightsOf(() => store.transact(getAndSet))).toEqual({ begin: 1, read: 0, commit: 1 });
    const manyAndRange = async (tx: KvTransaction) => {
      await Promise.all([tx.getMany([k('a'), k('b'), k('c')]), tx.get(k('d')), tx.getRange(k(''), k('z'))]);
      tx.set(k('b'), Buffer.from('1'));
    };
    expect(await flightsOf(() => store.transact(manyAndRange))).toEqual({ begin: 1, read: 0, commit: 1 });
    expect(await flightsOf(() => store.read((reads) => reads.getMany([k('a'), k('b')])))).toEqual({
      begin: 1,
      read: 0,
      commit: 0,
    });
    expect(await flightsOf(() => store.transact(async (tx) => tx.set(k('c'), Buffer.from('1'))))).toEqual({
      begin: 0,
      read: 0,
      commit: 1,
    });
    const twice = async (tx: KvTransaction) => {
      await tx.get(k('a'));
      await tx.getRange(k('a'), k('c'));
    };
    expect(await flightsOf(() => store.transact(twice))).toEqual({ begin: 1, read: 1, commit: 0 });
  });

  it('shares snapshots and commits among those who come together', async () => {
    const client = (at: number) =>
      store.transact(async (tx) => {
        await tx.get(k(`many/${at}`));
        tx.set(k(`many/${at}`), Buffer.from('1'));
      });
    const flights = await flightsOf(() => Promise.all(Array.from({ length: 100 }, (_, at) => client(at))));
    expect(flights).toEqual({ begin: 1, read: 0, commit: 1 });
  });

  it('serves one version for 1,000 rows in one page, and longer ranges by bytes', async () => {
    await store.transact(async (tx) => {
      for (let at = 0; at < 1_000; at++) tx.set(k(`flags/${String(at).padStart(4, '0')}`), Buffer.alloc(60, at));
    });
    let rows = 0;
    const flights = await flightsOf(async () => {
      rows = (await store.read((reads) => reads.getRange(k('flags/'), k('flags0')))).length;
    });
    expect([rows, flights]).toEqual([1_000, { begin: 1, read: 0, commit: 0 }]);
    await store.transact(async (tx) => {
      for (let at = 0; at < 40; at++) tx.set(k(`wide/${String(at).padStart(2, '0')}`), Buffer.alloc(100_000, at));
    });
    for (const reverse of [false, true]) {
      const wide = await store.read((reads) => reads.getRange(k('wide/'), k('wide0'), { reverse }));
      expect(wide.map((row) => row.value[50])).toEqual(Array.from({ length: 40 }, (_, at) => (reverse ? 39 - at : at)));
    }
  });

  it('keeps the order of keys too long for an index among the others, in ranges, clears, additions and stamps', async () => {
    const long = (tail: string, length = 9_000) => Buffer.concat([k('long/'), Buffer.alloc(length, 0x6d), Buffer.from(tail)]);
    const keys = [k('long/a'), long('', 1_990), long('', 3_000), long('1'), long('1\0'), long('2'), k('long/n')];
    await store.transact(async (tx) => {
      for (const [at, key] of [...keys.entries()].reverse()) tx.set(key, Buffer.from(String(at)));
      tx.add(long('sum'), 5n);
    });
    await store.transact(async (tx) => tx.add(long('sum'), 7n));
    const shown = (reverse: boolean) =>
      store.read(async (reads) => {
        const rows = await reads.getRange(k('long/'), k('long0'), { reverse });
        return rows.map(({ value }) => (value.length === 8 ? `sum ${value.readBigInt64LE()}` : value.toString())).join(' ');
      });
    // Of the two that only `m`s tell apart, the shorter comes first; after 9,000 of them come the tails.
    expect(await shown(false)).toBe('0 1 2 3 4 5 sum 12 6');
    expect(await shown(true)).toBe('6 sum 12 5 4 3 2 1 0');
    const some = await store.read((reads) => reads.getMany([k('long/a'), long('1\0'), long('3'), long('2')]));
    expect(some.map((value) => value?.toString())).toEqual(['0', '4', undefined, '5']);
    await store.transact(async (tx) => {
      tx.clear(long('1'));
      tx.clearRange(long('1\0'), long('2'));
      tx.setVersionstampedKey(long('z', 8_000), Buffer.from('tail'), Buffer.from('stamped'));
    });
    expect(await shown(false)).toBe('0 1 2 stamped 5 sum 12 6'.replace('2 stamped 5 sum 12', '2 5 sum 12 stamped'));
    const conflict = store.transact(
      async (tx) => {
        await tx.get(long('2'));
        await store.transact(async (other) => other.set(long('2'), Buffer.from('new')));
        tx.set(k('mine'), Buffer.from('1'));
      },
      { maxAttempts: 1 },
    );
    await expect(conflict).rejects.toMatchObject({ code: 'conflict' });
  });

  it('many nodes may open a new database at once', async () => {
    const fresh = await server.createDatabase('fresh');
    const stores = await Promise.all(Array.from({ length: 5 }, () => open(fresh)));
    await Promise.all(stores.map((one, at) => one.transact(async (tx) => tx.set(k(String(at)), Buffer.from('1')))));
    expect(await stores[0]!.read((reads) => reads.getRange(k(''), k('z')))).toHaveLength(5);
    await Promise.all(stores.map((one) => one.close()));
  });

  // Patience runs out sooner.
  const hurried: Clock = {
    ...systemClock,
    monotonicMs: () => systemClock.monotonicMs() * 10,
    sleep: (delayMs, signal) => systemClock.sleep(delayMs / 10, signal),
  };

  it('says in a sentence what is wrong: rights, database, address, a newer format', async () => {
    await sql('create role guest login');
    const as = (user: string, database: string) => `postgres://${user}@127.0.0.1:${server.port}/${database}`;
    await expect(open(as('guest', 'conformance'), { schema: 'elsewhere' })).rejects.toThrow(/GRANT CREATE ON DATABASE/);
    await expect(open(as('starling', 'nowhere'))).rejects.toThrow(/database "nowhere" does not exist/);
    await expect(open('mysql://127.0.0.1/x')).rejects.toThrow(/must begin with postgres/);
    await expect(open('postgres://x@127.0.0.1:1/x', { clock: hurried })).rejects.toMatchObject({
      code: 'unavailable',
      reason: 'outage',
    });
    await sql('create schema newer; create table newer.format as select 99 as number');
    await expect(open(url, { schema: 'newer' })).rejects.toThrow(/newer version/);
    await expect(open(url, { schema: 'Bad"' })).rejects.toThrow(RangeError);
  });

  it('whatever the isolation level, the write mode and the timeouts of the database are by default', async () => {
    const strict = await server.createDatabase('strict');
    await server.query("alter database strict set default_transaction_isolation = 'serializable'");
    await server.query('alter database strict set default_transaction_read_only = on');
    await server.query(`alter database strict set transaction_timeout = '50ms'`);
    await server.query(`alter database strict set idle_session_timeout = '50ms'`);
    const one = await open(strict);
    const view = await one.openView!();
    const increment = async (tx: KvTransaction) => {
      const n = Number((await tx.get(k('n'))) ?? 0);
      tx.set(k('n'), Buffer.from(String(n + 1)));
    };
    await Promise.all(Array.from({ length: 20 }, () => one.transact(increment)));
    expect(String(await one.read((reads) => reads.get(k('n'))))).toBe('20');
    await systemClock.sleep(150);
    expect(await view.get(k('n'))).toBeUndefined();
    await one.close();
  });

  it('forgets old writes in time, and refuses who has read before that', async () => {
    const grow = () => sql("update own.conflict_window set began_at = began_at - interval '1 hour'");
    const write = (name: string) => store.transact(async (tx) => tx.set(k(name), Buffer.from('1')));
    const old = store.transact(
      async (tx) => {
        await tx.get(k('a'));
        tx.set(k('old'), Buffer.from('1'));
        for (let at = 0; at < 3; at++) {
          await grow();
          await write('other');
          await write('further');
        }
      },
      { maxAttempts: 1 },
    );
    await expect(old).rejects.toMatchObject({ code: 'too-old' });
    const [left] = await sql('select count(*)::int as n from (select from own.recent_0 union all select from own.recent_1) r');
    expect(left!['n']).toBeLessThan(5);
  });

  it('does not wait for somebody who reads the tables of recent writes', async () => {
    const pg = await import('pg');
    const dump = new pg.default.Client({ connectionString: url });
    await dump.connect();
    await dump.query('begin; select count(*) from own.recent_0; select count(*) from own.recent_1');
    for (let at = 0; at < 3; at++) {
      await sql("update own.conflict_window set began_at = began_at - interval '1 hour'");
      await store.transact(async (tx) => tx.set(k('during'), Buffer.from('1')));
    }
    await dump.end();
  });

  it('three nodes: stamps ascend in the order of commits, and each commit is seen by whoever begins later', async () => {
    const stores = await Promise.all([1, 2, 3].map(() => open(url, { schema: 'own', maxConnections: 4 })));
    const done: { version: bigint; begunAt: number; endedAt: number }[] = [];
    let ticks = 0;
    const client = async (at: number) => {
      for (let n = 0; n < 15; n++) {
        const begunAt = ticks++;
        const { version } = await stores[at % 3]!.transactVersioned(async (tx) =>
          tx.setVersionstampedKey(k('stamps/'), Buffer.from(`${at}/${n}`), Buffer.from(String(begunAt))),
        );
        const seen = await stores[(at + 1) % 3]!.transactVersioned(async (tx) => tx.readVersion());
        expect(seen.value).toBeGreaterThanOrEqual(version);
        done.push({ version, begunAt, endedAt: ticks++ });
      }
    };
    await Promise.all(Array.from({ length: 9 }, (_, at) => client(at)));
    for (const a of done) for (const b of done) if (a.endedAt < b.begunAt) expect(b.version).toBeGreaterThan(a.version);
    const rows = await stores[0]!.read((reads) => reads.getRange(k('stamps/'), k('stamps0')));
    expect(rows).toHaveLength(9 * 15);
    const stamped = rows.map(({ key }) => key.readBigUInt64BE(k('stamps/').length));
    expect([...stamped].sort((a, b) => (a < b ? -1 : 1))).toEqual(stamped);
    expect([...new Set(stamped)].sort()).toEqual([...new Set(done.map((one) => one.version))].sort());
    await Promise.all(stores.map((one) => one.close()));
  });

  it('gives a view for backups that outlasts every transaction limit and later commits', async () => {
    await store.transact(async (tx) => tx.set(k('viewed'), Buffer.from('before')));
    const view = await store.openView!();
    await store.transact(async (tx) => tx.set(k('viewed'), Buffer.from('after')));
    expect(String(await view.get(k('viewed')))).toBe('before');
    expect((await view.getRange(k('viewed'), k('viewee'), { limit: 1 }))[0]!.value.toString()).toBe('before');
    expect((await view.getMany([k('viewed'), k('none')])).map(String)).toEqual(['before', 'undefined']);
    await view.close();
    await expect(view.get(k('viewed'))).rejects.toMatchObject({ code: 'unavailable' });
  });
});
