import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { blobLinks, mailboxId, newMessage, openRoom, type Room, rowsOf, testBackends } from './fixture.js';
import type { Change, FlagChange } from './index.js';

/** One store serves all tests of a backend; each test has an account of its own. */
let account = '';
let accounts = 0;
const add = (keywords: string[], deleted = false): FlagChange => ({ mode: 'add', keywords, deleted });

describe.each(testBackends)('mail store on %s', (backend) => {
  let room: Room;
  let inbox: string;
  let archive: string;

  beforeAll(async () => {
    // What is asked here is how rows are written; ranges have tests of their own.
    room = await openRoom(backend, { mayWriteFlagRanges: () => false });
  });
  afterAll(() => room.close());
  beforeEach(async () => {
    account = `a${++accounts}`;
    await room.mail.ensureAccount(account);
    inbox = await mailboxId(room, account, 'inbox');
    archive = await mailboxId(room, account, 'Archive');
  });
  afterEach(async () => {
    expect((await room.mail.recount(account)).differences).toEqual([]);
  });

  async function append(text: string, more: Parameters<typeof newMessage>[3] = {}, mailboxes = [inbox]) {
    const [inserted] = await room.mail.append(account, [newMessage(room, mailboxes, text, more)]);
    return inserted!;
  }
  const uidsOf = async (id: string) => (await room.mail.entries(account, id)).map((entry) => entry.uid);
  const countsOf = async (id: string) => (await room.mail.mailboxById(account, id))!.counts;

  it('sets up an account once', async () => {
    const before = await room.mail.usage(account);
    await room.mail.ensureAccount(account);
    expect(await room.mail.usage(account)).toEqual(before);
    const all = await room.mail.mailboxes(account);
    expect(all.map(({ mailbox }) => mailbox.name)).toEqual(['INBOX', 'Archive', 'Drafts', 'Junk', 'Sent', 'Trash']);
    expect(new Set(all.map(({ mailbox }) => mailbox.uidValidity)).size).toBe(6);
  });

  it('appends several messages under one modseq', async () => {
    const { modseq } = await room.mail.usage(account);
    const inserted = await room.mail.append(account, [
      newMessage(room, [inbox], 'one', { keywords: ['$Seen', 'Work', '$seen'] }),
      newMessage(room, [inbox, archive], 'three'),
    ]);
    expect(inserted.map(({ uids }) => uids.map(({ uid }) => uid))).toEqual([[1], [2, 1]]);
    const entries = await room.mail.entries(account, inbox);
    expect(entries.map((entry) => entry.modseq)).toEqual([modseq + 1, modseq + 1]);
    expect(entries[0]!.keywords).toEqual(['$seen', 'work']);
    expect(entries[0]!.emailId).toMatch(/^[0-9a-v]{20}$/);
    expect(await countsOf(inbox)).toMatchObject({
      uidNext: 3,
      total: 2,
      unseen: 1,
      deleted: 0,
      bytes: 8,
      highestModseq: modseq + 1,
    });
    expect(await room.mail.usage(account)).toEqual({ usedBytes: 8, messages: 2, modseq: modseq + 1 });
    const [first, gone] = await room.mail.messages(account, [inserted[0]!.emailId, '0'.repeat(20)]);
    expect(first).toMatchObject({ sizeBytes: 3, mailboxes: { [inbox]: 1 }, keywords: ['$seen', 'work'] });
    expect(gone).toBeUndefined();
    const [summary] = await room.mail.summaries(account, [inserted[1]!.emailId]);
    expect(summary!.toString()).toBe('summary of three');
    expect((await room.blobs.read(first!.blobId)).toString()).toBe('one');
  });

  it('appends what is \\Deleted from the beginning, counted as such, under one modseq', async () => {
    const { modseq } = await room.mail.usage(account);
    await room.mail.append(account, [
      newMessage(room, [inbox, archive], 'gone soon', { isDeleted: true, keywords: ['$seen'] }),
      newMessage(room, [inbox], 'stays', { isDeleted: false }),
    ]);
    const entries = await room.mail.entries(account, inbox);
    expect(entries.map((entry) => [entry.uid, entry.isDeleted, entry.modseq])).toEqual([
      [1, true, modseq + 1],
      [2, false, modseq + 1],
    ]);
    expect(await countsOf(inbox)).toMatchObject({ total: 2, unseen: 1, deleted: 1 });
    expect(await countsOf(archive)).toMatchObject({ total: 1, unseen: 0, deleted: 1 });
    expect(await room.mail.expunge(account, inbox, [1, 2])).toEqual([1]);
    expect(await countsOf(inbox)).toMatchObject({ total: 1, deleted: 0 });
    expect(await countsOf(archive)).toMatchObject({ total: 1, deleted: 1 });
  });

  it('appends all or nothing', async () => {
    const before = await room.mail.usage(account);
    const two = [newMessage(room, [inbox], 'fits'), newMessage(room, [inbox], 'does not fit any more')];
    await expect(room.mail.append(account, two, { quotaLimitBytes: 10 })).rejects.toMatchObject({ code: 'over-quota' });
    const lost = [newMessage(room, [inbox], 'x'), newMessage(room, ['nowhere'], 'y')];
    await expect(room.mail.append(account, lost)).rejects.toMatchObject({ code: 'no-mailbox' });
    const many = Array.from({ length: 65 }, (_, n) => `k${n}`);
    const keyworded = [newMessage(room, [inbox], 'x', { keywords: many })];
    await expect(room.mail.append(account, keyworded)).rejects.toMatchObject({ code: 'too-many' });
    expect(await room.mail.usage(account)).toEqual(before);
    expect(await blobLinks(room.kv, account)).toEqual([]);
  });

  it('lets one of several combined appends fail alone', async () => {
    const outcomes = await Promise.allSettled([
      room.mail.append(account, [newMessage(room, [inbox], 'aaaa')]),
      room.mail.append(account, [newMessage(room, [inbox], 'bbbb')], { quotaLimitBytes: 1 }),
      room.mail.append(account, [newMessage(room, ['nowhere'], 'cccc')]),
      room.mail.append(account, [newMessage(room, [inbox], 'dddd')]),
    ]);
    expect(outcomes.map((outcome) => outcome.status)).toEqual(['fulfilled', 'rejected', 'rejected', 'fulfilled']);
    expect(await uidsOf(inbox)).toEqual([1, 2]);
  });

  it('inserts through a writer in a foreign transaction', async () => {
    const notices: number[] = [];
    const stop = room.mail.onChange(account, (notice) => notices.push(notice.modseq));
    const { notice, inserted } = await room.kv.transact(async (tx) => {
      const writer = await room.mail.openWriter(tx, account);
      const refused = writer.insertMessage(newMessage(room, [inbox], 'too long'), { quotaLimitBytes: 3 });
      await expect(refused).rejects.toMatchObject({ code: 'over-quota' });
      const one = await writer.insertMessage(newMessage(room, [inbox], 'abc', { messageIds: ['m1@x'] }));
      const two = await writer.insertMessage(newMessage(room, [inbox], 'def', { messageIds: ['m2@x', 'm1@x'] }));
      return { notice: writer.finish(), inserted: [one, two] };
    });
    room.mail.announce(notice);
    expect(inserted.map(({ uids }) => uids[0]!.uid)).toEqual([1, 2]);
    expect(inserted[1]!.threadId).toBe(inserted[0]!.threadId);
    expect(notices).toContain(notice!.modseq);
    stop();
    const nothing = await room.kv.transact(async (tx) => (await room.mail.openWriter(tx, account)).finish());
    expect(nothing).toBeUndefined();
  });

  it('changes flags, and writes nothing for what stays as it is', async () => {
    await append('a');
    await append('b', { keywords: ['$seen'] });
    const before = await room.mail.usage(account);
    const same = await room.mail.changeFlags(account, inbox, [2, 9], add(['$SEEN']));
    expect(same.entries.map(({ uid, modseq }) => [uid, modseq])).toEqual([[2, before.modseq]]);
    expect(await room.mail.usage(account)).toEqual(before);

    const both = await room.mail.changeFlags(account, inbox, [2, 1, 1], add(['$seen', 'todo']));
    expect(both.entries.map(({ keywords }) => keywords)).toEqual([
      ['$seen', 'todo'],
      ['$seen', 'todo'],
    ]);
    expect(both.entries.map(({ modseq }) => modseq)).toEqual([before.modseq + 1, before.modseq + 1]);
    await room.mail.changeFlags(account, inbox, [1], { mode: 'remove', keywords: ['$seen'], deleted: false });
    await room.mail.changeFlags(account, inbox, [2], { mode: 'replace', keywords: ['$flagged'], deleted: true });
    expect(await countsOf(inbox)).toMatchObject({ total: 2, unseen: 2, deleted: 1 });
    const [, second] = await room.mail.entries(account, inbox);
    expect(second).toMatchObject({ keywords: ['$flagged'], isDeleted: true });
  });

  it('refuses what changed since (CONDSTORE)', async () => {
    await append('a');
    await append('b');
    const { modseq } = await room.mail.usage(account);
    await room.mail.changeFlags(account, inbox, [1], add(['$flagged']));
    const result = await room.mail.changeFlags(account, inbox, [1, 2], { ...add(['$seen']), unchangedSince: modseq });
    expect(result.modified).toEqual([1]);
    expect(result.entries.map(({ uid, keywords }) => [uid, ...keywords])).toEqual([
      [1, '$flagged'],
      [2, '$seen'],
    ]);
    const none = await room.mail.changeFlags(account, inbox, [1, 2], { ...add(['x']), unchangedSince: 0 });
    expect(none.modified).toEqual([1, 2]);
    expect(none.entries.map(({ modseq: at }) => at)).toEqual(result.entries.map(({ modseq: at }) => at));
  });

  it('keeps keywords with the message and \\Deleted with the entry', async () => {
    await append('shared', {}, [inbox, archive]);
    await room.mail.changeFlags(account, inbox, [1], add(['$seen'], true));
    const [there] = await room.mail.entries(account, archive);
    expect(there).toMatchObject({ keywords: ['$seen'], isDeleted: false });
    expect(await countsOf(archive)).toMatchObject({ unseen: 0, deleted: 0 });
    expect(await room.mail.expunge(account, archive, [1])).toEqual([]);
    expect(await room.mail.expunge(account, inbox, [1])).toEqual([1]);
    expect(await uidsOf(archive)).toEqual([1]);
    const [message] = await room.mail.messages(account, [there!.emailId]);
    expect(message!.mailboxes).toEqual({ [archive]: 1 });
    expect(await room.mail.expunge(account, archive, [1, 5], { onlyDeleted: false })).toEqual([1]);
    expect(await room.mail.usage(account)).toMatchObject({ usedBytes: 0, messages: 0 });
    expect(await blobLinks(room.kv, account)).toEqual([]);
    const rows = await rowsOf(room.kv, account);
    for (const table of ['message', 'summary', 'entry', 'thread', 'reference']) expect(rows.get(table)).toBeUndefined();
  });

  it('copies by a further entry, or by a new message where it is already', async () => {
    const { emailId, threadId } = await append('abc', { keywords: ['$flagged'] });
    expect((await room.mail.copy(account, inbox, [1, 7], archive)).pairs).toEqual([{ sourceUid: 1, targetUid: 1 }]);
    expect((await room.mail.entries(account, archive))[0]!.emailId).toBe(emailId);
    expect(await room.mail.usage(account)).toMatchObject({ usedBytes: 3, messages: 1 });

    const tight = room.mail.copy(account, inbox, [1], archive, { quotaLimitBytes: 5 });
    await expect(tight).rejects.toMatchObject({ code: 'over-quota' });
    expect((await room.mail.copy(account, inbox, [1], archive, { quotaLimitBytes: 6 })).pairs[0]!.targetUid).toBe(2);
    const copy = (await room.mail.entries(account, archive))[1]!;
    expect(copy.emailId).not.toBe(emailId);
    expect(copy.keywords).toEqual(['$flagged']);
    const [message] = await room.mail.messages(account, [copy.emailId]);
    expect(message!.threadId).toBe(threadId);
    expect(await room.mail.usage(account)).toMatchObject({ usedBytes: 6, messages: 2 });
    expect(await blobLinks(room.kv, account)).toHaveLength(2);
    const [first, second] = await room.mail.summaries(account, [emailId, copy.emailId]);
    expect(second).toEqual(first);
    await expect(room.mail.copy(account, inbox, [1], 'nowhere')).rejects.toMatchObject({ code: 'no-mailbox' });
    expect((await room.mail.copy(account, inbox, [1], inbox)).pairs).toEqual([{ sourceUid: 1, targetUid: 2 }]);
  });

  it('moves under one modseq, with a new UID', async () => {
    const { emailId } = await append('abc', { keywords: ['$seen'] });
    await room.mail.changeFlags(account, inbox, [1], add([], true));
    const { modseq } = await room.mail.usage(account);
    expect((await room.mail.move(account, inbox, [1], archive)).pairs).toEqual([{ sourceUid: 1, targetUid: 1 }]);
    const changes = await room.mail.changesSince(account, modseq);
    expect(changes!.sets).toHaveLength(1);
    const kinds = changes!.sets[0]!.changes.map((change) => change.kind).sort();
    expect(kinds).toEqual(['email-updated', 'entry-added', 'entry-removed']);
    expect(await uidsOf(inbox)).toEqual([]);
    expect((await room.mail.entries(account, archive))[0]).toMatchObject({ emailId, isDeleted: true, keywords: ['$seen'] });

    expect((await room.mail.move(account, archive, [1], archive)).pairs).toEqual([{ sourceUid: 1, targetUid: 2 }]);
    await room.mail.copy(account, archive, [2], inbox);
    expect((await room.mail.move(account, inbox, [2], archive)).pairs).toEqual([{ sourceUid: 2, targetUid: 3 }]);
    expect(await uidsOf(archive)).toEqual([2, 3]);
    expect(await room.mail.usage(account)).toMatchObject({ messages: 2 });
  });

  it('finds threads by any known reference, keeps their ids, and never merges', async () => {
    const first = await append('1', { messageIds: ['a@x'] });
    const reply = await append('2', { messageIds: ['b@x', 'a@x'] });
    const other = await append('3', { messageIds: ['c@x'] });
    const both = await append('4', { messageIds: ['d@x', 'c@x', 'a@x'] });
    const late = await append('5', { messageIds: ['e@x', 'd@x'] });
    expect(reply.threadId).toBe(first.threadId);
    expect(first.threadId).toBe(first.emailId);
    expect(both.threadId).toBe(other.threadId);
    expect(late.threadId).toBe(other.threadId);
    // A reply that refers only to a message that is gone still finds the thread.
    await room.mail.expunge(account, inbox, [1], { onlyDeleted: false });
    expect((await append('6', { messageIds: ['f@x', 'a@x'] })).threadId).toBe(first.threadId);
    await room.mail.expunge(account, inbox, [2, 6], { onlyDeleted: false });
    const anew = await append('7', { messageIds: ['g@x', 'a@x'] });
    expect(anew.threadId).toBe(anew.emailId);
    await room.mail.expunge(account, inbox, await uidsOf(inbox), { onlyDeleted: false });
    expect((await rowsOf(room.kv, account)).get('reference')).toBeUndefined();
  });

  it('tells what changed since, in pages, until the log is cut', async () => {
    const start = (await room.mail.usage(account)).modseq;
    const { emailId } = await append('abc');
    await room.mail.changeFlags(account, inbox, [1], add(['$seen']));
    await room.mail.expunge(account, inbox, [1], { onlyDeleted: false });
    const page = await room.mail.changesSince(account, start, 2);
    expect(page).toMatchObject({ upToModseq: start + 2, hasMore: true });
    expect(page!.sets.map((set) => set.modseq)).toEqual([start + 1, start + 2]);
    const rest = await room.mail.changesSince(account, start + 2);
    expect(rest).toMatchObject({ upToModseq: start + 3, hasMore: false });
    const last: Change[] = rest!.sets[0]!.changes;
    expect(last).toContainEqual({ kind: 'entry-removed', mailboxId: inbox, uid: 1, emailId });
    expect(last).toContainEqual({ kind: 'email-destroyed', emailId, threadId: emailId });
    expect(await room.mail.changesSince(account, start + 4)).toBeUndefined();

    await room.mail.truncateLog(account, start + 1);
    expect(await room.mail.changesSince(account, start)).toBeUndefined();
    expect((await room.mail.changesSince(account, start + 1))!.sets).toHaveLength(2);
    await room.mail.truncateLog(account, start);
    await room.mail.truncateLog(account, start + 100);
    expect(await room.mail.changesSince(account, start + 3)).toEqual({ sets: [], upToModseq: start + 3, hasMore: false });
    expect((await rowsOf(room.kv, account)).get('log')).toBeUndefined();
  });

  it('splits long lists in parts, and log values that would be too long', async () => {
    const keywords = Array.from({ length: 60 }, (_, n) => `${n}`.padStart(120, 'k'));
    for (let part = 0; part < 6; part++) {
      const messages = Array.from({ length: 400 }, (_, n) => newMessage(room, [inbox], `m${part * 400 + n}`));
      await room.mail.append(account, messages);
    }
    const all = await uidsOf(inbox);
    expect(all).toHaveLength(2_400);
    const before = (await room.mail.usage(account)).modseq;
    const result = await room.mail.changeFlags(account, inbox, all, add(['$seen']));
    expect(result.entries.map(({ uid }) => uid)).toEqual(all);
    expect((await room.mail.usage(account)).modseq).toBe(before + 2);
    // 100 entries of 7 kB: one change, several log values.
    const some = all.slice(0, 100);
    await room.mail.changeFlags(account, inbox, some, add(keywords));
    const changes = await room.mail.changesSince(account, before + 2);
    expect(changes!.sets).toHaveLength(1);
    expect(changes!.sets[0]!.changes).toHaveLength(200);
    // 500 of them exceed what one transaction may write, and go in smaller parts.
    await room.mail.changeFlags(account, inbox, all.slice(0, 500), add(keywords));
    const moved = await room.mail.move(account, inbox, all, archive);
    expect(moved.pairs.map(({ sourceUid }) => sourceUid)).toEqual(all);
    expect(moved.pairs.map(({ targetUid }) => targetUid)).toEqual(all);
    expect(await room.mail.expunge(account, archive, all, { onlyDeleted: false })).toEqual(all);
  });

  it('answers ranges of entries', async () => {
    await room.mail.append(
      account,
      Array.from({ length: 10 }, (_, n) => newMessage(room, [inbox], `${n}`)),
    );
    const uids = async (range: Parameters<typeof room.mail.entries>[2]) =>
      (await room.mail.entries(account, inbox, range)).map(({ uid }) => uid);
    expect(await uids({ fromUid: 3, toUid: 5 })).toEqual([3, 4, 5]);
    expect(await uids({ fromUid: 8 })).toEqual([8, 9, 10]);
    expect(await uids({ limit: 2 })).toEqual([1, 2]);
    expect(await uids({ fromUid: 5, toUid: 4 })).toEqual([]);
    expect(await room.mail.entries(account, 'nowhere')).toEqual([]);
    const one = await room.kv.read((reads) => room.mail.entryAt(reads, account, inbox, 4));
    expect(one).toEqual((await room.mail.entries(account, inbox, { fromUid: 4, limit: 1 }))[0]);
  });

  it('removes an account, and goes on with modseqs when it is made again', async () => {
    await room.mail.append(
      account,
      Array.from({ length: 450 }, (_, n) => newMessage(room, [inbox], `${n}`)),
    );
    await room.mail.append(
      account,
      Array.from({ length: 450 }, (_, n) => newMessage(room, [archive], `${n}`)),
    );
    const before = await room.mail.usage(account);
    const oldValidity = (await room.mail.mailboxById(account, inbox))!.mailbox.uidValidity;
    await room.mail.removeAccount(account);
    await room.mail.removeAccount(account);
    expect([...(await rowsOf(room.kv, account)).keys()]).toEqual(['log-floor']);
    expect(await blobLinks(room.kv, account)).toEqual([]);
    expect(await room.mail.mailboxes(account)).toEqual([]);
    await expect(room.mail.append(account, [newMessage(room, [inbox], 'x')])).rejects.toMatchObject({ code: 'no-mailbox' });

    await room.mail.ensureAccount(account);
    expect((await room.mail.usage(account)).modseq).toBeGreaterThan(before.modseq);
    expect(await room.mail.changesSince(account, before.modseq)).toBeUndefined();
    const anew = (await room.mail.mailboxByPath(account, ['INBOX']))!.mailbox;
    expect(anew.uidValidity).toBeGreaterThan(oldValidity);
  });

  it('notices what does not fit together', async () => {
    const { emailId } = await append('abc', { messageIds: ['a@x'] });
    const { AccountKeys } = await import('./keys.js');
    const keys = new AccountKeys(account);
    const saved = await room.kv.transact(async (tx) => {
      const value = await tx.get(keys.summary(emailId));
      tx.clear(keys.summary(emailId));
      return value!;
    });
    expect((await room.mail.recount(account)).differences).toHaveLength(2);
    await room.kv.transact(async (tx) => tx.set(keys.summary(emailId), saved));
  });
});
