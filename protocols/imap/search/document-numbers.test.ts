import { describe, expect, it } from 'vitest';
import type { MailboxIndex } from '../../../store/mail/contract.js';
import { IndexColumns } from '../../../store/mail/index-columns.js';
import type { SearchView } from '../../../store/search/contract.js';
import { knownNumbers, learnNumbers } from './document-numbers.js';
import type { Turns } from './turns.js';

const id = (uid: number) => `0123456789${uid}`.padEnd(20, '0');
const noTurns = { give: async () => undefined } as unknown as Turns;

/** A mailbox of messages 1 to `count`. */
function mailbox(count: number) {
  const columns = new IndexColumns();
  const arrive = (uid: number) =>
    columns.put({
      uid,
      emailId: id(uid),
      isDeleted: false,
      modseq: uid,
      keywords: [],
      sizeBytes: 1,
      receivedAtMs: 1,
      savedAtMs: 1,
    });
  for (let uid = 1; uid <= count; uid++) arrive(uid);
  const index = { view: () => columns.view(1) } as MailboxIndex;
  return { columns, arrive, index };
}

/** A view whose parts hold these messages. Notes what it was asked for. */
function viewOf(parts: Record<string, number[]>) {
  const asked: string[] = [];
  const named = Object.entries(parts).map(([name, uids]) => ({ id: name, documents: uids.length, uids }));
  const documentOf = (emailId: string, fromPart = 0) => {
    asked.push(`${emailId} ${fromPart}`);
    let base = 0;
    for (const [at, { uids }] of named.entries()) {
      const place = at < fromPart ? -1 : uids.findIndex((uid) => id(uid) === emailId);
      if (place >= 0) return base + place;
      base += uids.length;
    }
    return -1;
  };
  return { asked, view: { parts: named, documentOf } as unknown as SearchView };
}

describe('numbers of documents', () => {
  it('are looked up once, and only for what is new', async () => {
    const { index, arrive } = mailbox(5);
    const first = viewOf({ one: [1, 2, 4] });
    expect(knownNumbers(first.view, index.view())).toBeUndefined();
    await learnNumbers(first.view, index, noTurns);
    expect([...knownNumbers(first.view, index.view())!]).toEqual([0, 1, -1, 2, -1]);
    expect(first.asked.length).toBe(5);
    const again = viewOf({ one: [1, 2, 4] });
    await learnNumbers(again.view, index, noTurns);
    expect(again.asked).toEqual([]);
    arrive(6);
    const grown = viewOf({ one: [1, 2, 4], two: [6, 3] });
    expect(knownNumbers(grown.view, index.view())).toBeUndefined();
    await learnNumbers(grown.view, index, noTurns);
    expect([...knownNumbers(grown.view, index.view())!]).toEqual([0, 1, 4, 2, -1, 3]);
    expect(grown.asked).toEqual([`${id(3)} 1`, `${id(5)} 1`, `${id(6)} 0`]);
  });

  it('are looked up anew where parts were merged, or messages are gone', async () => {
    const { index, columns } = mailbox(4);
    await learnNumbers(viewOf({ one: [1, 2], two: [3, 4] }).view, index, noTurns);
    const merged = viewOf({ three: [4, 3, 2, 1] }).view;
    expect(knownNumbers(merged, index.view())).toBeUndefined();
    await learnNumbers(merged, index, noTurns);
    expect([...knownNumbers(merged, index.view())!]).toEqual([3, 2, 1, 0]);
    columns.remove([2]);
    expect(knownNumbers(merged, index.view())).toBeUndefined();
    await learnNumbers(merged, index, noTurns);
    expect([...knownNumbers(merged, index.view())!]).toEqual([3, 1, 0]);
  });

  it('are not kept where the mailbox changes while they are looked up', async () => {
    const { index, columns } = mailbox(3);
    const { view } = viewOf({ one: [1, 2, 3] });
    const removing = { give: async () => void columns.remove([1]) } as unknown as Turns;
    await learnNumbers(view, index, removing);
    expect(knownNumbers(view, index.view())).toBeUndefined();
  });
});
