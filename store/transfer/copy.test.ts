import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { key, subspace } from '../keyspace.js';
import { type KvStore, type KvTransaction, openEmbeddedStore } from '../kv/index.js';
import { createBans, createLimits } from '../limits/index.js';
import { tables } from '../limits/test-bench.js';
import { createLookups } from '../lookups/index.js';
import { decodeState } from '../mail/records.js';
import { type CopyOptions, copyStore, TransferInterrupted, TransferRefused, unfinishedTransfer } from './index.js';
import {
  allRows,
  comparableRows,
  emptyStore,
  furnish,
  type House,
  impatientClock,
  nowSeconds,
  oldNode,
  openHouse,
} from './test-bench.js';

let house: House;
beforeAll(async () => {
  house = openHouse(emptyStore());
  await furnish(house, 60);
});

const copy = (target: KvStore, more: Partial<CopyOptions> = {}) =>
  copyStore({
    source: house.kv,
    target,
    sourceName: 'memory',
    targetName: 'target',
    clock: impatientClock,
    random: systemRandom,
    logger: silentLogger,
    ...more,
  });

/** A store whose process dies: after so many commits nothing gets through any more. `isApplied`: the last one did, unheard. */
function mortal(store: KvStore, commits: number, isApplied: boolean): KvStore {
  let left = commits;
  const dead = () => Promise.reject(new Error('killed'));
  return {
    backend: store.backend,
    transact: async (body, options) => {
      if (left <= 0) return dead();
      if (--left > 0) return store.transact(body, options);
      if (isApplied) await store.transact(body, options);
      return dead();
    },
    transactVersioned: dead,
    read: (body, options) => (left > 0 ? store.read(body, options) : dead()),
    openView: () => (left > 0 ? store.openView!() : dead()),
    check: dead,
    close: async () => {},
  };
}

async function expectWhole(target: KvStore): Promise<void> {
  expect(await comparableRows(target)).toEqual(await comparableRows(house.kv));
  expect(await unfinishedTransfer(target)).toBeUndefined();
}

describe('copying a store', () => {
  it('brings everything but rows of nodes, and tells what it brought', async () => {
    const target = emptyStore();
    const progress: string[] = [];
    const totals = await copy(target, { onProgress: ({ stage }) => progress.push(stage) });
    await expectWhole(target);
    const rows = (await allRows(house.kv)).filter((row) => row.key[1] !== subspace.node);
    expect(totals.keys).toBe(rows.length);
    expect(totals.bytes).toBe(rows.reduce((sum, row) => sum + row.key.length + row.value.length, 0));
    expect(Object.keys(totals.subspaces)).toEqual(['meta', 'directory', 'blob', 'mail', 'queue', 'settings', 'indexing']);
    expect(new Set(progress)).toEqual(new Set(['copying', 'verifying', 'finishing']));
    expect((await allRows(target)).filter((row) => row.key[1] === subspace.node)).toEqual([]);
  });

  it('has accounts go on above what users may see of a source that goes on', async () => {
    const target = emptyStore();
    await copy(target, { mayBeOnline: true });
    const { mail } = openHouse(target);
    const { id } = (await house.directory.principal('bob@example.test'))!;
    const [before, after] = await Promise.all([house.mail.usage(id), mail.usage(id)]);
    expect(after).toEqual({ ...before, modseq: before.modseq + 1_000_000_000 });
    expect((await mail.recount(id)).differences).toEqual([]);
  });

  it('brings bans, greylist entries, known logins and look-up lists, and no counters', async () => {
    const source = emptyStore();
    await furnish(openHouse(source), 1);
    const deps = { kv: source, clock: systemClock, logger: silentLogger };
    const limits = createLimits({ ...deps, nodeId: () => 'node' });
    await limits.bans.add({ network: '192.0.2.0/24', reason: 'operator', note: 'spam' });
    await limits.rates.take('mail', 'a', { count: 5, periodSeconds: 60 });
    await limits.rates.count('mail', 'a', 60);
    await limits.concurrency.acquire('smtp', 'a', 5);
    await limits.greylist.check(
      { network: 'n', sender: 's', recipient: 'r' },
      { delaySeconds: 9, windowSeconds: 99, lifetimeSeconds: 999 },
    );
    await limits.knownLogins.remember({ address: '192.0.2.1', network: '192.0.2.0/24' }, 'alice', 99_000);
    await createLookups(deps).set('list', [{ key: 'k', value: 'v', expiresAtMs: systemClock.nowMs() + 99_000 }]);
    await limits.stop();
    const target = emptyStore();
    await copy(target, { source });
    expect(await tables(target)).toEqual({
      ...{ ban: 1, 'ban-generation': 1, greylist: 1, 'greylist-expiry': 1, 'known-login': 2, 'known-login-expiry': 2 },
    });
    expect(await tables(target, subspace.lookups)).toEqual({ entry: 1, 'entry-expiry': 1 });
    const bans = createBans({ ...deps, kv: target });
    await bans.start();
    expect(bans.find('192.0.2.9')).toMatchObject({ note: 'spam' });
    await bans.add({ network: '198.51.100.1', reason: 'operator', note: '' });
    await bans.reload();
    await bans.stop();
    expect(bans.find('198.51.100.1')).toBeDefined();
  });

  it('frees claims of nodes that are unknown in the target, as a takeover does', async () => {
    const target = emptyStore();
    await copy(target, { clock: { ...impatientClock, nowMs: () => (nowSeconds + 50) * 1000 } });
    const { queue } = openHouse(target);
    expect(await queue.claimHolders()).toEqual([]);
    expect(await house.queue.claimHolders()).toEqual([oldNode.nodeId]);
    const states = (await queue.list()).map(({ destinations }) => destinations.map(({ state, epoch }) => `${state} ${epoch}`));
    expect(states.sort()).toEqual([
      ['due 0', 'due 0'],
      ['due 2', 'due 2'],
      ['held 0', 'held 0'],
    ]);
    expect(await queue.counts(nowSeconds + 50)).toMatchObject({ dueNow: 4, claimed: 0 });
  });

  it('refuses a target that is not empty, and one that somebody else works on', async () => {
    const target = emptyStore();
    await target.transact(async (tx) => tx.set(key(subspace.meta, 'x'), Buffer.of(1)));
    await expect(copy(target)).rejects.toThrow(/target is not empty/);
    expect(await allRows(target)).toHaveLength(1);
    const shared = emptyStore();
    const results = await Promise.allSettled([copy(shared), copy(shared)]);
    const failed = results.filter((result) => result.status === 'rejected').map(({ reason }) => reason as Error);
    expect(failed.every((reason) => reason instanceof TransferRefused && /somebody else/.test(reason.message))).toBe(true);
    await copy(shared).catch((error) => expect(error.message).toMatch(/not empty/));
    await expectWhole(shared);
  });

  it('says of a half-made target what it is, and neither copies nor backs up from it', async () => {
    const target = emptyStore();
    const stop = new AbortController();
    const stopped = copy(target, { signal: stop.signal, maxBatchRows: 50, onProgress: ({ keys }) => keys > 100 && stop.abort() });
    await expect(stopped).rejects.toBeInstanceOf(TransferInterrupted);
    expect(await unfinishedTransfer(target)).toMatch(/unfinished copy of memory/);
    await expect(copy(emptyStore(), { source: target })).rejects.toThrow(/unfinished copy/);
    const other = openHouse(emptyStore());
    await furnish(other, 1);
    await expect(copy(target, { source: other.kv })).rejects.toThrow(/something else/);
    await copy(target);
    await expectWhole(target);
  });

  it('begins anew by itself when the source has changed since the interruption', async () => {
    const source = openHouse(emptyStore());
    const { accountIds } = await furnish(source, 30);
    const target = emptyStore();
    await expect(copy(mortal(target, 20, true), { source: source.kv, maxBatchRows: 30 })).rejects.toThrow('killed');
    const before = (await source.mail.usage(accountIds[0]!)).messages;
    const inbox = (await source.mail.mailboxByPath(accountIds[0]!, ['INBOX']))!.mailbox.id;
    await source.mail.expunge(accountIds[0]!, inbox, [5, 6, 7], { onlyDeleted: false });
    await source.directory.createDomain('another.test');
    await copy(target, { source: source.kv });
    expect(await comparableRows(target)).toEqual(await comparableRows(source.kv));
    const state = await target.read((reads) => reads.get(key(subspace.mail, accountIds[0]!, 'state')));
    expect(decodeState(state!).messages).toBeLessThan(before);
  });

  it.each(['verifying', 'finishing'])('begins anew when it was cut off while %s and the source was used since', async (stage) => {
    const source = openHouse(emptyStore());
    await furnish(source, 30);
    const target = emptyStore();
    const stop = new AbortController();
    const dying: KvStore = {
      ...mortal(target, 1_000, true),
      transact: async (body, options) => {
        if (stage === 'finishing' && options?.label === 'transfer-finish') throw new Error('killed');
        return target.transact(body, options);
      },
    };
    const onProgress: CopyOptions['onProgress'] = (event) => {
      if (stage === 'verifying' && event.stage === 'verifying') stop.abort();
    };
    await expect(copy(dying, { source: source.kv, onProgress, signal: stop.signal })).rejects.toThrow(/interrupted while|killed/);
    await source.directory.createDomain('another.test');
    await copy(target, { source: source.kv });
    expect(await comparableRows(target)).toEqual(await comparableRows(source.kv));
  });

  it('finds a row that was changed behind its back, and does not let the target be used', async () => {
    const target = emptyStore();
    const tampering: KvStore = {
      ...mortal(target, 1_000, true),
      openView: async () => {
        await target.transact(async (tx) => tx.clear(key(subspace.settings, 'current')));
        return target.openView!();
      },
    };
    await expect(copy(tampering)).rejects.toThrow(/not what was written to it: settings has 0 keys instead of 1/);
    expect(await unfinishedTransfer(target)).toMatch(/unfinished/);
    await copy(target);
    await expectWhole(target);
  });

  it('without views it reads the source twice and refuses one that did not stand still', async () => {
    const still: KvStore = { ...mortal(house.kv, 1_000, true), backend: 'foundationdb', openView: undefined };
    const target = emptyStore();
    await copy(target, { source: still });
    await expectWhole(target);
    const source = openHouse(emptyStore());
    await furnish(source, 5);
    let reads = 0;
    const moving: KvStore = {
      ...mortal(source.kv, 1_000, true),
      backend: 'foundationdb',
      openView: undefined,
      read: async (body) => {
        if (++reads === 14)
          await source.kv.transact(async (tx: KvTransaction) => tx.set(key(subspace.meta, 'late'), Buffer.of(1)));
        return source.kv.read(body);
      },
    };
    await expect(copy(emptyStore(), { source: moving, clock: { ...impatientClock } })).rejects.toThrow(
      /meta has \d+ keys|source changed/,
    );
  });
});

it('a copy that is cut off at any commit, heard of or not, goes on and comes out the same', async () => {
  const whole = emptyStore();
  await copy(whole);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ commits: fc.integer({ min: 1, max: 45 }), isApplied: fc.boolean() }), { minLength: 1, maxLength: 6 }),
      fc.record({
        conflict: fc.constantFrom(0, 0.3),
        commitUnknownApplied: fc.constantFrom(0, 0.3),
        commitUnknownLost: fc.constantFrom(0, 0.3),
      }),
      async (deaths, faults) => {
        const target = emptyStore();
        Object.assign(target.faults, faults);
        let isDone = false;
        const attempt = (store: KvStore) =>
          copy(store, { maxBatchRows: 37 }).then(
            () => (isDone = true),
            (error: Error) => {
              // Cut off after the last commit: the copy was whole, only nobody heard of it.
              if (/not empty/.test(error.message)) isDone = true;
              else expect(error.message).toMatch(/^killed|injected/);
            },
          );
        for (const { commits, isApplied } of deaths) if (!isDone) await attempt(mortal(target, commits, isApplied));
        while (!isDone) await attempt(target);
        target.faults.clear();
        await expectWhole(target);
      },
    ),
    { numRuns: 40 },
  );
});

it('goes from memory through an embedded store and back, byte for byte', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'starling-copy-'));
  const embedded = await openEmbeddedStore({ directory, durability: 'none' });
  try {
    await copy(embedded, { clock: systemClock });
    await expectWhole(embedded);
    const back = emptyStore();
    await copy(back, { source: embedded });
    await expectWhole(back);
  } finally {
    await embedded.close();
    rmSync(directory, { recursive: true, force: true });
  }
});
