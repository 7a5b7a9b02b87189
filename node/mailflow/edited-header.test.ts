import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatField, readHeader, writeHeader } from './edited-header.js';

const header = (...lines: string[]) => Buffer.from(lines.join('\r\n'), 'latin1');
const edit = (bytes: Buffer, edited: Parameters<typeof writeHeader>[1]) =>
  writeHeader(readHeader(bytes), edited).toString('latin1');
const added = (name: string, value: string) => ({ added: { name, value } });

describe('a header taken apart', () => {
  it('has fields as scripts see them: names as written, values in one line', () => {
    const { fields } = readHeader(header('From x', 'SUBJECT : a', '\tb', 'X-\xc4: no field', 'X-Raw:\xe4\xc3\xa4 ', ''));
    expect(fields).toEqual([
      { name: 'SUBJECT', value: 'a\tb' },
      { name: 'X-Raw', value: '\xe4\xc3\xa4' },
    ]);
  });

  it('is the same when nothing was edited, whatever is in it', () => {
    const line = fc.oneof(
      fc.constantFrom('A: 1', 'b:2', ' folded', 'no field', 'From someone', 'X: \xff', ':', '', '\t', 'A : x'),
      fc.string({ maxLength: 20 }),
    );
    const text = fc.tuple(fc.array(line), fc.constantFrom('\r\n', '\n')).map(([lines, end]) => lines.join(end));
    fc.assert(
      fc.property(text, (written) => {
        const bytes = Buffer.from(written, 'latin1');
        const taken = readHeader(bytes);
        const all = taken.fields.map((_, original) => ({ original }));
        expect(writeHeader(taken, all).equals(bytes)).toBe(true);
      }),
    );
  });
});

describe('a header put together', () => {
  const bytes = header('From x', 'A: 1', 'B: 2', ' and', '  more', 'junk', ' of it', 'C: 3', '');

  it('keeps every byte of what was not touched, and lines that are no field in their places', () => {
    expect(edit(bytes, [added('X', 'new'), { original: 0 }, { original: 2 }, added('Y', 'last')])).toBe(
      'X: new\r\nFrom x\r\nA: 1\r\njunk\r\n of it\r\nC: 3\r\nY: last\r\n',
    );
    expect(edit(bytes, [])).toBe('From x\r\njunk\r\n of it\r\n');
  });

  it('ends each line, also where the message ended without', () => {
    expect(edit(header('A: 1'), [{ original: 0 }, added('B', '2')])).toBe('A: 1\r\nB: 2\r\n');
    expect(edit(Buffer.alloc(0), [added('B', '2')])).toBe('B: 2\r\n');
  });
});

describe('an added field', () => {
  it('is one field: line ends in its value begin no other', () => {
    expect(formatField({ name: 'X', value: ' a\r\nBcc: b\n\n' })).toBe('X: a Bcc: b\r\n');
  });

  it('is folded at its blanks, and unfolded is what it was', () => {
    const value = `${'word '.repeat(60)}${'x'.repeat(200)} end`;
    const lines = formatField({ name: 'X-Long', value }).split('\r\n');
    expect(lines.pop()).toBe('');
    expect(lines.join('')).toBe(`X-Long: ${value}`);
    expect(lines.length).toBeGreaterThan(3);
    for (const each of lines.slice(1)) expect(each).toMatch(/^ .*[^ ]/);
  });

  it('has no line that is too long or blank, whatever its value', () => {
    const value = fc.array(fc.tuple(fc.constantFrom('a', ' ', '\t', '\xff'), fc.nat(1500)), { maxLength: 6 });
    fc.assert(
      fc.property(value, (runs) => {
        const text = runs.map(([character, count]) => character.repeat(count)).join('');
        const field = formatField({ name: 'X', value: text });
        expect(field.endsWith('\r\n')).toBe(true);
        const [first, ...rest] = field.slice(0, -2).split('\r\n');
        expect(first).toMatch(/^X: /);
        for (const line of rest) expect(line).toMatch(/^[ \t].*[^ \t]/);
        for (const line of [first!, ...rest]) expect(line.length).toBeLessThanOrEqual(998);
      }),
    );
  });
});
