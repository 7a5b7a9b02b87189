import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compileGlob } from './glob.js';

/** The same by JavaScript's regular expressions, for short texts. */
function byRegex(pattern: string, text: string): string[] | undefined {
  const source = pattern.replace(/[.+^${}()|[\]\\]/g, '\\$&');
  const marks = source.replace(/[*?]/g, (mark) => (mark === '*' ? '([^]*?)' : '([^])'));
  return new RegExp(`^${marks}$`).exec(text)?.map((part) => part);
}

describe('glob', () => {
  it.each([
    ['*@example.org', 'ann@example.org', ['ann@example.org', 'ann']],
    ['a?c', 'abc', ['abc', 'b']],
    ['', '', ['']],
    ['*', '', ['', '']],
    ['?', '', undefined],
    ['a*a', 'a', undefined],
    ['a.c', 'abc', undefined],
    ['*.*', 'a.b.c', ['a.b.c', 'a', 'b.c']],
    ['**', 'ab', ['ab', '', 'ab']],
  ])('%s on %s', (pattern, text, wanted) => {
    expect(compileGlob(pattern).match(text)).toEqual(wanted);
  });

  it('shows captures as they were written where case is ignored', () => {
    expect(compileGlob('*@EXAMPLE.org', true).match('Ann@Example.Org')).toEqual(['Ann@Example.Org', 'Ann']);
    expect(compileGlob('a*', true).match('İ')).toBeUndefined();
    expect(compileGlob('*x', true).match('İX')?.length).toBe(2);
  });

  it('agrees with regular expressions', () => {
    const unit = fc.constantFrom('a', 'b', '.', '*', '?');
    fc.assert(
      fc.property(
        fc.string({ unit, maxLength: 8 }),
        fc.string({ unit: fc.constantFrom('a', 'b', '.'), maxLength: 10 }),
        (pattern, text) => {
          expect(compileGlob(pattern).match(text)).toEqual(byRegex(pattern, text));
        },
      ),
      { numRuns: 1000 },
    );
  });
});
