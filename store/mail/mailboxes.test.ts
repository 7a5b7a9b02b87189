import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { blobLinks, mailboxId, newMessage, openRoom, type Room, rowsOf, testBackends } from './fixture.js';
import { AccountKeys } from './keys.js';
import { checkedPath } from './names.js';

/** One store serves all tests of a backend; each test has an account of its own. */
let account = '';
let accounts = 0;

describe('names', () => {
  it('refuses what can not be told apart or written', () => {
    for (const bad of [
      '',
      ' a',
      'a ',
      'a/b',
      'a\nb',
      'a\u0000',
      '\u0085',
      '\ud800',
      'x'.repeat(256),
      'é'.repeat(128),
      '\u2028x',
    ]) {
      expect(() => checkedPath([bad]), JSON.stringify(bad)).toThrow(expect.objectContaining({ code: 'bad-name' }));
    }
    expect(() => checkedPath([])).toThrow(expect.objectContaining({ code: 'bad-name' }));
    expect(() => checkedPath(Array(17).fill('a'))).toThrow(expect.objectContaining({ code: 'bad-name' }));
  });
  it('has one spelling', () => {
    expect(checkedPath(['iNbOx', 'inbox'])).toEqual(['INBOX', 'inbox']);
    expect(checkedPath(['e\u0301'])).toEqual(['é']);
    expect(checkedPath(['x'.repeat(255)])).toHaveLength(1);
  });
});

describe.each(testBackends)('mailboxes on %s', (backend) => {
  let room: Room;

  beforeAll(async () => {
    room = await openRoom(backend);
  });
  afterAll(() => room.close());
  beforeEach(async () => {
    account = `a${++accounts}`;
    await room.mail.ensureAccount(account);
  });
  afterEach(async () => {
    expect((await room.mail.recount(account)).differences).toEqual([]);
  });

  const paths = async () => (await room.mail.mailboxes(account)).map(({ mailbox }) => mailbox.path.join('/'));
  const code = (expected: string) => expect.objectContaining({ code: expected });

  it('makes mailboxes with the parents that are missing', async () => {
    const made = await room.mail.createMailbox(account, ['Work', 'A', 'B']);
    expect(made).toMatchObject({ name: 'B', path: ['Work', 'A', 'B'] });
    expect(await paths()).toEqual(expect.arrayContaining(['Work', 'Work/A', 'Work/A/B']));
    const order = await paths();
    expect(order.indexOf('Work')).toBeLessThan(order.indexOf('Work/A'));
    await expect(room.mail.createMailbox(account, ['Work', 'A'])).rejects.toEqual(code('mailbox-exists'));
    await expect(room.mail.createMailbox(account, ['inbox'])).rejects.toEqual(code('mailbox-exists'));
    await expect(room.mail.createMailbox(account, ['x/y'])).rejects.toEqual(code('bad-name'));
    await expect(room.mail.createMailbox(account, ['Sent2'], { role: 'sent' })).rejects.toEqual(code('not-allowed'));
    await room.mail.createMailbox(account, ['Inbox', 'inbox']);
    expect(await paths()).toContain('INBOX/inbox');
    expect((await room.mail.mailboxById(account, made.id))!.mailbox).toEqual(made);
    expect(await room.mail.mailboxByPath(account, ['Work', 'C'])).toBeUndefined();
    expect(await room.mail.mailboxByPath(account, ['y'.repeat(20_000)])).toBeUndefined();
  });

  it('renames with the children, not beneath itself, not over others', async () => {
    const deep = await room.mail.createMailbox(account, ['Work', 'A', 'B']);
    await room.mail.renameMailbox(account, ['Work'], ['Old', 'Job']);
    expect((await room.mail.mailboxByPath(account, ['Old', 'Job', 'A', 'B']))!.mailbox.id).toBe(deep.id);
    expect(await room.mail.mailboxByPath(account, ['Work'])).toBeUndefined();
    const rename = (from: string[], to: string[]) => room.mail.renameMailbox(account, from, to);
    await expect(rename(['Old'], ['Old', 'x'])).rejects.toEqual(code('not-allowed'));
    await expect(rename(['Old', 'Job'], ['Old', 'Job', 'A', 'new'])).rejects.toEqual(code('not-allowed'));
    await expect(rename(['Old'], ['Sent'])).rejects.toEqual(code('mailbox-exists'));
    await expect(rename(['Old'], ['Old'])).rejects.toEqual(code('mailbox-exists'));
    await expect(rename(['Nothing'], ['x'])).rejects.toEqual(code('no-mailbox'));
    await expect(rename(['Old'], [...Array(14).fill('d'), 'Old'])).rejects.toEqual(code('bad-name'));
    await rename(['Sent'], ['Gesendet']);
    expect((await room.mail.mailboxByPath(account, ['Gesendet']))!.mailbox.role).toBe('sent');
  });

  it('empties INBOX into a new mailbox when it is renamed', async () => {
    const inbox = await mailboxId(room, account, 'INBOX');
    await room.mail.createMailbox(account, ['INBOX', 'child']);
    for (let part = 0; part < 2; part++) {
      const messages = Array.from({ length: 300 }, (_, n) => newMessage(room, [inbox], `${part} ${n}`));
      await room.mail.append(account, messages);
    }
    await room.mail.renameMailbox(account, ['inbox'], ['2024']);
    const moved = (await room.mail.mailboxByPath(account, ['2024']))!;
    expect(moved.counts).toMatchObject({ total: 600, uidNext: 601 });
    expect((await room.mail.mailboxById(account, inbox))!.counts).toMatchObject({ total: 0, uidNext: 601 });
    expect(await paths()).toContain('INBOX/child');
    await expect(room.mail.renameMailbox(account, ['INBOX'], ['2024'])).rejects.toEqual(code('mailbox-exists'));
  });

  it('gives a name that is made again a higher UIDVALIDITY', async () => {
    const first = await room.mail.createMailbox(account, ['x']);
    await room.mail.deleteMailbox(account, ['x']);
    const second = await room.mail.createMailbox(account, ['x']);
    expect(second.uidValidity).toBeGreaterThan(first.uidValidity);
    expect(second.id).not.toBe(first.id);
  });

  it('subscribes and patches, and writes nothing for no change', async () => {
    await room.mail.createMailbox(account, ['x']);
    await room.mail.setSubscribed(account, ['x'], true);
    const { modseq } = await room.mail.usage(account);
    await room.mail.setSubscribed(account, ['x'], true);
    expect((await room.mail.usage(account)).modseq).toBe(modseq);
    const { mailbox } = (await room.mail.mailboxByPath(account, ['x']))!;
    expect(mailbox.isSubscribed).toBe(true);
    await room.mail.updateMailbox(account, mailbox.id, { sortOrder: 5 });
    await expect(room.mail.updateMailbox(account, mailbox.id, { role: 'junk' })).rejects.toEqual(code('not-allowed'));
    expect((await room.mail.mailboxById(account, mailbox.id))!.mailbox).toMatchObject({ sortOrder: 5, isSubscribed: true });
    const inbox = await mailboxId(room, account, 'INBOX');
    await expect(room.mail.updateMailbox(account, inbox, { role: null })).rejects.toEqual(code('not-allowed'));
    await expect(room.mail.setSubscribed(account, ['none'], true)).rejects.toEqual(code('no-mailbox'));
  });

  it('removes a mailbox at once and what is in it step by step', async () => {
    await room.mail.createMailbox(account, ['big', 'child']);
    await expect(room.mail.deleteMailbox(account, ['big'])).rejects.toEqual(code('has-children'));
    await expect(room.mail.deleteMailbox(account, ['iNbox'])).rejects.toEqual(code('not-allowed'));
    await room.mail.deleteMailbox(account, ['big', 'child']);
    const big = await mailboxId(room, account, 'big');
    const inbox = await mailboxId(room, account, 'INBOX');
    for (let part = 0; part < 3; part++) {
      const messages = Array.from({ length: 400 }, (_, n) => newMessage(room, [big], `${part} ${n}`));
      await room.mail.append(account, messages);
    }
    const [kept] = await room.mail.append(account, [newMessage(room, [big, inbox], 'in both')]);
    await room.mail.deleteMailbox(account, ['big']);
    expect(await room.mail.mailboxById(account, big)).toBeUndefined();
    expect(await room.mail.entries(account, big)).toEqual([]);
    await room.mail.idle();
    expect(await room.mail.usage(account)).toMatchObject({ messages: 1, usedBytes: 7 });
    expect((await room.mail.messages(account, [kept!.emailId]))[0]!.mailboxes).toEqual({ [inbox]: 1 });
    const rows = await rowsOf(room.kv, account);
    expect([rows.get('removal'), rows.get('entry'), rows.get('message')]).toEqual([undefined, 1, 1]);
    expect(await blobLinks(room.kv, account)).toHaveLength(1);
  });

  it('goes on with a removal that a crash cut short, and hides what is left meanwhile', async () => {
    const inbox = await mailboxId(room, account, 'INBOX');
    const { id } = await room.mail.createMailbox(account, ['x']);
    const [alone] = await room.mail.append(account, [newMessage(room, [id], 'alone')]);
    const [both] = await room.mail.append(account, [newMessage(room, [id, inbox], 'both')]);
    // As a crash leaves it: the first transaction of the removal happened, nothing after it.
    const { dropMailbox } = await import('./mailboxes.js');
    const { gate } = room.mail;
    const { systemClock: clock, systemRandom: random, silentLogger: logger } = await import('../../ops/telemetry/index.js');
    const keysOf = (accountId: string) => new AccountKeys(accountId);
    const { kv, blobs } = room;
    await dropMailbox({ kv, blobs, clock, random, logger, gate, keysOf, announce: () => undefined }, account, ['x']);

    expect((await room.mail.recount(account)).differences).toEqual([]);
    const [gone, stays] = await room.mail.messages(account, [alone!.emailId, both!.emailId]);
    expect(gone).toBeUndefined();
    expect(stays!.mailboxes).toEqual({ [inbox]: 1 });
    await room.mail.changeFlags(account, inbox, [1], { mode: 'add', keywords: ['$seen'], deleted: false });
    expect(await room.mail.expunge(account, inbox, [1], { onlyDeleted: false })).toEqual([1]);
    expect((await room.mail.recount(account)).differences).toEqual([]);
    await room.mail.resumeRemovals(account);
    expect(await room.mail.usage(account)).toMatchObject({ messages: 0, usedBytes: 0 });
    expect((await rowsOf(room.kv, account)).get('removal')).toBeUndefined();
  });
});
