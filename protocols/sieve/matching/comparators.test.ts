import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Comparator, comparatorNamed } from './comparators.js';

/** Of all planes. */
const character = fc
  .oneof(fc.nat(0x7f), fc.nat(0xd7ff), fc.integer({ min: 0xe000, max: 0x10ffff }))
  .map((code) => String.fromCodePoint(code));
const named = (name: string) => comparatorNamed(name)!;
const compare = (comparator: Comparator, a: string, b: string) =>
  Math.sign(comparator.order(comparator.keyOf(a), comparator.keyOf(b)));
const same = (comparator: Comparator, a: string, b: string) => comparator.keyOf(a) === comparator.keyOf(b);

describe('i;ascii-numeric', () => {
  const numeric = named('i;ascii-numeric');
  it.each([
    ['0', '1', -1],
    ['1', '4294967298', -1],
    ['4294967298', '04294967298', 0],
    ['4294967298', '4294967298b', 0],
    ['04294967298', '', -1],
    ['', 'x', 0],
    ['x', 'y', 0],
    ['10', '9', 1],
    ['007', '7 apples', 0],
    ['000', '0', 0],
    ['-5', '5', 1],
    [' 5', '5', 1],
    ['5.9', '5.1', 0],
    ['٣', '3', 1],
  ])('%j to %j: %i', (a, b, order) => {
    expect(compare(numeric, a, b)).toBe(order);
    expect(compare(numeric, b, a)).toBe(order === 0 ? 0 : -order);
    expect(same(numeric, a, b)).toBe(order === 0);
  });

  it('orders as integers do', () => {
    const number = fc.bigInt({ min: 0n, max: 10n ** 40n });
    fc.assert(
      fc.property(number, number, fc.nat(3), fc.constantFrom('', ' ', 'x', '.5'), (a, b, zeros, tail) => {
        const order = a < b ? -1 : a > b ? 1 : 0;
        expect(compare(numeric, `${'0'.repeat(zeros)}${a}${tail}`, `${b}`)).toBe(order);
      }),
    );
  });
});

describe('i;octet and i;ascii-casemap', () => {
  const octet = named('i;octet');
  const casemap = named('i;ascii-casemap');

  it('order by octets of UTF-8', () => {
    fc.assert(
      fc.property(fc.string({ unit: character }), fc.string({ unit: character }), (a, b) => {
        expect(compare(octet, a, b)).toBe(Buffer.compare(Buffer.from(a), Buffer.from(b)));
      }),
    );
    expect(compare(octet, '\uffee', '😀')).toBe(-1);
    expect(compare(octet, 'Z', 'a')).toBe(-1);
  });

  it('casemap makes upper case of ASCII letters, and of nothing else', () => {
    expect(same(casemap, 'Straße', 'STRAßE')).toBe(true);
    expect(same(casemap, 'ä', 'Ä')).toBe(false);
    expect(same(casemap, 'K', '\u212a')).toBe(false);
    expect(casemap.keyOf('éa\u017f')).toBe('éA\u017f');
    // The underscore stands between the cases: behind the letters here.
    expect(compare(casemap, 'a_', 'ab')).toBe(1);
  });

  it('keeps the length of every text', () => {
    fc.assert(
      fc.property(fc.string({ unit: character }), (text) => {
        expect(casemap.keyOf(text)).toHaveLength(text.length);
      }),
    );
  });
});

describe('i;unicode-casemap', () => {
  const unicode = named('i;unicode-casemap');
  it.each([
    ['Äpfel', 'äPFEL'],
    ['É', 'e\u0301'],
    ['ﬁ', 'fi', false],
    ['ß', 'SS', false],
    ['ß', 'ß'],
    ['µ', 'Μ'],
    ['ς', 'Σ'],
    ['ς', 'σ'],
    ['ǆ', 'Ǆ'],
    ['ǉ', 'ǈ'],
    ['ﾊ', 'ハ'],
    ['①', '1'],
    ['ᾳ', 'ᾼ'],
    ['ᾀ', 'ᾈ'],
    ['ა', 'Ა', false],
    ['ı', 'I'],
    ['𐐨', '𐐀'],
    ['Ａ', 'a'],
  ])('%s and %s', (a, b, equal = true) => {
    expect(same(unicode, a, b)).toBe(equal);
  });

  it('has parts of texts as parts of keys', () => {
    const text = fc.string({ unit: fc.oneof(character, fc.constantFrom('e', 'E', '\u0301', 'ß', 'ǆ', 'ᾳ')) });
    fc.assert(
      fc.property(text, text, text, (a, b, c) => {
        expect(unicode.keyOf(a + b + c)).toContain(unicode.keyOf(b));
      }),
    );
  });
});

it('knows no other comparator', () => {
  expect(comparatorNamed('i;basic')).toBeUndefined();
  expect(comparatorNamed('I;OCTET')).toBeUndefined();
});
