import { describe, expect, it } from 'vitest';
import type { Directory, Resolution } from './contract.js';
import { keyCount, openBench, openDirectory } from './test-bench.js';

const account = (directory: Directory, address: string, more: object = {}) =>
  directory.createPrincipal({ kind: 'account', address, ...more });
const list = (directory: Directory, address: string, members: string[]) =>
  directory.createPrincipal({ kind: 'list', address, members });
const addresses = (found: Resolution) => (found.kind === 'local' ? found.targets.map(({ address }) => address).sort() : found);

describe('domains', () => {
  it('are made, changed, listed and removed', async () => {
    const { directory, kv } = await openBench();
    expect(await directory.isLocalDomain('Example.TEST.')).toBe(true);
    expect(await directory.isLocalDomain('elsewhere.test')).toBe(false);
    await expect(directory.createDomain('EXAMPLE.test')).rejects.toMatchObject({ code: 'exists' });
    await expect(directory.createDomain('no domain')).rejects.toMatchObject({ code: 'bad-domain' });
    await expect(directory.createDomain('x.test', { subaddressSeparators: 'a' })).rejects.toMatchObject({ code: 'bad-domain' });
    const made = await directory.createDomain('Bücher.test', { subaddressSeparators: '-', catchAll: 'Alle@Bücher.test' });
    expect(made).toMatchObject({ name: 'xn--bcher-kva.test', subaddressSeparators: '-', catchAll: 'alle@xn--bcher-kva.test' });
    expect(await directory.updateDomain('bücher.test', { catchAll: null, subaddressSeparators: '' })).not.toHaveProperty(
      'catchAll',
    );
    expect((await directory.domains()).map(({ name }) => name)).toEqual(['example.test', 'xn--bcher-kva.test']);
    expect(Object.keys((await directory.domains())[0]!).sort()).toEqual(['createdAtMs', 'name', 'subaddressSeparators']);
    await directory.removeDomain('bücher.test');
    await expect(directory.removeDomain('bücher.test')).rejects.toMatchObject({ code: 'not-found' });
    await expect(directory.updateDomain('bücher.test', {})).rejects.toMatchObject({ code: 'not-found' });
    await account(directory, 'alice@example.test');
    await expect(directory.removeDomain('example.test')).rejects.toMatchObject({ code: 'in-use' });
    await directory.removePrincipal('alice@example.test');
    await directory.removeDomain('example.test');
    expect(await directory.isLocalDomain('example.test')).toBe(false);
    expect(await keyCount(kv)).toBe(0);
  });
});

describe('principals', () => {
  it('are made, found by every address and by id, changed and removed without a trace', async () => {
    const { directory, kv } = await openBench();
    const before = await keyCount(kv);
    const alice = await account(directory, 'Alice@example.test', {
      aliases: ['al@example.test', 'ALICE@example.test'],
      quotaLimitBytes: 5e9,
      isAdmin: true,
    });
    expect(alice).toMatchObject({
      kind: 'account',
      address: 'alice@example.test',
      aliases: ['al@example.test'],
      isEnabled: true,
      quotaLimitBytes: 5e9,
      members: [],
    });
    expect(alice.id).toMatch(/^[a-z0-9]{16}$/);
    expect(await directory.principal('"AL"@example.test')).toEqual(alice);
    expect(await directory.principalById(alice.id)).toEqual(alice);
    expect(alice).not.toHaveProperty('credential');
    await expect(account(directory, 'al@example.test')).rejects.toMatchObject({ code: 'exists' });
    await expect(account(directory, 'x@example.test', { aliases: ['alice@example.test'] })).rejects.toMatchObject({
      code: 'exists',
    });
    expect(await directory.principal('x@example.test')).toBeUndefined();
    await expect(account(directory, 'x@elsewhere.test')).rejects.toMatchObject({ code: 'bad-domain' });
    await expect(account(directory, 'not an address')).rejects.toMatchObject({ code: 'bad-address' });
    await expect(account(directory, 'x@example.test', { members: ['al@example.test'] })).rejects.toMatchObject({
      code: 'bad-address',
    });
    const changed = await directory.updatePrincipal('al@example.test', {
      aliases: ['ally@example.test'],
      displayName: 'Alice A.',
      quotaLimitBytes: null,
    });
    expect(changed).toMatchObject({ displayName: 'Alice A.', aliases: ['ally@example.test'] });
    expect(changed.quotaLimitBytes).toBeUndefined();
    expect(await directory.principal('al@example.test')).toBeUndefined();
    expect(await directory.principalById(alice.id)).toEqual(changed);
    await account(directory, 'al@example.test');
    await list(directory, 'team@example.test', ['al@example.test']);
    expect((await directory.principals()).map(({ address }) => address)).toEqual([
      'al@example.test',
      'alice@example.test',
      'team@example.test',
    ]);
    expect(await directory.principals('list')).toMatchObject([{ address: 'team@example.test', members: ['al@example.test'] }]);
    for (const address of ['ally@example.test', 'al@example.test', 'team@example.test']) await directory.removePrincipal(address);
    await expect(directory.removePrincipal('alice@example.test')).rejects.toMatchObject({ code: 'not-found' });
    await expect(directory.updatePrincipal('alice@example.test', {})).rejects.toMatchObject({ code: 'not-found' });
    expect(await directory.principalById(alice.id)).toBeUndefined();
    expect(await keyCount(kv)).toBe(before);
  });

  it('keep long member lists whole, also when they get shorter', async () => {
    const { directory } = await openBench();
    const members = Array.from({ length: 9_999 }, (_, index) => `member-number-${index}@outside.test`);
    await list(directory, 'all@example.test', members);
    expect((await directory.principal('all@example.test'))!.members).toEqual(members);
    const found = await directory.resolve('all@example.test');
    expect(found.kind === 'local' && found.remote.length).toBe(9_999);
    await directory.updatePrincipal('all@example.test', { members: members.slice(0, 201) });
    expect((await directory.principal('all@example.test'))!.members).toEqual(members.slice(0, 201));
    await expect(list(directory, 'more@example.test', [...members, 'a@b.c', 'd@e.f'])).rejects.toMatchObject({
      code: 'too-many',
    });
  });
});

describe('resolve', () => {
  it('finds accounts by address, alias and subaddress', async () => {
    const { directory } = await openBench();
    const bob = await account(directory, 'bob@example.test', { aliases: ['bob+exact@example.test'] });
    const target = { accountId: bob.id, address: 'bob@example.test' };
    expect(await directory.resolve('BOB@Example.Test')).toEqual({ kind: 'local', targets: [target], remote: [] });
    expect(await directory.resolve('bob+Lists.Node@example.test')).toEqual({
      kind: 'local',
      targets: [{ ...target, detail: 'Lists.Node' }],
      remote: [],
    });
    expect(await directory.resolve('bob+exact@example.test')).toEqual({ kind: 'local', targets: [target], remote: [] });
    expect(await directory.resolve('bob-x@example.test')).toEqual({ kind: 'unknown' });
    expect(await directory.resolve('x@Elsewhere.test')).toEqual({ kind: 'relay', domain: 'elsewhere.test' });
    expect(await directory.resolve('x@[192.0.2.1]')).toEqual({ kind: 'relay', domain: '[192.0.2.1]' });
    expect(await directory.resolve('nonsense')).toEqual({ kind: 'unknown' });
    await directory.updateDomain('example.test', { subaddressSeparators: '-_' });
    expect(await directory.resolve('bob-x@example.test')).toMatchObject({ targets: [{ detail: 'x' }] });
    expect(await directory.resolve('bob+x@example.test')).toEqual({ kind: 'unknown' });
    await directory.updatePrincipal('bob@example.test', { isEnabled: false });
    expect(await directory.resolve('bob@example.test')).toEqual({ kind: 'disabled' });
  });

  it('answers remembered things right after another directory on the same store changed them', async () => {
    const { directory, kv } = await openBench();
    const other = openDirectory(kv);
    expect(await directory.resolve('bob@example.test')).toEqual({ kind: 'unknown' });
    expect(await directory.resolve('bob@example.test')).toEqual({ kind: 'unknown' });
    const bob = await account(other, 'bob@example.test');
    const found = await directory.resolve('bob@example.test');
    expect(found).toMatchObject({ kind: 'local', targets: [{ accountId: bob.id }] });
    if (found.kind === 'local') found.targets.length = 0;
    expect(await directory.resolve('bob@example.test')).toMatchObject({ targets: [{ accountId: bob.id }] });
    expect((await directory.principalById(bob.id))!.isEnabled).toBe(true);
    expect(await directory.maySendAs(bob.id, 'bob@example.test')).toBe(true);
    await other.updatePrincipal('bob@example.test', { isEnabled: false });
    expect(await directory.resolve('bob@example.test')).toEqual({ kind: 'disabled' });
    expect((await directory.principalById(bob.id))!.isEnabled).toBe(false);
    expect(await directory.maySendAs(bob.id, 'bob@example.test')).toBe(false);
    expect(await directory.isLocalDomain('new.test')).toBe(false);
    await other.createDomain('new.test');
    expect(await directory.isLocalDomain('new.test')).toBe(true);
  });

  it('gives what nobody owns to the catch-all, once', async () => {
    const { directory } = await openBench();
    const alice = await account(directory, 'alice@example.test');
    await directory.createDomain('other.test', { catchAll: 'alice@example.test' });
    expect(await directory.resolve('anything@other.test')).toMatchObject({ targets: [{ accountId: alice.id }] });
    expect(await directory.resolve('postmaster@other.test')).toMatchObject({ targets: [{ accountId: alice.id }] });
    await directory.createDomain('loop.test', { catchAll: 'nobody@loop.test' });
    expect(await directory.resolve('x@loop.test')).toEqual({ kind: 'unknown' });
    expect(await directory.maySendAs(alice.id, 'anything@other.test')).toBe(false);
  });

  it('has a postmaster and an abuse address as long as there is an administrator', async () => {
    const { directory } = await openBench();
    await directory.createDomain('two.test');
    expect(await directory.resolve('postmaster@two.test')).toEqual({ kind: 'unknown' });
    const one = await account(directory, 'admin@example.test', { isAdmin: true });
    const two = await account(directory, 'admin@two.test', { isAdmin: true });
    expect(await directory.resolve('PostMaster@two.test')).toMatchObject({ targets: [{ accountId: two.id }] });
    expect(await directory.resolve('abuse@example.test')).toMatchObject({ targets: [{ accountId: one.id }] });
    expect(await directory.resolve('Postmaster')).toMatchObject({ kind: 'local' });
    await directory.updatePrincipal('admin@two.test', { isAdmin: false });
    expect(await directory.resolve('postmaster@two.test')).toMatchObject({ targets: [{ accountId: one.id }] });
    await directory.updatePrincipal('admin@example.test', { isEnabled: false });
    expect(await directory.resolve('postmaster@two.test')).toEqual({ kind: 'unknown' });
    const real = await account(directory, 'x@two.test', { aliases: ['postmaster@two.test'] });
    expect(await directory.resolve('postmaster@two.test')).toMatchObject({ targets: [{ accountId: real.id }] });
    expect(await directory.resolve('sales@two.test')).toEqual({ kind: 'unknown' });
  });
});

describe('groups', () => {
  it('have a mailbox of their own and let members send as them', async () => {
    const { directory } = await openBench();
    const alice = await account(directory, 'alice@example.test', { aliases: ['al@example.test'] });
    const bob = await account(directory, 'bob@example.test');
    const group = await directory.createPrincipal({
      kind: 'group',
      address: 'info@example.test',
      aliases: ['kontakt@example.test'],
      members: ['AL@example.test'],
    });
    await expect(
      directory.createPrincipal({ kind: 'group', address: 'g@example.test', members: ['nobody@example.test'] }),
    ).rejects.toMatchObject({ code: 'not-found' });
    expect(await directory.resolve('kontakt@example.test')).toMatchObject({
      targets: [{ accountId: group.id, address: 'info@example.test' }],
    });
    expect(await directory.maySendAs(alice.id, 'info+news@example.test')).toBe(true);
    expect(await directory.maySendAs(alice.id, 'al+x@example.test')).toBe(true);
    expect(await directory.maySendAs(bob.id, 'info@example.test')).toBe(false);
    expect(await directory.maySendAs(bob.id, 'alice@example.test')).toBe(false);
    expect(await directory.maySendAs(bob.id, 'bob@elsewhere.test')).toBe(false);
    expect(await directory.maySendAs('nobody', 'alice@example.test')).toBe(false);
    await directory.updatePrincipal('info@example.test', { members: ['bob@example.test'] });
    expect(await directory.maySendAs(alice.id, 'info@example.test')).toBe(false);
    expect(await directory.maySendAs(bob.id, 'info@example.test')).toBe(true);
    await expect(directory.setPassword('info@example.test', 'long enough')).rejects.toMatchObject({ code: 'not-found' });
  });
});

describe('lists', () => {
  it('expand nested, each member once, to outside too, and end in loops', async () => {
    const { directory } = await openBench();
    for (const name of ['alice', 'bob', 'carol'])
      await account(directory, `${name}@example.test`, { aliases: [`${name}2@example.test`] });
    const members = ['alice@example.test', 'Out@Elsewhere.test', 'inner@example.test', 'bob+List@example.test'];
    await list(directory, 'outer@example.test', members);
    await list(directory, 'inner@example.test', [
      'alice2@example.test',
      'carol@example.test',
      'outer@example.test',
      'out@elsewhere.test',
      'inner@example.test',
      'gone@example.test',
    ]);
    const found = await directory.resolve('outer@example.test');
    expect(found).toMatchObject({ kind: 'local', remote: ['out@elsewhere.test'], listAddress: 'outer@example.test' });
    expect(addresses(found)).toEqual(['alice@example.test', 'bob@example.test', 'carol@example.test']);
    expect(found.kind === 'local' && found.targets.find(({ address }) => address === 'bob@example.test')?.detail).toBe('list');
    await directory.updatePrincipal('carol@example.test', { isEnabled: false });
    expect(addresses(await directory.resolve('inner@example.test'))).toEqual(['alice@example.test', 'bob@example.test']);
    await directory.updatePrincipal('outer@example.test', { isEnabled: false });
    expect(await directory.resolve('outer@example.test')).toEqual({ kind: 'disabled' });
    expect(addresses(await directory.resolve('inner@example.test'))).toEqual(['alice@example.test']);
  });

  it('that reach nobody are refused, and those that reach too many', async () => {
    const { directory } = await openBench();
    await list(directory, 'a@example.test', ['b@example.test']);
    await list(directory, 'b@example.test', ['a@example.test']);
    expect(await directory.resolve('a@example.test')).toEqual({ kind: 'disabled' });
    const many = (prefix: string) => Array.from({ length: 6_000 }, (_, index) => `${prefix}${index}@outside.test`);
    await list(directory, 'x@example.test', many('x'));
    await list(directory, 'y@example.test', many('y'));
    await list(directory, 'all@example.test', ['x@example.test', 'y@example.test']);
    await expect(directory.resolve('all@example.test')).rejects.toMatchObject({ code: 'too-many' });
    await directory.updatePrincipal('y@example.test', { members: many('x') });
    const found = await directory.resolve('all@example.test');
    expect(found.kind === 'local' && found.remote.length).toBe(6_000);
  });
});

describe('groups of an account', () => {
  it('are those that name any of its addresses, as long as they are enabled', async () => {
    const { directory } = await openBench();
    const alice = await account(directory, 'alice@example.test', { aliases: ['a@example.test'] });
    const bob = await account(directory, 'bob@example.test');
    const group = (address: string, members: string[]) => directory.createPrincipal({ kind: 'group', address, members });
    expect(await directory.groupsOf(alice.id)).toEqual([]);
    const team = await group('team@example.test', ['alice@example.test', 'a@example.test', 'bob@example.test']);
    const sales = await group('sales@example.test', ['a@example.test']);
    await list(directory, 'list@example.test', ['alice@example.test']);
    const named = ({ id, address }: { id: string; address: string }) => ({ id, address });
    expect(await directory.groupsOf(alice.id)).toEqual([named(sales), named(team)]);
    expect(await directory.groupsOf(bob.id)).toEqual([named(team)]);
    expect(await directory.groupsOf(team.id)).toEqual([]);
    expect(await directory.groupsOf('nobody0000000000')).toEqual([]);
    await directory.updatePrincipal('team@example.test', { members: ['alice@example.test'] });
    expect(await directory.groupsOf(bob.id)).toEqual([]);
    await directory.updatePrincipal('team@example.test', { isEnabled: false });
    expect(await directory.groupsOf(alice.id)).toEqual([named(sales)]);
    await directory.removePrincipal('sales@example.test');
    expect(await directory.groupsOf(alice.id)).toEqual([]);
  });

  it('are found among lists with thousands of members', async () => {
    const { directory } = await openBench();
    const alice = await account(directory, 'alice@example.test');
    for (let at = 0; at < 3; at++)
      await list(
        directory,
        `list${at}@example.test`,
        Array.from({ length: 3_000 }, (_, member) => `m${member}@elsewhere.test`),
      );
    const team = await directory.createPrincipal({
      kind: 'group',
      address: 'team@example.test',
      members: ['alice@example.test'],
    });
    expect((await directory.groupsOf(alice.id)).map(({ id }) => id)).toEqual([team.id]);
  });
});
