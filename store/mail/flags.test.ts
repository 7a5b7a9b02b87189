/** Changing flags in several parts while another node changes the same messages: what was read ahead must not undo it. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { mailboxId, newMessage, openRoom, testBackends } from './fixture.js';
import { createMailStore } from './index.js';

const account = 'alice0000000000a';
const messages = 6_400;

describe.each(testBackends)('flags of many messages on %s', (backend) => {
  it('keep what another node changes in between', async () => {
    const room = await openRoom(backend);
    const other = createMailStore({
      kv: room.kv,
      blobs: room.blobs,
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
    });
    await room.mail.ensureAccount(account);
    const inbox = await mailboxId(room, account, 'INBOX');
    for (let n = 0; n < messages; n += 400) {
      await room.mail.append(
        account,
        Array.from({ length: 400 }, () => newMessage(room, [inbox], 'one')),
      );
    }
    const before = (await room.mail.usage(account)).modseq;
    const all = Array.from({ length: messages }, (_, n) => n + 1);
    let running = true;
    const flagged = new Set<number>();
    const changing = (async () => {
      // All over the mailbox: mostly in parts that are not done, and perhaps read already.
      for (let uid = messages; running; uid = ((uid + 997) % messages) + 1) {
        await other.changeFlags(account, inbox, [uid], { mode: 'add', keywords: ['$flagged'], deleted: uid % 2 === 0 });
        flagged.add(uid);
        await nextTurn();
      }
    })();
    const result = await room.mail.changeFlags(account, inbox, all, { mode: 'add', keywords: ['$seen'], deleted: false });
    running = false;
    await changing;
    expect(result.uids).toEqual(all);
    const entries = await room.mail.entries(account, inbox);
    const expected = (uid: number) => ({
      keywords: flagged.has(uid) ? ['$seen', '$flagged'] : ['$seen'],
      isDeleted: flagged.has(uid) && uid % 2 === 0,
    });
    expect(entries.map(({ keywords, isDeleted }) => ({ keywords, isDeleted }))).toEqual(all.map(expected));
    const rows = await room.mail.messages(
      account,
      entries.map(({ emailId }) => emailId),
    );
    expect(rows.map((message) => message?.keywords)).toEqual(all.map((uid) => expected(uid).keywords));
    const { counts } = (await room.mail.mailboxById(account, inbox))!;
    const deleted = [...flagged].filter((uid) => uid % 2 === 0).length;
    expect([counts.total, counts.unseen, counts.deleted]).toEqual([messages, 0, deleted]);
    // Who follows the log sees the same.
    const latest = new Map<number, unknown>();
    const { sets } = (await room.mail.changesSince(account, before))!;
    for (const { changes } of sets)
      for (const change of changes) if (change.kind === 'entry-changed') latest.set(change.entry.uid, change.entry);
    expect(entries.map((entry) => latest.get(entry.uid))).toEqual(entries);
    await other.close();
    await room.close();
  });
});
