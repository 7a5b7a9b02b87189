import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { IndexView, MailboxIndex } from '../../store/mail/contract.js';
import { inRanges, parseSequenceSet } from './grammar/sequence-set.js';
import type { MailboxPlace } from './places.js';
import { SelectedMailbox } from './selected.js';

/** A mailbox of these UIDs that stays as it is. */
function selectedOf(uids: readonly number[]): SelectedMailbox {
  const view: Partial<IndexView> = { keywords: [] };
  const index: Partial<MailboxIndex> = {
    modseq: 1,
    exists: true,
    uids: () => Uint32Array.from(uids),
    view: () => view as IndexView,
  };
  return new SelectedMailbox({} as MailboxPlace, index as MailboxIndex, false);
}

const end = fc.oneof(fc.integer({ min: 1, max: 60 }).map(String), fc.constantFrom('*', '1', '4294967295'));
const range = fc.oneof(
  end,
  fc.tuple(end, end).map(([from, to]) => `${from}:${to}`),
);
const setText = fc.array(range, { minLength: 1, maxLength: 6 }).map((ranges) => ranges.join(','));

describe('sets as ranges of UIDs', () => {
  it('name the messages that the list names, by number and by UID', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 1, max: 50 })), setText, fc.boolean(), (given, text, byUid) => {
        const uids = given.sort((a, b) => a - b);
        const selected = selectedOf(uids);
        const set = parseSequenceSet(text, 100);
        const ranges = selected.rangesOf(set, byUid);
        expect(uids.filter((uid) => inRanges(ranges, uid))).toEqual([...selected.resolve(set, byUid)]);
        expect(ranges.length).toBeLessThanOrEqual(text.split(',').length * 2);
      }),
    );
  });

  it('are as small as the set is written, whatever the size of the mailbox', () => {
    const selected = selectedOf(Array.from({ length: 100_000 }, (_, i) => 2 * i + 1));
    expect(selected.rangesOf(parseSequenceSet('2:*', 100), false)).toEqual([3, 199_999]);
    selected.savedResult = Uint32Array.of(5, 9);
    expect(selected.rangesOf(parseSequenceSet('$', 100), true)).toEqual([5, 5, 9, 9]);
  });
});
