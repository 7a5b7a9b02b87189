import { describe, expect, it } from 'vitest';
import type { Mailbox, MailboxCounts } from '../../store/mail/contract.js';
import { ToldKeywords } from './flag-lists.js';
import { type MailboxPlace, ownersRights, type Right } from './places.js';

function placeWith(rights: ReadonlySet<Right>): MailboxPlace {
  return { accountId: 'alice', mailbox: {} as Mailbox, counts: {} as MailboxCounts, path: ['INBOX'], rights };
}

const own = placeWith(ownersRights);
const permanent = (told: ToldKeywords, place: MailboxPlace, isReadOnly = false) => told.responses(place, isReadOnly)[1];

describe('FLAGS and PERMANENTFLAGS', () => {
  it('name what the list had when the client was told, however many others were told of it', () => {
    const list = ['$seen', 'one'];
    const first = new ToldKeywords(list);
    expect(first.responses(own, false)[0]).toMatch(/ \$Important one\)$/);
    list.push('two');
    const second = new ToldKeywords(list);
    expect(second.responses(own, false)[0]).toMatch(/ one two\)$/);
    // The first client has not heard of the new one until it follows.
    expect(first.responses(own, false)[0]).toMatch(/ one\)$/);
    expect(first.follow(list)).toBe(true);
    expect(first.responses(own, false)[0]).toMatch(/ one two\)$/);
  });

  it('name what is about to be shown before the list has it, to that client alone', () => {
    const list = ['one'];
    const [first, second] = [new ToldKeywords(list), new ToldKeywords(list)];
    expect(first.follow(list, new Set(['ahead']))).toBe(true);
    expect(first.responses(own, false)[0]).toMatch(/ one ahead\)$/);
    expect(second.responses(own, false)[0]).toMatch(/ one\)$/);
  });

  it('are of the rights and of the way in which the mailbox is open', () => {
    const list = ['one'];
    const told = new ToldKeywords(list);
    expect(permanent(told, own)).toContain('\\Seen \\Draft');
    expect(permanent(told, own)).toContain(' one \\*)');
    expect(permanent(told, own, true)).toContain('PERMANENTFLAGS ()');
    expect(permanent(told, placeWith(new Set<Right>(['r', 's'])))).toContain('PERMANENTFLAGS (\\Seen)');
    expect(permanent(told, own)).toContain(' one \\*)');
  });
});
