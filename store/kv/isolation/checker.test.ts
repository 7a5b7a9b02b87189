import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assertStrictlySerialisable, checkHistory } from './checker.js';
import type { ObservedOperation, ObservedTransaction } from './observed.js';

const read = (list: string, ...found: number[]): ObservedOperation => ({ kind: 'read', list, found });
const append = (list: string, value: number): ObservedOperation => ({ kind: 'append', list, value });
const range = (begin: string, end: string, found: Record<string, number[]> = {}): ObservedOperation => ({
  kind: 'range',
  begin,
  end,
  found: new Map(Object.entries(found)),
});

interface Given {
  readonly operations: ObservedOperation[];
  readonly outcome?: ObservedTransaction['outcome'];
  /** Beginning and end; all at once by default. */
  readonly at?: readonly [number, number];
  readonly version?: bigint;
}

function history(...given: (Given | ObservedOperation[])[]): ObservedTransaction[] {
  return given.map((each, id) => {
    const { operations, outcome = 'ok', at = [0, 1_000], version }: Given = Array.isArray(each) ? { operations: each } : each;
    return { id, client: `c${id}`, operations, outcome, begunAt: at[0], endedAt: at[1], version };
  });
}

const kinds = (...given: (Given | ObservedOperation[])[]) => checkHistory(history(...given)).map((anomaly) => anomaly.kind);

describe('histories that are in order', () => {
  it.each<[string, (Given | ObservedOperation[])[]]>([
    ['nothing', []],
    ['appends that nobody saw', [[append('a', 1)], [append('a', 2)]]],
    ['concurrent appends and a reader of one', [[append('a', 1)], [append('b', 2)], [read('a', 1), read('b')]]],
    ['own appends are seen', [[read('a'), append('a', 1), read('a', 1), append('a', 2), read('a', 1, 2)], [read('a', 1, 2)]]],
    [
      'an unknown commit that happened, and one that did not',
      [{ operations: [append('a', 1)], outcome: 'info' }, { operations: [append('a', 2)], outcome: 'info' }, [read('a', 1)]],
    ],
    [
      'an unknown commit that comes true long after it was given up',
      [
        { operations: [append('a', 1)], outcome: 'info', at: [0, 1] },
        { operations: [read('a')], at: [2, 3] },
        { operations: [read('a', 1)], at: [4, 5] },
      ],
    ],
    [
      'what a failed transaction saw is no matter',
      [[append('a', 1)], { operations: [read('a'), read('b', 9)], outcome: 'fail' }, [append('b', 9)]],
    ],
    [
      'a read that overlaps a commit may be before it',
      [
        { operations: [append('a', 1)], at: [0, 5] },
        { operations: [read('a')], at: [3, 9] },
      ],
    ],
    [
      'versions: equal ones in any order, a read of a version after its writers',
      [
        { operations: [append('a', 1)], version: 5n },
        { operations: [append('b', 2)], version: 5n },
        { operations: [read('a', 1), read('b', 2)], version: 5n },
        { operations: [append('b', 3)], version: 6n },
      ],
    ],
    [
      'a range behind whose end something appears',
      [[range('a', 'c', { a: [1] }), append('x', 7)], [append('c', 2), read('x')], [append('a', 1)]],
    ],
  ])('%s', (_name, given) => {
    expect(checkHistory(history(...given))).toEqual([]);
  });

  it('any serial run, however the transactions overlap', () => {
    const operation = fc.record({ list: fc.constantFrom('a', 'b', 'c'), kind: fc.constantFrom('read', 'append', 'range') });
    const runs = fc.array(fc.record({ operations: fc.array(operation, { maxLength: 4 }), slack: fc.nat(30) }), { maxLength: 25 });
    fc.assert(
      fc.property(runs, (given) => {
        const state = new Map<string, number[]>();
        let values = 0;
        const found = given.map(({ operations, slack }, id): ObservedTransaction => {
          const done = operations.map(({ list, kind }): ObservedOperation => {
            if (kind === 'read') return read(list, ...(state.get(list) ?? []));
            if (kind === 'range') return range('a', list, Object.fromEntries([...state].filter(([name]) => name < list)));
            state.set(list, [...(state.get(list) ?? []), ++values]);
            return append(list, values);
          });
          // Each takes effect at `id * 10`, somewhere between its beginning and its end.
          const at = id * 10;
          return {
            id,
            client: 'c',
            operations: done,
            outcome: 'ok',
            begunAt: at - slack,
            endedAt: at + slack / 2,
            version: BigInt(id),
          };
        });
        expect(checkHistory(found)).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});

describe('anomalies', () => {
  it('incompatible orders, as a lost update leaves them', () => {
    expect(kinds([append('a', 1)], [append('a', 2)], [read('a', 1)], [read('a', 2)])).toContain('incompatible-order');
  });

  it('an append that is there twice', () => {
    expect(kinds([append('a', 1)], [append('a', 2)], [read('a', 1, 2, 1)])).toContain('duplicate-append');
  });

  it('a number that nobody appended', () => {
    expect(kinds([append('a', 1)], [read('a', 1, 2)])).toEqual(['unknown-value']);
  });

  it('an acknowledged append that later reads are without', () => {
    const given = [
      { operations: [append('a', 1)], at: [0, 1] },
      { operations: [append('a', 2)], at: [0, 1] },
      { operations: [read('a', 2)], at: [2, 3] },
    ] as const;
    expect(kinds(...(given as unknown as Given[]))).toContain('lost-append');
  });

  it('a transaction that does not see itself, or sees a thing change', () => {
    expect(kinds([append('a', 1), read('a')])).toContain('internal');
    expect(kinds([append('a', 1)], [read('a'), read('a', 1)])).toContain('internal');
    expect(kinds([append('a', 1)], [read('a', 1), range('a', 'b')])).toContain('internal');
  });

  it('G1a: a read of what was said not to have happened', () => {
    expect(kinds({ operations: [append('a', 1)], outcome: 'fail' }, [read('a', 1)])).toContain('G1a');
  });

  it('G1b: a read of an intermediate state', () => {
    expect(kinds([append('a', 1), append('a', 2)], [read('a', 1)], [read('a', 1, 2)])).toContain('G1b');
  });

  it('G0: two writers whose appends interleave', () => {
    const found = kinds([append('a', 1), append('b', 2)], [append('a', 3), append('b', 4)], [read('a', 1, 3), read('b', 4, 2)]);
    expect(found).toEqual(['G0']);
  });

  it('G1c: two that saw each other', () => {
    expect(kinds([append('a', 1), read('b', 2)], [append('b', 2), read('a', 1)])).toEqual(['G1c']);
  });

  it('G-single: a reader of half a commit', () => {
    expect(kinds([append('a', 1), append('b', 2)], [read('a', 1), read('b')])).toEqual(['G-single']);
    expect(kinds([append('a', 1), append('b', 2)], [read('a', 1), range('b', 'c')], [read('b', 2)])).toEqual(['G-single']);
  });

  it('G-single: an unknown commit of which one half was seen and the other never', () => {
    expect(kinds({ operations: [append('a', 1), append('b', 2)], outcome: 'info' }, [read('a', 1), read('b')])).toEqual([
      'G-single',
    ]);
  });

  it('G2-item: write skew', () => {
    expect(kinds([read('a'), append('b', 1)], [read('b'), append('a', 2)])).toEqual(['G2-item']);
  });

  it('G2: write skew by phantoms', () => {
    expect(kinds([range('a', 'b'), append('b', 1)], [range('b', 'c'), append('a', 2)])).toEqual(['G2']);
  });

  it('G2-item: a long fork', () => {
    const given = [[append('a', 1)], [append('b', 2)], [read('a', 1), read('b')], [read('a'), read('b', 2)]];
    expect(kinds(...given)).toEqual(['G2-item']);
  });

  it('real time: a stale read', () => {
    expect(
      kinds({ operations: [append('a', 1)], at: [0, 1] }, { operations: [read('a')], at: [2, 3] }, [read('a', 1)]),
    ).toContain('real-time');
    // Two readers one after the other, of which the first had seen a commit that is not acknowledged yet.
    const given: Given[] = [
      { operations: [append('a', 1)], at: [0, 100] },
      { operations: [read('a', 1)], at: [1, 2] },
      { operations: [read('a')], at: [3, 4] },
    ];
    expect(kinds(...given)).toEqual(['real-time']);
  });

  it('real time: two blind appends, the later one first in the list', () => {
    const given: Given[] = [
      { operations: [append('a', 1)], at: [0, 1] },
      { operations: [append('a', 2)], at: [2, 3] },
      { operations: [read('a', 2, 1)], at: [4, 5] },
    ];
    expect(kinds(...given)).toEqual(['real-time']);
  });

  it('versions against the order of the appends, or of reads', () => {
    const writers: Given[] = [
      { operations: [append('a', 1)], version: 7n },
      { operations: [append('a', 2)], version: 6n },
    ];
    expect(kinds(...writers, [read('a', 1, 2)])).toEqual(['version-order']);
    const blind: Given[] = [
      { operations: [append('a', 1)], version: 7n },
      { operations: [read('a')], version: 7n },
    ];
    expect(kinds(...blind, [read('a', 1)])).toEqual(['version-order']);
  });

  it('are told in full: who saw what, and how they are joined', () => {
    const found = history([read('a'), append('b', 1)], [read('b'), append('a', 2)]);
    expect(() => assertStrictlySerialisable(found, 'seed 3')).toThrow(
      /seed 3.*1 anomalies\nG2-item.*2 transactions[\s\S]*T0 \(c0, ok, 0\.\.1000\): read a=\[\], append b 1[\s\S]*rw: did not see[\s\S]*T1[\s\S]*T0 again/,
    );
  });

  it('is found in a haystack, as the shortest circle', () => {
    const hay: Given[] = [];
    const seen: number[] = [];
    for (let at = 0; at < 3_000; at++) {
      hay.push({ operations: [read('h', ...seen.slice(-0)), append('h', at + 10)].slice(1), at: [at * 10, at * 10 + 5] });
      seen.push(at + 10);
    }
    hay.push({ operations: [read('h', ...seen)], at: [40_000, 40_001] });
    const needle: Given[] = [
      { operations: [read('a'), append('b', 1)], at: [5_000, 5_100] },
      { operations: [read('b'), append('a', 2)], at: [5_000, 5_100] },
    ];
    const anomalies = checkHistory(history(...hay, ...needle));
    expect(anomalies.map((anomaly) => [anomaly.kind, [...anomaly.transactions].sort()])).toEqual([['G2-item', [3_001, 3_002]]]);
  });
});
