/** Addresses, envelopes and dates, by the RFC that asks for each behaviour. */
import { describe, expect, it } from 'vitest';
import {
  formatAddressSpec,
  formatDate,
  mailboxesOf,
  parseAddressList,
  parseDate,
  parseMailboxAddress,
  summarize,
} from './index.js';

const message = (...lines: string[]) => Buffer.from(lines.join('\r\n'), 'latin1');

describe('addresses (RFC 5322 3.4, 4.4)', () => {
  const brief = (text: string) =>
    parseAddressList(text).map((a) =>
      a.kind === 'group'
        ? { group: a.name, members: a.members.map(formatAddressSpec) }
        : `${a.name ?? ''}|${a.route ?? ''}|${a.local}|${a.domain}`,
    );

  it.each<[string, unknown[]]>([
    ['a@b.c', ['||a|b.c']],
    ['John Q. Public <john@x.org>', ['John Q. Public||john|x.org']],
    ['"Joe \\"Q\\" (x)" <joe@x.org>, <jane@y.org>', ['Joe "Q" (x)||joe|x.org', '||jane|y.org']],
    ['Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>', ['Pete||pete|silly.test']],
    ['user@host (Full Name)', ['Full Name||user|host']],
    ['"a b"@c', ['||a b|c']],
    ['"a".b@c', ['||a.b|c']],
    ['john . doe @ example . com', ['||john.doe|example.com']],
    ['<@r1.example,@r2.example:user@host>', ['|@r1.example,@r2.example|user|host']],
    ['A Group:Ed <ed@x>,joe@y;, z@q', [{ group: 'A Group', members: ['ed@x', 'joe@y'] }, '||z|q']],
    ['Undisclosed recipients:;', [{ group: 'Undisclosed recipients', members: [] }]],
    [', ,a@b,,', ['||a|b']],
    ['jürgen@bücher.example', ['||jürgen|bücher.example']],
    ['user@[192.0.2.1]', ['||user|[192.0.2.1]']],
    ['root', ['||root|']],
    ['John Doe', ['John Doe|||']],
    ['<>', []],
    ['=?utf-8?q?a=2C_b?= <a@b>', ['=?utf-8?q?a=2C_b?=||a|b']],
    ['a@b; c@d', ['||a|b', '||c|d']],
  ])('%s', (text, wanted) => expect(brief(text)).toEqual(wanted));

  it('stops at the limit and dissolves groups', () => {
    expect(parseAddressList('a@b,c@d,e@f', 2).length).toBe(2);
    expect(mailboxesOf(parseAddressList('g: a@b, c@d;, e@f')).map((m) => m.local)).toEqual(['a', 'c', 'e']);
  });

  it('parseMailboxAddress takes exactly one sound address', () => {
    expect(parseMailboxAddress('Bob <bob@example.com>')).toMatchObject({ name: 'Bob', local: 'bob', domain: 'example.com' });
    expect(parseMailboxAddress('"a..b"@example.com')?.local).toBe('a..b');
    expect(parseMailboxAddress('postmaster@[IPv6:2001:db8::1]')?.domain).toBe('[IPv6:2001:db8::1]');
    for (const bad of [
      '',
      'bob',
      'a@b, c@d',
      'a..b@c',
      '.a@c',
      'a@-b',
      'a@b..c',
      'a@',
      '@b',
      `${'x'.repeat(65)}@b`,
      'g: a@b;',
      '<@r:a@b>',
      'a@b_c!',
    ]) {
      expect(parseMailboxAddress(bad), bad).toBeUndefined();
    }
  });

  it('quotes local parts that need it', () => {
    expect(formatAddressSpec({ local: 'a b"c', domain: 'd' })).toBe('"a b\\"c"@d');
    expect(formatAddressSpec({ local: 'a.b', domain: 'd' })).toBe('a.b@d');
    expect(formatAddressSpec({ local: 'a..b', domain: 'd' })).toBe('"a..b"@d');
  });
});

describe('envelope (RFC 9051 7.5.2)', () => {
  it('defaults sender and reply-to, keeps raw bytes, marks groups', () => {
    const bytes = message(
      'From: =?utf-8?q?B=C3=B6b?= <bob@example.com>',
      'Reply-To: ',
      'To: g: a@b;, J\xc3\xbc <c@d>',
      'To: second@e',
      'Subject: folded',
      '  =?utf-8?q?x?= \xc3\xa9',
      'Date: Sun, 22 Nov 2026 05:53:57 +0100 (CET)',
      'Message-ID: <id@x>',
      'In-Reply-To: <p@x> (comment)',
      'References: <r@x>',
      ' <p@x> <r@x>',
      '',
      '',
    );
    const { envelope, messageIds, sentAtMs } = summarize(bytes);
    const bob = { name: '=?utf-8?q?B=C3=B6b?=', route: null, mailbox: 'bob', host: 'example.com' };
    expect(envelope).toEqual({
      date: 'Sun, 22 Nov 2026 05:53:57 +0100 (CET)',
      subject: 'folded  =?utf-8?q?x?= \xc3\xa9',
      from: [bob],
      sender: [bob],
      replyTo: [bob],
      to: [
        { name: null, route: null, mailbox: 'g', host: null },
        { name: null, route: null, mailbox: 'a', host: 'b' },
        { name: null, route: null, mailbox: null, host: null },
        { name: 'J\xc3\xbc', route: null, mailbox: 'c', host: 'd' },
        { name: null, route: null, mailbox: 'second', host: 'e' },
      ],
      cc: [],
      bcc: [],
      inReplyTo: '<p@x> (comment)',
      messageId: '<id@x>',
    });
    expect(messageIds).toEqual({ own: 'id@x', inReplyTo: ['p@x'], references: ['r@x', 'p@x', 'r@x'] });
    expect(sentAtMs).toBe(Date.UTC(2026, 10, 22, 4, 53, 57));
  });

  it('keeps the first and the latest of very many references', () => {
    const ids = Array.from({ length: 300 }, (_, i) => `<${i}@x>`);
    const { references } = summarize(message(`References: ${ids.join(' ')}`, '', '')).messageIds;
    expect(references.length).toBe(100);
    expect([references[0], references[1], references[99]]).toEqual(['0@x', '201@x', '299@x']);
  });

  it('drops the address that a size limit cuts', () => {
    const to = `To: ${Array.from({ length: 900 }, (_, i) => `"${'n'.repeat(80)}" <user${i}@example.com>`).join(', ')}`;
    const list = summarize(message(to, '', '')).envelope.to;
    expect(list.length).toBeGreaterThan(500);
    expect(list.every((address) => address.host === 'example.com')).toBe(true);
  });
});

describe('dates (RFC 5322 3.3, 4.3)', () => {
  it.each<[string, string, number]>([
    ['Fri, 21 Nov 1997 09:55:06 -0600', '1997-11-21T15:55:06Z', -360],
    ['21 Nov 97 09:55:06 GMT', '1997-11-21T09:55:06Z', 0],
    ['1 Jan 49 00:00 +0000', '2049-01-01T00:00:00Z', 0],
    ['1 Jan 50 00:00 +0000', '1950-01-01T00:00:00Z', 0],
    ['1 Jan 103 00:00 +0000', '2003-01-01T00:00:00Z', 0],
    ['Thu,\t13 (thirteen) Feb 1969 23:32 -0330 (Newfoundland Time)', '1969-02-14T03:02:00Z', -210],
    ['Fri, 21 Nov 1997 09(comment): 55 : 06 -0600', '1997-11-21T15:55:06Z', -360],
    ['Mon, 1 Jun 2026 10:00:00 EDT', '2026-06-01T14:00:00Z', -240],
    ['Mon, 1 Jun 2026 10:00:00 Z', '2026-06-01T10:00:00Z', 0],
    ['Mon, 1 Jun 2026 10:00:00 K', '2026-06-01T10:00:00Z', 0],
    ['1 Jun 2026 10:00:00', '2026-06-01T10:00:00Z', 0],
    ['31 Dec 2016 23:59:60 +0000', '2016-12-31T23:59:59Z', 0],
    ['Sun Nov 22 04:53:57 2026', '2026-11-22T04:53:57Z', 0],
    ['29 Feb 2024 00:00:00 +1400', '2024-02-28T10:00:00Z', 840],
  ])('%s', (text, iso, offsetMinutes) => expect(parseDate(text)).toEqual({ epochMs: Date.parse(iso), offsetMinutes }));

  it.each([
    '',
    'yesterday',
    '31 Feb 2020 00:00:00 +0000',
    '1 Foo 2020 00:00 +0000',
    '1 Jan 2020 24:00 +0000',
    '1 Jan 2020 00:60 +0000',
    '0 Jan 2020 00:00 +0000',
    '1 Jan 2020 00:00 +9999',
    '29 Feb 2023 00:00 +0000',
  ])('refuses %j', (text) => expect(parseDate(text)).toBeUndefined());

  it('writes what it reads', () => {
    expect(formatDate(Date.UTC(2026, 10, 22, 4, 53, 57), 60)).toBe('Sun, 22 Nov 2026 05:53:57 +0100');
    expect(formatDate(0, -210)).toBe('Wed, 31 Dec 1969 20:30:00 -0330');
    for (const [ms, offset] of [
      [0, 0],
      [1.7e12, -720],
      [951782400000, 345],
    ] as const) {
      expect(parseDate(formatDate(ms, offset))).toEqual({ epochMs: ms, offsetMinutes: offset });
    }
    expect(() => formatDate(Number.NaN)).toThrow(RangeError);
  });
});
