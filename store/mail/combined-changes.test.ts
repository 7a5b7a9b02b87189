import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { MemoryStore } from '../kv/index.js';
import { mailboxId, newMessage, openRoom, type Room, testBackends } from './fixture.js';
import type { Change, ChangeSet, MailboxId } from './index.js';

const account = 'a1';

async function filled(room: Room, count: number): Promise<MailboxId> {
  await room.mail.ensureAccount(account);
  const inbox = await mailboxId(room, account, 'INBOX');
  const texts = Array.from({ length: count }, (_, n) => `message ${n}`);
  await room.mail.append(
    account,
    texts.map((text) => newMessage(room, [inbox], text)),
  );
  return inbox;
}

const adding = (keyword: string) => ({ mode: 'add' as const, keywords: [keyword], deleted: false });
const deleting = { mode: 'add' as const, keywords: [], deleted: true };

/** Asks for changes one after another while the account's gate is held, so that all of them wait; answers what became of them. */
async function together<T>(room: Room, changes: readonly (() => Promise<T>)[]): Promise<PromiseSettledResult<T>[]> {
  const begun: Promise<PromiseSettledResult<T>>[] = [];
  await room.mail.gate.runExclusive(account, async () => {
    for (const change of changes) {
      begun.push(Promise.allSettled([change()]).then(([result]) => result!));
      // Each has come to the gate before the next one.
      await nextTurn();
    }
  });
  return Promise.all(begun);
}

/** Transactions that are committed from here on. */
function countCommits(room: Room): () => number {
  let commits = 0;
  const { kv } = room;
  const original = kv.transact.bind(kv);
  kv.transact = async (body, options) => {
    const value = await original(body, options);
    if (options?.label !== 'mail-watch') commits++;
    return value;
  };
  return () => commits;
}

const setsSince = async (room: Room, modseq: number): Promise<readonly ChangeSet[]> =>
  (await room.mail.changesSince(account, modseq, 100))!.sets;

const presentModseq = async (room: Room): Promise<number> => (await setsSince(room, 0)).at(-1)!.modseq;

describe.each(testBackends)('changes that wait for one another on %s', (backend) => {
  it('share a transaction, and have a modseq each', async () => {
    const room = await openRoom(backend);
    const inbox = await filled(room, 3);
    const modseq = await presentModseq(room);
    const commits = countCommits(room);
    const results = await together(room, [
      () => room.mail.changeFlags(account, inbox, [1, 2], adding('first')),
      () => room.mail.changeFlags(account, inbox, [2, 3], adding('second')),
      () => room.mail.changeFlags(account, inbox, [2], adding('first')),
      () => room.mail.changeFlags(account, inbox, [1], deleting),
    ]);
    expect(commits()).toBe(1);
    const states = results.map((result) => (result.status === 'fulfilled' ? result.value.states : []));
    expect(states.map((some) => some.map((state) => state.modseq - modseq))).toEqual([[1, 1], [2, 2], [2], [3]]);
    // Each sees what those before it have done, and nothing of those behind it.
    expect(states.map((some) => some.map(({ keywords }) => [...keywords].sort().join()))).toEqual([
      ['first', 'first'],
      ['first,second', 'second'],
      ['first,second'],
      ['first'],
    ]);
    const touched = (changes: readonly Change[]) =>
      changes.flatMap((change) => (change.kind === 'entry-changed' ? [change.entry.uid] : []));
    expect((await setsSince(room, modseq)).map((set) => [set.modseq - modseq, touched(set.changes)])).toEqual([
      [1, [1, 2]],
      [2, [2, 3]],
      [3, [1]],
    ]);
    expect((await room.mail.recount(account)).differences).toEqual([]);
    await room.close();
  });

  it('are refused by what one before them has changed (UNCHANGEDSINCE), and expunge what one before them has marked', async () => {
    const room = await openRoom(backend);
    const inbox = await filled(room, 3);
    const modseq = await presentModseq(room);
    const results = await together<{ modified?: readonly number[] } | number[]>(room, [
      () => room.mail.changeFlags(account, inbox, [1], deleting),
      () => room.mail.changeFlags(account, inbox, [1, 2], { ...adding('late'), unchangedSince: modseq }),
      () => room.mail.expunge(account, inbox, [1, 2, 3]),
      () => room.mail.expunge(account, inbox, [1, 2, 3]),
      () => room.mail.changeFlags(account, inbox, [1, 3], adding('after')),
    ]);
    const values = results.map((result) => (result.status === 'fulfilled' ? result.value : result.reason));
    expect(values[1].modified).toEqual([1]);
    expect(values[2]).toEqual([1]);
    expect(values[3]).toEqual([]);
    expect(values[4].uids).toEqual([3]);
    const entries = await room.mail.entries(account, inbox);
    expect(entries.map(({ uid, keywords }) => [uid, ...keywords])).toEqual([
      [2, 'late'],
      [3, 'after'],
    ]);
    expect((await room.mail.recount(account)).differences).toEqual([]);
    await room.close();
  });

  it('fail alone', async () => {
    const room = await openRoom(backend);
    const inbox = await filled(room, 2);
    const results = await together<unknown>(room, [
      () => room.mail.changeFlags(account, inbox, [1], adding('one')),
      () => room.mail.changeFlags(account, 'nowhere', [1], adding('two')),
      () => room.mail.expunge(account, 'nowhere', [1]),
      () => room.mail.changeFlags(account, inbox, [2], adding('three')),
    ]);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected', 'fulfilled']);
    for (const result of results.slice(1, 3)) expect(result).toMatchObject({ reason: { code: 'no-mailbox' } });
    const entries = await room.mail.entries(account, inbox);
    expect(entries.map(({ keywords }) => keywords)).toEqual([['one'], ['three']]);
    expect((await room.mail.recount(account)).differences).toEqual([]);
    await room.close();
  });

  it('are told of with the last one', async () => {
    const room = await openRoom(backend);
    const inbox = await filled(room, 2);
    const told: number[] = [];
    room.mail.onLocalChange(({ modseq }) => told.push(modseq));
    const modseq = await presentModseq(room);
    await together(
      room,
      [1, 2].map((uid) => () => room.mail.changeFlags(account, inbox, [uid], adding('x'))),
    );
    expect(told).toEqual([modseq + 2]);
    await room.close();
  });
});

describe.each(['applied', 'lost'] as const)('a commit that is unknown, and was %s', (fate) => {
  it('makes each of them once', async () => {
    const room = await openRoom('memory');
    const inbox = await filled(room, 3);
    await room.mail.changeFlags(account, inbox, [2], deleting);
    const modseq = await presentModseq(room);
    (room.kv as MemoryStore).faults.nextCommit = fate;
    const results = await together<{ uids: readonly number[] } | number[]>(room, [
      () => room.mail.changeFlags(account, inbox, [1, 2], adding('x')),
      () => room.mail.expunge(account, inbox, [2]),
      () => room.mail.changeFlags(account, inbox, [2, 3], adding('x')),
    ]);
    const values = results.map((result) => (result.status === 'fulfilled' ? result.value : result.reason));
    expect(values[0].uids).toEqual([1, 2]);
    expect(values[1]).toEqual([2]);
    expect(values[2].uids).toEqual([3]);
    expect((await setsSince(room, modseq)).map((set) => set.modseq - modseq)).toEqual([1, 2, 3]);
    expect((await room.mail.recount(account)).differences).toEqual([]);
    await room.close();
  });
});

describe('changes that lose together again and again', () => {
  it('are made alone', async () => {
    const room = await openRoom('memory');
    const inbox = await filled(room, 3);
    const modseq = await presentModseq(room);
    const { faults } = room.kv as MemoryStore;
    const commits = countCommits(room);
    const transact = room.kv.transact.bind(room.kv);
    let lost = 0;
    room.kv.transact = async (body, options) => {
      try {
        return await transact(body, options);
      } catch (error) {
        lost++;
        faults.conflict = 0;
        throw error;
      }
    };
    faults.conflict = 1;
    const results = await together(
      room,
      [1, 2, 3].map((uid) => () => room.mail.changeFlags(account, inbox, [uid], adding('x'))),
    );
    expect(lost).toBe(1);
    expect(commits()).toBe(3);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'fulfilled']);
    expect((await setsSince(room, modseq)).map((set) => set.modseq - modseq)).toEqual([1, 2, 3]);
    expect((await room.mail.recount(account)).differences).toEqual([]);
    await room.close();
  });
});
