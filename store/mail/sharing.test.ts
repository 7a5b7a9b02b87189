/** Lists, grants, subscriptions and annotations, also where conflicts and unknown commits come between; nothing of them outlives its mailbox or account. */
import { afterEach, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import type { MemoryFaultOptions } from '../kv/index.js';
import { changedAcl, decodeAcl, effectiveRights, encodeAcl, identifiersOf, rightsOf } from './acl.js';
import { mailboxId, newMessage, openRoom, type Room, rowsOf } from './fixture.js';
import {
  type AclChange,
  type AclEntry,
  allRights,
  annotationLimits,
  createMailStore,
  granteeEveryone,
  MailError,
  type Right,
} from './index.js';

const alice = 'alice0000000000a';
const bob = 'bob000000000000b';
const carol = 'carol0000000000c';
const faults: MemoryFaultOptions = { conflict: 0.15, commitUnknownApplied: 0.15, commitUnknownLost: 0.1 };
const replace = (letters: string): AclChange => ({ mode: 'replace', rights: rightsOf(letters) });
const code = (expected: string) => expect.objectContaining({ code: expected });
const entry = (identifier: string, letters: string): AclEntry => ({ identifier, rights: rightsOf(letters) });
const letters = (rights: ReadonlySet<Right>) => [...allRights].filter((right) => rights.has(right)).join('');

let room: Room;
afterEach(() => room?.close());

async function open(withFaults?: MemoryFaultOptions): Promise<void> {
  room = await openRoom('memory', withFaults ? { faults: withFaults } : {});
  for (const account of [alice, bob, carol]) await room.mail.ensureAccount(account);
}

describe('a list', () => {
  it('is stored and read', () => {
    const list = [entry('user:x', 'lr'), entry('-group:y', 'wa'), entry('anyone', 'l')];
    expect(decodeAcl(encodeAcl(list))).toEqual(list);
    expect(decodeAcl(undefined)).toEqual([]);
  });

  it('changes one identifier and leaves the others', () => {
    const list = [entry('user:x', 'lrs'), entry('anyone', 'l')];
    expect(changedAcl(list, 'user:x', { mode: 'add', rights: ['w', 'l'] })).toEqual([
      entry('user:x', 'lrsw'),
      entry('anyone', 'l'),
    ]);
    expect(changedAcl(list, 'user:x', { mode: 'remove', rights: ['s', 'a'] })).toEqual([
      entry('user:x', 'lr'),
      entry('anyone', 'l'),
    ]);
    expect(changedAcl(list, 'user:x', { mode: 'remove', rights: ['l', 'r', 's'] })).toEqual([entry('anyone', 'l')]);
    expect(changedAcl(list, 'user:y', replace('te'))).toEqual([...list, entry('user:y', 'te')]);
    expect(changedAcl(list, 'user:x', replace('srl'))).toBeUndefined();
    expect(changedAcl(list, 'user:y', { mode: 'remove', rights: ['l'] })).toBeUndefined();
  });

  it('gives what all identifiers give together, less what is taken from any of them', () => {
    const list = [
      entry('user:x', 'lr'),
      entry('group:g', 'si'),
      entry('anyone', 'p'),
      entry('-group:g', 'r'),
      entry('-user:z', 'l'),
    ];
    expect(letters(effectiveRights(list, identifiersOf('x', ['g'])))).toBe('lsip');
    expect(letters(effectiveRights(list, identifiersOf('x', [])))).toBe('lrp');
    expect(letters(effectiveRights(list, identifiersOf('z', ['g'])))).toBe('sip');
    expect(letters(effectiveRights(list, identifiersOf('q', [])))).toBe('p');
  });
});

describe.each([
  ['as usual', undefined],
  ['with conflicts and unknown commits', faults],
] as const)('sharing %s', (_name, withFaults) => {
  it('is found by the grantee, told in the log of the owner, and taken back', async () => {
    await open(withFaults);
    const inbox = await mailboxId(room, alice, 'INBOX');
    const { sharing } = room.mail;
    const { modseq } = await room.mail.usage(alice);
    await sharing.changeAcl(alice, inbox, `user:${bob}`, replace('lr'));
    await sharing.changeAcl(alice, inbox, `-user:${carol}`, replace('l'));
    await sharing.changeAcl(alice, inbox, 'authenticated', replace('l'));
    await sharing.changeAcl(alice, inbox, 'anyone', replace('p'));
    // Nothing new: no change.
    await sharing.changeAcl(alice, inbox, 'anyone', replace('p'));
    const since = await room.mail.changesSince(alice, modseq);
    expect(since?.sets.map(({ changes }) => changes)).toEqual(Array(4).fill([{ kind: 'mailbox-updated', mailboxId: inbox }]));
    const grant = { accountId: alice, mailboxId: inbox };
    expect(await sharing.grants([bob])).toEqual([grant]);
    expect(await sharing.grants([carol])).toEqual([]);
    expect(await sharing.grants([carol, bob, granteeEveryone])).toEqual([grant]);
    expect((await sharing.acls(alice, [inbox, 'nothing0'])).map((list) => list.length)).toEqual([4, 0]);
    // `anyone` and `authenticated` share a note.
    await sharing.changeAcl(alice, inbox, 'anyone', replace(''));
    expect(await sharing.grants([granteeEveryone])).toEqual([grant]);
    await sharing.changeAcl(alice, inbox, 'authenticated', replace(''));
    expect(await sharing.grants([granteeEveryone])).toEqual([]);
    await sharing.changeAcl(alice, inbox, `user:${bob}`, replace(''));
    await sharing.changeAcl(alice, inbox, `-user:${carol}`, replace(''));
    expect((await rowsOf(room.kv, alice)).has('acl')).toBe(false);
    expect((await rowsOf(room.kv, bob)).has('granted')).toBe(false);
    await expect(sharing.changeAcl(alice, 'nothing0', `user:${bob}`, replace('l'))).rejects.toEqual(code('no-mailbox'));
    expect((await room.mail.recount(alice)).differences).toEqual([]);
  });

  it('goes over to new mailboxes inside, stays with one that is renamed, and goes with one that is removed', async () => {
    await open(withFaults);
    const { sharing } = room.mail;
    const top = await room.mail.createMailbox(alice, ['Top']);
    await sharing.changeAcl(alice, top.id, `user:${bob}`, replace('lr'));
    const inner = await room.mail.createMailbox(alice, ['Top', 'a', 'b']);
    const between = await mailboxId(room, alice, 'Top', 'a');
    expect(await sharing.acls(alice, [inner.id, between])).toEqual([[entry(`user:${bob}`, 'lr')], [entry(`user:${bob}`, 'lr')]]);
    expect(await sharing.grants([bob])).toHaveLength(3);
    await room.mail.renameMailbox(alice, ['Top', 'a', 'b'], ['Elsewhere']);
    expect(await sharing.acls(alice, [inner.id])).toEqual([[entry(`user:${bob}`, 'lr')]]);
    await room.mail.deleteMailbox(alice, ['Elsewhere']);
    await room.mail.deleteMailbox(alice, ['Top', 'a']);
    await room.mail.deleteMailbox(alice, ['Top']);
    expect(await sharing.grants([bob])).toEqual([]);
    expect((await rowsOf(room.kv, alice)).has('acl')).toBe(false);
  });

  it('keeps the subscription of a mailbox that goes until it is made again or taken back', async () => {
    await open(withFaults);
    const { sharing } = room.mail;
    const made = await room.mail.createMailbox(alice, ['a', 'b']);
    await room.mail.setSubscribed(alice, ['a', 'b'], true);
    await room.mail.deleteMailbox(alice, ['a', 'b']);
    expect(await sharing.otherSubscriptions(alice)).toEqual([{ accountId: alice, mailboxId: made.id, path: ['a', 'b'] }]);
    expect((await room.mail.createMailbox(alice, ['a', 'c'])).isSubscribed).toBe(false);
    expect((await room.mail.createMailbox(alice, ['a', 'b'])).isSubscribed).toBe(true);
    expect(await sharing.otherSubscriptions(alice)).toEqual([]);
    const other = { accountId: bob, mailboxId: 'm0', path: ['Other Users', 'bob', 'x'] };
    await sharing.subscribeOther(alice, other);
    await sharing.subscribeOther(alice, other);
    expect(await sharing.otherSubscriptions(alice)).toEqual([other]);
    await sharing.unsubscribeOther(alice, other);
    await sharing.unsubscribeOther(alice, other);
    expect(await sharing.otherSubscriptions(alice)).toEqual([]);
  });

  it('annotates, each for itself and all for all, within limits', async () => {
    await open(withFaults);
    const { annotations } = room.mail;
    const inbox = await mailboxId(room, alice, 'INBOX');
    const shared = { accountId: alice, mailboxId: inbox, scope: 'shared' } as const;
    const { modseq } = await room.mail.usage(alice);
    await annotations.write(shared, [
      { scope: 'shared', name: '/a', value: Buffer.from('1') },
      { scope: 'shared', name: '/a/b', value: Buffer.from([0, 255]) },
      { scope: 'shared', name: '/ab', value: Buffer.from('3') },
    ]);
    await annotations.write(shared, [{ scope: 'shared', name: '/a', value: Buffer.from('1') }]);
    expect((await room.mail.usage(alice)).modseq).toBe(modseq + 1);
    expect(await annotations.values(shared, ['/ab', '/none', '/a'])).toEqual([Buffer.from('3'), undefined, Buffer.from('1')]);
    expect(await annotations.beneath(shared, '/a')).toEqual([{ name: '/a/b', value: Buffer.from([0, 255]) }]);
    expect((await annotations.beneath(shared, '')).map(({ name }) => name)).toEqual(['/a', '/a/b', '/ab']);
    expect(await annotations.beneath(shared, '/a/b')).toEqual([]);
    expect(await annotations.beneath({ ...shared, scope: 'private' }, '')).toEqual([]);
    // A private note on somebody else's mailbox stands with its writer.
    await annotations.write({ accountId: bob, mailboxId: inbox }, [{ scope: 'private', name: '/x', value: Buffer.from('y') }]);
    await expect(
      annotations.write({ accountId: bob, mailboxId: inbox }, [{ scope: 'shared', name: '/x', value: Buffer.from('y') }]),
    ).rejects.toEqual(code('no-mailbox'));
    const tooMany = Array.from({ length: annotationLimits.maxEntries - 2 }, (_, at) => {
      return { scope: 'shared' as const, name: `/n${at}`, value: Buffer.from('v') };
    });
    // The other scope counts by itself.
    await annotations.write(shared, [{ scope: 'private', name: '/p', value: Buffer.from('v') }]);
    await expect(annotations.write(shared, tooMany)).rejects.toEqual(code('too-many'));
    expect(await annotations.beneath(shared, '')).toHaveLength(3);
    const long = Buffer.alloc(annotationLimits.maxValueBytes + 1);
    await expect(annotations.write(shared, [{ scope: 'shared', name: '/l', value: long }])).rejects.toBeInstanceOf(RangeError);
    await annotations.write(shared, [{ scope: 'shared', name: '/a', value: undefined }]);
    expect((await annotations.beneath(shared, '')).map(({ name }) => name)).toEqual(['/a/b', '/ab']);
    const made = await room.mail.createMailbox(alice, ['Gone']);
    await annotations.write({ ...shared, mailboxId: made.id }, [{ scope: 'shared', name: '/x', value: Buffer.from('y') }]);
    await room.mail.deleteMailbox(alice, ['Gone']);
    expect(await annotations.beneath({ ...shared, mailboxId: made.id }, '')).toEqual([]);
  });

  it('leaves nothing of a removed account, on either side', async () => {
    await open(withFaults);
    const { sharing, annotations } = room.mail;
    const inbox = await mailboxId(room, alice, 'INBOX');
    const drafts = await mailboxId(room, carol, 'Drafts');
    await sharing.changeAcl(alice, inbox, `user:${bob}`, replace('lr'));
    await sharing.changeAcl(alice, inbox, `-user:${bob}`, replace('s'));
    await sharing.changeAcl(alice, inbox, 'anyone', replace('l'));
    await sharing.changeAcl(carol, drafts, `user:${bob}`, replace('l'));
    await sharing.changeAcl(carol, drafts, `user:${alice}`, replace('l'));
    await sharing.subscribeOther(bob, { accountId: alice, mailboxId: inbox, path: ['x'] });
    await annotations.write({ accountId: bob, mailboxId: inbox }, [{ scope: 'private', name: '/x', value: Buffer.from('y') }]);
    await annotations.write({ accountId: bob, mailboxId: '' }, [{ scope: 'private', name: '/x', value: Buffer.from('y') }]);
    await room.mail.removeAccount(bob);
    expect([...(await rowsOf(room.kv, bob)).keys()]).toEqual(['log-floor']);
    expect(await sharing.acls(alice, [inbox])).toEqual([[entry('anyone', 'l')]]);
    expect(await sharing.acls(carol, [drafts])).toEqual([[entry(`user:${alice}`, 'l')]]);
    await room.mail.removeAccount(alice);
    expect([...(await rowsOf(room.kv, alice)).keys()]).toEqual(['log-floor']);
    expect((await rowsOf(room.kv, granteeEveryone)).size).toBe(0);
    expect(await sharing.acls(carol, [drafts])).toEqual([[]]);
    expect((await room.mail.recount(carol)).differences).toEqual([]);
  });

  it('leaves nothing of an account that is removed and never had mail', async () => {
    await open(withFaults);
    const inbox = await mailboxId(room, alice, 'INBOX');
    const team = 'team00000000000t';
    await room.mail.sharing.changeAcl(alice, inbox, `group:${team}`, replace('lr'));
    await room.mail.sharing.changeAcl(alice, inbox, `user:${bob}`, replace('l'));
    await room.mail.removeAccount(team);
    expect(await room.mail.sharing.acls(alice, [inbox])).toEqual([[entry(`user:${bob}`, 'l')]]);
    expect((await rowsOf(room.kv, team)).size).toBe(0);
    expect((await room.mail.recount(alice)).differences).toEqual([]);
  });

  it('forgets the note of a mailbox that an earlier release has removed', async () => {
    await open(withFaults);
    const { sharing } = room.mail;
    const made = await room.mail.createMailbox(alice, ['Old']);
    await sharing.changeAcl(alice, made.id, `user:${bob}`, replace('lr'));
    const grant = { accountId: alice, mailboxId: made.id };
    await sharing.forgetIfGone([bob], grant);
    expect(await sharing.grants([bob])).toEqual([grant]);
    const { AccountKeys } = await import('./keys.js');
    await room.kv.transact(async (tx) => tx.clear(new AccountKeys(alice).mailbox(made.id)));
    await sharing.forgetIfGone([bob], grant);
    expect(await sharing.grants([bob])).toEqual([]);
    expect(await sharing.acls(alice, [made.id])).toEqual([[]]);
  });
});

describe('a list that is full', () => {
  it('takes no more', async () => {
    await open();
    const inbox = await mailboxId(room, alice, 'INBOX');
    const full = Array.from({ length: 1_000 }, (_, at) => entry(`-group:g${String(at).padStart(15, '0')}`, 'lrswipkxtea'));
    const { AccountKeys } = await import('./keys.js');
    await room.kv.transact(async (tx) => tx.set(new AccountKeys(alice).acl(inbox), encodeAcl(full)));
    await expect(room.mail.sharing.changeAcl(alice, inbox, `user:${bob}`, replace('l'))).rejects.toEqual(code('too-many'));
    await room.mail.sharing.changeAcl(alice, inbox, full[0]!.identifier, replace(''));
    await room.mail.sharing.changeAcl(alice, inbox, `user:${bob}`, replace('l'));
    expect((await room.mail.sharing.acls(alice, [inbox]))[0]).toHaveLength(1_000);
  });
});

describe('an account with many long lists', () => {
  it('is removed in transactions that the store takes', async () => {
    await open();
    const { AccountKeys } = await import('./keys.js');
    const keys = new AccountKeys(alice);
    for (let mailbox = 0; mailbox < 12; mailbox++) {
      const ids = Array.from({ length: 1_000 }, (_, at) => `u${String(at).padStart(15, '0')}`);
      await room.kv.transact(async (tx) => {
        tx.set(keys.acl(`m${mailbox}`), encodeAcl(ids.map((id) => entry(`user:${id}`, 'lr'))));
        for (const id of ids) tx.set(keys.grantedTo(id, `m${mailbox}`), Buffer.alloc(0));
      });
    }
    let mostClears = 0;
    const transact: typeof room.kv.transact = (body, options) =>
      room.kv.transact((tx) => {
        let clears = 0;
        const counting = new Proxy(tx, {
          get: (_target, name) => {
            const member: unknown = Reflect.get(tx, name);
            if (name === 'clear') mostClears = Math.max(mostClears, ++clears);
            return typeof member === 'function' ? member.bind(tx) : member;
          },
        });
        return body(counting);
      }, options);
    const kv = new Proxy(room.kv, {
      get: (_target, name) => {
        const member: unknown = Reflect.get(room.kv, name);
        if (name === 'transact') return transact;
        return typeof member === 'function' ? member.bind(room.kv) : member;
      },
    });
    const shared = { clock: systemClock, random: systemRandom, logger: silentLogger };
    const mail = createMailStore({ kv, blobs: room.blobs, ...shared });
    await mail.removeAccount(alice);
    await mail.close();
    expect(mostClears).toBeLessThan(2_500);
    expect([...(await rowsOf(room.kv, alice)).keys()]).toEqual(['log-floor']);
    expect((await rowsOf(room.kv, `u${'0'.repeat(15)}`)).size).toBe(0);
  });
});

describe.each([
  ['as usual', undefined],
  ['with conflicts and unknown commits', faults],
] as const)('between accounts, %s', (_name, withFaults) => {
  const all = { seen: true, deleted: true, others: true };
  const messageIdsOf = (summary: Buffer) => [summary.toString()];

  async function filled() {
    await open(withFaults);
    const inbox = await mailboxId(room, alice, 'INBOX');
    const target = await mailboxId(room, bob, 'Archive');
    const texts = ['one', 'two', 'three'];
    for (const text of texts)
      await room.mail.append(alice, [
        newMessage(room, [inbox], text, { keywords: ['$seen', 'work'], isDeleted: text === 'two' }),
      ]);
    return { from: { accountId: alice, mailboxId: inbox }, to: { accountId: bob, mailboxId: target } };
  }
  const clean = async () => {
    for (const account of [alice, bob]) expect((await room.mail.recount(account)).differences).toEqual([]);
  };

  it('copies bytes, dates and the flags that may be carried', async () => {
    const { from, to } = await filled();
    const result = await room.mail.copyBetween(from, [3, 1, 2, 9], to, { carries: all, messageIdsOf });
    expect(result.pairs).toEqual([1, 2, 3].map((uid) => ({ sourceUid: uid, targetUid: uid })));
    const entries = await room.mail.entries(bob, to.mailboxId);
    expect(entries.map(({ keywords, isDeleted }) => [keywords, isDeleted])).toEqual([
      [['$seen', 'work'], false],
      [['$seen', 'work'], true],
      [['$seen', 'work'], false],
    ]);
    const [copied] = await room.mail.messages(bob, [entries[1]!.emailId]);
    expect((await room.blobs.read(copied!.blobId)).toString()).toBe('two');
    expect(copied!.receivedAtMs).toBe(1_700_000_000_000);
    expect((await room.mail.summaries(bob, [copied!.id]))[0]!.toString()).toBe('summary of two');
    const again = await room.mail.copyBetween(from, [2], to, {
      carries: { seen: false, deleted: false, others: true },
      messageIdsOf,
    });
    const last = (await room.mail.entries(bob, to.mailboxId)).at(-1)!;
    expect([last.uid, last.keywords, last.isDeleted]).toEqual([again.pairs[0]!.targetUid, ['work'], false]);
    // The thread is one of the target's own: both copies answer for one message id.
    const [second] = await room.mail.messages(bob, [last.emailId]);
    expect(second!.threadId).toBe(copied!.threadId);
    expect((await room.mail.entries(alice, from.mailboxId)).length).toBe(3);
    // The copies live on without their sources.
    await room.mail.removeAccount(alice);
    expect((await room.blobs.read(copied!.blobId)).toString()).toBe('two');
    expect((await room.mail.recount(bob)).differences).toEqual([]);
  });

  it('moves exactly what it names, in one change of both accounts', async () => {
    const { from, to } = await filled();
    const before = await room.mail.usage(alice);
    const result = await room.mail.copyBetween(from, [1, 3], to, { carries: all, messageIdsOf, leavesSource: true });
    expect(result.pairs).toHaveLength(2);
    expect((await room.mail.entries(alice, from.mailboxId)).map(({ uid }) => uid)).toEqual([2]);
    expect((await room.mail.entries(bob, to.mailboxId)).length).toBe(2);
    expect(await room.mail.usage(alice)).toEqual({ usedBytes: 3, messages: 1, modseq: before.modseq + 1 });
    expect((await room.mail.usage(bob)).usedBytes).toBe(8);
    await clean();
  });

  it('is refused whole, with nothing changed, for want of room or of a mailbox', async () => {
    const { from, to } = await filled();
    const options = { carries: all, messageIdsOf, leavesSource: true };
    await expect(room.mail.copyBetween(from, [1, 2, 3], to, { ...options, quotaLimitBytes: 8 })).rejects.toEqual(
      code('over-quota'),
    );
    await expect(room.mail.copyBetween(from, [1], { ...to, mailboxId: 'nothing0' }, options)).rejects.toEqual(code('no-mailbox'));
    await expect(room.mail.copyBetween({ ...from, mailboxId: 'nothing0' }, [], to, options)).rejects.toEqual(code('no-mailbox'));
    await expect(room.mail.copyBetween(from, [1], from, options)).rejects.toBeInstanceOf(MailError);
    expect((await room.mail.entries(alice, from.mailboxId)).length).toBe(3);
    expect((await room.mail.entries(bob, to.mailboxId)).length).toBe(0);
    await clean();
  });

  it('loses and doubles nothing when both move to one another at once', async () => {
    const { from, to } = await filled();
    await room.mail.append(bob, [newMessage(room, [to.mailboxId], 'four')]);
    const options = { carries: all, messageIdsOf, leavesSource: true };
    await Promise.all([
      room.mail.copyBetween(from, [1, 2], to, options),
      room.mail.copyBetween(from, [1, 2, 3], to, options),
      room.mail.copyBetween(to, [1], from, options),
    ]);
    const texts: string[] = [];
    for (const [account, mailbox] of [
      [alice, from.mailboxId],
      [bob, to.mailboxId],
    ] as const) {
      const entries = await room.mail.entries(account, mailbox);
      for (const message of await room.mail.messages(
        account,
        entries.map(({ emailId }) => emailId),
      ))
        texts.push((await room.blobs.read(message!.blobId)).toString());
    }
    expect(texts.sort()).toEqual(['four', 'one', 'three', 'two']);
    await clean();
  });
});

describe('flags', () => {
  it('change only as far as is allowed', async () => {
    await open();
    const inbox = await mailboxId(room, alice, 'INBOX');
    await room.mail.append(alice, [newMessage(room, [inbox], 'x', { keywords: ['$flagged'], isDeleted: true })]);
    const change = { mode: 'replace', keywords: ['$seen', 'new'], deleted: false } as const;
    const seenOnly = { seen: true, deleted: false, others: false };
    const [first] = (await room.mail.changeFlags(alice, inbox, [1], { ...change, allowed: seenOnly })).entries;
    expect([first!.keywords, first!.isDeleted]).toEqual([['$seen', '$flagged'], true]);
    const others = { seen: false, deleted: true, others: true };
    const [second] = (await room.mail.changeFlags(alice, inbox, [1], { ...change, keywords: ['new'], allowed: others })).entries;
    expect([second!.keywords, second!.isDeleted]).toEqual([['$seen', 'new'], false]);
    const { modseq } = await room.mail.usage(alice);
    await room.mail.changeFlags(alice, inbox, [1], { mode: 'remove', keywords: ['$seen'], deleted: false, allowed: others });
    expect((await room.mail.usage(alice)).modseq).toBe(modseq);
  });
});
