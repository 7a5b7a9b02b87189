/** Charsets, readable text and previews, transfer encodings. */
import { describe, expect, it } from 'vitest';
import {
  createTransferDecoder,
  decodeBase64,
  decodeCharset,
  decodeQuotedPrintable,
  decodeText,
  decodeTransfer,
  encodeBase64,
  encodeQuotedPrintable,
  htmlToText,
  isKnownCharset,
  parseMessage,
  preview,
} from './index.js';

const message = (...lines: string[]) => Buffer.from(lines.join('\r\n'), 'latin1');

describe('charsets and text', () => {
  it.each<[string, number[], string]>([
    ['iso-8859-1', [0x80, 0xe9], '€é'],
    ['us-ascii', [0xc3, 0xa9], 'é'],
    ['us-ascii', [0xe9], 'é'],
    ['utf-8', [0xef, 0xbb, 0xbf, 0x61], 'a'],
    ['gb2312', [0xc4, 0xe3], '你'],
    ['ks_c_5601-1987', [0xb0, 0xa1], '가'],
    ['Shift_JIS', [0x82, 0xa0], 'あ'],
    ['koi8-r', [0xc1], 'а'],
    ['iso-2022-jp', [0x1b, 0x24, 0x42, 0x24, 0x33, 0x1b, 0x28, 0x42], 'こ'],
    ['base64', [0x61], 'a'],
    ['no-such-thing', [0x61, 0x80], 'a€'],
    ['"utf-8"', [0xc3, 0xa9], 'é'],
  ])('%s', (label, bytes, text) => expect(decodeCharset(Buffer.from(bytes), label)).toBe(text));

  it('says which labels it knows', () => {
    expect(['utf-8', 'US-ASCII', 'iso-2022-jp', 'windows-1251', 'latin1'].every(isKnownCharset)).toBe(true);
    expect(['base64', 'hex', 'x-nonsense', ''].some(isKnownCharset)).toBe(false);
  });

  it('decodes text by encoding and charset, and HTML by its own declaration', () => {
    const latin = message(
      'Content-Type: text/plain; charset=iso-8859-1',
      'Content-Transfer-Encoding: quoted-printable',
      '',
      'caf=E9=20=',
      'x',
    );
    expect(decodeText(latin, parseMessage(latin))).toBe('café x');
    const html = message('Content-Type: text/html', '', '<meta charset="koi8-r">\xc1');
    expect(decodeText(html, parseMessage(html))).toContain('а');
  });

  it('strips HTML', () => {
    expect(
      htmlToText(
        '<head><title>t</title></head><body><p>One &amp; two&nbsp;&#8364;</p><script>x<y</script><div>three<br>four</div> a < b',
        1000,
      ),
    ).toBe('One & two €\nthree\nfour\na < b');
    expect(htmlToText('<!-- <p>no</p> -->yes<style>no</style><img alt=">">!', 100)).toBe('yes!');
    expect(htmlToText('<head><p>no<body>yes', 100)).toBe('yes');
    expect(htmlToText('<b>x</b>'.repeat(1000), 10)).toBe('x'.repeat(10));
    expect(htmlToText('a <p> <p> b', 100)).toBe('a\nb');
  });

  it('takes time by the length of HTML, whatever is in it', () => {
    for (const unit of ['<b> ', '&nbsp;<i>', '<a =\'"> ', '<div> ', '<', '<svg>', '&']) {
      const html = `x${unit.repeat(1_000_000 / unit.length)}`;
      expect(htmlToText(html, html.length)[0]).toBe('x');
    }
  });

  it('previews the shown plain text, else the HTML, within 256 characters', () => {
    const two = message(
      'Content-Type: multipart/alternative; boundary=b',
      '',
      '--b',
      'Content-Type: text/html',
      '',
      '<p>html</p>',
      '--b',
      '',
      'plain ',
      ' text',
      '--b--',
      '',
    );
    expect(preview(two, parseMessage(two))).toBe('plain text');
    const html = message('Content-Type: text/html', '', '<p>only\r\n <b>html</b>');
    expect(preview(html, parseMessage(html))).toBe('only html');
    const long = Buffer.from(`\r\n${'🚀'.repeat(500)}`);
    const words = preview(long, parseMessage(long))!;
    expect(words.length).toBeLessThanOrEqual(256);
    expect(words).toMatch(/^(?:🚀)+$/u);
    const none = message('Content-Type: image/png', '', 'x');
    expect(preview(none, parseMessage(none))).toBeUndefined();
  });
});

describe('transfer encodings (RFC 2045 6)', () => {
  const qp = (text: string) => decodeQuotedPrintable(Buffer.from(text, 'latin1')).toString('latin1');

  it.each([
    ['a=\r\nb', 'ab'],
    ['a= \t\r\nb', 'ab'],
    ['a=\nb', 'ab'],
    ['a  \r\nb \t', 'a\r\nb'],
    ['=3D=3d', '=='],
    ['=zz=4', '=zz=4'],
    ['a =\r\n b', 'a  b'],
    ['x=', 'x'],
    ['=20\r\n', ' \r\n'],
  ])('quoted-printable %j', (text, wanted) => expect(qp(text)).toBe(wanted));

  it('base64 passes over junk and goes on behind padding', () => {
    expect(decodeBase64(Buffer.from('YQ==\r\nYmM=\r\n')).toString()).toBe('abc');
    expect(decodeBase64(Buffer.from('Y-W!_I*=\r\n')).toString()).toBe('ab');
    expect(decodeTransfer(Buffer.from('x'), 'x-uuencode').toString()).toBe('x');
  });

  it('writes lines of at most 76 characters', () => {
    const lines = encodeBase64(Buffer.alloc(200, 1)).toString().split('\r\n');
    expect(Math.max(...lines.map((line) => line.length))).toBe(76);
    expect(lines.at(-1)).toBe('');
    const encoded = encodeQuotedPrintable(
      Buffer.from(`From me\r\n.\r\ntrailing \r\n${'ä'.repeat(60)}\r\n${'x'.repeat(200)}`),
    ).toString();
    expect(encoded).toMatch(/^=46rom me\r\n=2E\r\ntrailing=20\r\n/);
    expect(Math.max(...encoded.split('\r\n').map((line) => line.length))).toBeLessThanOrEqual(76);
  });

  it('decodes piece by piece', () => {
    const decoder = createTransferDecoder('base64');
    expect(Buffer.concat([decoder.push(Buffer.from('YW')), decoder.push(Buffer.from('\r\nI=')), decoder.end()]).toString()).toBe(
      'ab',
    );
  });
});
