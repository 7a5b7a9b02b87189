import { describe, expect, it } from 'vitest';
import { ScriptHeader } from './header.js';
import { defaultSieveLimits } from './limits.js';

const fields = [
  { name: 'Subject', value: 'a' },
  { name: 'X-A', value: '1' },
  { name: 'x-a', value: '2' },
  { name: 'X-A', value: '3' },
];
const header = () => new ScriptHeader(fields, defaultSieveLimits);

describe('the header of a run', () => {
  it('is looked up whatever the case, and not changed by being read', () => {
    const one = header();
    expect(one.values('x-A')).toEqual(['1', '2', '3']);
    expect(one.values('none')).toEqual([]);
    expect(one.names()).toEqual(['Subject', 'X-A', 'x-a', 'X-A']);
    expect(one.remove('none', {})).toBe(0);
    expect(one.edited()).toBeUndefined();
  });

  it('takes fields at both ends', () => {
    const one = header();
    one.add({ name: 'X-A', value: '0' }, false);
    one.add({ name: 'X-B', value: '4' }, true);
    expect(one.values('x-a')).toEqual(['0', '1', '2', '3']);
    expect(one.edited()).toEqual([
      { added: { name: 'X-A', value: '0' } },
      { original: 0 },
      { original: 1 },
      { original: 2 },
      { original: 3 },
      { added: { name: 'X-B', value: '4' } },
    ]);
    expect(header().values('x-b')).toEqual([]);
  });

  it.each([
    [{}, []],
    [{ index: 1 }, ['2', '3']],
    [{ index: 1, fromEnd: true }, ['1', '2']],
    [{ index: 3, fromEnd: true }, ['2', '3']],
    [{ index: 4 }, ['1', '2', '3']],
    [{ index: 4, fromEnd: true }, ['1', '2', '3']],
    [{ index: 0 }, ['1', '2', '3']],
    [{ matches: (value: string) => value !== '2' }, ['2']],
    [{ index: 2, matches: (value: string) => value === '1' }, ['1', '2', '3']],
  ])('removes %j', (options, left) => {
    const one = header();
    expect(one.remove('X-a', options)).toBe(3 - left.length);
    expect(one.values('x-a')).toEqual(left);
  });

  it('takes no more fields than a script may add', () => {
    const one = new ScriptHeader(fields, { maxAddedFields: 1 });
    one.add({ name: 'a', value: 'b' }, true);
    expect(() => one.add({ name: 'a', value: 'b' }, true)).toThrow('at most 1 header fields');
  });
});
