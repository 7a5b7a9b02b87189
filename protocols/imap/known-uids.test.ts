import fc from 'fast-check';
import { expect, it } from 'vitest';
import { KnownUids } from './known-uids.js';

it('knows what was noted and nothing else, in whatever order it came', () => {
  const uid = fc.integer({ min: 1, max: 60 });
  fc.assert(
    fc.property(fc.array(uid), (uids) => {
      const known = new KnownUids();
      for (const one of uids) known.add(one);
      const found = Array.from({ length: 62 }, (_, one) => one).filter((one) => known.has(one));
      expect(found).toEqual([...new Set(uids)].sort((a, b) => a - b));
    }),
  );
});
