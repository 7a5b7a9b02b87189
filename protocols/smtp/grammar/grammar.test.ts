/** Paths, parameters, command lines and replies. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { afterKeyword, decodeLine, isGreetingName, parseBdat, parseCapabilities, splitCommand } from './command.js';
import { type EhloKeyword, ehloKeywords, extensionSet } from './extensions.js';
import {
  formatMailParameters,
  formatRecipientParameters,
  parseDateTime,
  parseMailParameters,
  parseRecipientParameters,
} from './parameters.js';
import { addressOfLiteral, domainOf, formatLocalPart, parseMailbox, parsePath } from './path.js';
import { parseProxiedAttributes, xclientAttributes, xforwardAttributes } from './proxied.js';
import { formatReply, type ParsedReply, ReplyReader, ReplySyntaxError, reply } from './reply.js';
import { decodeUtf8Address, decodeXtext, encodeUtf8Address, encodeXtext } from './xtext.js';

const path = (text: string, utf8 = false) => {
  const parsed = parsePath(text, 'forward', utf8);
  return 'problem' in parsed ? undefined : parsed.mailbox?.address;
};

describe('paths', () => {
  it.each([
    ['<a@b.test>', 'a@b.test'],
    ['<A.b+c=d/e@Example.TEST>', 'A.b+c=d/e@Example.TEST'],
    ['<"a b"@b.test>', '"a b"@b.test'],
    ['<"a\\"b\\\\c"@b.test>', '"a\\"b\\\\c"@b.test'],
    ['<"plain"@b.test>', 'plain@b.test'],
    ['<"a@b"@c.test>', '"a@b"@c.test'],
    ['<a@[192.0.2.1]>', 'a@[192.0.2.1]'],
    ['<a@[IPv6:2001:db8::1]>', 'a@[IPv6:2001:db8::1]'],
    ['<@x.test,@y.test:a@b.test>', 'a@b.test'],
    ['<postMASTER>', 'postmaster'],
    ['<a@localhost>', 'a@localhost'],
    ['<a@_x.b-c.test>', 'a@_x.b-c.test'],
  ])('takes %s', (text, address) => expect(path(text)).toBe(address));

  it.each([
    '<>',
    'a@b.test',
    '<a@b.test',
    '<a@b.test>x',
    '<a>',
    '<@b.test>',
    '<a@>',
    '<.a@b.test>',
    '<a.@b.test>',
    '<a..b@b.test>',
    '<a b@b.test>',
    '<a@b..test>',
    '<a@-b.test>',
    '<a@b.test.>',
    '<a@b c.test>',
    '<a@[192.0.2.256]>',
    '<a@[IPv6:1::2::3]>',
    '<a@[2001:db8::1]>',
    '<a@[IPv6:fe80::1%eth0]>',
    '<"a@b.test>',
    '<"a"b@c.test>',
    '<"a\u0001"@b.test>',
    '<é@b.test>',
    '<a@é.test>',
    `<${'a'.repeat(65)}@b.test>`,
    `<a@${'b.'.repeat(150)}test>`,
    '<@x.test:@b.test>',
    '<@x.test a@b.test>',
    '<<a@b.test>>',
  ])('refuses %s', (text) => expect(path(text)).toBeUndefined());

  it('takes UTF-8 where it may, and says when it lacks', () => {
    expect(path('<用户@例え.test>', true)).toBe('用户@例え.test');
    expect(path('<"a é"@b.test>', true)).toBe('"a é"@b.test');
    expect(path('<a@exa mple.test>', true)).toBeUndefined();
    expect(parsePath('<é@b.test>', 'forward', false)).toMatchObject({ needsUtf8: true });
    expect(parsePath('<é é@b.test>', 'forward', false)).not.toHaveProperty('needsUtf8');
  });

  it('separates the parameters', () => {
    expect(parsePath('<> SIZE=1  BODY=7BIT ', 'reverse', false)).toEqual({ mailbox: undefined, rest: 'SIZE=1  BODY=7BIT' });
    expect(parsePath('<"a> b"@c.test> X', 'reverse', false)).toMatchObject({ mailbox: { localPart: 'a> b' }, rest: 'X' });
  });

  it('writes what it reads', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[ -~]{1,20}$/), (localPart) => {
        expect(parseMailbox(`${formatLocalPart(localPart)}@b.test`, false)).toMatchObject({ localPart, domain: 'b.test' });
      }),
    );
  });

  it('never throws and never yields control characters', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'<>@".\\ ,:[]a1-é\0\r\n') }), (text) => {
        const parsed = parsePath(`<${text}>`, 'forward', true);
        if (!('problem' in parsed)) expect(parsed.mailbox?.address ?? '').not.toMatch(/[\x00-\x1f\x7f]/);
      }),
      { numRuns: 2000 },
    );
  });

  it('knows domains and literals', () => {
    expect(domainOf('"a@b"@C.Test')).toBe('c.test');
    expect(addressOfLiteral('[IPv6:::1]')).toBe('::1');
    expect(addressOfLiteral('[x]')).toBeUndefined();
  });
});

describe('parameters', () => {
  const nowMs = Date.UTC(2026, 0, 1);
  const all = extensionSet(...ehloKeywords);
  const rules = { offered: all, nowMs, maxHoldSeconds: 86_400, minDeliverBySeconds: 60 };
  const mail = (text: string) => parseMailParameters(text, rules);
  const without = (keyword: EhloKeyword, text: string) =>
    parseMailParameters(text, { ...rules, offered: extensionSet(...ehloKeywords.filter((known) => known !== keyword)) });

  it('parses MAIL', () => {
    expect(mail('SIZE=10 body=binarymime SMTPUTF8 RET=full ENVID=a+20b AUTH=x+40y')).toEqual({
      ok: true,
      value: { sizeBytes: 10, body: 'BINARYMIME', smtpUtf8: true, ret: 'FULL', envelopeId: 'a b', auth: 'x@y' },
    });
    expect(mail('AUTH=<>')).toMatchObject({ value: { auth: '' } });
  });

  it.each([
    'SIZE',
    'SIZE=',
    'SIZE=-1',
    'BODY',
    'BODY=X',
    'SMTPUTF8=1',
    'RET=BOTH',
    'ENVID=',
    'ENVID=+',
    'ENVID=+0A',
    'AUTH=',
    '=x',
    'SIZE=1 size=1',
    'REQUIRETLS=1',
    'HOLDFOR',
    'HOLDFOR=0',
    'HOLDFOR=01',
    'HOLDFOR=-5',
    'HOLDFOR=86401',
    'HOLDFOR=1234567890',
    'HOLDFOR=10 HOLDUNTIL=2026-01-01T00:00:10Z',
    'HOLDUNTIL=2026-01-01',
    'HOLDUNTIL=2026-01-01T00:00:00Z',
    'HOLDUNTIL=2025-12-31T23:59:59Z',
    'HOLDUNTIL=2026-01-02T00:00:01Z',
    'HOLDUNTIL=2026-02-30T00:00:00Z',
    'BY',
    'BY=120',
    'BY=120;X',
    'BY=120;TR',
    'BY=0;R',
    'BY=-1;R',
    'BY=1234567890;N',
    'BY=12.5;N',
    'MT-PRIORITY',
    'MT-PRIORITY=10',
    'MT-PRIORITY=+1',
    'MT-PRIORITY=-0',
  ])('refuses %s with 501', (text) => expect(mail(text)).toMatchObject({ ok: false, reply: { code: 501 } }));

  it('refuses what was not announced with 555', () => {
    expect(mail('FOO=1')).toMatchObject({ reply: { code: 555 } });
    const examples: [EhloKeyword, string][] = [
      ['SIZE', 'SIZE=1'],
      ['SMTPUTF8', 'SMTPUTF8'],
      ['DSN', 'RET=FULL'],
      ['DSN', 'ENVID=x'],
      ['AUTH', 'AUTH=<>'],
      ['REQUIRETLS', 'REQUIRETLS'],
      ['FUTURERELEASE', 'HOLDFOR=1'],
      ['FUTURERELEASE', 'HOLDUNTIL=2026-01-01T01:00:00Z'],
      ['DELIVERBY', 'BY=60;R'],
      ['MT-PRIORITY', 'MT-PRIORITY=1'],
    ];
    for (const [keyword, text] of examples) {
      expect(mail(text), text).toMatchObject({ ok: true });
      expect(without(keyword, text), text).toMatchObject({ reply: { code: 555, enhanced: '5.5.4' } });
    }
    expect(without('BINARYMIME', 'BODY=BINARYMIME')).toMatchObject({ reply: { code: 501 } });
    expect(parseMailParameters('BODY=7BIT', { ...rules, offered: 0 })).toMatchObject({ reply: { code: 555 } });
    expect(parseRecipientParameters('NOTIFY=NEVER', false, false)).toMatchObject({ reply: { code: 555 } });
    expect(parseRecipientParameters('FOO', false)).toMatchObject({ reply: { code: 555 } });
  });

  it('parses the promises that a message asks for', () => {
    expect(mail('REQUIRETLS HOLDFOR=86400 by=-30;nt MT-PRIORITY=-9')).toEqual({
      ok: true,
      value: {
        smtpUtf8: false,
        requireTls: true,
        hold: { forSeconds: 86_400 },
        deliverBy: { seconds: -30, mode: 'notify', isTraced: true },
        mtPriority: -9,
      },
    });
    expect(mail('HOLDUNTIL=2026-01-01T02:00:00.5+01:00 BY=+60;r')).toMatchObject({
      value: { hold: { untilMs: nowMs + 3_600_500 }, deliverBy: { seconds: 60, mode: 'return', isTraced: false } },
    });
    expect(mail('BY=59;R')).toMatchObject({ reply: { code: 550, enhanced: '5.4.7' } });
    expect(mail('BY=59;N')).toMatchObject({ ok: true });
    expect(mail('MT-PRIORITY=X')).toMatchObject({ reply: { code: 501, enhanced: '5.5.2' } });
    expect(parseDateTime('2016-12-31T23:59:60Z')).toBe(Date.UTC(2017, 0, 1));
    expect(parseDateTime('2016-12-31T25:00:00Z')).toBeUndefined();
    expect(parseDateTime('2016-12-31T24:00:00Z')).toBeUndefined();
  });

  it('writes MAIL for what the peer offers, and reads the same from it', () => {
    const capabilities = new Map(ehloKeywords.map((keyword) => [keyword, ''] as const));
    fc.assert(
      fc.property(
        fc.record(
          {
            smtpUtf8: fc.boolean(),
            sizeBytes: fc.nat(),
            body: fc.constantFrom('7BIT' as const, '8BITMIME' as const, 'BINARYMIME' as const),
            ret: fc.constantFrom('FULL' as const, 'HDRS' as const),
            envelopeId: fc.stringMatching(/^[!-~][ -~]{0,50}$/),
            auth: fc.constantFrom('', 'a b@c.test', 'x+y=z@c.test'),
            requireTls: fc.constant(true),
            hold: fc.oneof(
              fc.record({ forSeconds: fc.integer({ min: 1, max: 86_400 }) }),
              fc.record({ untilMs: fc.integer({ min: 1, max: 86_400 }).map((seconds) => nowMs + seconds * 1000) }),
            ),
            deliverBy: fc.record({
              seconds: fc.integer({ min: 60, max: 999_999_999 }),
              mode: fc.constantFrom('return' as const, 'notify' as const),
              isTraced: fc.boolean(),
            }),
            mtPriority: fc.integer({ min: -9, max: 9 }),
          },
          { requiredKeys: ['smtpUtf8'] },
        ),
        (parameters) => {
          expect(mail(formatMailParameters(parameters, capabilities).trim())).toEqual({ ok: true, value: parameters });
          expect(formatMailParameters(parameters, new Map())).toBe('');
        },
      ),
    );
  });

  it('takes no flood of parameters', () => {
    expect(mail(Array.from({ length: 2000 }, (_, index) => `X${index}`).join(' '))).toMatchObject({ reply: { code: 501 } });
  });

  it('parses RCPT and writes it again', () => {
    const parsed = parseRecipientParameters('NOTIFY=success,FAILURE ORCPT=rfc822;a+2Bb@c.test', false);
    expect(parsed).toEqual({
      ok: true,
      value: { notify: ['SUCCESS', 'FAILURE'], originalRecipient: { type: 'rfc822', address: 'a+b@c.test' } },
    });
    expect(formatRecipientParameters((parsed as { value: object }).value)).toBe(
      ' NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+2Bb@c.test',
    );
    expect(parseRecipientParameters('ORCPT=utf-8;\\x{7528}@c.test', false)).toMatchObject({
      value: { originalRecipient: { address: '用@c.test' } },
    });
    expect(parseRecipientParameters('ORCPT=utf-8;用@c.test', true)).toMatchObject({
      value: { originalRecipient: { address: '用@c.test' } },
    });
    expect(parseRecipientParameters('ORCPT=utf-8;用@c.test', false)).toMatchObject({ reply: { code: 501 } });
  });

  it.each([
    'NOTIFY=',
    'NOTIFY=NEVER,DELAY',
    'NOTIFY=DELAY,DELAY',
    'NOTIFY=X',
    'ORCPT=x',
    'ORCPT=;x',
    'ORCPT=rfc822;',
    'ORCPT=rfc822;+0D',
  ])('refuses %s', (text) => expect(parseRecipientParameters(text, false)).toMatchObject({ reply: { code: 501 } }));

  it('round-trips xtext and utf-8 addresses', () => {
    const point = fc.oneof(
      fc.integer({ min: 0, max: 0x7f }),
      fc.integer({ min: 0x80, max: 0xd7ff }),
      fc.integer({ min: 0xe000, max: 0x10ffff }),
    );
    fc.assert(
      fc.property(fc.array(point, { maxLength: 30 }), (points) => {
        const text = String.fromCodePoint(...points);
        expect(decodeXtext(encodeXtext(text))).toBe(text);
      }),
    );
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...'aZ +=\\é用😀'), { minLength: 1 }), (letters) => {
        const text = letters.join('');
        expect(decodeUtf8Address(encodeUtf8Address(text))).toBe(text);
      }),
    );
    for (const bad of ['\\', '\\x{}', '\\x{110000}', '\\x{D800}', '\\x{0A}', 'a b', ''])
      expect(decodeUtf8Address(bad), bad).toBeUndefined();
  });
});

describe('command lines', () => {
  it('are decoded and split', () => {
    expect(decodeLine(Buffer.from('NOOP é'))).toBe('NOOP é');
    expect(decodeLine(Buffer.from([0x4e, 0xff]))).toBeUndefined();
    expect(decodeLine(Buffer.from('NO\rOP'))).toBeUndefined();
    expect(splitCommand('mail  FROM:<a> ')).toEqual({ verb: 'MAIL', argument: 'FROM:<a>' });
    expect(splitCommand('<x')).toEqual({ verb: '', argument: '' });
    expect(afterKeyword('from: <a>', 'FROM')).toBe('<a>');
    expect(afterKeyword('FROM <a>', 'FROM')).toBeUndefined();
    expect(isGreetingName('[IPv6:::1]')).toBe(true);
    expect(isGreetingName('a b')).toBe(false);
    expect(parseBdat('10 last')).toEqual({ sizeBytes: 10, last: true });
    for (const bad of ['', 'x', '-1', '1 2', '1 LAST x', '9'.repeat(16)]) expect(parseBdat(bad)).toBeUndefined();
    expect([...parseCapabilities(['mx greets', 'SIZE 10', 'auth=LOGIN', 'AUTH PLAIN', '8BITMIME'])]).toEqual([
      ['SIZE', '10'],
      ['AUTH', 'LOGIN PLAIN'],
      ['8BITMIME', ''],
    ]);
  });
});

describe('replies', () => {
  it('are built', () => {
    expect(formatReply(reply(250, '2.0.0', 'OK'))).toBe('250 2.0.0 OK\r\n');
    expect(formatReply({ code: 250, text: ['a', 'b'] })).toBe('250-a\r\n250 b\r\n');
    expect(formatReply(reply(550, '5.7.1', ['a\r\n250 b', 'x'.repeat(600)]))).toBe(
      `550-5.7.1 a 250 b\r\n550 5.7.1 ${'x'.repeat(490)}\r\n`,
    );
  });

  it.each(['5.7.1\r\n250 2.0.0', '5.7.1 ', '', '5.7', '3.1.1', '5.1000.1'])('have no enhanced code of %j', (enhanced) =>
    expect(formatReply({ code: 550, enhanced, text: ['a', 'b'] })).toBe('550-a\r\n550 b\r\n'),
  );

  it('stay below 512 octets, and no character is cut', () => {
    for (const character of ['a', 'é', '用', '😀']) {
      for (let shift = 0; shift < 4; shift++) {
        const line = formatReply(reply(550, '5.100.100', 'x'.repeat(shift) + character.repeat(600)));
        expect(line).toMatch(new RegExp(`^550 5\\.100\\.100 x{${shift}}(?:${character})+\r\n$`, 'u'));
        expect(Buffer.byteLength(line)).toBeLessThanOrEqual(512);
        expect(Buffer.byteLength(line)).toBeGreaterThan(500);
      }
    }
    const fits = `${'é'.repeat(245)}`;
    expect(formatReply({ code: 250, text: fits })).toBe(`250 ${fits}\r\n`);
  });

  it('are read, at any cuts', () => {
    const octets = '220 mx\r\n250-mx\r\n250-SIZE 10\r\n250 DSN\r\n550-5.1.1 No\n550 5.1.1 such user\n250\r\n354 5.1.1 go\r\n';
    const expected: ParsedReply[] = [
      { code: 220, lines: ['mx'] },
      { code: 250, lines: ['mx', 'SIZE 10', 'DSN'] },
      { code: 550, enhanced: '5.1.1', lines: ['No', 'such user'] },
      { code: 250, lines: [''] },
      { code: 354, lines: ['5.1.1 go'] },
    ];
    for (let cut = 0; cut <= octets.length; cut++) {
      const reader = new ReplyReader();
      expect([...reader.push(Buffer.from(octets.slice(0, cut))), ...reader.push(Buffer.from(octets.slice(cut)))]).toEqual(
        expected,
      );
      expect(reader.partial).toBe(false);
    }
  });

  it('are limited', () => {
    expect(() => new ReplyReader().push(Buffer.from('hello\r\n'))).toThrow(ReplySyntaxError);
    expect(() => new ReplyReader().push(Buffer.from('650 x\r\n'))).toThrow(ReplySyntaxError);
    expect(() => new ReplyReader().push(Buffer.from(`250 ${'x'.repeat(5000)}`))).toThrow(ReplySyntaxError);
    expect(() => new ReplyReader({ maxLineBytes: 100, maxLines: 3 }).push(Buffer.from('250-x\r\n'.repeat(4)))).toThrow(
      ReplySyntaxError,
    );
  });
});

describe('XCLIENT and XFORWARD', () => {
  const xclient = (text: string) => {
    const parsed = parseProxiedAttributes(text, xclientAttributes);
    return typeof parsed === 'string' ? parsed : Object.fromEntries(parsed);
  };

  it('reads attributes in xtext', () => {
    expect(xclient('NAME=mail.example.com addr=192.0.2.10 PORT=048 PROTO=esmtp HELO=[192.0.2.10]')).toEqual({
      NAME: 'mail.example.com',
      ADDR: '192.0.2.10',
      PORT: '48',
      PROTO: 'ESMTP',
      HELO: '[192.0.2.10]',
    });
    expect(xclient('NAME=[UNAVAILABLE] ADDR=IPV6:2001:DB8::1 LOGIN=a+40b+2B DESTADDR=ipv6:::ffff:192.0.2.1')).toEqual({
      NAME: undefined,
      ADDR: '2001:db8::1',
      LOGIN: 'a@b+',
      DESTADDR: '192.0.2.1',
    });
    expect(xclient('NAME=[tempunavail]')).toEqual({ NAME: undefined });
  });

  it.each([
    'ADDR',
    '=x',
    'ADDR=',
    'ADDR=1.2.3',
    'ADDR=2001:db8::1',
    'ADDR=IPV6:1.2.3.4',
    'ADDR=IPV6:fe80::1+25eth0',
    'ADDR=192.0.2.1 ADDR=192.0.2.2',
    'PORT=65536',
    'PORT=-1',
    'PROTO=HTTP',
    'HELO=a+0D+0Ab',
    'LOGIN=+0A',
    'LOGIN=+4',
    'IDENT=x',
    `NAME=${'a'.repeat(256)}`,
  ])('refuses %j', (text) => expect(xclient(text)).toEqual(expect.any(String)));

  it('knows what XFORWARD has and XCLIENT has not', () => {
    expect(parseProxiedAttributes('IDENT=4bVtYz SOURCE=local', xforwardAttributes)).toEqual(
      new Map([
        ['IDENT', '4bVtYz'],
        ['SOURCE', 'LOCAL'],
      ]),
    );
    expect(parseProxiedAttributes('LOGIN=x', xforwardAttributes)).toEqual(expect.any(String));
  });
});
