import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compileRegex, maxRegexChars, RegexError } from './regex.js';
import { maxCaptures } from './wildcard.js';

const captures = (pattern: string, text: string, ignoresCase = true) => {
  const regex = compileRegex(pattern, ignoresCase);
  const match = regex.match(text);
  expect(regex.test(text)).toBe(match !== undefined);
  return match;
};

describe('regular expressions', () => {
  it.each([
    ['<(.*)@', 'x <list@host>', ['<list@', 'list']],
    [
      '^\\[(.*)\\] (.*)$',
      '[acme-users] [fwd] version 1.0',
      ['[acme-users] [fwd] version 1.0', 'acme-users] [fwd', 'version 1.0'],
    ],
    ['a|ab', 'ab', ['ab']],
    ['(a*)(a*)', 'aa', ['aa', 'aa', '']],
    ['(x)?b', 'ab', ['b', '']],
    ['[[:digit:]]{2,3}', 'a1234', ['123']],
    ['[[:alpha:]_]+', '1Ab_2', ['Ab_']],
    ['[]a]+', 'x]a]', [']a]']],
    ['[^]a]', ']ab', ['b']],
    ['[\\]', 'a\\b', ['\\']],
    ['[a\\]]', 'a]', ['a]']],
    ['[a-]', '-', ['-']],
    ['[-a]', '-', ['-']],
    ['[[.-.]]', '-', ['-']],
    ['[[=e=]x]', 'xe', ['x']],
    ['[[.].]]', ']', [']']],
    ['a{,2}b', 'aaab', ['aab']],
    ['a.c', 'a\nc', ['a\nc']],
    ['\\.\\*\\[', '.*[', ['.*[']],
    ['^$', '', ['']],
    ['ABC', 'xabcx', ['abc']],
    ['\\d+\\s\\w', 'a12 b', ['12 b']],
    ['(?:ab)+(c)', 'ababc', ['ababc', 'c']],
    ['ä.', 'xÄö', ['Äö']],
    ['\\<b\\>', 'a b c', ['b']],
    ['[&&~]', '&', ['&']],
  ])('%s in %j', (pattern, text, expected) => {
    expect(captures(pattern, text)).toEqual(expected);
  });

  it('looks at case where the comparator does', () => {
    expect(captures('abc', 'ABC', false)).toBeUndefined();
    expect(captures('[A-Z]+', 'abC', false)).toEqual(['C']);
  });

  it.each([
    ['(', /missing closing/],
    ['a)', /unexpected/],
    ['[a', /bracket/],
    ['[[:nope:]]', /class/],
    ['[[.ab.]]', /collating/],
    ['a{1001}', /255/],
    ['a{3,256}', /255/],
    ['a{2,1}', /repeat/],
    ['a{', /brace/],
    ['a{x}', /brace/],
    ['a{,}', /brace/],
    ['a\\', /backslash/],
    ['(a)\\1', /escape/],
    ['\\Qa', /escape/],
    ['\\pL', /escape/],
    ['(?i)a', /group/],
    ['(?P<x>a)', /group/],
    ['(?=a)', /group/],
    ['*a', /repetition/],
    ['[z-a]', /range/],
    ['((a{100}){100}){100}', /repeat|large/],
    ['('.repeat(1100), /missing closing|nest/],
    ['a'.repeat(maxRegexChars + 1), /longer/],
    [`(${'[^a]{200}'.repeat(40)}){10}`, /large|repeat/],
  ])('refuses %.20s', (pattern, reason) => {
    expect(() => compileRegex(pattern, true)).toThrow(RegexError);
    expect(() => compileRegex(pattern, true)).toThrow(reason);
  });

  it('gives a hundred texts at most', () => {
    expect(captures('(a)'.repeat(200), 'a'.repeat(200))).toHaveLength(maxCaptures);
  });

  it('costs more with more instructions', () => {
    expect(compileRegex('a{200}', true).matchCost).toBeGreaterThan(10 * compileRegex('a', true).matchCost);
  });

  it('takes any text for itself when its special characters are escaped, also in brackets', () => {
    const printable = fc.string({
      unit: fc.constantFrom(...'ab1 .*+?^$', ...'{}()|[]\\-&~#/:=,<>"\'_é😀'),
      minLength: 1,
      maxLength: 12,
    });
    fc.assert(
      fc.property(printable, (text) => {
        expect(captures(text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), text, false)).toEqual([text]);
      }),
    );
    const inBrackets = fc.constantFrom(...'ab.*+?$(){}|\\&~#/:=,<>"\'_é😀[');
    fc.assert(
      fc.property(inBrackets, (character) => {
        expect(captures(`[x${character}y]`, character, false)).toEqual([character]);
      }),
    );
  });

  it('never throws anything else', () => {
    const piece = fc.constantFrom(
      'a',
      '(',
      ')',
      '[',
      ']',
      '{',
      '}',
      '*',
      '?',
      '+',
      '\\',
      '^',
      '-',
      '[:alpha:]',
      '[.',
      '.]',
      '[=',
      ',',
      '1',
      '|',
      '$',
      '😀',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        try {
          compileRegex(pieces.join(''), true).match('aa1(');
        } catch (error) {
          expect(error).toBeInstanceOf(RegexError);
        }
      }),
      { numRuns: 3000 },
    );
  });
});
