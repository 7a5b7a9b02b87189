import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseAddress, parseDomain, subaddresses, tryParseAddress, tryParseDomain } from './addresses.js';

describe('parseAddress', () => {
  const same: [string, string][] = [
    ['Alice@Example.TEST', 'alice@example.test'],
    ['"alice"@example.test', 'alice@example.test'],
    ['"al\\ice"@example.test', 'alice@example.test'],
    ['"a b"@example.test', '"a b"@example.test'],
    ['"a\\"b"@example.test', '"a\\"b"@example.test'],
    ['"a@b"@example.test', '"a@b"@example.test'],
    ['"a..b"@example.test', '"a..b"@example.test'],
    ['"Joe.Bloggs"@example.test', 'joe.bloggs@example.test'],
    ['x@Bücher.example', 'x@xn--bcher-kva.example'],
    ['x@XN--BCHER-KVA.example', 'x@xn--bcher-kva.example'],
    ['x@bu\u0308cher.example', 'x@xn--bcher-kva.example'],
    ['RE\u0301NE@example.test', 'r\u00e9ne@example.test'],
    ['用户@例え.テスト', '用户@xn--r8jz45g.xn--zckzah'],
    ['x@example.test.', 'x@example.test'],
    ['x@[127.0.0.1]', 'x@[127.0.0.1]'],
    ['x@[IPv6:2001:DB8::1]', 'x@[ipv6:2001:db8::1]'],
    ['user+Detail@example.test', 'user+detail@example.test'],
  ];
  for (const [text, wanted] of same) it(`${text} is ${wanted}`, () => expect(parseAddress(text).address).toBe(wanted));

  const bad = [
    ...[
      '',
      '@',
      'a',
      'a@',
      '@b',
      'a b@c.d',
      '.a@b.c',
      'a.@b.c',
      'a..b@c.d',
      'a@b..c',
      'a@-b.c',
      'a@b-.c',
      'a@b c',
      'a@ex%41mple.com',
      'a@b/c',
    ],
    ...[
      '"a@b.c',
      'a"@b.c',
      '""@b.c',
      '"a"b"@c.d',
      '"a\\"@b.c',
      'a\u0000@b.c',
      '"a\u0007"@b.c',
      'a\n@b.c',
      'a@127.0.0.1',
      'a@b.123',
      'a\ud800@b.c',
    ],
    ...[
      `${'a'.repeat(65)}@b.c`,
      `${'é'.repeat(33)}@b.c`,
      `a@${'b'.repeat(64)}.c`,
      `a@${'b.'.repeat(128)}c`,
      'a'.repeat(2_000),
      'a@b:25',
      '<a@b.c>',
    ],
  ];
  for (const text of bad) {
    it(`refuses ${JSON.stringify(text.slice(0, 40))}`, () => {
      expect(tryParseAddress(text)).toBeUndefined();
      expect(() => parseAddress(text)).toThrow(expect.objectContaining({ code: 'bad-address' }));
    });
  }

  it('takes the longest that is allowed', () => {
    expect(parseAddress(`${'a'.repeat(64)}@b.c`).local).toHaveLength(64);
    expect(parseDomain(`${'b.'.repeat(127)}c`)).toHaveLength(255);
  });

  it('never throws, and what it gives is its own form', () => {
    const piece = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 12 }),
      fc.string({ maxLength: 12 }),
      fc.constantFrom('"', '\\', '@', '.', 'é', 'Σ', 'İ', 'K', '。', 'xn--'),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 6 }), fc.array(piece, { maxLength: 4 }), (local, domain) => {
        const parsed = tryParseAddress(`${local.join('')}@${domain.join('')}`);
        if (!parsed) return;
        const again = tryParseAddress(parsed.address);
        expect(again?.address).toBe(parsed.address);
        expect(again?.local).toBe(parsed.local);
        expect(again?.domain).toBe(parsed.domain);
      }),
      { numRuns: 1_500 },
    );
  });

  it('gives every quoting and case of one local part the same form', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom(...'abcXYZ019 .+-"\\@é'), minLength: 1, maxLength: 20 }),
        fc.infiniteStream(fc.boolean()),
        (content, flags) => {
          const plain = parseAddress(`"${content.replace(/["\\]/g, '\\$&')}"@example.test`);
          let varied = '';
          for (const character of content) {
            const cased = flags.next().value ? character.toUpperCase() : character.toLowerCase();
            varied += /["\\]/.test(character) || flags.next().value ? `\\${cased}` : cased;
          }
          expect(parseAddress(`"${varied}"@EXAMPLE.test`).address).toBe(plain.address);
          expect(plain.local).toBe(content.toLowerCase());
        },
      ),
    );
  });
});

describe('parseDomain', () => {
  it('refuses what is none', () => {
    for (const text of [
      '',
      '.',
      'a b',
      '[127.0.0.1]',
      '127.1',
      '0x7f.1',
      'xn--zzzz99.de',
      'a_b-.c',
      'exa%6dple.com',
      'a?b.c',
      '。',
    ]) {
      expect(tryParseDomain(text), text).toBeUndefined();
    }
    expect(() => parseDomain('a b')).toThrow(expect.objectContaining({ code: 'bad-domain' }));
  });
});

describe('subaddresses', () => {
  it('offers the longest user first and keeps the case of the detail', () => {
    expect(subaddresses(parseAddress('Bob+Lists+Node@example.test'), '+')).toEqual([
      { local: 'bob+lists', detail: 'Node' },
      { local: 'bob', detail: 'Lists+Node' },
    ]);
    expect(subaddresses(parseAddress('mary-ann@example.test'), '+-')).toEqual([{ local: 'mary', detail: 'ann' }]);
    expect(subaddresses(parseAddress('+x@example.test'), '+')).toEqual([]);
    expect(subaddresses(parseAddress('a+b@example.test'), '')).toEqual([]);
    expect(subaddresses(parseAddress(`a${'+b'.repeat(20)}@example.test`), '+')).toHaveLength(4);
  });
});
