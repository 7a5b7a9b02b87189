/** Sharing between users where a dialog would say the same thing too often: what is hidden, single rights, and trees of many mailboxes. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { rightsOf } from '../../store/mail/index.js';
import { TestClient } from './testing/client.js';
import { accountIdOf, startTestServer, type TestServer } from './testing/server.js';

const root = 'Other Users/alice@example.test';
let server: TestServer;
let bob: TestClient;

beforeEach(async () => {
  server = await startTestServer();
  await server.deliver('alice', 'INBOX', 'Subject: one\r\n\r\nText\r\n');
  bob = await TestClient.login(server.port, 'bob');
});
afterEach(async () => {
  bob.close();
  await server.close();
});

async function grant(path: string, rights: string, identifier = `user:${accountIdOf('bob')}`): Promise<string> {
  const { mailbox } = (await server.mail.mailboxByPath(accountIdOf('alice'), path.split('/')))!;
  const change = { mode: 'replace', rights: rightsOf(rights) } as const;
  await server.mail.sharing.changeAcl(accountIdOf('alice'), mailbox.id, identifier, change);
  return mailbox.id;
}

/** The tagged reply of a command without its tag. */
const reply = async (text: string) => (await bob.command(text)).at(-1)!.replace(/^\S+ /, '');

const about = (name: string) => [
  `SELECT "${name}"`,
  `EXAMINE "${name}"`,
  `STATUS "${name}" (MESSAGES)`,
  `DELETE "${name}"`,
  `RENAME "${name}" "${root}/New"`,
  `SUBSCRIBE "${name}"`,
  `UNSUBSCRIBE "${name}"`,
  `MYRIGHTS "${name}"`,
  `GETACL "${name}"`,
  `SETACL "${name}" carol lr`,
  `DELETEACL "${name}" carol`,
  `LISTRIGHTS "${name}" carol`,
  `GETQUOTAROOT "${name}"`,
  `GETMETADATA "${name}" /shared/comment`,
  `SETMETADATA "${name}" (/shared/comment "x")`,
  `CREATE "${name}/Inside"`,
  `COPY 1 "${name}"`,
  `MOVE 1 "${name}"`,
  `APPEND "${name}" {5+}\r\nabcde`,
];

describe('a mailbox that must not be known of', () => {
  it.each(['', 'p', 's', 'wte'])('is answered like one that is not there, with rights "%s"', async (rights) => {
    await grant('Archive', rights);
    await server.deliver('bob', 'INBOX', 'Subject: x\r\n\r\n\r\n');
    for (const [at, command] of about(`${root}/Archive`).entries()) {
      await bob.ok('SELECT INBOX');
      const hidden = await reply(command);
      await bob.ok('SELECT INBOX');
      const missing = await reply(about(`${root}/Nothing`)[at]!);
      expect(hidden, command).toBe(missing);
      expect(hidden, command).toMatch(/^NO /);
    }
    expect(await bob.ok('LIST "" "Other*"')).toEqual([]);
    expect(await bob.ok('LIST "" "Other%"')).toEqual([]);
  });

  it('does not show in the tree, though what is in it does', async () => {
    const alice = accountIdOf('alice');
    await server.mail.createMailbox(alice, ['Top', 'Middle', 'Leaf']);
    await grant('Top/Middle/Leaf', 'lr');
    await grant('Top', 'r');
    expect(await bob.ok(`LIST "" "${root}/%" RETURN (MYRIGHTS STATUS (MESSAGES))`)).toEqual([
      `* LIST (\\NonExistent \\HasChildren) "/" "${root}/Top"`,
    ]);
    expect(await bob.ok(`LIST "" "${root}/*"`)).toEqual([`* LIST (\\HasNoChildren) "/" "${root}/Top/Middle/Leaf"`]);
  });
});

describe('single rights', () => {
  it('r alone opens a mailbox whose name is known from elsewhere', async () => {
    await grant('INBOX', 'r');
    expect((await bob.command(`SELECT "${root}/INBOX"`)).at(-1)).toMatch(/OK \[READ-ONLY\]/);
    expect(await bob.ok('FETCH 1 BODY.PEEK[TEXT]')).toEqual(['* 1 FETCH (BODY[TEXT] {6}\r\nText\r\n)']);
    expect(await bob.ok(`LIST "" "${root}/*"`)).toEqual([]);
  });

  it('i alone lets messages in, without flags', async () => {
    await grant('INBOX', 'i');
    expect(await reply(`APPEND "${root}/INBOX" (\\Seen \\Deleted $Work) {5+}\r\nabcde`)).toMatch(/^OK \[APPENDUID/);
    const inbox = (await server.mail.mailboxByPath(accountIdOf('alice'), ['INBOX']))!.mailbox.id;
    const entries = await server.mail.entries(accountIdOf('alice'), inbox);
    expect(entries.map(({ keywords, isDeleted }) => [keywords, isDeleted])).toEqual([
      [[], false],
      [[], false],
    ]);
    expect(await reply(`STATUS "${root}/INBOX" (MESSAGES)`)).toMatch(/^NO \[NONEXISTENT\]/);
  });

  it('are taken away from a member of a group by a negative entry', async () => {
    await grant('INBOX', 'lrs', `group:${accountIdOf('team')}`);
    await grant('INBOX', 's', `-user:${accountIdOf('bob')}`);
    expect(await bob.ok(`MYRIGHTS "${root}/INBOX"`)).toEqual([`* MYRIGHTS "${root}/INBOX" lr`]);
    await grant('INBOX', 'lr', `-group:${accountIdOf('team')}`);
    expect(await reply(`MYRIGHTS "${root}/INBOX"`)).toMatch(/^NO \[NONEXISTENT\]/);
  });

  it('without e, CLOSE expunges nothing and is no failure', async () => {
    const inbox = await grant('INBOX', 'lrt');
    await bob.ok(`SELECT "${root}/INBOX"`);
    await bob.ok('STORE 1 +FLAGS (\\Deleted)');
    await bob.ok('CLOSE');
    expect((await server.mail.entries(accountIdOf('alice'), inbox)).map(({ isDeleted }) => isDeleted)).toEqual([true]);
    await grant('INBOX', 'lrte');
    await bob.ok(`SELECT "${root}/INBOX"`);
    await bob.ok('CLOSE');
    expect(await server.mail.entries(accountIdOf('alice'), inbox)).toEqual([]);
  });
});

describe('a shared mailbox that is removed', () => {
  it('is forgotten, note and subscription', async () => {
    const id = await grant('Archive', 'lr');
    await bob.ok(`SUBSCRIBE "${root}/Archive"`);
    await bob.ok(`LIST "" "${root}/*"`);
    await server.mail.deleteMailbox(accountIdOf('alice'), ['Archive']);
    expect(await bob.ok(`LIST "" "${root}/*"`)).toEqual([]);
    expect(await server.mail.sharing.grants([accountIdOf('bob')])).toEqual([]);
    expect(await bob.ok(`LSUB "" "${root}/*"`)).toEqual([`* LSUB () "/" "${root}/Archive"`]);
    await bob.ok(`UNSUBSCRIBE "${root}/Archive"`);
    expect(await server.mail.sharing.otherSubscriptions(accountIdOf('bob'))).toEqual([]);
    expect((await server.mail.sharing.acls(accountIdOf('alice'), [id]))[0]).toEqual([]);
  });
});

describe('many mailboxes', () => {
  it('of one owner are listed with one look at the owner', async () => {
    const alice = accountIdOf('alice');
    const top = await server.mail.createMailbox(alice, ['All']);
    const everyone = { mode: 'replace', rights: rightsOf('lr') } as const;
    await server.mail.sharing.changeAcl(alice, top.id, 'anyone', everyone);
    for (let at = 0; at < 40; at++) await server.mail.createMailbox(alice, ['All', `m${String(at).padStart(2, '0')}`]);
    const lines = await bob.ok(`LIST "" "${root}/*" RETURN (STATUS (MESSAGES))`);
    expect(lines).toHaveLength(82);
    expect(lines[0]).toBe(`* LIST (\\HasChildren) "/" "${root}/All"`);
    expect(lines.at(-1)).toBe(`* STATUS "${root}/All/m39" (MESSAGES 0)`);
  });
});

describe('a right that is taken back', () => {
  it('while a message comes in is not there when it has come', async () => {
    const inbox = await grant('INBOX', 'lri');
    bob.send(`a APPEND "${root}/INBOX" {5}\r\n`);
    expect(await bob.line()).toMatch(/^\+ /);
    await grant('INBOX', 'lr');
    bob.send('abcde\r\n');
    expect(await bob.line()).toBe('a NO [NOPERM] Permission denied');
    expect(await server.mail.entries(accountIdOf('alice'), inbox)).toHaveLength(1);
  });

  it('while a replacement comes in leaves the old message', async () => {
    const inbox = await grant('INBOX', 'lrite');
    await bob.ok(`SELECT "${root}/INBOX"`);
    bob.send('a REPLACE 1 INBOX {5}\r\n');
    expect(await bob.line()).toMatch(/^\+ /);
    await grant('INBOX', 'lri');
    bob.send('abcde\r\n');
    expect((await bob.until('a')).at(-1)).toBe('a NO [NOPERM] Permission denied');
    expect(await server.mail.entries(accountIdOf('alice'), inbox)).toHaveLength(1);
    expect(await bob.ok('STATUS INBOX (MESSAGES)')).toEqual(['* STATUS INBOX (MESSAGES 0)']);
  });

  it('with the membership of a group ends what NOTIFY tells', async () => {
    let isMember = true;
    const team = { id: accountIdOf('team'), kind: 'group', address: 'team@example.test' } as const;
    const groupsOf = async () => (isMember ? [team] : []);
    const other = await startTestServer({ directory: { groupsOf } });
    await other.mail.ensureAccount(team.id);
    const client = await TestClient.login(other.port, 'bob');
    const inbox = 'Shared Folders/team@example.test/INBOX';
    try {
      await client.ok(`NOTIFY SET (mailboxes "${inbox}" (MessageNew MessageExpunge MailboxName))`);
      await other.deliver('team', 'INBOX', 'Subject: one\r\n\r\n\r\n');
      expect(await client.line()).toMatch(/^\* STATUS ".*INBOX" \(MESSAGES 1 /);
      isMember = false;
      await other.deliver('team', 'INBOX', 'Subject: two\r\n\r\n\r\n');
      await other.deliver('bob', 'INBOX', 'Subject: mine\r\n\r\n\r\n');
      const lines = await client.ok('NOOP');
      expect(lines.filter((line) => line.startsWith('* STATUS'))).toEqual([]);
      expect(await client.ok('NOOP')).toEqual([]);
    } finally {
      client.close();
      await other.close();
    }
  });
});

describe('a copy to another account', () => {
  it('comes whole or not at all, also where it is made in parts', async () => {
    const small = await startTestServer({ quotaLimitBytes: 1_190 });
    const client = await TestClient.login(small.port, 'bob');
    try {
      const alice = accountIdOf('alice');
      await small.mail.ensureAccount(alice);
      const inbox = (await small.mail.mailboxByPath(alice, ['INBOX']))!.mailbox.id;
      const change = { mode: 'replace', rights: rightsOf('lri') } as const;
      await small.mail.sharing.changeAcl(alice, inbox, `user:${accountIdOf('bob')}`, change);
      for (let at = 0; at < 110; at++) await small.deliver('bob', 'INBOX', `Text ${String(at).padStart(5, '0')}`);
      await small.deliver('alice', 'INBOX', 'x'.repeat(100));
      await client.ok('SELECT INBOX');
      expect((await client.command(`COPY 1:* "${root}/INBOX"`)).at(-1)).toMatch(/NO \[OVERQUOTA\]/);
      expect(await small.mail.entries(alice, inbox)).toHaveLength(1);
      expect((await client.command(`COPY 1:100 "${root}/INBOX"`)).at(-1)).toMatch(/OK \[COPYUID/);
    } finally {
      client.close();
      await small.close();
    }
  });
});
