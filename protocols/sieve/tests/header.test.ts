import { describe, expect, it } from 'vitest';
import { compileError, conditionError, holds, matchesOf, messageOf } from './test-conditions.js';

const message = messageOf(
  Buffer.concat([
    Buffer.from(
      [
        'Received: from c by d',
        'Received: from b by c',
        'Received: from a by b',
        'Subject:   [acme-users] [fwd] version 1.0 is out  ',
        'X-Caffeine: C8H10N4O2',
        'X-Empty:',
        'X-Priority: 2 (high)',
        'X-Folded: one',
        '\ttwo',
        'X-Words: =?utf-8?q?Gr=C3=BC=C3=9Fe?= =?utf-8?b?IGF1cw==?= Wien',
        'X-Latin: =?iso-8859-1?q?caf=E9?=',
        'X-Spaced : yes',
      ].join('\r\n'),
    ),
    Buffer.from('\r\nX-Utf8: Zoë\r\nX-Raw: caf'),
    Buffer.from([0xe9]),
    Buffer.from('\r\n\r\nbody\r\n'),
  ]),
);
const asks = (condition: string) => holds(condition, { message });

describe('header', () => {
  it.each([
    [true, 'header "x-caffeine" "c8h10n4o2"'],
    [false, 'header :is "X-Caffeine" ""'],
    [true, 'header :contains "X-Caffeine" ""'],
    [true, 'header :is "x-empty" ""'],
    [false, 'header :contains "x-none" ""'],
    [true, 'not header :matches "x-none" "?*"'],
    [true, 'not header :matches "x-empty" "?*"'],
    [false, 'not header :matches "subject" "?*"'],
    [true, 'header :is "subject" "[acme-users] [fwd] version 1.0 is out"'],
    [true, 'header :contains "subject" "VERSION"'],
    [false, 'header :contains :comparator "i;octet" "subject" "VERSION"'],
    [true, 'header :comparator "i;octet" :contains "subject" "version"'],
    [true, 'header :matches "SUBJECT" "*version*out"'],
    [true, 'header :contains ["x-none", "subject"] ["nothing", "FWD"]'],
    [false, 'header :contains ["x-none", "subject"] ["nothing", "else"]'],
    [false, 'header :contains "subject:" "version"'],
    [false, 'header :contains "sub ject" ""'],
    [true, 'header "x-spaced" "yes"'],
    [true, 'header "x-folded" "one\ttwo"'],
    [true, 'header "received" "from a by b"'],
    // Encoded words, UTF-8 and single octets are Unicode before they are compared.
    [true, 'header "x-words" "Grüße aus Wien"'],
    [false, 'header "x-words" "GRÜSSE AUS WIEN"'],
    [false, 'header :comparator "i;ascii-casemap" "x-words" "GRÜßE AUS WIEN"'],
    [true, 'header :comparator "i;unicode-casemap" "x-words" "GRÜßE AUS WIEN"'],
    [true, 'header "x-latin" "café"'],
    [true, 'header "x-utf8" "zoë"'],
    [true, 'header "x-raw" "café"'],
    // i;ascii-numeric
    [true, 'header :comparator "i;ascii-numeric" "x-priority" "02"'],
    [false, 'header :comparator "i;ascii-numeric" "x-priority" "3"'],
    [true, 'header :comparator "i;ascii-numeric" "x-caffeine" "infinite"'],
    // RFC 5231
    [true, 'header :value "lt" :comparator "i;ascii-numeric" "x-priority" "3"'],
    [true, 'header :value "LE" :comparator "i;ascii-numeric" "x-priority" "2"'],
    [false, 'header :value "gt" :comparator "i;ascii-numeric" "x-priority" ["2", "10"]'],
    [true, 'header :value "gt" :comparator "i;ascii-numeric" "x-priority" ["2", "1"]'],
    [true, 'header :value "ne" "x-priority" "2"'],
    [true, 'header :value "gt" "x-caffeine" "C1"'],
    [true, 'header :count "ge" :comparator "i;ascii-numeric" "received" "3"'],
    [false, 'header :count "ge" :comparator "i;ascii-numeric" "received" "4"'],
    [true, 'header :count "eq" :comparator "i;ascii-numeric" ["received", "subject"] ["4"]'],
    [true, 'header :count "eq" :comparator "i;ascii-numeric" "x-none" "0"'],
    [true, 'header :count "eq" "x-empty" "1"'],
    // RFC 5260 6
    [true, 'header :index 1 "received" "from c by d"'],
    [true, 'header :index 3 "received" "from a by b"'],
    [true, 'header :index 1 :last "received" "from a by b"'],
    [true, 'header :index 3 :last "received" "from c by d"'],
    [false, 'header :index 4 :contains "received" ""'],
    [false, 'header :index 4 :last :contains "received" ""'],
    [false, 'header :index 2 "received" "from a by b"'],
    [true, 'header :index 2 :contains ["x-caffeine", "received"] "from c"'],
    [true, 'header :index 4 :last :contains ["x-caffeine", "received"] "C8"'],
    [true, 'header :index 1 :last "x-caffeine" "C8H10N4O2"'],
    // Many constants are looked up, with the same result.
    [true, 'header "x-caffeine" ["a", "b", "c", "d", "e", "C8H10n4o2"]'],
    [false, 'header "x-caffeine" ["a", "b", "c", "d", "e", "C8H10"]'],
    [true, 'header :regex "subject" "^\\\\[(.*)\\\\] (.*)$"'],
    [true, 'header :regex "subject" "VERSION [[:digit:]]"'],
    [false, 'header :regex :comparator "i;octet" "subject" "VERSION"'],
    [true, 'header :regex :comparator "i;unicode-casemap" "x-utf8" "ZO."'],
  ])('%s: %s', async (expected, condition) => {
    expect(await asks(condition)).toBe(expected);
  });

  it.each([
    ['header :matches "subject" "[*] *"', ['[acme-users] [fwd] version 1.0 is out', 'acme-users', '[fwd] version 1.0 is out']],
    ['header :regex "subject" "\\\\[(.*)\\\\] (v[a-z]*)"', ['[acme-users] [fwd] version', 'acme-users] [fwd', 'version']],
    // The first value that matches, and its first key.
    ['header :matches "received" ["from x *", "* b by *"]', ['from b by c', 'from', 'c']],
    ['header :matches :comparator "i;unicode-casemap" "x-words" "grü*"', ['Grüße aus Wien', 'ße aus Wien']],
    ['anyof (header :matches "subject" "x*", header :matches "x-caffeine" "?8*")', ['C8H10N4O2', 'C', 'H10N4O2']],
    // A later match takes the place of an earlier one, other match types leave it.
    [
      'allof (header :matches "subject" "[*]*", header :is "x-caffeine" "C8H10N4O2")',
      ['[acme-users] [fwd] version 1.0 is out', 'acme-users', ' [fwd] version 1.0 is out'],
    ],
    [
      'allof (header :matches "subject" "[*]*", not header :matches "x-caffeine" "D*")',
      ['[acme-users] [fwd] version 1.0 is out', 'acme-users', ' [fwd] version 1.0 is out'],
    ],
    ['header :contains "subject" "version"', []],
  ])('%s sets the match variables', async (condition, expected) => {
    const found = await matchesOf(condition, { message });
    expect(found).toEqual([...expected, ...Array(10 - expected.length).fill('')]);
  });

  it('takes keys and names from variables', async () => {
    const condition = `allof (header :matches "subject" "[*-*]*", header :matches "x-\${2}" "*")`;
    expect(await holds(condition, { message: messageOf('Subject: [a-users] x\nX-Users: 1\n\n') })).toBe(true);
    const regex = (name: string) =>
      holds(`allof (header :matches "x-name" "*", header :regex "subject" "^\${1}$")`, {
        message: messageOf(`X-Name: ${name}\nSubject: aab\n\n`),
      });
    expect(await regex('a+b')).toBe(true);
    expect(await regex('a{2}b?')).toBe(true);
    expect(await regex('ab')).toBe(false);
    await expect(regex('(')).rejects.toThrow(/regular expression/);
  });

  it('holds for nothing before there is a message', async () => {
    expect(await holds('header :contains "subject" ""')).toBe(false);
  });

  it.each([
    ['header :count "ge" :value "ge" "a" "b"', /exclude/],
    ['header :value "more" "a" "b"', /"gt", "ge"/],
    ['header :comparator "i;basic" "a" "b"', /unknown comparator/],
    ['header :contains :comparator "i;ascii-numeric" "a" "1"', /parts of texts/],
    ['header :matches :comparator "i;ascii-numeric" "a" "1"', /parts of texts/],
    ['header :regex :comparator "i;ascii-numeric" "a" "1"', /parts of texts/],
    ['header :regex "a" "("', /regular expression/],
    ['header :last "a" "b"', /':index'/],
    ['header :index 0 "a" "b"', /from 1/],
    ['header :anychild "a" "b"', /':mime'/],
    ['header :type "a" "b"', /':mime'/],
    ['header "a"', /lacks/],
  ])('%s is refused', (condition, reason) => {
    expect(conditionError(condition)).toMatch(reason);
  });

  it.each([
    ['header :regex "a" "b"', 'regex'],
    ['header :value "eq" "a" "b"', 'relational'],
    ['header :count "eq" "a" "b"', 'relational'],
    ['header :index 1 "a" "b"', 'index'],
    ['header :mime "a" "b"', 'mime'],
    ['header :list "a" "b"', 'extlists'],
    ['header :comparator "i;ascii-numeric" "a" "1"', 'comparator-i;ascii-numeric'],
    ['header :comparator "i;unicode-casemap" "a" "1"', 'comparator-i;unicode-casemap'],
    ['address :user "from" "1"', 'subaddress'],
    ['envelope "from" "1"', 'envelope'],
    ['date "date" "year" "1"', 'date'],
  ])('%s needs require "%s"', (condition, extension) => {
    expect(compileError(`if ${condition} { stop; }`)).toContain(`require "${extension}"`);
    expect(compileError(`require "${extension}"; if ${condition} { stop; }`)).toBeUndefined();
  });

  it('gives i;octet and i;ascii-casemap to all scripts', () => {
    expect(compileError('if header :comparator "i;octet" "a" "b" { stop; }')).toBeUndefined();
    expect(compileError('require ["comparator-i;octet", "comparator-i;ascii-casemap"];')).toBeUndefined();
  });

  it('asks the host for lists', async () => {
    const asked: [string, readonly string[]][] = [];
    const host = {
      isInList: async (list: string, values: readonly string[]) => {
        asked.push([list, values]);
        return list === 'friends' && values.includes('from b by c');
      },
    };
    expect(await matchesOf('header :list "received" ["foes", "friends"]', { message, host })).toEqual([
      'from b by c',
      ...Array(9).fill(''),
    ]);
    expect(asked[0]).toEqual(['foes', ['from c by d', 'from b by c', 'from a by b']]);
    expect(await holds('header :list "x-none" "friends"', { message, host })).toBe(false);
    expect(await holds('header :list "received" "foes"', { message, host })).toBe(false);
  });
});
