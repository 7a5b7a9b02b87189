/** What is known of a message's line ends lives as long as the message, wherever it goes, and no longer. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { mailboxId, newMessage, openRoom, type Room, rowsOf, testBackends } from './fixture.js';
import type { EmailId, MailboxId } from './index.js';

const alice = 'alice0000000000a';
const bob = 'bob000000000000b';
let room: Room;
let inbox: MailboxId;
let archive: MailboxId;

describe.each(testBackends)('missing line ends, on %s', (backend) => {
  beforeEach(async () => {
    room = await openRoom(backend);
    for (const accountId of [alice, bob]) await room.mail.ensureAccount(accountId);
    inbox = await mailboxId(room, alice, 'INBOX');
    archive = await mailboxId(room, alice, 'Archive');
  });
  afterEach(() => room.close());

  async function append(...missing: number[]): Promise<EmailId[]> {
    const messages = missing.map((missingLineEndBytes, i) => newMessage(room, [inbox], `text ${i}`, { missingLineEndBytes }));
    return (await room.mail.append(alice, messages)).map(({ emailId }) => emailId);
  }

  const known = (accountId: string) => room.mail.missingLineEnds(accountId, { limit: 100 });

  async function rows(accountId: string): Promise<number> {
    const { differences } = await room.mail.recount(accountId);
    expect(differences).toEqual([]);
    return (await rowsOf(room.kv, accountId)).get('line-ends') ?? 0;
  }

  it('are kept for messages that lack some, and cost the others nothing', async () => {
    const ids = await append(0, 7, 0, 300_000);
    const lackingIds = [ids[1]!, ids[3]!].sort();
    const all = lackingIds.map((emailId) => ({ emailId, missingLineEndBytes: emailId === ids[1] ? 7 : 300_000 }));
    expect(await known(alice)).toEqual(all);
    expect(await room.mail.missingLineEnds(alice, { limit: 1 })).toEqual(all.slice(0, 1));
    expect(await room.mail.missingLineEnds(alice, { afterId: lackingIds[0]!, limit: 1 })).toEqual(all.slice(1));
    const [plain, lacking] = await room.mail.messages(alice, ids);
    expect(plain).not.toHaveProperty('missingLineEndBytes');
    expect(lacking).toHaveProperty('missingLineEndBytes', 7);
    expect(await rows(alice)).toBe(2);
  });

  it('go with the message through flags, copies and moves', async () => {
    await append(7);
    await room.mail.changeFlags(alice, inbox, [1], { mode: 'add', keywords: ['$seen'], deleted: true });
    await room.mail.copy(alice, inbox, [1], archive);
    expect(await rows(alice)).toBe(1);
    await room.mail.copy(alice, inbox, [1], inbox);
    expect((await known(alice)).map(({ missingLineEndBytes }) => missingLineEndBytes)).toEqual([7, 7]);
    const target = { accountId: bob, mailboxId: await mailboxId(room, bob, 'INBOX') };
    const options = { carries: { seen: true, deleted: true, others: true }, messageIdsOf: () => [] };
    await room.mail.copyBetween({ accountId: alice, mailboxId: inbox }, [1, 2], target, { ...options, leavesSource: true });
    expect((await known(bob)).map(({ missingLineEndBytes }) => missingLineEndBytes)).toEqual([7, 7]);
    expect(await rows(bob)).toBe(2);
    // One of them is in the archive still.
    expect(await rows(alice)).toBe(1);
    await room.mail.expunge(alice, archive, [1], { onlyDeleted: false });
    expect(await rows(alice)).toBe(0);
  });

  it('go with a mailbox, with what REPLACE takes away, and with the account', async () => {
    await append(1, 2, 3);
    await room.mail.createMailbox(alice, ['Gone']);
    await room.mail.move(alice, inbox, [1], await mailboxId(room, alice, 'Gone'));
    await room.mail.deleteMailbox(alice, ['Gone']);
    await room.mail.idle();
    expect(await rows(alice)).toBe(2);
    await room.mail.replace({ accountId: alice, mailboxId: inbox }, 2, alice, newMessage(room, [inbox], 'whole'));
    expect((await known(alice)).map(({ missingLineEndBytes }) => missingLineEndBytes)).toEqual([3]);
    await room.mail.removeAccount(alice);
    expect(await rows(alice)).toBe(0);
  });
});
