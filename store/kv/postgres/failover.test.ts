import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import { PostgresServer } from '../../../test-cluster/harness/postgres-server.js';
import { KvError, type KvStore } from '../contract.js';
import { openPostgresStore } from './index.js';

const k = (text: string) => Buffer.from(text);
const servers: PostgresServer[] = [];
let primary: PostgresServer;
beforeAll(async () => {
  primary = await PostgresServer.start();
  servers.push(primary);
});
afterAll(async () => {
  for (const server of servers) await server.remove();
});

async function settled<T>(run: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await run();
    } catch (error) {
      if (!(error instanceof KvError) || !['unavailable', 'commit-unknown'].includes(error.code)) throw error;
      await systemClock.sleep(50);
    }
  }
}

async function caughtUp(from: PostgresServer, to: PostgresServer): Promise<void> {
  const [{ lsn }] = (await from.query('select pg_current_wal_lsn()::text as lsn')) as [{ lsn: string }];
  while (!(await to.query('select pg_last_wal_replay_lsn() >= $1::pg_lsn as done', [lsn]))[0]!['done'])
    await systemClock.sleep(10);
}

describe('failover to a standby', () => {
  it('keeps everything when the standby had it, and versions ascend even when it had not', async () => {
    await primary.createDatabase('ha');
    const open = (hosts: readonly PostgresServer[]): Promise<KvStore> =>
      openPostgresStore({
        connectionString: `postgres://starling@${hosts.map((one) => `127.0.0.1:${one.port}`).join(',')}/ha`,
        logger: silentLogger,
        clock: systemClock,
        random: systemRandom,
      });
    const second = await primary.startStandby();
    servers.push(second);
    // The standby is named first: it is passed over as long as it is one.
    const store = await open([second, primary]);
    const other = await open([primary, second]);
    let last = 0n;
    const write = async (one: KvStore, value: string) => {
      const { version } = await settled(() => one.transactVersioned(async (tx) => tx.set(k('value'), k(value))));
      expect(version).toBeGreaterThan(last);
      last = version;
    };
    const value = async (one: KvStore) => String(await settled(() => one.read((reads) => reads.get(k('value')))));
    await write(store, '1');
    await write(other, '2');
    await caughtUp(primary, second);
    await primary.stop('immediate');
    await second.promote();
    expect(await value(store)).toBe('2');
    await write(other, '3');
    expect(await value(store)).toBe('3');

    // A second standby that stops listening: what is committed from now on will be lost with the primary.
    const third = await second.startStandby();
    servers.push(third);
    const trio = await open([second, third]);
    await write(trio, '4');
    await caughtUp(second, third);
    await third.query("alter system set primary_conninfo = ''");
    await third.query('select pg_reload_conf()');
    while ((await third.query('select count(*)::int as n from pg_stat_wal_receiver'))[0]!['n'] !== 0) await systemClock.sleep(20);
    for (let at = 0; at < 20; at++) await write(trio, `lost ${at}`);
    const stale = trio.transact(
      async (tx) => {
        const before = String(await tx.get(k('value')));
        await second.stop('immediate');
        await third.promote();
        await settled(() => trio.check());
        tx.set(k('copy'), k(before));
      },
      { maxAttempts: 1 },
    );
    // It has read what does not exist any more.
    await expect(stale).rejects.toMatchObject({ code: 'too-old' });
    expect(await value(trio)).toBe('4');
    await write(trio, '5');
    const ahead = trio.read((reads) => reads.get(k('value')), { atLeastVersion: last + 1_000n });
    await expect(ahead).rejects.toMatchObject({ code: 'unavailable', reason: 'outage' });
    await Promise.all([store.close(), other.close(), trio.close()]);
  });
});
