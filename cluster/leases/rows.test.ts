import { Packr } from 'msgpackr';
import { describe, expect, it } from 'vitest';
import { decodeRow, encodeRow } from './rows.js';

const packr = new Packr({ useRecords: false });

describe('lease rows', () => {
  it('come back as they were', () => {
    for (const row of [
      { holder: 'a', epoch: 7, renewals: 70_000 },
      { holder: '', epoch: 1, renewals: 0, reservedFor: 'b' },
    ]) {
      expect(decodeRow(encodeRow(row))).toEqual(row);
    }
    expect(decodeRow(undefined)).toBeUndefined();
  });

  it('are what the first release reads and writes, with at most something behind it', () => {
    expect(packr.unpack(encodeRow({ holder: 'a', epoch: 7, renewals: 3 }))).toEqual([1, 'a', 7, 3]);
    expect(packr.unpack(encodeRow({ holder: '', epoch: 7, renewals: 3, reservedFor: 'b' }))).toEqual([1, '', 7, 3, 'b']);
    expect(decodeRow(packr.pack([1, 'a', 7, 3, '', 'of a later release']))).toEqual({ holder: 'a', epoch: 7, renewals: 3 });
    expect(() => decodeRow(packr.pack([2, 'a']))).toThrow('unknown format');
  });
});
