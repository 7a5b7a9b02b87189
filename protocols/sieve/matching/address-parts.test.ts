import { describe, expect, it } from 'vitest';
import type { Arguments } from '../contract.js';
import { addressPartOf } from './address-parts.js';

const partOf = (part: string | undefined, local: string, domain: string, separator = '+') =>
  addressPartOf({ tagOf: () => part } as unknown as Arguments, separator)({ local, domain, name: null });

describe('address parts', () => {
  it.each([
    [undefined, 'ken', 'example.com', 'ken@example.com'],
    ['all', 'a b', 'example.com', '"a b"@example.com'],
    ['localpart', 'a b', 'example.com', 'a b'],
    ['domain', 'ken', 'example.com', 'example.com'],
    ['user', 'ken+foo', 'example.com', 'ken'],
    ['detail', 'ken+foo', 'example.com', 'foo'],
    ['detail', 'ken+', 'example.com', ''],
    ['detail', 'ken', 'example.com', undefined],
    ['user', 'ken', 'example.com', 'ken'],
    ['user', 'ken+a+b', 'example.com', 'ken'],
    ['detail', 'ken+a+b', 'example.com', 'a+b'],
    ['user', '+x', 'example.com', ''],
    ['all', 'ken', '', 'ken'],
    ['localpart', 'ken', '', undefined],
    ['domain', '', 'example.com', undefined],
  ])('%s of %s at %s: %s', (part, local, domain, expected) => {
    expect(partOf(part, local, domain)).toBe(expected);
  });

  it('knows other separators, and none', () => {
    expect(partOf('detail', 'ken--foo', 'x', '--')).toBe('foo');
    expect(partOf('detail', 'ken+foo', 'x', '')).toBeUndefined();
    expect(partOf('user', 'ken+foo', 'x', '')).toBe('ken+foo');
  });
});
