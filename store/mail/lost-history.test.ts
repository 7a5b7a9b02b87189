/** An account that goes on after a restore gives nothing twice, is otherwise as it was, and knows which modseqs are those of the time that is lost. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { mailboxId, newMessage, openRoom, type Room, testBackends, until } from './fixture.js';
import { createMailStore, type MailboxId } from './index.js';
import { AccountKeys } from './keys.js';
import { comparableModseq, goAhead } from './lost-history.js';
import { decodeCounts, encodeCounts } from './records.js';

const alice = 'alice0000000000a';
const keys = new AccountKeys(alice);
let room: Room;
let inbox: MailboxId;

const append = async (...texts: string[]) => {
  const messages = texts.map((text) => newMessage(room, [inbox], text));
  return (await room.mail.append(alice, messages)).map(({ uids }) => uids[0]!.uid);
};
const ahead = () => goAhead({ kv: room.kv, clock: systemClock, random: systemRandom }, alice);
const modseq = async () => (await room.mail.usage(alice)).modseq;

/** The same store as another process sees it. */
function openAgain({ kv, blobs }: Room) {
  return createMailStore({ kv, blobs, clock: systemClock, random: systemRandom, logger: silentLogger });
}

describe.each(testBackends)('an account that goes ahead, on %s', (backend) => {
  beforeEach(async () => {
    room = await openRoom(backend, { indexSnapshots: { minMessages: 2, minChanges: 1, minIntervalMs: 0 } });
    await room.mail.ensureAccount(alice);
    inbox = await mailboxId(room, alice, 'INBOX');
  });
  afterEach(() => room.close());

  it('gives UIDs, modseqs and UIDVALIDITYs that nobody has seen, and keeps everything else', async () => {
    await append('one', 'two', 'three');
    await room.mail.expunge(alice, inbox, [2], { onlyDeleted: false });
    const [entries, mailboxes, saved] = [await room.mail.entries(alice, inbox), await room.mail.mailboxes(alice), await modseq()];
    await ahead();
    expect(await room.mail.entries(alice, inbox)).toEqual(entries);
    const now = await room.mail.mailboxes(alice);
    expect(now.map(({ mailbox }) => mailbox)).toEqual(mailboxes.map(({ mailbox }) => mailbox));
    for (const [place, { counts }] of now.entries()) {
      const { counts: before } = mailboxes[place]!;
      expect(counts).toEqual({ ...before, uidNext: before.uidNext + 1_000_000, highestModseq: await modseq() });
    }
    expect(await modseq()).toBe(saved + 1_000_000_000);
    expect((await room.mail.recount(alice)).differences).toEqual([]);
    expect(await append('four')).toEqual([1_000_004]);
    // A mailbox of the lost time may have had any UIDVALIDITY of those seconds, and some more.
    const made = await room.mail.createMailbox(alice, ['Again']);
    expect(made.uidValidity).toBeGreaterThan(systemClock.nowMs() / 1000 + 9_000);
  });

  it('may do so again, and then has lost both times', async () => {
    await append('one');
    const saved = await modseq();
    await ahead();
    await ahead();
    const to = await modseq();
    expect(to).toBe(saved + 2_000_000_000);
    const index = await room.mail.openIndex(alice, inbox);
    expect([saved, saved + 1, to - 1, to, to + 1].map((n) => index.comparableModseq(n))).toEqual([saved, 0, 0, to, to + 1]);
    index.release();
  });

  it('tells changes since the backup, and none to who names a modseq that is lost', async () => {
    await append('one');
    const saved = await modseq();
    await ahead();
    await append('two');
    const since = await room.mail.changesSince(alice, saved);
    expect(since!.sets.flatMap(({ changes }) => changes.filter(({ kind }) => kind === 'entry-added'))).toHaveLength(1);
    expect(await room.mail.changesSince(alice, saved + 1)).toBeUndefined();
    // Cutting the log forgets none of it.
    await room.mail.truncateLog(alice, (await modseq()) - 10_000);
    expect(await room.mail.changesSince(alice, saved - 1)).toBeDefined();
    await room.mail.truncateLog(alice, saved - 1);
    expect(await room.mail.changesSince(alice, saved - 2)).toBeUndefined();
    expect(await room.mail.changesSince(alice, saved + 500_000_000)).toBeUndefined();
    expect(await room.mail.changesSince(alice, saved)).toBeDefined();
  });

  it('is opened from a snapshot that was in the backup', async () => {
    await append('one', 'two', 'three');
    const opened = await room.mail.openIndex(alice, inbox);
    const hasHead = async () => (await room.kv.read((reads) => reads.get(keys.indexHead(inbox)))) !== undefined;
    await until(hasHead);
    opened.release();
    await room.mail.idle();
    const saved = await modseq();
    await ahead();
    const again = openAgain(room);
    const index = await again.openIndex(alice, inbox);
    expect([...index.uids()]).toEqual([1, 2, 3]);
    expect(index.comparableModseq(saved + 1)).toBe(0);
    expect(index.comparableModseq(saved)).toBe(saved);
    index.release();
    await again.close();
  });

  it('keeps UIDs for its messages where few are left', async () => {
    await append('one');
    await room.kv.transact(async (tx) => {
      const counts = decodeCounts((await tx.get(keys.counts(inbox)))!);
      tx.set(keys.counts(inbox), encodeCounts({ ...counts, uidNext: 0xffff_ffff - 1_000 }));
    });
    await ahead();
    expect(await append('two')).toEqual([0xffff_ffff - 500]);
  });

  it('goes ahead when it is made again, too', async () => {
    await append('one');
    await room.mail.removeAccount(alice);
    const removed = await modseq();
    await ahead();
    await room.mail.ensureAccount(alice);
    expect(await modseq()).toBeGreaterThan(removed + 1_000_000_000);
  });
});

describe('a modseq', () => {
  it('is compared as it is where nothing was lost', () => {
    expect([0, 5, 2 ** 40].map((modseq) => comparableModseq(modseq, undefined))).toEqual([0, 5, 2 ** 40]);
  });
});
