import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type KvStore, MemoryDatabase, openEmbeddedStore, openMemoryStore } from '../kv/index.js';
import { keyCount, openBench, openDirectory } from './test-bench.js';

const settle = async (work: Promise<unknown>[]) => (await Promise.allSettled(work)).map(({ status }) => status).sort();

async function raceForAddresses(stores: [KvStore, KvStore]): Promise<void> {
  const [one, two] = [openDirectory(stores[0]), openDirectory(stores[1])];
  await one.createDomain('example.test');
  for (let round = 0; round < 10; round++) {
    const address = `a${round}@example.test`;
    const made = await settle([
      one.createPrincipal({ kind: 'account', address }),
      two.createPrincipal({ kind: 'account', address: `b${round}@example.test`, aliases: [address] }),
    ]);
    expect(made).toEqual(['fulfilled', 'rejected']);
    expect(await one.principal(address)).toBeDefined();
  }
  expect(await one.principals()).toHaveLength(10);
}

describe('two at once', () => {
  it('get one owner per address, on memory', async () => {
    const database = new MemoryDatabase();
    await raceForAddresses([openMemoryStore({ database }), openMemoryStore({ database })]);
  });

  it('get one owner per address, on the embedded store', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'directory-'));
    const kv = await openEmbeddedStore({ directory, durability: 'none' });
    try {
      await raceForAddresses([kv, kv]);
    } finally {
      await kv.close();
      await rm(directory, { recursive: true });
    }
  });

  it('never leave an address in a domain that was removed', async () => {
    const { directory } = await openBench();
    for (let round = 0; round < 20; round++) {
      const name = `d${round}.test`;
      await directory.createDomain(name);
      const address = `a@${name}`;
      expect(await settle([directory.removeDomain(name), directory.createPrincipal({ kind: 'account', address })])).toEqual([
        'fulfilled',
        'rejected',
      ]);
      expect((await directory.principal(address)) !== undefined).toBe(await directory.isLocalDomain(name));
    }
  });
});

describe('commits whose answer is lost', () => {
  it('look like successes, once, whatever the change', async () => {
    const database = new MemoryDatabase();
    const steady = openDirectory(openMemoryStore({ database }));
    for (const isApplied of [true, false]) {
      let commits = 0;
      const kv = openMemoryStore({ database });
      // Of every two commits the first one's answer is lost.
      Object.defineProperty(kv.faults, isApplied ? 'commitUnknownApplied' : 'commitUnknownLost', {
        get: () => (commits++ % 2 === 0 ? 1 : 0),
      });
      const directory = openDirectory(kv);
      await directory.createDomain('example.test');
      const alice = await directory.createPrincipal({
        kind: 'account',
        address: 'alice@example.test',
        aliases: ['al@example.test'],
        password: 'correct horse',
      });
      expect(await steady.principal('al@example.test')).toEqual(alice);
      await directory.updatePrincipal('alice@example.test', { aliases: ['ally@example.test'] });
      const app = await directory.createAppPassword('alice@example.test', 'Phone');
      expect(await steady.verifyPassword('ally@example.test', app)).toMatchObject({ ok: true });
      expect(await steady.appPasswords('alice@example.test')).toHaveLength(1);
      await directory.removeAppPassword('alice@example.test', 'Phone');
      await directory.setPassword('alice@example.test', 'battery staple');
      expect(await steady.verifyPassword('alice@example.test', 'battery staple')).toMatchObject({ ok: true });
      await directory.updateDomain('example.test', { catchAll: 'alice@example.test' });
      expect(await directory.removePrincipal('alice@example.test')).toMatchObject({ id: alice.id });
      await directory.removeDomain('example.test');
      expect(await keyCount(kv)).toBe(0);
      expect(commits).toBe(18);
    }
  });
});
