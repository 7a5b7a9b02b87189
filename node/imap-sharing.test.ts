import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../ops/telemetry/index.js';
import { createDirectory } from '../store/directory/index.js';
import { openMemoryStore } from '../store/kv/index.js';
import { imapDirectory, imapSharing } from './imap-sharing.js';
import { imap } from './settings/schemas/imap.js';

async function openDirectory() {
  const kv = openMemoryStore();
  const directory = createDirectory({ kv, clock: systemClock, random: systemRandom, logger: silentLogger });
  await directory.createDomain('example.test');
  return directory;
}

describe('what IMAP knows of others', () => {
  it('is people and groups by any of their addresses, and no lists', async () => {
    const directory = await openDirectory();
    const alice = await directory.createPrincipal({
      kind: 'account',
      address: 'alice@example.test',
      aliases: ['a@example.test'],
    });
    const team = await directory.createPrincipal({
      kind: 'group',
      address: 'team@example.test',
      members: ['alice@example.test'],
    });
    const list = await directory.createPrincipal({ kind: 'list', address: 'list@example.test', members: ['alice@example.test'] });
    const known = imapDirectory(directory);
    const asAlice = { id: alice.id, kind: 'account', address: 'alice@example.test' };
    expect(await known.byAddress('A@Example.test')).toEqual(asAlice);
    expect(await known.byId(alice.id)).toEqual(asAlice);
    expect(await known.byAddress('team@example.test')).toMatchObject({ id: team.id, kind: 'group' });
    expect(await known.byAddress('list@example.test')).toBeUndefined();
    expect(await known.byId(list.id)).toBeUndefined();
    expect(await known.byAddress('no address')).toBeUndefined();
    expect(await known.groupsOf(alice.id)).toEqual([{ id: team.id, address: 'team@example.test' }]);
  });

  it('is named by the settings, two trees never alike', async () => {
    const directory = await openDirectory();
    const of = (settings: object) =>
      imapSharing({ directory, settings: { current: { imap: imap.parse(settings) } } } as unknown as Parameters<
        typeof imapSharing
      >[0]);
    expect(of({})).toMatchObject({
      sharing: { otherUsers: 'Other Users', groups: 'Shared Folders', withEveryone: false },
      serverAnnotations: {},
    });
    expect(of({ otherUsersName: 'X', groupsName: 'X', serverAdmin: 'mailto:p@example.test' })).toMatchObject({
      sharing: { otherUsers: 'X', groups: 'X (groups)' },
      serverAnnotations: { admin: 'mailto:p@example.test' },
    });
    for (const bad of ['', 'a/b', 'a%', 'inbox', ' a', 'a"b', 'a\n']) {
      expect(imap.safeParse({ otherUsersName: bad }).success, bad).toBe(false);
    }
    expect(imap.safeParse({ otherUsersName: 'Autres utilisateurs é' }).success).toBe(true);
  });
});
