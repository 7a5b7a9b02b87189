/** REPLACE on the store: both or neither, within an account and between two. */
import { afterEach, describe, expect, it } from 'vitest';
import { mailboxId, newMessage, openRoom, type Room } from './fixture.js';

const alice = 'alice0000000000a';
const bob = 'bob000000000000b';
let room: Room;

afterEach(async () => {
  for (const accountId of [alice, bob]) expect((await room.mail.recount(accountId)).differences).toEqual([]);
  await room.close();
});

async function open(faults = {}): Promise<{ inbox: string; drafts: string; theirs: string }> {
  room = await openRoom('memory', { faults });
  await room.mail.ensureAccount(alice);
  await room.mail.ensureAccount(bob);
  return {
    inbox: await mailboxId(room, alice, 'INBOX'),
    drafts: await mailboxId(room, alice, 'Drafts'),
    theirs: await mailboxId(room, bob, 'INBOX'),
  };
}

const uidsOf = async (accountId: string, id: string) => (await room.mail.entries(accountId, id)).map(({ uid }) => uid);
const from = (mailboxOfAlice: string) => ({ accountId: alice, mailboxId: mailboxOfAlice });

describe('replace', () => {
  it('is one change, keeps the thread, and needs room for the difference only', async () => {
    const { drafts } = await open();
    const [first] = await room.mail.append(alice, [newMessage(room, [drafts], 'first text', { messageIds: ['draft@x'] })]);
    const before = await room.mail.usage(alice);
    const again = newMessage(room, [drafts], 'second text', { messageIds: ['draft@x'] });
    const inserted = await room.mail.replace(from(drafts), 1, alice, again, { quotaLimitBytes: 11 });
    expect(inserted.uids[0]!.uid).toBe(2);
    expect(inserted.threadId).toBe(first!.threadId);
    expect(await uidsOf(alice, drafts)).toEqual([2]);
    expect(await room.mail.usage(alice)).toMatchObject({ usedBytes: 11, messages: 1, modseq: before.modseq + 1 });
    const more = newMessage(room, [drafts], 'a longer text');
    await expect(room.mail.replace(from(drafts), 2, alice, more, { quotaLimitBytes: 12 })).rejects.toMatchObject({
      code: 'over-quota',
    });
    expect(await uidsOf(alice, drafts)).toEqual([2]);
  });

  it('puts nothing in for a message that is gone, and takes nothing out for a mailbox that is', async () => {
    const { inbox, drafts } = await open();
    await room.mail.append(alice, [newMessage(room, [drafts], 'one')]);
    await expect(room.mail.replace(from(drafts), 7, alice, newMessage(room, [inbox], 'new'))).rejects.toMatchObject({
      code: 'no-message',
    });
    await expect(room.mail.replace(from(drafts), 1, alice, newMessage(room, ['nowhere'], 'new'))).rejects.toMatchObject({
      code: 'no-mailbox',
    });
    expect(await uidsOf(alice, inbox)).toEqual([]);
    expect(await uidsOf(alice, drafts)).toEqual([1]);
  });

  it('leaves what is in another mailbox as well', async () => {
    const { inbox, drafts } = await open();
    await room.mail.append(alice, [newMessage(room, [inbox, drafts], 'both')]);
    await room.mail.replace(from(drafts), 1, alice, newMessage(room, [inbox], 'new'));
    expect(await uidsOf(alice, inbox)).toEqual([1, 2]);
    expect(await uidsOf(alice, drafts)).toEqual([]);
  });

  it('reaches into another account in one transaction', async () => {
    const { drafts, theirs } = await open();
    await room.mail.append(alice, [newMessage(room, [drafts], 'mine')]);
    const over = newMessage(room, [theirs], 'theirs');
    await expect(room.mail.replace(from(drafts), 1, bob, over, { quotaLimitBytes: 5 })).rejects.toMatchObject({
      code: 'over-quota',
    });
    expect(await uidsOf(alice, drafts)).toEqual([1]);
    await room.mail.replace(from(drafts), 1, bob, newMessage(room, [theirs], 'theirs'));
    expect([await uidsOf(alice, drafts), await uidsOf(bob, theirs)]).toEqual([[], [1]]);
  });

  it('is done once under unknown commits', async () => {
    const { drafts, theirs } = await open({ commitUnknownApplied: 0.3, commitUnknownLost: 0.1, conflict: 0.1 });
    await room.mail.append(alice, [newMessage(room, [drafts], 'draft 0')]);
    for (let i = 1; i <= 30; i++) {
      const inserted = await room.mail.replace(from(drafts), i, alice, newMessage(room, [drafts], `draft ${i}`));
      expect(inserted.uids[0]!.uid).toBe(i + 1);
    }
    expect(await uidsOf(alice, drafts)).toEqual([31]);
    await room.mail.replace(from(drafts), 31, bob, newMessage(room, [theirs], 'sent over'));
    expect([await uidsOf(alice, drafts), await uidsOf(bob, theirs)]).toEqual([[], [1]]);
  });
});
