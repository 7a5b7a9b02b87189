import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Cursor } from './cursor.js';
import { formatDateTime, parseDateTime, readDate } from './dates.js';
import { readFetchItems } from './fetch-items.js';
import { formatAstring, formatFlags, formatMailbox, formatString, rawUtf8 } from './format.js';
import { defaultGrammarLimits, ImapSyntaxError } from './limits.js';
import { decodeMailboxName, decodeUtf7, encodeUtf7, mailboxPath, mailboxPattern } from './mailbox-name.js';
import { CommandReader, type RawCommand } from './reader.js';
import { readCriteria, type SearchCriteria } from './search-keys.js';
import { partOf, readPartialRange, readReturns, type SearchReturns } from './search-returns.js';
import { formatNumbers, inRanges, parseSequenceSet, resolveRanges } from './sequence-set.js';
import { readSortCriteria, readThreadAlgorithm } from './sort-keys.js';

/** A command as the reader gives it; literals are taken. */
function command(text: string): RawCommand {
  const reader = new CommandReader({ ...defaultGrammarLimits, maxLiteralBytes: 1_000_000, maxLineBytes: 1_000_000 });
  reader.push(Buffer.from(`${text}\r\n`, 'latin1'));
  for (let event = reader.next(); event; event = reader.next()) {
    if (event.kind === 'literal') reader.collect();
    else if (event.kind === 'command') return event.command;
    else throw new Error(event.kind);
  }
  throw new Error('incomplete');
}

const cursor = (text: string): Cursor => new Cursor(command(text), defaultGrammarLimits);
const latin1 = fc.string({ unit: fc.integer({ min: 1, max: 255 }).map((code) => String.fromCharCode(code)), maxLength: 2_000 });
const unicode = fc.string({ unit: 'binary', maxLength: 40 }).map((text) => text.replace(/\p{Surrogate}/gu, ''));

describe('strings', () => {
  it('come back from what was formatted', () => {
    fc.assert(
      fc.property(latin1, latin1, (a, b) => {
        const reading = cursor(`${formatString(a)} ${formatAstring(b)}`);
        expect(reading.string()).toBe(a);
        reading.space();
        expect(reading.astring()).toBe(b);
        reading.end();
      }),
    );
  });

  it('keep NIL apart from a string that is called so', () => {
    const reading = cursor('NIL "NIL" nil');
    expect(reading.nstring()).toBeUndefined();
    reading.space();
    expect(reading.nstring()).toBe('NIL');
    reading.space();
    expect(reading.nstring()).toBeUndefined();
    expect(formatAstring('NIL')).toBe('"NIL"');
  });

  it('never throw anything but syntax errors', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary-ascii', maxLength: 60 }),
      fc.constantFrom('(', ')', 'BODY[', 'NOT ', 'OR ', '"', '1:*,', '<0.', '$', 'RETURN ('),
    );
    const readers: ((reading: Cursor) => unknown)[] = [
      readFetchItems,
      (reading) => readSearch(reading),
      readSortCriteria,
      readThreadAlgorithm,
      (reading) => reading.list(() => reading.nstring()),
      (reading) => readDate(reading),
      (reading) => mailboxPath(reading.astring(), false),
    ];
    fc.assert(
      fc.property(fc.array(text, { maxLength: 8 }), fc.constantFrom(...readers), (pieces, read) => {
        const raw: RawCommand = { texts: [` ${pieces.join('')}`], literals: [] };
        try {
          read(new Cursor(raw, defaultGrammarLimits));
          read(new Cursor({ texts: [pieces.join('')], literals: [] }, defaultGrammarLimits));
        } catch (error) {
          expect(error).toBeInstanceOf(ImapSyntaxError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('sequence sets', () => {
  const end = fc.oneof(fc.integer({ min: 1, max: 30 }).map(String), fc.constant('*'), fc.constant('4294967295'));
  const range = fc.oneof(
    end,
    fc.tuple(end, end).map(([a, b]) => `${a}:${b}`),
  );

  it('mean the same as spelt out', () => {
    fc.assert(
      fc.property(fc.array(range, { minLength: 1, maxLength: 8 }), fc.integer({ min: 1, max: 25 }), (ranges, largest) => {
        const set = parseSequenceSet(ranges.join(','), 100);
        const resolved = resolveRanges(set.kind === 'ranges' ? set.ends : [], largest);
        const value = (text: string) => (text === '*' ? largest : Number(text));
        for (let number = 1; number <= 35; number++) {
          const expected = ranges.some((text) => {
            const [a, b = a] = text.split(':').map(value) as [number, number?];
            return number >= Math.min(a, b) && number <= Math.max(a, b);
          });
          expect(inRanges(resolved, number)).toBe(expected);
        }
      }),
    );
  });

  it('come back from a list of numbers', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 1, max: 500 }), { minLength: 1 }), (numbers) => {
        const sorted = [...numbers].sort((a, b) => a - b);
        const set = parseSequenceSet(formatNumbers(sorted), 1_000);
        const resolved = resolveRanges(set.kind === 'ranges' ? set.ends : [], 500);
        expect(Array.from({ length: 500 }, (_, i) => i + 1).filter((number) => inRanges(resolved, number))).toEqual(sorted);
      }),
    );
  });

  it.each(['', '0', '1,', ',1', '1:', ':1', '1:2:3', '4294967296', '1,,2', '-1', '1 2', '*:0', '00'])('refuse %j', (text) => {
    expect(() => parseSequenceSet(text, 100)).toThrow(ImapSyntaxError);
  });

  it('cost the same however far they reach', () => {
    expect(resolveRanges([1, 4_294_967_295], 10)).toEqual([1, 4_294_967_295]);
    expect(resolveRanges([1, 0], 0)).toEqual([]);
    expect(() => parseSequenceSet(Array.from({ length: 101 }, (_, i) => i + 1).join(','), 100)).toThrow('Too many ranges');
  });
});

describe('mailbox names', () => {
  it('survive modified UTF-7', () => {
    fc.assert(
      fc.property(unicode, (name) => {
        const encoded = encodeUtf7(name);
        expect(encoded).toMatch(/^[\x20-\x7e]*$/);
        expect(decodeUtf7(encoded)).toBe(name);
      }),
    );
    // RFC 3501 5.1.3
    expect(encodeUtf7('~peter/mail/台北/日本語')).toBe('~peter/mail/&U,BTFw-/&ZeVnLIqe-');
    expect(encodeUtf7('a&b')).toBe('a&-b');
  });

  it.each(['&', '&AAA', '&$-', '&A-', '&2D0-', 'a&AB'])('refuse bad UTF-7 %j', (text) => {
    expect(() => decodeUtf7(text)).toThrow(ImapSyntaxError);
  });

  it('survive the wire in both spellings', () => {
    const name = unicode.filter((text) => text !== '' && !/[\r\n\0]/.test(text));
    fc.assert(
      fc.property(name, fc.boolean(), (text, utf8) => {
        const sent = formatMailbox(text, utf8);
        if (utf8 && /[^\x20-\x7e]/.test(sent) && !sent.startsWith('"')) return;
        const raw = sent.startsWith('"') ? sent.slice(1, -1).replace(/\\(["\\])/g, '$1') : cursor(sent).astring();
        expect(decodeMailboxName(raw, utf8)).toBe(text.normalize('NFC'));
      }),
    );
  });

  it('make paths', () => {
    expect(mailboxPath('inbox', false)).toEqual(['INBOX']);
    expect(mailboxPath('InBox/Sub/', false)).toEqual(['INBOX', 'Sub']);
    expect(mailboxPath(rawUtf8('Entwürfe'), false)).toEqual(['Entwürfe']);
    for (const bad of ['', '/', 'a//b', '/a', 'a\x01', '\xff']) expect(() => mailboxPath(bad, true)).toThrow(ImapSyntaxError);
  });

  it('match patterns as spelt out', () => {
    const characters = fc.constantFrom('a', 'b', '/', '%', '*');
    const text = fc.array(characters, { maxLength: 8 }).map((list) => list.join(''));
    fc.assert(
      fc.property(
        text,
        text.map((name) => name.replace(/[%*]/g, '')),
        (pattern, name) => {
          const regex = new RegExp(`^${pattern.replaceAll('*', '.*').replaceAll('%', '[^/]*')}$`);
          expect(mailboxPattern(pattern)(name)).toBe(regex.test(name));
        },
      ),
    );
    expect(mailboxPattern('inbox')('INBOX')).toBe(true);
    expect(mailboxPattern('inb%')('INBOX')).toBe(true);
    expect(mailboxPattern('Inbox/%')('INBOX/Sub')).toBe(true);
    expect(mailboxPattern('trash')('Trash')).toBe(false);
  });

  it('answer hostile patterns at once', () => {
    const matches = mailboxPattern(`${'*a'.repeat(400)}b`);
    expect(matches('a'.repeat(4_000))).toBe(false);
  });
});

describe('dates', () => {
  it('come back to the second', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 253_402_300_799 }), (seconds) => {
        expect(parseDateTime(formatDateTime(seconds * 1000))).toBe(seconds * 1000);
      }),
    );
    expect(parseDateTime('17-Jul-1996 02:44:25 -0700')).toBe(Date.UTC(1996, 6, 17, 9, 44, 25));
    expect(formatDateTime(Date.UTC(2024, 1, 3, 4, 5, 6))).toBe(' 3-Feb-2024 04:05:06 +0000');
    expect(readDate(cursor('"1-Jan-1970"'))).toBe(0);
    expect(readDate(cursor('29-feb-2024'))).toBe(Date.UTC(2024, 1, 29) / 86_400_000);
  });

  it.each([
    '30-Feb-2024 00:00:00 +0000',
    ' 1-Xyz-2024 00:00:00 +0000',
    '1-Jan-2024 00:00:00 +0000',
    '01-Jan-2024 24:00:00 +0000',
    '',
  ])('refuse %j', (text) => {
    expect(() => parseDateTime(text)).toThrow(ImapSyntaxError);
  });
});

describe('fetch items', () => {
  const labels = (text: string) =>
    readFetchItems(cursor(text)).sections.map(({ label, peek }) => `${label}${peek ? ' peek' : ''}`);

  it('are read in all their forms', () => {
    expect([...readFetchItems(cursor('full')).items]).toEqual(['FLAGS', 'INTERNALDATE', 'RFC822.SIZE', 'ENVELOPE', 'BODY']);
    expect([...readFetchItems(cursor('(UID flags ModSeq EMAILID threadid SAVEDATE BODY BODYSTRUCTURE)')).items]).toHaveLength(8);
    expect(labels('BODY[]')).toEqual(['BODY[]']);
    expect(labels('(body.peek[1.2.mime] BODY[3.HEADER] BINARY.PEEK[4] BINARY.SIZE[5] RFC822 RFC822.HEADER RFC822.TEXT)')).toEqual(
      [
        'BODY[1.2.MIME] peek',
        'BODY[3.HEADER]',
        'BINARY[4] peek',
        'BINARY.SIZE[5] peek',
        'RFC822',
        'RFC822.HEADER peek',
        'RFC822.TEXT',
      ],
    );
    expect(labels('BODY.PEEK[HEADER.FIELDS (From "X Y" {2+}\r\nTo)]<5.7>')).toEqual(['BODY[HEADER.FIELDS (From "X Y" To)] peek']);
    expect(readFetchItems(cursor('BODY[]<5.7>')).sections[0]!.partial).toEqual({ offset: 5, length: 7 });
  });

  it.each([
    '',
    '()',
    '(',
    'BODY[',
    'BODY[0]',
    'BODY[MIME]',
    'BODY[1.]',
    'BODY[]<5>',
    'BODY[]<5.0>',
    'BINARY[TEXT]',
    'BINARY.SIZE[1]<0.1>',
    'FASTER',
    'X',
    'BODY[HEADER.FIELDS]',
    'BODY[HEADER.FIELDS ()]',
    'UID FLAGS',
    'RFC822[1]',
  ])('refuse %j', (text) => {
    expect(() => {
      const reading = cursor(text);
      readFetchItems(reading);
      reading.end();
    }).toThrow(ImapSyntaxError);
  });
});

function readSearch(reading: Cursor): SearchCriteria & { returns: SearchReturns | undefined } {
  reading.space();
  return { returns: readReturns(reading), ...readCriteria(reading, 'optional', false) };
}

describe('search keys', () => {
  const key = (text: string) => readSearch(cursor(` ${text}`)).key;

  it('are read into a tree', () => {
    expect(key('UNSEEN')).toEqual({ kind: 'not', key: { kind: 'keyword', keyword: '$seen' } });
    expect(key('OR DELETED NOT (1:3 UID 5)')).toEqual({
      kind: 'or',
      left: { kind: 'deleted' },
      right: {
        kind: 'not',
        key: {
          kind: 'and',
          keys: [
            { kind: 'sequence', set: { kind: 'ranges', ends: [1, 3] } },
            { kind: 'uid', set: { kind: 'ranges', ends: [5, 5] } },
          ],
        },
      },
    });
    expect(key('SENTSINCE 2-Jan-1970')).toEqual({ kind: 'date', of: 'sent', relation: 'since', day: 1 });
    expect(key('HEADER X-Spam "YES"')).toEqual({ kind: 'header', name: 'x-spam', text: 'yes' });
    expect(key(`CHARSET utf-8 SUBJECT {${Buffer.byteLength('ÄÖ')}+}\r\n${rawUtf8('ÄÖ')}`)).toEqual({
      kind: 'field',
      field: 'subject',
      text: 'äö',
    });
    expect(key('CHARSET iso-8859-1 SUBJECT {2+}\r\n\xc4\xd6')).toEqual({ kind: 'field', field: 'subject', text: 'äö' });
    const returns = (text: string) => readSearch(cursor(` RETURN (${text}) ALL`)).returns;
    expect(returns('MIN SAVE')).toMatchObject({ min: true, save: true, all: false, count: false });
    expect(returns('')).toMatchObject({ all: true, min: false });
    expect(returns('partial 500:400 COUNT')).toMatchObject({ partial: { first: 400, last: 500, fromEnd: false }, count: true });
    expect(readSearch(cursor(' 1:3')).usesSequences).toBe(true);
    expect(readSearch(cursor(' UID 1:3 $')).usesSequences).toBe(false);
  });

  it('take a page of a result from either end', () => {
    const list = Uint32Array.of(10, 20, 30, 40, 50);
    const page = (text: string) => [...partOf(list, readPartialRange(cursor(text)))];
    expect(page('1:2')).toEqual([10, 20]);
    expect(page('4:9')).toEqual([40, 50]);
    expect(page('6:9')).toEqual([]);
    expect(page('-1:-2')).toEqual([40, 50]);
    expect(page('-4:-9')).toEqual([10, 20]);
    expect(page('-6:-9')).toEqual([]);
  });

  it.each([
    '',
    'NOT',
    'OR ALL',
    'SUBJECT',
    'ON 1-1-2024',
    'UNALL',
    'UNLARGER 5',
    'LARGER x',
    '(ALL',
    'ALL)',
    'FOO',
    'RETURN (FOO) ALL',
    'RETURN (ALL PARTIAL 1:2) ALL',
    'RETURN (PARTIAL 1:2 PARTIAL 3:4) ALL',
    'RETURN (PARTIAL 1) ALL',
    'RETURN (PARTIAL 1:*) ALL',
    'RETURN (PARTIAL 0:1) ALL',
    'RETURN (PARTIAL -1:2) ALL',
    'RETURN (PARTIAL 1:4294967296) ALL',
    'HEADER x',
    'UID',
  ])('refuse %j', (text) => {
    expect(() => key(text)).toThrow(ImapSyntaxError);
  });

  it('are many, but neither endless nor deep', () => {
    const many = (count: number) => Array.from({ length: count }, () => 'ALL').join(' ');
    expect(key(many(10_000))).toMatchObject({ kind: 'and' });
    expect(() => key(many(40_000))).toThrow('Too many search keys');
    expect(() => key(`${'NOT '.repeat(10_000)}ALL`)).toThrow('Nested too deep');
    expect(() => key(`${'('.repeat(1_000)}ALL${')'.repeat(1_000)}`)).toThrow('Nested too deep');
    expect(() => key(`${'OR ALL '.repeat(10_000)}ALL`)).toThrow('Nested too deep');
  });
});

describe('sort criteria', () => {
  it('are read in order, each key once', () => {
    expect(readSortCriteria(cursor('(REVERSE DATE subject DISPLAYFROM DATE)'))).toEqual([
      { key: 'DATE', isReverse: true },
      { key: 'SUBJECT', isReverse: false },
      { key: 'DISPLAYFROM', isReverse: false },
    ]);
  });

  it.each(['()', '(REVERSE)', '(FOO)', 'DATE', '(REVERSE REVERSE DATE)'])('refuse %j', (text) => {
    expect(() => readSortCriteria(cursor(text))).toThrow(ImapSyntaxError);
  });
});

describe('flags', () => {
  it('are spelt as IMAP does', () => {
    expect(formatFlags(['$seen', '$forwarded', 'custom'], true)).toBe('(\\Seen $Forwarded custom \\Deleted)');
    expect(formatFlags([], false)).toBe('()');
    // Keywords that IMAP has no way to write are left out: one of them would put the client out of step.
    expect(formatFlags(['$seen', 'two words', 'a)b', '', 'für', '[x]', 'a"b', 'good'], false)).toBe('(\\Seen good)');
    expect(formatFlags(['a b'], true)).toBe('(\\Deleted)');
  });
});
