import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { key, subspace } from '../keyspace.js';
import { AccountKeys } from './keys.js';

const account = 'acc1';
const keys = new AccountKeys(account);
const id = fc.stringMatching(/^[a-z0-9]{1,20}$/);
const uint = fc.oneof(
  fc.nat(),
  // Numbers of at most 6 bytes, and their successors too.
  fc.maxSafeNat().map((n) => n % (2 ** 48 - 1)),
  fc.constantFrom(0, 255, 256, 65_535, 65_536, 2 ** 32 - 1, 2 ** 40),
);

describe('keys built by hand', () => {
  it('are the tuples of the keyspace table', () => {
    fc.assert(
      fc.property(id, id, uint, fc.uint8Array({ minLength: 8, maxLength: 8 }), (one, two, number, bytes) => {
        const table = (...items: Parameters<typeof key>) => key(subspace.mail, account, ...items);
        expect(keys.entry(one, number)).toEqual(table('entry', one, number));
        expect(keys.logAt(number)).toEqual(table('log', number));
        expect(keys.logAt(number, 3)).toEqual(table('log', number, 3));
        expect(keys.thread(one, two)).toEqual(table('thread', one, two));
        expect(keys.reference(Buffer.from(bytes))).toEqual(table('reference', bytes));
        expect(keys.message(one)).toEqual(table('message', one));
        expect(keys.removal('')).toEqual(table('removal', ''));
        expect(keys.acl(one)).toEqual(table('acl', one));
        expect(keys.aclOf(keys.acl(one))).toBe(one);
        expect(keys.uidOf(one, keys.entry(one, number))).toBe(number);
        expect(keys.entryOf(keys.entry(one, number))).toEqual({ mailboxId: one, uid: number });
        expect(keys.threadRowOf(keys.thread(one, two))).toEqual({ threadId: one, emailId: two });
      }),
    );
  });

  it('keep the order of UIDs and modseqs', () => {
    fc.assert(
      fc.property(uint, uint, (a, b) => {
        expect(Math.sign(keys.entry('m', a).compare(keys.entry('m', b)))).toBe(Math.sign(a - b));
        // Further parts of a log set stand before the next modseq.
        expect(keys.logAt(a, 9).compare(keys.logAt(a + 1))).toBe(-1);
      }),
    );
  });
});
