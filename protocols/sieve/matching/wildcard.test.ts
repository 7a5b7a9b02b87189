import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { comparatorNamed, defaultComparator } from './comparators.js';
import { compileWildcard, maxCaptures } from './wildcard.js';

const octet = comparatorNamed('i;octet')!;
const unicode = comparatorNamed('i;unicode-casemap')!;
const matched = (pattern: string, text: string, comparator = defaultComparator) =>
  compileWildcard(pattern, comparator).match(text);

/** The obvious one: tries the shortest first for every star, all places after one another. Units are characters. */
function slowMatch(pattern: string, text: string): string[] | undefined {
  const tokens: { kind: 'any' | 'one' | 'text'; text: string }[] = [];
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern[i]!;
    if (c === '*') tokens.push({ kind: 'any', text: '' });
    else if (c === '?') tokens.push({ kind: 'one', text: '' });
    else if (c === '\\') tokens.push({ kind: 'text', text: pattern[++i] ?? '\\' });
    else tokens.push({ kind: 'text', text: c });
  }
  const from = (token: number, at: number): string[] | undefined => {
    const wanted = tokens[token];
    if (!wanted) return at === text.length ? [] : undefined;
    if (wanted.kind === 'text') return text[at] === wanted.text ? from(token + 1, at + 1) : undefined;
    const longest = wanted.kind === 'one' ? 1 : text.length - at;
    for (let length = wanted.kind === 'one' ? 1 : 0; length <= longest && at + length <= text.length; length++) {
      const rest = from(token + 1, at + length);
      if (rest) return [text.slice(at, at + length), ...rest];
    }
    return undefined;
  };
  const captures = from(0, 0);
  return captures && [text, ...captures];
}

describe('wildcards', () => {
  it.each([
    ['[*] *', '[acme-users] [fwd] version 1.0 is out', ['acme-users', '[fwd] version 1.0 is out']],
    ['*<*@*', 'Acme <users@acme.example>', ['Acme ', 'users', 'acme.example>']],
    ['*', '', ['']],
    ['**', 'ab', ['', 'ab']],
    ['*?', 'ab', ['a', 'b']],
    ['?*', 'ab', ['a', 'b']],
    ['*a*a*', 'xaxaxa', ['x', 'x', 'xa']],
    ['a*b', 'a--b--b', ['--b--']],
    ['*.*.example', 'a.b.c.example', ['a', 'b.c']],
    ['\\*\\?\\\\', '*?\\', []],
    ['\\a*', 'ab', ['b']],
    ['x\\', 'x\\', []],
    ['??', 'ab', ['a', 'b']],
    ['*a?c*', 'aXabcabc', ['aX', 'b', 'abc']],
    ['', '', []],
  ])('%s takes %s', (pattern, text, captures) => {
    expect(matched(pattern, text)).toEqual([text, ...captures]);
  });

  it.each([
    ['?', ''],
    ['??', 'a'],
    ['a', ''],
    ['', 'a'],
    ['a*a', 'a'],
    ['*b', 'abc'],
    ['ab*bc', 'abc'],
    ['\\*', 'a'],
    ['*a?', 'a'],
    ['*ab?d*', 'abcabc'],
  ])('%s does not take %s', (pattern, text) => {
    expect(matched(pattern, text)).toBeUndefined();
  });

  it('looks at case as the comparator does, and gives the text as it was', () => {
    expect(matched('SUB*', 'subJect')).toEqual(['subJect', 'Ject']);
    expect(matched('SUB*', 'subJect', octet)).toBeUndefined();
    expect(matched('ä*', 'Äx')).toBeUndefined();
    expect(matched('ä*', 'Äx', unicode)).toEqual(['Äx', 'x']);
    expect(matched('S?B*', 'suBJect')).toEqual(['suBJect', 'u', 'Ject']);
  });

  it('takes one octet for ? with i;octet and i;ascii-casemap, one character with i;unicode-casemap', () => {
    expect(matched('?', 'é', octet)).toBeUndefined();
    expect(matched('a??c', 'aéc', octet)).toEqual(['aéc', '\ufffd', '\ufffd']);
    expect(matched('a?c', 'aÉc', unicode)).toEqual(['aÉc', 'É']);
    expect(matched('a?c', 'aE\u0301c', unicode)).toEqual(['aE\u0301c', 'E\u0301']);
    expect(matched('a?c', 'a😀c', unicode)).toEqual(['a😀c', '😀']);
    expect(matched('*é*', 'xE\u0301y', unicode)).toEqual(['xE\u0301y', 'x', 'y']);
    expect(matched('*é?', 'é\u{1f600}', unicode)).toEqual(['é\u{1f600}', '', '\u{1f600}']);
  });

  it('gives a hundred texts at most', () => {
    expect(matched('*'.repeat(1000), 'ab')).toHaveLength(maxCaptures);
    expect(matched('?'.repeat(1000), 'a'.repeat(1000))).toHaveLength(maxCaptures);
  });

  const character = fc.constantFrom('a', 'b', 'c', '*', '?', '\\');
  const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '*'), maxLength: 12 });
  const pattern = fc.string({ unit: character, maxLength: 7 });

  it('agrees with the obvious way, captures too', () => {
    fc.assert(
      fc.property(pattern, text, (wildcard, value) => {
        expect(matched(wildcard, value, octet)).toEqual(slowMatch(wildcard, value));
        expect(matched(wildcard, value, unicode)?.join('\0').toLowerCase()).toEqual(slowMatch(wildcard, value)?.join('\0'));
      }),
      { numRuns: 5000 },
    );
  });

  it('agrees with it for pieces longer than a machine word', () => {
    const long = fc.tuple(fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 60, maxLength: 90 }), fc.nat(80), fc.nat(20));
    fc.assert(
      fc.property(long, ([piece, hole, before]) => {
        const value = `${'ab'.repeat(before)}${piece}aab`;
        const wildcard = `*${piece.slice(0, hole)}?${piece.slice(hole + 1)}*`;
        const slow = slowMatch(wildcard, value);
        expect(matched(wildcard, value, octet)).toEqual(slow);
        expect(matched(`*${piece}*`, value, octet)).toEqual(slowMatch(`*${piece}*`, value));
      }),
      { numRuns: 300 },
    );
  });

  it('finds pieces that are longer than the engine prepares', () => {
    const piece = `b${'a'.repeat(600)}`;
    const value = `${'a'.repeat(700)}${piece}c${piece}`;
    expect(matched(`*${piece}*`, value)).toEqual([value, 'a'.repeat(700), `c${piece}`]);
    expect(matched(`*${piece}d*`, value)).toBeUndefined();
  });
});
