import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { orderBy } from './order.js';
import { type ThreadForest, type ThreadInput, threadByReferences, threadBySubject, threadText } from './threads.js';

interface Mail {
  id?: number;
  refs?: number[];
  subject?: number;
  isReply?: boolean;
  sent?: number;
  arrived?: number;
}

function inputOf(mails: readonly Mail[]): ThreadInput {
  const rows = mails.length;
  const starts = new Uint32Array(rows + 1);
  mails.forEach((mail, i) => {
    starts[i + 1] = starts[i]! + (mail.refs?.length ?? 0);
  });
  const sent = Float64Array.from(mails, (mail, i) => mail.sent ?? i);
  return {
    rows,
    ids: Float64Array.from(mails, (mail) => mail.id ?? 0),
    references: Float64Array.from(mails.flatMap((mail) => mail.refs ?? [])),
    starts,
    subjects: Uint32Array.from(mails, (mail) => mail.subject ?? 0),
    isReply: Uint8Array.from(mails, (mail) => (mail.isReply ? 1 : 0)),
    bySent: orderBy([{ values: sent, isReverse: false }], rows),
    arrived: Float64Array.from(mails, (mail, i) => mail.arrived ?? i),
  };
}

function run(input: ThreadInput, refs: boolean): ThreadForest {
  const steps = threadByReferences(input, refs);
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}

function text(forest: ThreadForest, rows: number): string {
  const numbers = Uint32Array.from({ length: rows }, (_, i) => i + 1);
  return [...threadText(forest, numbers)].join('').trim();
}

const references = (mails: readonly Mail[], refs = false) => text(run(inputOf(mails), refs), mails.length);

describe('REFERENCES', () => {
  it('makes trees of what refers to one another', () => {
    expect(references([{ id: 1 }, { id: 2, refs: [1] }, { id: 3, refs: [1, 2] }, { id: 4, refs: [1] }])).toBe('(1 (2 3)(4))');
  });

  it('finds parents that come later in the mailbox', () => {
    expect(references([{ id: 3, refs: [1, 2] }, { id: 2, refs: [1] }, { id: 1 }])).toBe('(3 2 1)');
  });

  it('holds replies to a missing message together, and lifts an only one', () => {
    expect(
      references([
        { id: 2, refs: [1] },
        { id: 3, refs: [1] },
        { id: 5, refs: [4] },
      ]),
    ).toBe('((1)(2))(3)');
    // A dummy within a thread goes, and its children move up.
    expect(references([{ id: 1 }, { id: 3, refs: [1, 2] }, { id: 4, refs: [1, 2] }])).toBe('(1 (2)(3))');
  });

  it('keeps out of loops', () => {
    expect(
      references([
        { id: 1, refs: [2] },
        { id: 2, refs: [1] },
      ]),
    ).toBe('(2 1)');
    expect(references([{ id: 1, refs: [1] }])).toBe('(1)');
    expect(
      references([
        { id: 1, refs: [2, 3, 1] },
        { id: 2, refs: [3, 1, 2] },
        { id: 3, refs: [1, 2, 3] },
      ]),
    ).toBe('(2)(3 1)');
  });

  it('gives a message id to the first that has it', () => {
    expect(references([{ id: 1 }, { id: 1 }, { id: 2, refs: [1] }])).toBe('(1 3)(2)');
  });

  it('lets the last reference decide, against what others say', () => {
    expect(references([{ id: 9, refs: [5, 3] }, { id: 3, refs: [4] }, { id: 4 }, { id: 5 }])).toBe('(3 2 1)(4)');
    // Without references there is no parent.
    expect(references([{ id: 9, refs: [5, 3] }, { id: 3 }, { id: 5 }])).toBe('(2 1)(3)');
  });

  it('joins threads of one subject', () => {
    expect(
      references([
        { id: 1, subject: 7 },
        { id: 2, subject: 7, isReply: true },
      ]),
    ).toBe('(1 2)');
    expect(
      references([
        { id: 1, subject: 7 },
        { id: 2, subject: 7 },
      ]),
    ).toBe('((1)(2))');
    expect(
      references([
        { id: 1, subject: 7, isReply: true },
        { id: 2, subject: 7 },
      ]),
    ).toBe('(2 1)');
    expect(references([{ id: 1 }, { id: 2 }])).toBe('(1)(2)');
    // Two dummies become one; who comes later joins its children.
    const apart = [{ id: 2, refs: [1] }, { id: 3, refs: [1] }, { id: 12, refs: [11] }, { id: 13, refs: [11] }, { id: 20 }];
    expect(references(apart.map((mail) => ({ ...mail, subject: 7 })))).toBe('((1)(2)(3)(4)(5))');
    expect(
      references(
        apart.map((mail) => ({ ...mail, subject: 7 })),
        true,
      ),
    ).toBe('((1)(2))((3)(4))(5)');
  });

  it('orders siblings by their dates, REFS threads by what came last', () => {
    const mails = [
      { id: 1, sent: 10, arrived: 1 },
      { id: 2, refs: [1], sent: 9, arrived: 50 },
      { id: 3, refs: [1], sent: 8, arrived: 3 },
      { id: 4, sent: 5, arrived: 40 },
    ];
    expect(references(mails)).toBe('(4)(1 (3)(2))');
    expect(references(mails, true)).toBe('(4)(1 (3)(2))');
    expect(
      references(
        mails.map((mail) => ({ ...mail, arrived: -mail.arrived + 100 })),
        true,
      ),
    ).toBe('(4)(1 (3)(2))');
    expect(references([{ ...mails[3]!, arrived: 60 }, ...mails.slice(0, 3)], true)).toBe('(2 (4)(3))(1)');
  });

  it('has each message once, below no later version of itself, whatever is sent', () => {
    const mail = fc.record({
      id: fc.integer({ min: 0, max: 12 }),
      refs: fc.array(fc.integer({ min: 1, max: 14 }), { maxLength: 5 }),
      subject: fc.integer({ min: 0, max: 3 }),
      isReply: fc.boolean(),
      sent: fc.integer({ min: 0, max: 5 }),
      arrived: fc.integer({ min: 0, max: 5 }),
    });
    fc.assert(
      fc.property(fc.array(mail, { maxLength: 30 }), fc.boolean(), (mails, refs) => {
        const told = references(mails, refs);
        const numbers = [...told.matchAll(/\d+/g)].map(Number).sort((a, b) => a - b);
        expect(numbers).toEqual(mails.map((_, i) => i + 1));
        let depth = 0;
        for (const char of told) depth += char === '(' ? 1 : char === ')' ? -1 : 0;
        expect(depth).toBe(0);
      }),
      { numRuns: 500 },
    );
  });

  it('bears threads as deep as the mailbox is long, in any order', () => {
    const rows = 20_000;
    const chain = Array.from({ length: rows }, (_, i) => ({ id: i + 1, refs: i === 0 ? [] : [i] }));
    expect(references(chain).length).toBeGreaterThan(rows);
    expect(references([...chain].reverse()).startsWith(`(${rows} `)).toBe(true);
  });
});

describe('ORDEREDSUBJECT', () => {
  it('makes a flat thread of each subject', () => {
    const mails = [
      { subject: 1, sent: 9 },
      { subject: 2, sent: 1 },
      { subject: 1, sent: 3 },
      { subject: 1, sent: 4 },
      { subject: 2, sent: 1 },
    ];
    expect(text(threadBySubject(inputOf(mails)), 5)).toBe('(2 5)(3 (4)(1))');
  });
});

describe('the order of rows', () => {
  it('is that of a plain comparison', () => {
    const row = fc.record({
      a: fc.integer({ min: 0, max: 5 }),
      b: fc.oneof(fc.integer({ min: 0, max: 3 }), fc.nat(2 ** 31 - 1)),
    });
    fc.assert(
      fc.property(fc.array(row, { maxLength: 50 }), fc.boolean(), fc.boolean(), (rows, reverseA, reverseB) => {
        const order = orderBy(
          [
            { values: Float64Array.from(rows, ({ a }) => a * 2 ** 37), isReverse: reverseA },
            { values: Float64Array.from(rows, ({ b }) => b), isReverse: reverseB },
          ],
          rows.length,
        );
        const expected = rows
          .map((_, i) => i)
          .sort((x, y) => {
            const byA = (rows[x]!.a - rows[y]!.a) * (reverseA ? -1 : 1);
            return byA || (rows[x]!.b - rows[y]!.b) * (reverseB ? -1 : 1) || x - y;
          });
        expect([...order]).toEqual(expected);
      }),
    );
  });
});
