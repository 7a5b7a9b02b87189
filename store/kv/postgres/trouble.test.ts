import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import { PostgresServer } from '../../../test-cluster/harness/postgres-server.js';
import { TcpProxy } from '../../../test-cluster/harness/tcp-proxy.js';
import type { KvStore } from '../contract.js';
import { Watch } from '../watches.js';
import { keyHash } from './batch.js';
import { parseEndpoints } from './endpoints.js';
import { isStatementError } from './errors.js';
import { openPostgresStore, type PostgresStoreOptions } from './index.js';
import type { Links } from './links.js';
import { Progress } from './progress.js';
import { WatchFeed } from './watch-feed.js';
import { ChangeHistory } from './watch-index.js';

let server: PostgresServer;
let databases = 0;
beforeAll(async () => {
  server = await PostgresServer.start();
});
afterAll(() => server.remove());

const open = (connectionString: string, options: Partial<PostgresStoreOptions> = {}): Promise<KvStore> =>
  openPostgresStore({ connectionString, logger: silentLogger, clock: systemClock, random: systemRandom, ...options });
const database = () => server.createDatabase(`trouble${databases++}`);
const name = (url: string) => url.slice(url.lastIndexOf('/') + 1);
const k = (text: string) => Buffer.from(text);
const set = (store: KvStore, key: string, value = '1') =>
  store.transactVersioned(async (tx) => tx.set(k(key), k(value)), { maxAttempts: 1 });
const outcomeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'done',
    (error) => error.code,
  );

/** Gives up before the test does, so that what was stopped is set going again. */
async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = systemClock.monotonicMs() + 300_000;
  while (!(await holds())) {
    if (systemClock.monotonicMs() > endMs) throw new Error('it does not come to pass');
    await systemClock.sleep(10);
  }
}

describe('postgres in trouble', () => {
  it('closed while the server hangs, it lets go of its sockets', async () => {
    const sockets = () => process.getActiveResourcesInfo().filter((kind) => kind === 'TCPSocketWrap').length;
    const before = sockets();
    const store = await open(await database(), { answerTimeoutMs: 1_000 });
    await set(store, 'a');
    expect(sockets()).toBeGreaterThan(before);
    server.signalAll('SIGSTOP');
    try {
      await store.close();
      await until(() => sockets() <= before);
    } finally {
      server.signalAll('SIGCONT');
    }
  });

  it('a watch hears of a commit that its own node has given up', async () => {
    const url = await database();
    const store = await open(url, { answerTimeoutMs: 500 });
    await set(store, 'w', 'before');
    const setting = async (value: string) => {
      await server.query(`alter system set synchronous_standby_names = '${value}'`);
      await server.query('select pg_reload_conf()');
    };
    const watch = await store.transact(async (tx) => {
      await tx.get(k('w'));
      return tx.watch(k('w'));
    });
    // The commit is made, but waits for a standby that there is not.
    await setting('nobody');
    await systemClock.sleep(200);
    try {
      expect(await outcomeOf(set(store, 'w', 'after'))).toBe('commit-unknown');
    } finally {
      await setting('');
    }
    await watch.fired;
    await until(async () => String(await store.read((reads) => reads.get(k('w'))).catch(() => '')) === 'after');
    await store.close();
  });
});

// Each of these has a database of its own.
describe.concurrent('postgres and one database in trouble', () => {
  it('closed while it reconnects, it leaves no connection behind', async () => {
    const url = await database();
    const proxy = await TcpProxy.start({ host: '127.0.0.1', port: server.port });
    const store = await open(url.replace(String(server.port), String(proxy.port)));
    const before = proxy.accepted;
    proxy.pause();
    proxy.cutAll();
    await until(() => proxy.accepted >= before + 3);
    await store.close();
    proxy.resume();
    await until(() => proxy.connections === 0);
    const [{ left }] = (await server.query('select count(*)::int as left from pg_stat_activity where datname = $1', [
      name(url),
    ])) as [{ left: number }];
    expect(left).toBe(0);
    await proxy.stop();
  });

  it('what is sent on its channel by others is not believed', async () => {
    const url = await database();
    const store = await open(url);
    const { version } = await set(store, 'a');
    await server.query(`notify starling_commits, '9007199254740000:1:x:*'`, [], name(url));
    await server.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and application_name like '%committer'`,
      [name(url)],
    );
    await systemClock.sleep(50);
    expect(Number((await set(store, 'a')).version - version)).toBeLessThan(1_000);
    // Nor does it make every later watch look changed for ever.
    await until(async () => {
      const watch = await store.transact(async (tx) => {
        await tx.get(k('a'));
        return tx.watch(k('a'));
      });
      const isQuiet = await Promise.race([watch.fired.then(() => false), systemClock.sleep(50).then(() => true)]);
      watch.cancel();
      return isQuiet;
    });
    await store.close();
  });

  it('nobody commits what was read before an older state was restored, on whichever node', async () => {
    const url = await database();
    const [store, other] = [await open(url), await open(url)];
    await set(store, 'a', 'old');
    for (let at = 0; at < 5; at++) await set(store, 'b', 'lost');
    const restore = async () => {
      await server.query(
        `begin; select starling.lock_1(); delete from starling.kv where k = 'b'; truncate starling.recent_0, starling.recent_1;
         delete from starling.commits where version > (select min(version) + 1 from starling.commits); commit`,
        [],
        name(url),
      );
      // One node notices by itself, the other is told.
      await server.query(
        `select pg_terminate_backend(pid) from (select pid from pg_stat_activity where datname = $1
           and application_name like '%committer' order by backend_start limit 1) one`,
        [name(url)],
      );
      await set(store, 'c');
    };
    const copying = (one: KvStore, to: string, meanwhile: () => Promise<unknown>) =>
      outcomeOf(
        one.transact(
          async (tx) => {
            const value = await tx.get(k('b'));
            await meanwhile();
            tx.set(k(to), value!);
          },
          { maxAttempts: 1 },
        ),
      );
    // The second has read a version that the first has never seen.
    let second = '';
    const first = await copying(store, 'copy/1', async () => {
      for (let at = 0; at < 5; at++) await set(other, 'd');
      second = await copying(other, 'copy/2', restore);
    });
    expect([first, second]).toEqual(['too-old', 'too-old']);
    await Promise.all([set(store, 'c'), set(other, 'd')]);
    await Promise.all([store.close(), other.close()]);
  });

  it('a commit that ends every connection is given up, and the others go on', async () => {
    const url = await database();
    const proxy = await TcpProxy.start({ host: '127.0.0.1', port: server.port });
    const store = await open(url.replace(String(server.port), String(proxy.port)), { answerTimeoutMs: 1_000 });
    proxy.onClientBytes((bytes) => (bytes.includes('poison') ? 'cut-before' : undefined));
    const poisoned = outcomeOf(set(store, 'poison'));
    await systemClock.sleep(20);
    const innocent = store.transact(async (tx) => tx.set(k('innocent'), k('1')));
    expect(await poisoned).toBe('commit-unknown');
    await innocent;
    await store.close();
    await proxy.stop();
  });

  it('a transaction that the server refuses takes none of its batch with it', async () => {
    const url = await database();
    const store = await open(url);
    await server.query(`alter table starling.kv add constraint no_poison check (k <> 'poison')`, [], name(url));
    const together = ['a', 'b', 'poison', 'c'].map((key) => outcomeOf(set(store, key)));
    expect(await Promise.all(together)).toEqual(['done', 'done', 'unavailable', 'done']);
    expect(await outcomeOf(set(store, 'poison'))).toBe('unavailable');
    expect(await store.read((reads) => reads.getRange(k('a'), k('z')))).toHaveLength(3);
    await store.close();
  });

  it('functions of others can not take the place of the system’s', async () => {
    const url = await database();
    await server.query(
      `create function public.cardinality(int[]) returns int language sql as 'select 0';
       create function public.int4send(bigint) returns bytea language sql as $$ select '\\x00000000'::bytea $$`,
      [],
      name(url),
    );
    const store = await open(url);
    const stale = store.transact(
      async (tx) => {
        await tx.get(k('a'));
        await set(store, 'a', '2');
        tx.set(k('a'), k('3'));
      },
      { maxAttempts: 1 },
    );
    expect(await outcomeOf(stale)).toBe('conflict');
    await store.close();
  });

  it('a password that is not encoded shows nowhere', () => {
    for (const secret of ['se/cret', 'se?cret', 'se#cret', 's:e/cret', '12/cret']) {
      const parse = () => parseEndpoints(`postgres://mail:${secret}@db.example/starling`);
      expect(parse).toThrow(/percent-encoded/);
      expect(parse).not.toThrow(/cret/);
    }
    const names = (url: string) => parseEndpoints(url).map((endpoint) => endpoint.name);
    expect(names('postgres://u:p,q%2F@db-1.example:5432,[::1]:5433,10.0.0.1/starling?sslmode=require')).toEqual([
      'db-1.example:5432',
      '[::1]:5433',
      '10.0.0.1',
    ]);
    expect(names('postgres:///starling')).toEqual(['localhost']);
  });

  it('knows a failed statement in every language of the server', () => {
    const said = (severity: string | undefined, code: string) => Object.assign(new Error('x'), { severity, code });
    expect(isStatementError(said('ERROR', '53100'))).toBe(true);
    expect(isStatementError(said('FEHLER', '53100'))).toBe(true);
    expect(isStatementError(said('FATAL', '57P01'))).toBe(false);
    expect(isStatementError(said('FATALE', '57P01'))).toBe(false);
    expect(isStatementError(said(undefined, 'EPIPE'))).toBe(false);
  });

  it('an own commit that is told before an earlier one of others is not forgotten', () => {
    const key = keyHash('own');
    const history = new ChangeHistory(0);
    history.record(9, { hashes: [key], ranges: [] });
    history.record(7, { hashes: [key], ranges: [] });
    expect(history.changedSince('own', 8)).toBe(true);
    // Enough further ones to forget it, twice over, all below it.
    for (let round = 0; round < 2; round++) {
      history.record(8, { hashes: Array.from({ length: 20_000 }, (_, at) => at), ranges: [] });
    }
    expect(history.changedSince('own', 8)).toBe(true);

    const progress = new Progress();
    const links = { onSwitch() {}, clock: systemClock } as unknown as Links;
    const feed = new WatchFeed('node', links, progress, systemClock, silentLogger, 'starling');
    progress.note(9);
    feed.committed(9, []);
    feed.missed(7, 'unlisted');
    const watch = new Watch('own');
    feed.arm([watch], 8);
    expect(watch.isSettled).toBe(true);
  });
});
