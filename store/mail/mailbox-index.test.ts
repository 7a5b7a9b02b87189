import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { createBlobStore } from '../blobs/index.js';
import { MemoryDatabase, openMemoryStore } from '../kv/index.js';
import type { MailboxEntry } from './contract.js';
import { mailboxId, newMessage, openRoom, type Room, testBackends } from './fixture.js';
import { createMailStore } from './index.js';
import { IndexColumns } from './index-columns.js';
import { RecentUids } from './recent-uids.js';

/** One store serves all tests of a backend; each test has an account of its own. */
let account = '';
let accounts = 0;

describe('index columns', () => {
  const entry = (uid: number, more: Partial<MailboxEntry> = {}): MailboxEntry => ({
    uid,
    emailId: `${uid}`.padStart(20, 'e'),
    isDeleted: uid % 3 === 0,
    modseq: 2 ** 40 + uid,
    keywords: uid % 2 ? ['$seen'] : [],
    sizeBytes: uid * 10,
    receivedAtMs: 1e12 + uid,
    savedAtMs: 2e12 + uid,
    ...more,
  });

  it('keep entries by UID through growth, insertion, change and removal', () => {
    const columns = new IndexColumns();
    for (let uid = 2; uid <= 400; uid += 2) columns.put(entry(uid));
    for (let uid = 399; uid > 0; uid -= 2) columns.put(entry(uid));
    expect(columns.remove([1, 2, 200, 201, 202, 350, 400, 401])).toEqual([1, 2, 200, 201, 202, 350, 400]);
    columns.put(entry(300, { keywords: ['$draft', 'x'] }));
    const gone = [1, 2, 200, 201, 202, 350, 400];
    const left = Array.from({ length: 400 }, (_, n) => n + 1).filter((uid) => !gone.includes(uid));
    expect([...columns.uids()]).toEqual(left);
    for (const uid of left) {
      expect(columns.get(uid)).toEqual(uid === 300 ? entry(300, { keywords: ['$draft', 'x'] }) : entry(uid));
    }
    expect(columns.get(200)).toBeUndefined();
    expect(columns.scanChangedAfter(2 ** 40 + 398).map(({ uid }) => uid)).toEqual([399]);
  });

  it('never change a UID list that was handed out', () => {
    const columns = new IndexColumns();
    columns.put(entry(1));
    const one = columns.uids();
    columns.put(entry(2));
    const two = columns.uids();
    columns.remove([1]);
    expect([one, two, columns.uids()].map((uids) => [...uids])).toEqual([[1], [1, 2], [2]]);
  });

  it('remember recent changes within a bound', () => {
    const recent = new RecentUids(10, 8);
    for (let n = 0; n < 9; n++) recent.push(11 + n, 100 - n);
    expect(recent.after(10)).toBeUndefined();
    expect(recent.after(14)).toEqual([92, 93, 94, 95, 96]);
    expect(recent.after(18)).toEqual([92]);
    expect(recent.after(30)).toEqual([]);
  });
});

describe.each(testBackends)('mailbox index on %s', (backend) => {
  let room: Room;
  let inbox: string;

  beforeAll(async () => {
    room = await openRoom(backend);
  });
  afterAll(() => room.close());
  beforeEach(async () => {
    account = `a${++accounts}`;
    await room.mail.ensureAccount(account);
    inbox = await mailboxId(room, account, 'INBOX');
  });

  const append = (count: number) =>
    room.mail.append(
      account,
      Array.from({ length: count }, (_, n) => newMessage(room, [inbox], `${n}`)),
    );
  const flag = (uids: number[], keyword: string) =>
    room.mail.changeFlags(account, inbox, uids, { mode: 'add', keywords: [keyword], deleted: false });

  async function expectCurrent(index: Awaited<ReturnType<typeof room.mail.openIndex>>): Promise<void> {
    const entries = await room.mail.entries(account, inbox);
    expect([...index.uids()]).toEqual(entries.map(({ uid }) => uid));
    expect([...index.uids()].map((uid) => index.get(uid))).toEqual(entries);
    expect(index.modseq).toBe((await room.mail.usage(account)).modseq);
  }

  it('follows the mailbox by the log', async () => {
    await append(5);
    const index = await room.mail.openIndex(account, inbox);
    await expectCurrent(index);
    const before = index.modseq;
    await flag([2, 4], '$seen');
    await room.mail.expunge(account, inbox, [1, 4], { onlyDeleted: false });
    await append(2);
    expect(index.size).toBe(5);
    await index.refresh();
    await expectCurrent(index);
    expect(index.changedAfter(before).map(({ uid }) => uid)).toEqual([2, 6, 7]);
    expect(index.changedAfter(before + 1).map(({ uid }) => uid)).toEqual([6, 7]);
    expect(index.changedAfter(0).map(({ uid }) => uid)).toEqual([2, 3, 5, 6, 7]);
    expect(index.removedAfter(before)).toEqual([1, 4]);
    expect(index.removedAfter(before + 2)).toEqual([]);
    expect(index.removedAfter(before - 1)).toBeUndefined();
    expect(index.get(4)).toBeUndefined();
    index.release();
  });

  it('is read anew when the log was cut', async () => {
    await append(3);
    const index = await room.mail.openIndex(account, inbox);
    await flag([1], '$seen');
    await room.mail.expunge(account, inbox, [2], { onlyDeleted: false });
    await room.mail.truncateLog(account, (await room.mail.usage(account)).modseq);
    await index.refresh();
    await expectCurrent(index);
    expect(index.removedAfter(index.modseq - 1)).toBeUndefined();
  });

  it('sees what was committed before the refresh was asked for, however many ask', async () => {
    const index = await room.mail.openIndex(account, inbox);
    const refreshes: Promise<void>[] = [];
    for (let n = 1; n <= 20; n++) {
      void index.refresh();
      const [inserted] = await room.mail.append(account, [newMessage(room, [inbox], `${n}`)]);
      const { uid } = inserted!.uids[0]!;
      refreshes.push(index.refresh().then(() => expect(index.get(uid)).toBeDefined()));
    }
    await Promise.all(refreshes);
  });

  it('is shared, kept after release within its bound, and says when the mailbox is gone', async () => {
    await append(2);
    const { id } = await room.mail.createMailbox(account, ['x']);
    const one = await room.mail.openIndex(account, id);
    const two = await room.mail.openIndex(account, id);
    one.release();
    one.release();
    await room.mail.copy(account, inbox, [1, 2], id);
    await two.refresh();
    expect([one.size, two.size]).toEqual([2, 2]);
    await room.mail.deleteMailbox(account, ['x']);
    await two.refresh();
    expect([two.exists, two.size]).toEqual([false, 0]);
    await expect(room.mail.openIndex(account, id)).rejects.toMatchObject({ code: 'no-mailbox' });
    two.release();
    await expect(room.mail.openIndex(account, 'nowhere')).rejects.toMatchObject({ code: 'no-mailbox' });
    const inboxIndex = await room.mail.openIndex(account, inbox);
    await room.mail.removeAccount(account);
    await inboxIndex.refresh();
    expect(inboxIndex.exists).toBe(false);
  });

  it('loads a mailbox of several pages while it changes', async () => {
    for (let part = 0; part < 13; part++) await append(400);
    const changing = (async () => {
      for (let n = 1; n <= 30; n++) {
        await flag([n * 150], '$flagged');
        await room.mail.expunge(account, inbox, [n * 120 + 1], { onlyDeleted: false });
        if (n % 10 === 0) await append(1);
      }
    })();
    const index = await room.mail.openIndex(account, inbox);
    await changing;
    await index.refresh();
    await expectCurrent(index);
  });
});

describe('a slow refresh', () => {
  it('is not taken for one that was asked for after a commit', async () => {
    const database = new MemoryDatabase({ clock: systemClock });
    const nodes = [0, 1].map(() => {
      const kv = openMemoryStore({ database });
      const shared = { kv, clock: systemClock, random: systemRandom, logger: silentLogger };
      const blobs = createBlobStore(shared);
      return { kv, blobs, mail: createMailStore({ ...shared, blobs }) };
    });
    const [slow, quick] = [nodes[0]!, nodes[1]!];
    await quick.mail.ensureAccount(account);
    const inbox = await mailboxId(quick, account, 'INBOX');
    const index = await slow.mail.openIndex(account, inbox);
    slow.kv.faults.delayMs = (operation) => (operation === 'read' ? 250 : 0);
    const early = index.refresh();
    await systemClock.sleep(5);
    await quick.mail.append(account, [newMessage(quick, [inbox], 'x')]);
    const late = [index.refresh(), index.refresh()];
    expect(late[0]).toBe(late[1]);
    await early;
    expect(index.size).toBe(0);
    await late[0];
    expect(index.size).toBe(1);
    for (const { mail, kv } of nodes) {
      await mail.close();
      await kv.close();
    }
  });
});

describe('released indexes', () => {
  it('are dropped when they take too much memory', async () => {
    const room = await openRoom('memory', { indexCacheBytes: 1 });
    await room.mail.ensureAccount(account);
    const inbox = await mailboxId(room, account, 'INBOX');
    await room.mail.append(account, [newMessage(room, [inbox], 'a')]);
    const index = await room.mail.openIndex(account, inbox);
    index.release();
    await room.mail.append(account, [newMessage(room, [inbox], 'b')]);
    const again = await room.mail.openIndex(account, inbox);
    expect([index.size, again.size]).toEqual([1, 2]);
    again.release();
    await room.close();
  });
});
