/** Changes of flags by range: the pure parts, and what nodes of several ages and a node that dies in between make of them. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { mailboxId, newMessage, openRoom, type Room, testBackends, until } from './fixture.js';
import {
  changedDeleted,
  changedKeywords,
  decodeFlagRanges,
  encodeFlagRanges,
  type FlagRange,
  foldEntry,
  foldRow,
  type RangeChange,
  withoutListed,
  withRange,
} from './flag-ranges.js';
import { countShared, defaultFlagRangeSettings, FlagSettling, settleStep } from './flag-settling.js';
import { createMailStore, type FlagChange, type MailboxEntry, type OpenMailStore } from './index.js';
import { AccountKeys } from './keys.js';
import { decodeKeywords } from './keywords.js';
import { SharedIndex } from './mailbox-index.js';
import { decodeCounts, decodeEntry, decodeMessage, decodeState, encodeEntry, encodeState } from './records.js';
import { countUids, includesUid, packRanges, rangesOf, uidsIn, unpackRanges, withoutUids } from './uid-ranges.js';

const uidSet = fc
  .oneof(fc.uniqueArray(fc.integer({ min: 1, max: 40 })), fc.uniqueArray(fc.integer({ min: 1, max: 0xffff_ffff })))
  .map((uids) => uids.sort((a, b) => a - b));

describe('ranges of UIDs', () => {
  it('are sets', () => {
    fc.assert(
      fc.property(uidSet, uidSet, fc.nat({ max: 20 }), (one, other, limit) => {
        const ranges = rangesOf(one);
        expect(uidsIn(ranges)).toEqual(one);
        expect(uidsIn(ranges, limit)).toEqual(one.slice(0, limit));
        expect(countUids(ranges)).toBe(one.length);
        expect(unpackRanges(packRanges(ranges))).toEqual(ranges);
        for (const uid of [...one, ...other]) expect(includesUid(ranges, uid)).toBe(one.includes(uid));
        const rest = one.filter((uid) => !other.includes(uid));
        expect(withoutUids(ranges, rangesOf(other))).toEqual(rangesOf(rest));
      }),
    );
  });

  it('take a few bytes each', () => {
    expect(packRanges(rangesOf(Array.from({ length: 100_000 }, (_, n) => n + 1))).length).toBeLessThan(8);
    const everyOther = Array.from({ length: 1_000 }, (_, n) => 2 * n + 1);
    expect(packRanges(rangesOf(everyOther)).length).toBeLessThan(2_100);
  });

  it('are not read of other bytes', () => {
    for (const bytes of [
      [1],
      [0x80],
      [5, 0, 1, 0],
      [0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0],
      [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    ]) {
      expect(() => unpackRanges(Uint8Array.from(bytes))).toThrow();
    }
  });
});

const others = fc.subarray(['later', 'mine', 'work']);
const bits = fc.integer({ min: 0, max: 15 }).map((low) => (low & 7) | (low & 8 ? 1 << 30 : 0));
const change: fc.Arbitrary<RangeChange> = fc.record({
  set: bits,
  clear: bits,
  adds: others,
  removes: others,
  clearsOthers: fc.boolean(),
});
const entry: fc.Arbitrary<MailboxEntry> = fc.record({
  uid: fc.integer({ min: 1, max: 6 }),
  emailId: fc.constant('e'.repeat(20)),
  isDeleted: fc.boolean(),
  modseq: fc.integer({ min: 1, max: 12 }),
  keywords: fc.tuple(fc.nat({ max: 7 }), others).map(([set, list]) => decodeKeywords(set, [...list].sort())),
  sizeBytes: fc.constant(1),
  receivedAtMs: fc.constant(1),
  savedAtMs: fc.constant(1),
});
const someRanges = fc
  .array(fc.tuple(fc.uniqueArray(fc.integer({ min: 1, max: 6 }), { minLength: 1 }), change), { maxLength: 8 })
  .map((list): FlagRange[] =>
    list.map(([uids, made], at) => ({ modseq: at * 2 + 2, uids: rangesOf(uids.sort((a, b) => a - b)), change: made })),
  );

describe('a list of ranges', () => {
  it('makes of an entry what its changes make one after another, however they are kept', () => {
    fc.assert(
      fc.property(entry, someRanges, (before, ranges) => {
        let expected = before;
        for (const { modseq, uids, change } of ranges) {
          if (!includesUid(uids, before.uid) || modseq <= before.modseq) continue;
          const keywords = changedKeywords(expected.keywords, change);
          expected = { ...expected, modseq, keywords, isDeleted: changedDeleted(expected.isDeleted, change) };
        }
        let kept: FlagRange[] = [];
        for (const range of ranges) kept = withRange(kept, range);
        expect(foldEntry(before, ranges)).toEqual(expected);
        expect(foldEntry(before, kept)).toEqual(expected);
        const read = decodeFlagRanges(encodeFlagRanges(kept));
        expect(read).toEqual(kept);
        expect(decodeEntry(before.uid, foldRow(before.uid, encodeEntry(before), read))).toEqual(expected);
        const settled = withoutListed(kept, rangesOf([before.uid]));
        expect(foldEntry(before, settled)).toEqual(before);
      }),
      { numRuns: 500 },
    );
  });

  it('stays short while the same flags come and go', () => {
    const flag = (modseq: number): FlagRange => {
      const [set, clear] = modseq % 2 === 0 ? [1, 0] : [0, 1];
      return { modseq, uids: Uint32Array.of(1, 100), change: { set, clear, adds: [], removes: [], clearsOthers: false } };
    };
    let ranges: FlagRange[] = [];
    for (let modseq = 1; modseq < 50; modseq++) ranges = withRange(ranges, flag(modseq));
    expect(ranges).toEqual([flag(49)]);
  });
});

const account = 'alice0000000000a';
const keys = new AccountKeys(account);
const settings = { minUids: 2, settleDelayMs: 1e9, settlePauseMs: 0 };
const seen: FlagChange = { mode: 'add', keywords: ['$seen'], deleted: false };

interface Bench extends Room {
  inbox: string;
  all: number[];
  /** Another node on the same store. */
  next(more?: Partial<Parameters<typeof createMailStore>[0]>): OpenMailStore;
  row(key: Buffer): Promise<Buffer | undefined>;
}

async function openBench(
  backend: (typeof testBackends)[number],
  messages = 8,
  options: Parameters<typeof openRoom>[1] = {},
): Promise<Bench> {
  const room = await openRoom(backend, { flagRanges: settings, ...options });
  const { kv, blobs } = room;
  await room.mail.ensureAccount(account);
  const inbox = await mailboxId(room, account, 'INBOX');
  for (let n = 0; n < messages; n += 400) {
    const part = Array.from({ length: Math.min(400, messages - n) }, () => newMessage(room, [inbox], 'one'));
    await room.mail.append(account, part);
  }
  const shared = { kv, blobs, clock: systemClock, random: systemRandom, logger: silentLogger };
  return {
    ...room,
    inbox,
    all: Array.from({ length: messages }, (_, n) => n + 1),
    next: (more) => createMailStore({ ...shared, flagRanges: settings, ...more }),
    row: (key) => kv.read((reads) => reads.get(key)),
  };
}

const hasRanges = async (bench: Bench) => (await bench.row(keys.flagRanges(bench.inbox))) !== undefined;
const stateOf = async (bench: Bench) => decodeState((await bench.row(keys.state))!);

describe.each(testBackends)('flags of many messages in one range on %s', (backend) => {
  it('are what everybody reads, before and after their rows are written', async () => {
    const bench = await openBench(backend);
    const { mail, inbox, all } = bench;
    const index = await mail.openIndex(account, inbox);
    await mail.changeFlags(account, inbox, [3], { mode: 'add', keywords: ['later'], deleted: true });
    const before = await mail.usage(account);
    const result = await mail.changeFlags(account, inbox, all, { mode: 'add', keywords: ['$seen', 'mine'], deleted: true });
    expect((await mail.usage(account)).modseq).toBe(before.modseq + 1);
    expect(await hasRanges(bench)).toBe(true);
    expect(result.uids).toEqual(all);
    const look = async (reader: OpenMailStore) => {
      const entries = await reader.entries(account, inbox);
      expect(entries.map(({ keywords }) => keywords)).toEqual(
        all.map((uid) => (uid === 3 ? ['$seen', 'later', 'mine'] : ['$seen', 'mine'])),
      );
      expect(entries.every(({ isDeleted, modseq }) => isDeleted && modseq === before.modseq + 1)).toBe(true);
      const messages = await reader.messages(
        account,
        entries.map(({ emailId }) => emailId),
      );
      expect(messages.map((message) => message?.keywords)).toEqual(entries.map(({ keywords }) => keywords));
      const [one] = await Promise.all([bench.kv.read((reads) => reader.entryAt(reads, account, inbox, 3))]);
      expect(one).toEqual(entries[2]);
      const opened = await reader.openIndex(account, inbox);
      await opened.refresh();
      expect(all.map((uid) => opened.get(uid))).toEqual(entries);
      expect(opened.changedAfter(before.modseq)).toEqual(entries);
      opened.release();
      const { counts } = (await reader.mailboxById(account, inbox))!;
      expect([counts.unseen, counts.deleted, counts.highestModseq]).toEqual([0, 8, before.modseq + 1]);
      expect((await reader.recount(account)).differences).toEqual([]);
    };
    expect(result.entries).toEqual(await mail.entries(account, inbox));
    const [first, fresh] = [mail, bench.next()];
    await look(first);
    await look(fresh);
    // Other kinds of nodes would not see it, and must not read the account.
    expect((await bench.row(keys.state))![0]).toBe(2);
    await fresh.settleFlags(account);
    expect(await hasRanges(bench)).toBe(false);
    expect((await bench.row(keys.state))![0]).toBe(1);
    const { emailId } = (await mail.entries(account, inbox))[2]!;
    expect(decodeMessage(emailId, (await bench.row(keys.message(emailId)))!).keywords).toEqual(['$seen', 'later', 'mine']);
    for (const reader of [first, fresh, bench.next()]) await look(reader);
    index.release();
    await fresh.close();
    await bench.close();
  });

  it('are left half settled by a node that dies, and changed on by others', async () => {
    const bench = await openBench(backend);
    const { mail, inbox, all } = bench;
    const archive = await mailboxId(bench, account, 'Archive');
    await mail.openIndex(account, inbox);
    await mail.changeFlags(account, inbox, all, seen);
    const context = { gate: mail.gate, kv: bench.kv, keysOf: () => keys };
    const before = await mail.entries(account, inbox);
    expect(await settleStep(context, account, inbox, 3)).toBe(true);
    const other = bench.next();
    expect(await other.entries(account, inbox)).toEqual(before);
    // Of those that are settled and those that are not.
    await other.changeFlags(account, inbox, [2], { mode: 'remove', keywords: ['$seen'], deleted: false });
    await other.changeFlags(account, inbox, [5], { mode: 'add', keywords: ['$flagged'], deleted: false });
    await other.copy(account, inbox, [3, 6], archive);
    await other.move(account, inbox, [1, 7], archive);
    await other.changeFlags(account, inbox, [8], { mode: 'add', keywords: [], deleted: true });
    await other.expunge(account, inbox, [8]);
    const flags = async (id: string) => (await other.entries(account, id)).map(({ uid, keywords }) => [uid, ...keywords]);
    const wanted = [[2], [3, '$seen'], [4, '$seen'], [5, '$seen', '$flagged'], [6, '$seen']];
    expect(await flags(inbox)).toEqual(wanted);
    expect(await flags(archive)).toEqual([1, 2, 3, 4].map((uid) => [uid, '$seen']));
    // Who reads all rows now leaves those alone that are newer than the range.
    const third = bench.next();
    const opened = await third.openIndex(account, inbox);
    const rows = await third.entries(account, inbox);
    expect(rows.map(({ uid }) => opened.get(uid))).toEqual(rows);
    await third.close();
    // A message that came into a second mailbox has one list of keywords.
    await other.changeFlags(account, archive, [2], { mode: 'remove', keywords: ['$seen'], deleted: false });
    expect((await flags(inbox))[4]).toEqual([6]);
    expect((await other.recount(account)).differences).toEqual([]);
    while (await settleStep(context, account, inbox, 1));
    expect((await flags(inbox)).slice(0, 4)).toEqual(wanted.slice(0, 4));
    expect((await other.recount(account)).differences).toEqual([]);
    expect((await stateOf(bench)).ranged).toBe(0);
    await other.close();
    await bench.close();
  });

  it('are settled by and by, in the background', async () => {
    const bench = await openBench(backend, 8, { flagRanges: { ...settings, settleDelayMs: 1 } });
    const { mail, inbox, all } = bench;
    await mail.openIndex(account, inbox);
    await mail.changeFlags(account, inbox, all, seen);
    await until(async () => !(await hasRanges(bench)));
    await mail.idle();
    expect((await mail.recount(account)).differences).toEqual([]);
    await bench.close();
  });

  it('go with the mailbox, with its messages, and with the account', async () => {
    const bench = await openBench(backend);
    const { mail, all } = bench;
    const work = (await mail.createMailbox(account, ['work'])).id;
    const ranged = async () => (await stateOf(bench)).ranged;
    const fill = async () => {
      const { uids } = await mail.changeFlags(account, bench.inbox, all, { ...seen, mode: 'remove' });
      const { pairs } = await mail.move(account, bench.inbox, uids, work);
      await mail.openIndex(account, work);
      await mail.changeFlags(
        account,
        work,
        pairs.map(({ targetUid }) => targetUid),
        seen,
      );
      return pairs.map(({ targetUid }) => targetUid);
    };
    const uids = await fill();
    expect(await ranged()).toBe(1);
    await mail.expunge(account, work, uids, { onlyDeleted: false });
    expect(await ranged()).toBe(0);
    await mail.append(
      account,
      all.map(() => newMessage(bench, [work], 'two')),
    );
    const later = (await mail.entries(account, work)).map(({ uid }) => uid);
    await mail.changeFlags(account, work, later, seen);
    expect(await ranged()).toBe(1);
    await mail.deleteMailbox(account, ['work']);
    await mail.idle();
    expect([await ranged(), await bench.row(keys.flagRanges(work))]).toEqual([0, undefined]);
    expect((await mail.recount(account)).differences).toEqual([]);
    const inbox = bench.inbox;
    await mail.append(
      account,
      all.map(() => newMessage(bench, [inbox], 'two')),
    );
    await mail.openIndex(account, inbox);
    await mail.changeFlags(
      account,
      inbox,
      (await mail.entries(account, inbox)).map(({ uid }) => uid),
      seen,
    );
    expect(await hasRanges(bench)).toBe(true);
    await mail.removeAccount(account);
    expect(await hasRanges(bench)).toBe(false);
    await bench.close();
  });

  it('are changed row by row where messages are in two mailboxes, until they no longer are', async () => {
    const bench = await openBench(backend);
    const { mail, inbox, all } = bench;
    const archive = await mailboxId(bench, account, 'Archive');
    await mail.openIndex(account, inbox);
    await mail.openIndex(account, archive);
    const { pairs } = await mail.copy(account, inbox, [4], archive);
    await mail.changeFlags(account, inbox, all, seen);
    expect(await hasRanges(bench)).toBe(false);
    expect((await mail.entries(account, archive))[0]!.keywords).toEqual(['$seen']);
    await mail.expunge(account, archive, [pairs[0]!.targetUid], { onlyDeleted: false });
    await mail.changeFlags(account, inbox, all, { ...seen, mode: 'remove' });
    expect(await hasRanges(bench)).toBe(true);
    expect((await mail.recount(account)).differences).toEqual([]);
    await bench.close();
  });

  it('are changed row by row where another release has been, until it is known again where messages are', async () => {
    const bench = await openBench(backend);
    const { mail, inbox, all } = bench;
    await mail.openIndex(account, inbox);
    // Such a one knows neither of the fields, and writes rows without them.
    await bench.kv.transact(async (tx) => {
      const state = decodeState((await tx.get(keys.state))!);
      tx.set(keys.state, encodeState({ ...state, placesSince: undefined, modseq: state.modseq + 1 }));
      tx.set(keys.logAt(state.modseq + 1), (await tx.get(keys.logAt(state.modseq)))!);
    });
    expect((await bench.row(keys.state))!.length).toBe(25);
    expect(decodeCounts((await bench.row(keys.counts(inbox)))!).shared).toBe(0);
    await mail.changeFlags(account, inbox, all, seen);
    expect(await hasRanges(bench)).toBe(false);
    await mail.idle();
    // That was counted after the first such change.
    await mail.changeFlags(account, inbox, all, { ...seen, mode: 'remove' });
    expect(await hasRanges(bench)).toBe(true);
    expect((await mail.recount(account)).differences).toEqual([]);
    await bench.close();
  });

  it('are written so only where every node knows them', async () => {
    let knows = false;
    const bench = await openBench(backend, 8, { mayWriteFlagRanges: () => knows });
    const { mail, inbox, all } = bench;
    await mail.openIndex(account, inbox);
    await mail.changeFlags(account, inbox, all, seen);
    expect(await hasRanges(bench)).toBe(false);
    knows = true;
    await mail.changeFlags(account, inbox, all, { ...seen, mode: 'remove' });
    expect(await hasRanges(bench)).toBe(true);
    await bench.close();
  });

  it('are changed row by row when there would be too many', async () => {
    const bench = await openBench(backend, 40, { flagRanges: { ...settings, maxBytes: 60 } });
    const { mail, inbox } = bench;
    await mail.openIndex(account, inbox);
    const odd = Array.from({ length: 20 }, (_, n) => 2 * n + 1);
    await mail.changeFlags(account, inbox, [1, 2, 3], seen);
    await mail.changeFlags(account, inbox, odd, { mode: 'add', keywords: ['$flagged'], deleted: false });
    const flagged = (await mail.entries(account, inbox)).filter(({ keywords }) => keywords.includes('$flagged'));
    expect(flagged.map(({ uid }) => uid)).toEqual(odd);
    await mail.idle();
    expect(await hasRanges(bench)).toBe(false);
    expect((await mail.recount(account)).differences).toEqual([]);
    await bench.close();
  });

  it('get into no more pieces than fit into a row, whatever is settled or removed', async () => {
    const bench = await openBench(backend);
    const { mail, inbox } = bench;
    const context = { gate: mail.gate, kv: bench.kv, keysOf: () => keys };
    const put = (ranges: FlagRange[]) =>
      bench.kv.transact(async (tx) => {
        const state = decodeState((await tx.get(keys.state))!);
        tx.set(keys.flagRanges(inbox), encodeFlagRanges(ranges));
        tx.set(keys.state, encodeState({ ...state, ranged: 1 }));
      });
    const change: RangeChange = { set: 0, clear: 0, adds: [], removes: [], clearsOthers: false };
    const scattered = rangesOf(Array.from({ length: 7_000 }, (_, n) => 2 * n + 9));
    // Each piece that the first is in would be a hole in all others.
    const whole = Array.from({ length: 15 }, () => ({ modseq: 1, uids: Uint32Array.of(1, 15_000), change }));
    await put([{ modseq: 1, uids: scattered, change }, ...whole]);
    let bytes = Number.POSITIVE_INFINITY;
    while (await settleStep(context, account, inbox, 2_000)) {
      const now = (await bench.row(keys.flagRanges(inbox)))!.length;
      expect(now).toBeLessThanOrEqual(bytes);
      bytes = now;
    }
    expect((await stateOf(bench)).ranged).toBe(0);
    // A row with hardly any room left, in which each of those messages is named often.
    const wide = rangesOf(Array.from({ length: 49_300 }, (_, n) => 2 * n + 11));
    const often = Array.from({ length: 100 }, () => ({ modseq: 1, uids: Uint32Array.of(1, 9), change }));
    await put([{ modseq: 1, uids: wide, change }, ...often]);
    expect((await bench.row(keys.flagRanges(inbox)))!.length).toBeGreaterThan(99_600);
    expect(await mail.expunge(account, inbox, [2, 4, 6], { onlyDeleted: false })).toEqual([2, 4, 6]);
    while (await settleStep(context, account, inbox, 10_000));
    expect((await stateOf(bench)).ranged).toBe(0);
    expect((await mail.recount(account)).differences).toEqual([]);
    await bench.close();
  });

  it('agree for two nodes that change them at once, while others settle', async () => {
    const bench = await openBench(backend, 60);
    const nodes = [bench.mail, bench.next(), bench.next()];
    const indexes = await Promise.all(nodes.map((mail) => mail.openIndex(account, bench.inbox)));
    const context = (mail: OpenMailStore) => ({ gate: mail.gate, kv: bench.kv, keysOf: () => keys });
    const own = ['$flagged', '$answered', 'later'];
    const has: Set<number>[] = own.map(() => new Set());
    let running = true;
    const settling = (async () => {
      while (running) {
        await settleStep(context(nodes[1]!), account, bench.inbox, 7);
        await systemClock.sleep(1);
      }
    })();
    await Promise.all(
      nodes.map(async (mail, n) => {
        for (let turn = 0; turn < 12; turn++) {
          const uids = bench.all.filter((uid) => (uid * (turn + 3) + n) % 4 > 0);
          const mode = (turn + n) % 3 === 0 ? 'remove' : 'add';
          const some = turn % 4 === 3 ? uids.slice(0, 1) : uids;
          await mail.changeFlags(account, bench.inbox, some, { mode, keywords: [own[n]!], deleted: false });
          for (const uid of some) mode === 'add' ? has[n]!.add(uid) : has[n]!.delete(uid);
        }
      }),
    );
    running = false;
    await settling;
    const entries = await bench.mail.entries(account, bench.inbox);
    const wanted = bench.all.map((uid) => own.filter((_, n) => has[n]!.has(uid)).sort());
    expect(entries.map(({ keywords }) => [...keywords].sort())).toEqual(wanted);
    for (const [n, index] of indexes.entries()) {
      await index.refresh();
      expect(bench.all.map((uid) => index.get(uid))).toEqual(entries);
      expect((await nodes[n]!.recount(account)).differences).toEqual([]);
    }
    await nodes[1]!.close();
    await nodes[2]!.close();
    await bench.close();
  });

  it('are made once when the commit was unknown', async () => {
    if (backend !== 'memory') return;
    const bench = await openBench(backend, 8, { faults: { commitUnknownApplied: 0.5, commitUnknownLost: 0.2 } });
    const { mail, inbox, all } = bench;
    await mail.openIndex(account, inbox);
    for (let turn = 0; turn < 20; turn++) {
      const { modseq } = await mail.usage(account);
      const mode = turn % 2 === 0 ? 'add' : 'remove';
      const { uids, states } = await mail.changeFlags(account, inbox, all, { ...seen, mode });
      expect(uids).toEqual(all);
      expect(states.every(({ modseq: at, keywords }) => at === modseq + 1 && keywords.length === (mode === 'add' ? 1 : 0))).toBe(
        true,
      );
      expect((await mail.usage(account)).modseq).toBe(modseq + 1);
    }
    await mail.settleFlags(account);
    expect((await mail.recount(account)).differences).toEqual([]);
    await bench.close();
  });
});

describe('what goes on in the background', () => {
  it('is asked for once, however many changes find that there are too many ranges', async () => {
    const bench = await openBench('memory');
    let steps = 0;
    const kv: Bench['kv'] = {
      ...bench.kv,
      transact: (body, options) => {
        steps++;
        return bench.kv.transact(body, options);
      },
    };
    const context = { gate: bench.mail.gate, kv, keysOf: () => keys, clock: systemClock, logger: silentLogger };
    const settling = new FlagSettling(context as never, defaultFlagRangeSettings);
    for (let turn = 0; turn < 5; turn++) settling.now(account, bench.inbox);
    await settling.idle();
    expect(steps).toBe(1);
    settling.now(account, bench.inbox);
    await settling.idle();
    expect(steps).toBe(2);
    await settling.close();
    await bench.close();
  });

  it('ends with the node, which is no failure of who waits for it', async () => {
    const bench = await openBench('memory', 400, { flagRanges: { ...settings, settlePauseMs: 1e9 } });
    const { mail, inbox, all } = bench;
    await mail.openIndex(account, inbox);
    await mail.changeFlags(account, inbox, all, seen);
    const whole = await bench.row(keys.flagRanges(inbox));
    const waiting = mail.settleFlags(account);
    await until(async () => !(await bench.row(keys.flagRanges(inbox)))!.equals(whole!));
    await mail.close();
    await waiting;
    expect(await hasRanges(bench)).toBe(true);
    await bench.close();
  });

  it('counts no further once the account has changed, or the node ends', async () => {
    const bench = await openBench('memory', 2_400);
    const { kv, inbox, mail } = bench;
    const settings = { minMessages: Number.POSITIVE_INFINITY, minChanges: 1, minIntervalMs: 1 };
    const own = { kv, keysOf: () => keys, clock: systemClock, snapshots: settings, offerSnapshot: () => {} };
    const index = new SharedIndex(own, account, inbox);
    await index.load();
    const count = async (afterRead: () => Promise<unknown>, signal?: AbortSignal) => {
      let reads = 0;
      const read: Bench['kv']['read'] = async (body, options) => {
        const value = await kv.read(body, options);
        reads++;
        await afterRead();
        return value;
      };
      const context = { gate: mail.gate, keysOf: () => keys, kv: { ...kv, read, transact: kv.transact.bind(kv) } };
      return [await countShared(context, account, index, signal), reads];
    };
    expect(await count(async () => {})).toEqual([true, 3]);
    const stopping = new AbortController();
    expect(await count(async () => stopping.abort(), stopping.signal)).toEqual([false, 1]);
    expect(await count(() => mail.append(account, [newMessage(bench, [inbox], 'more')]))).toEqual([false, 2]);
    await bench.close();
  });
});
