import { describe, expect, it } from 'vitest';
import { judgeDelivery } from './delivered.js';

describe('the verdict on mail', () => {
  const ledger = { acknowledged: new Set(['a', 'b', 'c']), uncertain: new Set(['d']) };

  it('finds nothing wrong where nothing is', () => {
    expect(judgeDelivery(ledger, ['c', 'a', 'b', 'd'])).toEqual({
      acknowledged: 3,
      lost: [],
      doubled: [],
      unacknowledgedDelivered: 1,
      unknown: [],
    });
  });

  it('names what is lost, doubled and unknown', () => {
    expect(judgeDelivery(ledger, ['a', 'a', 'd', 'd', 'x'])).toMatchObject({
      lost: ['b', 'c'],
      doubled: ['a', 'd'],
      unknown: ['x'],
    });
  });
});
