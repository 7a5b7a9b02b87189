/** Paths that are remembered against what stands in the store, on two nodes over one store. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { newMessage, openRoom, type Room } from './fixture.js';
import { createMailStore, type OpenMailStore } from './index.js';

const account = 'alice0000000000a';
let room: Room;
let other: OpenMailStore;

beforeEach(async () => {
  room = await openRoom('memory');
  other = createMailStore({ kv: room.kv, blobs: room.blobs, clock: systemClock, random: systemRandom, logger: silentLogger });
  await room.mail.ensureAccount(account);
});
afterEach(async () => {
  await other.close();
  await room.close();
});

const place = (...path: string[]) => room.mail.mailboxByPath(account, path);

describe('a path that has led to a mailbox', () => {
  it('leads to what is there now, whoever has changed it', async () => {
    await other.createMailbox(account, ['A', 'B']);
    const before = (await place('A', 'B'))!;
    expect(before.mailbox).toMatchObject({ path: ['A', 'B'], name: 'B' });
    await other.renameMailbox(account, ['A'], ['C']);
    expect(await place('A', 'B')).toBeUndefined();
    expect((await place('C', 'B'))!.mailbox).toMatchObject({ id: before.mailbox.id, path: ['C', 'B'] });
    await other.deleteMailbox(account, ['C', 'B']);
    expect(await place('C', 'B')).toBeUndefined();
    await other.createMailbox(account, ['C', 'B']);
    expect((await place('C', 'B'))!.mailbox.id).not.toBe(before.mailbox.id);
    // Another mailbox in the same place: what was remembered of the parent must not lead into the old one.
    const inner = (await place('C', 'B'))!.mailbox.id;
    await other.renameMailbox(account, ['C'], ['D']);
    await other.createMailbox(account, ['C', 'B']);
    expect((await place('C', 'B'))!.mailbox.id).not.toBe(inner);
  });

  it('tells counts and attributes as they are', async () => {
    const inbox = (await place('inbox'))!.mailbox.id;
    await other.append(account, [newMessage(room, [inbox], 'one'), newMessage(room, [inbox], 'two')]);
    expect((await place('inbox'))!.counts).toMatchObject({ total: 2, unseen: 2, uidNext: 3 });
    await other.setSubscribed(account, ['INBOX'], false);
    expect((await place('inbox'))!.mailbox.isSubscribed).toBe(false);
  });

  it('spares a read of the index only as long as nothing has changed', async () => {
    const { mailbox, asOf } = (await place('INBOX'))!;
    (await room.mail.openIndex(account, mailbox.id)).release();
    await other.append(account, [newMessage(room, [mailbox.id], 'one')]);
    // Older than the change: still the index has to have whatever is asked for now, or by that time.
    const later = (await place('INBOX'))!;
    expect(Buffer.from(later.asOf.state!).equals(asOf.state!)).toBe(false);
    const index = await room.mail.openIndex(account, mailbox.id, later.asOf);
    expect([...index.uids()]).toEqual([1]);
    await other.append(account, [newMessage(room, [mailbox.id], 'two')]);
    await index.refresh();
    expect([...index.uids()]).toEqual([1, 2]);
    await other.deleteMailbox(account, ['Trash']);
    await index.refresh();
    expect(index.exists).toBe(true);
    index.release();
  });

  it('says which messages are recent as a read of its own would', async () => {
    const { mailbox } = (await place('INBOX'))!;
    await other.append(account, [newMessage(room, [mailbox.id], 'one'), newMessage(room, [mailbox.id], 'two')]);
    const first = (await place('INBOX'))!;
    const second = (await place('INBOX'))!;
    const held = await room.mail.recent.hold(account, mailbox.id, 3, first.asOf);
    held.hold.release();
    await room.mail.idle();
    // Read before the first had them, used after: nobody is told of them twice.
    const late = await room.mail.recent.hold(account, mailbox.id, 3, second.asOf);
    expect([held.from, late.from]).toEqual([1, 3]);
    late.hold.release();
  });
});
