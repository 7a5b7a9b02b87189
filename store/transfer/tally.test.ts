import fc from 'fast-check';
import { expect, it } from 'vitest';
import { key, subspace } from '../keyspace.js';
import { Tally } from './tally.js';

const rows = fc
  .array(
    fc.tuple(
      fc.constantFrom(...Object.values(subspace)),
      fc.integer({ min: 0, max: 1_000_000 }),
      fc.integer({ min: 0, max: 12_000 }),
      fc.nat(255),
    ),
    { maxLength: 60 },
  )
  .map((list) => list.map(([space, n, length, byte]) => ({ key: key(space, n), value: Buffer.alloc(length, byte) })))
  .map((list) => list.sort((a, b) => a.key.compare(b.key)));

function tallyOf(list: { key: Buffer; value: Buffer }[], packedAfter: ReadonlySet<number> = new Set()): Tally {
  let tally = new Tally();
  for (const [n, row] of list.entries()) {
    tally.add(row.key, row.value);
    if (packedAfter.has(n)) tally = Tally.unpack(tally.pack());
  }
  return tally;
}

it('is the same wherever it was written down and taken up again', () => {
  fc.assert(
    fc.property(rows, fc.array(fc.nat(60)), (list, places) => {
      const whole = tallyOf(list);
      expect(tallyOf(list, new Set(places)).totals()).toEqual(whole.totals());
      expect(whole.differenceTo(tallyOf(list, new Set(places)))).toBeUndefined();
      expect(whole.keys).toBe(list.length);
    }),
  );
});

it('differs for any other byte, order or boundary', () => {
  fc.assert(
    fc.property(rows, fc.nat(), (list, seed) => {
      if (list.length === 0) return;
      const at = seed % list.length;
      const changed = list.map((row) => ({ ...row }));
      const row = changed[at]!;
      row.value = seed % 2 || row.value.length === 0 ? Buffer.concat([row.value, Buffer.of(0)]) : Buffer.from(row.value);
      if (row.value.equals(list[at]!.value)) row.value[seed % row.value.length]! ^= 1;
      expect(tallyOf(list).differenceTo(tallyOf(changed))).toBeDefined();
      expect(tallyOf(list).differenceTo(tallyOf(list.slice(1)))).toBeDefined();
    }),
  );
  // The same bytes, cut elsewhere.
  const a = tallyOf([{ key: Buffer.from([0x15, 5, 1, 2]), value: Buffer.from([3]) }]);
  const b = tallyOf([{ key: Buffer.from([0x15, 5, 1]), value: Buffer.from([2, 3]) }]);
  expect(a.differenceTo(b)).toBeDefined();
});
