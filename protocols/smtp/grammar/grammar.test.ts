/** Paths, parameters, command lines and replies. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { afterKeyword, decodeLine, isGreetingName, parseBdat, parseCapabilities, splitCommand } from './command.js';
import {
  decodeUtf8Address,
  decodeXtext,
  encodeUtf8Address,
  encodeXtext,
  formatRecipientParameters,
  parseMailParameters,
  parseRecipientParameters,
} from './parameters.js';
import { addressOfLiteral, domainOf, formatLocalPart, parseMailbox, parsePath } from './path.js';
import { formatReply, type ParsedReply, ReplyReader, ReplySyntaxError, reply } from './reply.js';

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
  const announced = { auth: true, binaryMime: true };
  const mail = (text: string) => parseMailParameters(text, announced);

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
  ])('refuses %s with 501', (text) => expect(mail(text)).toMatchObject({ ok: false, reply: { code: 501 } }));

  it('refuses what was not announced with 555', () => {
    expect(mail('HOLDFOR=1')).toMatchObject({ reply: { code: 555 } });
    expect(parseMailParameters('AUTH=<>', { auth: false, binaryMime: false })).toMatchObject({ reply: { code: 555 } });
    expect(parseMailParameters('BODY=BINARYMIME', { auth: false, binaryMime: false })).toMatchObject({ reply: { code: 501 } });
    expect(parseRecipientParameters('FOO', false)).toMatchObject({ reply: { code: 555 } });
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
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 30 }), (text) => {
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
