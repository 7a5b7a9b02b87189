/** Header fields, encoded words and parameters, by the RFC that asks for each behaviour. */
import { describe, expect, it } from 'vitest';
import {
  decodeEncodedWords,
  decodeHeaderText,
  encodeExtendedValue,
  fileNameOf,
  findHeader,
  findHeaders,
  headerFields,
  headerFieldsSubset,
  parseAddressList,
  parseMessage,
  summarize,
} from './index.js';

const message = (...lines: string[]) => Buffer.from(lines.join('\r\n'), 'latin1');

describe('headers', () => {
  const bytes = message(
    'Subject: one',
    'X-A : spaced',
    'Received: first',
    '\tfolded',
    'not a field',
    ' its continuation',
    'received:second',
    '',
    'Subject: body',
  );
  const root = parseMessage(bytes);

  it('lists fields with exact ranges, lower-case names, and passes over what is no field', () => {
    const fields = headerFields(bytes, root);
    expect(fields.map((field) => field.name)).toEqual(['subject', 'x-a', 'received', 'received']);
    expect(bytes.toString('latin1', fields[2]!.start, fields[2]!.end)).toBe('Received: first\r\n\tfolded\r\n');
    expect(bytes.toString('latin1', fields[1]!.valueStart, fields[1]!.end)).toBe(' spaced\r\n');
  });

  it('finds first, last and all, unfolded', () => {
    expect(findHeader(bytes, root, 'Received')).toBe('first\tfolded');
    expect(findHeader(bytes, root, 'RECEIVED', 'last')).toBe('second');
    expect(findHeaders(bytes, root, 'received')).toEqual(['first\tfolded', 'second']);
    expect(findHeader(bytes, root, 'missing')).toBeUndefined();
  });

  it('RFC 9051 6.4.5: subsets hold whole fields in the message order and an empty line', () => {
    expect(headerFieldsSubset(bytes, root, ['RECEIVED', 'subject']).toString()).toBe(
      'Subject: one\r\nReceived: first\r\n\tfolded\r\nreceived:second\r\n\r\n',
    );
    expect(headerFieldsSubset(bytes, root, ['received'], true).toString()).toBe('Subject: one\r\nX-A : spaced\r\n\r\n');
    expect(headerFieldsSubset(bytes, root, ['nothing']).toString()).toBe('\r\n');
    const cut = message('A: 1', 'B: 2');
    expect(headerFieldsSubset(cut, parseMessage(cut), ['b']).toString()).toBe('B: 2\r\n\r\n');
  });

  it('finds fields beyond the interpreted size for subsets', () => {
    const long = message(`X: ${'y'.repeat(300_000)}`, 'Late: here', '', '');
    expect(headerFieldsSubset(long, parseMessage(long), ['late']).toString()).toBe('Late: here\r\n\r\n');
  });
});

describe('encoded words (RFC 2047)', () => {
  it.each([
    ['=?ISO-8859-1?Q?a?=', 'a'],
    ['=?ISO-8859-1?Q?a?= b', 'a b'],
    ['=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=', 'ab'],
    ['=?ISO-8859-1?Q?a?=  \t =?ISO-8859-1?Q?b?=', 'ab'],
    ['=?ISO-8859-1?Q?a_b?=', 'a b'],
    ['=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=', 'a b'],
    ['=?utf-8?b?8J+a?= =?utf-8?b?gA==?=', '🚀'],
    ['=?utf-8*en?q?caf=C3?= =?UTF-8?Q?=A9?=', 'café'],
    ['=?iso-2022-jp?b?GyRCJDMbKEI=?=', 'こ'],
    ['=?windows-1252?q?=80?= x =?nonsense?q?=C3=A9?=', '€ x é'],
    ['no words =? here ?=', 'no words =? here ?='],
    ['=?utf-8?q?with space?=', 'with space'],
    ['=?utf-8?q?a=0D=0AEvil:_b?=', 'a  Evil: b'],
  ])('%s', (raw, wanted) => expect(decodeEncodedWords(raw)).toBe(wanted));

  it('keeps the byte 0xA0, which ends many UTF-8 characters', () => {
    const bytes = Buffer.from('Subject: 🢠 \r\nFrom: à <x@y> (à)\r\nContent-Type: a/b; name=à\r\n\r\n');
    const root = parseMessage(bytes);
    expect(decodeHeaderText(findHeader(bytes, root, 'subject')!)).toBe('🢠');
    expect(decodeHeaderText(summarize(bytes).envelope.from[0]!.name!)).toBe('à');
    expect(root.params['name']).toBe('à');
    expect(parseAddressList('x@y (\xc3\xa0)')).toMatchObject([{ name: '\xc3\xa0' }]);
  });

  it('reads raw 8-bit bytes as UTF-8 where valid, else windows-1252', () => {
    expect(decodeHeaderText('caf\xc3\xa9')).toBe('café');
    expect(decodeHeaderText('caf\xe9 \x80')).toBe('café €');
  });
});

describe('parameters (RFC 2045 5.1, 2231)', () => {
  const params = (value: string) => parseMessage(message(`Content-Type: application/x-stuff; ${value}`, '', '')).params;

  it.each<[string, Record<string, string>]>([
    ["title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A", { title: 'This is ***fun***' }],
    [
      "title*0*=us-ascii'en'This%20is%20even%20more%20; title*1*=%2A%2A%2Afun%2A%2A%2A%20; title*2=\"isn't it!\"",
      { title: "This is even more ***fun*** isn't it!" },
    ],
    ['url*1="b"; url*0="a"; url*3="lost"', { url: 'ab' }],
    ["name=plain.txt; name*=utf-8''%e2%82%ac.txt", { name: '€.txt' }],
    ["name*0*=utf-8''%e2%82; name*1*=%ac", { name: '€' }],
    ["name*=iso-8859-1''caf%e9", { name: 'café' }],
    ['name="a;b\\"c"; x=y', { name: 'a;b"c', x: 'y' }],
    ['name=two words (1).pdf; charset=utf-8 (note)', { name: 'two words (1).pdf', charset: 'utf-8' }],
    ['NAME=a; name=b', { name: 'a' }],
    ['name="\xc3\xa4"', { name: 'ä' }],
    [';; a=b;', { a: 'b' }],
  ])('%s', (value, wanted) => expect(params(value)).toEqual(wanted));

  it('file names: RFC 2231, RFC 2047 in parameters, and the way back for IMAP', () => {
    const part = (line: string) => parseMessage(message(line, '', ''));
    expect(fileNameOf(part("Content-Disposition: attachment; filename*=utf-8''na%C3%AFve.txt"))).toBe('naïve.txt');
    expect(fileNameOf(part('Content-Type: a/b; name="=?utf-8?q?na=C3=AFve.txt?="'))).toBe('naïve.txt');
    expect(fileNameOf(part('Content-Type: a/b'))).toBeUndefined();
    expect(encodeExtendedValue('naïve.txt')).toBe("utf-8''na%C3%AFve.txt");
  });

  it('reads the other content fields', () => {
    expect(
      parseMessage(
        message(
          'Content-Type: TEXT/HTML (comment); Charset=UTF-8',
          'Content-ID: <a@b>',
          'Content-Description: d =?x?=',
          'Content-Language: en, de-CH (Swiss)',
          'Content-Location: http://x/',
          ' y',
          'Content-MD5: abc==',
          'Content-Transfer-Encoding: Quoted-Printable (x)',
          'Content-Disposition: INLINE; filename=f',
          '',
          'x',
          '',
        ),
      ),
    ).toMatchObject({
      type: 'text',
      subtype: 'html',
      params: { charset: 'UTF-8' },
      id: '<a@b>',
      description: 'd =?x?=',
      language: ['en', 'de-CH'],
      location: 'http://x/y',
      md5: 'abc==',
      encoding: 'quoted-printable',
      disposition: 'inline',
      dispositionParams: { filename: 'f' },
      lines: 1,
      size: 3,
    });
  });
});
