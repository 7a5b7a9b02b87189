/** The cached tree against the one that is read from the rows, on two nodes over one store. */
import { afterEach, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { mailboxId, newMessage, openRoom, type Room } from './fixture.js';
import { createMailStore, type OpenMailStore } from './index.js';
import { AccountKeys } from './keys.js';
import { readTree } from './tree.js';

const account = 'alice0000000000a';
let room: Room;
let other: OpenMailStore;

async function open(): Promise<void> {
  room = await openRoom('memory');
  other = createMailStore({ kv: room.kv, blobs: room.blobs, clock: systemClock, random: systemRandom, logger: silentLogger });
  await room.mail.ensureAccount(account);
  for (let at = 0; at < 100; at++) await room.mail.createMailbox(account, ['Many', `m${at}`]);
}
afterEach(async () => {
  await other.close();
  await room.close();
});

/** What both nodes answer must be what stands in the store. */
async function agree(): Promise<void> {
  const truth = await room.kv.read((reads) => readTree(reads, new AccountKeys(account)));
  expect(await room.mail.mailboxes(account)).toEqual(truth);
  expect(await other.mailboxes(account)).toEqual(truth);
}

describe('the tree of mailboxes', () => {
  it('follows messages, flags, mailboxes, subscriptions and lists, here and on another node', async () => {
    await open();
    await agree();
    const inbox = await mailboxId(room, account, 'INBOX');
    const target = await mailboxId(room, account, 'Many', 'm7');
    const steps: (() => Promise<unknown>)[] = [
      () => room.mail.append(account, [newMessage(room, [inbox, target], 'one'), newMessage(room, [inbox], 'two')]),
      () => other.changeFlags(account, inbox, [1], { mode: 'add', keywords: ['$seen'], deleted: true }),
      () => room.mail.move(account, inbox, [2], target),
      () => other.expunge(account, inbox, [1]),
      () => other.createMailbox(account, ['Many', 'm7', 'deep']),
      () => room.mail.renameMailbox(account, ['Many'], ['Few']),
      () => other.setSubscribed(account, ['Few', 'm7'], true),
      () => room.mail.deleteMailbox(account, ['Few', 'm7', 'deep']),
      () => room.mail.deleteMailbox(account, ['Few', 'm7']),
      () => other.sharing.changeAcl(account, inbox, 'anyone', { mode: 'replace', rights: ['l'] }),
    ];
    for (const step of steps) {
      await step();
      await agree();
    }
  });

  it('is read anew where the log was cut, and for an account that was removed and made again', async () => {
    await open();
    await agree();
    const inbox = await mailboxId(room, account, 'INBOX');
    await room.mail.append(account, [newMessage(room, [inbox], 'one')]);
    await room.mail.truncateLog(account, (await room.mail.usage(account)).modseq);
    await agree();
    await room.mail.removeAccount(account);
    await agree();
    expect(await other.mailboxes(account)).toEqual([]);
    await other.ensureAccount(account);
    await agree();
    expect(await room.mail.mailboxes(account)).toHaveLength(6);
  });

  it('gives lists that nobody else changes', async () => {
    await open();
    const first = await room.mail.mailboxes(account);
    const count = first.length;
    first.length = 0;
    expect(await room.mail.mailboxes(account)).toHaveLength(count);
  });

  it('follows more changes than it looks for one by one', async () => {
    await open();
    await agree();
    const inbox = await mailboxId(room, account, 'INBOX');
    for (let at = 0; at < 510; at++) await room.mail.append(account, [newMessage(room, [inbox], 'same')]);
    await agree();
  });
});
