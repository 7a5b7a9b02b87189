import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Change, MailboxEntry } from './contract.js';
import { EntryFlags, entryMiddle, flagsOffset, MessageFlags, threadIdOf, withEntryMiddle, withMessageBits } from './flag-rows.js';
import { decodeKeywords } from './keywords.js';
import { encodeLog, maxLogValueBytes, readLogValues } from './log.js';
import { LogRows } from './log-rows.js';
import { decodeMessage, encodeEntry, encodeMessage, type StoredMessage } from './records.js';

const mailboxId = 'mabcdefghijk';
const number = fc.oneof(
  fc.nat({ max: 300 }),
  fc.nat({ max: 70_000 }),
  fc.nat({ max: 0xffff_ffff }),
  fc.integer({ min: 0, max: 2 ** 48 - 1 }),
);
const bits = fc.nat({ max: 0x1ff });
const id = fc.stringMatching(/^[0-9a-v]{20}$/);
const entryOf = fc.record({
  uid: fc.integer({ min: 1, max: 0xffff_ffff }),
  emailId: id,
  isDeleted: fc.boolean(),
  modseq: number,
  keywords: bits.map((set) => decodeKeywords(set, 0)),
  sizeBytes: number,
  receivedAtMs: number,
  savedAtMs: number,
});

function patched(before: MailboxEntry, isDeleted: boolean, modseq: number, set: number) {
  const row = encodeEntry(before);
  const flags = new EntryFlags();
  expect(flags.read(row)).toBe(true);
  const middle = entryMiddle(isDeleted, modseq, set);
  return { flags, row: withEntryMiddle(row, flags.tail, middle), middleEnd: flagsOffset + middle.length };
}

describe('rows with changed flags', () => {
  it('are what encoding the changed entry gives', () => {
    fc.assert(
      fc.property(entryOf, fc.boolean(), number, bits, (before, isDeleted, modseq, set) => {
        const { flags, row } = patched(before, isDeleted, modseq, set);
        expect([flags.isDeleted, flags.modseq, decodeKeywords(flags.bits, 0)]).toEqual([
          before.isDeleted,
          before.modseq,
          before.keywords,
        ]);
        expect(row).toEqual(encodeEntry({ ...before, isDeleted, modseq, keywords: decodeKeywords(set, 0) }));
      }),
    );
  });

  it('of a message too, whose thread is found', () => {
    const facts = fc.record({ id, own: fc.boolean(), threadId: id, uid: fc.integer({ min: 1, max: 0xffff_ffff }), size: number });
    fc.assert(
      fc.property(facts, number, bits, bits, (one, receivedAtMs, before, after) => {
        const threadId = one.own ? one.id : one.threadId;
        const keywords = decodeKeywords(before, 0);
        const mailboxes = { [mailboxId]: one.uid };
        const message = { id: one.id, blobId: 'ab'.repeat(32), sizeBytes: one.size, receivedAtMs, threadId, keywords, mailboxes };
        const row = encodeMessage(message);
        const flags = new MessageFlags();
        expect(flags.read(row, Buffer.from(mailboxId))).toBe(true);
        expect(threadIdOf(row, flags)).toBe(threadId === one.id ? '' : threadId);
        const written = withMessageBits(row, flags, after);
        expect(written).toEqual(encodeMessage({ ...message, keywords: decodeKeywords(after, 0) }));
        expect(flags.read(row, Buffer.from('manothermbox'))).toBe(false);
      }),
    );
  });

  it('are not made of rows of another form', () => {
    const entry = { uid: 1, emailId: 'a'.repeat(20), isDeleted: false, modseq: 1, sizeBytes: 1, receivedAtMs: 1, savedAtMs: 1 };
    const flags = new EntryFlags();
    const usual = encodeEntry({ ...entry, keywords: [] });
    expect(flags.read(usual)).toBe(true);
    expect(flags.read(encodeEntry({ ...entry, keywords: ['mine'] }))).toBe(false);
    expect(flags.read(encodeEntry({ ...entry, keywords: [], receivedAtMs: -1 }))).toBe(false);
    for (let length = 0; length < usual.length; length++) expect(flags.read(usual.subarray(0, length))).toBe(false);
    expect(flags.read(Buffer.concat([usual, Buffer.of(0)]))).toBe(false);
    const message: StoredMessage = {
      id: 'a'.repeat(20),
      blobId: 'cd'.repeat(32),
      sizeBytes: 1,
      receivedAtMs: 1,
      threadId: 'b'.repeat(20),
      keywords: [],
      mailboxes: { [mailboxId]: 1 },
    };
    const reads = (changed: Partial<StoredMessage>, cut = 0) => {
      const row = encodeMessage({ ...message, ...changed });
      return new MessageFlags().read(row.subarray(0, row.length - cut), Buffer.from(mailboxId));
    };
    expect(reads({})).toBe(true);
    expect(reads({ keywords: ['mine'] })).toBe(false);
    expect(reads({ mailboxes: { [mailboxId]: 1, manothermbox: 2 } })).toBe(false);
    const { length } = encodeMessage(message);
    for (let cut = 1; cut <= length; cut++) expect(reads({}, cut)).toBe(false);
    expect(decodeMessage(message.id, encodeMessage(message))).toEqual(message);
  });
});

describe('their log', () => {
  it('is read as if the changes had been encoded one by one, in parts that fit a value, others behind it', () => {
    const change = fc.record({ entry: entryOf, thread: fc.option(fc.oneof(id, fc.constant(''), fc.constant('t'.repeat(20)))) });
    fc.assert(
      fc.property(
        fc.array(change, { minLength: 1, maxLength: 30 }),
        fc.constantFrom(600, maxLogValueBytes),
        fc.boolean(),
        (all, max, more) => {
          const rows = new LogRows(mailboxId, max);
          const expected: Change[] = [];
          for (const { entry, thread } of all) {
            const set = 5;
            const { row, middleEnd } = patched(entry, true, 77, set);
            rows.add(entry.uid, row, middleEnd, true, set, thread ?? undefined);
            const threadId = thread === '' ? entry.emailId : thread;
            if (threadId !== null) expected.push({ kind: 'email-updated', emailId: entry.emailId, threadId });
            const now = { ...entry, isDeleted: true, modseq: 77, keywords: decodeKeywords(set, 0) };
            expected.push({ kind: 'entry-changed', mailboxId, entry: now });
          }
          const others: Change[] = more ? [{ kind: 'mailbox-updated', mailboxId: 'manothermbox' }] : [];
          const values = encodeLog(others, Buffer.from('12345678'), rows);
          for (const value of values) expect(value.length).toBeLessThanOrEqual(max);
          expect(readLogValues(values, 77)).toEqual([...expected, ...others]);
        },
      ),
    );
  });
});
