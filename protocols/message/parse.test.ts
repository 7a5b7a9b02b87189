/** The structure of sound and of broken messages, written as short trees. */
import { describe, expect, it } from 'vitest';
import { type MessageLimits, type Part, parseMessage } from './index.js';

/** `type/subtype(children)` or `type/subtype[embedded]`, `!` for opaque, and the body's text of leaves. */
function sketch(bytes: Buffer, part: Part): string {
  const name = `${part.type}/${part.subtype}${part.opaque ? '!' : ''}`;
  if (part.message) return `${name}[${sketch(bytes, part.message.structure)}]`;
  if (part.children) return `${name}(${part.children.map((child) => sketch(bytes, child)).join(' ')})`;
  return `${name}${JSON.stringify(bytes.toString('latin1', part.headerEnd, part.bodyEnd))}`;
}

const read = (text: string, limits?: Partial<MessageLimits>) => {
  const bytes = Buffer.from(text, 'latin1');
  return sketch(bytes, parseMessage(bytes, limits));
};
const lines = (...all: string[]) => all.join('\r\n');
const multipart = (boundary: string, subtype = 'mixed') => `Content-Type: multipart/${subtype}; boundary="${boundary}"`;

describe('sound messages', () => {
  it('leaf, multipart, embedded message', () => {
    expect(read(lines('A: b', '', 'text', ''))).toBe('text/plain"text\\r\\n"');
    expect(
      read(
        lines(
          multipart('b'),
          '',
          'preamble',
          '--b',
          '',
          'one',
          '--b  ',
          'Content-Type: text/html',
          '',
          'two',
          '--b--',
          'epilogue',
        ),
      ),
    ).toBe('multipart/mixed(text/plain"one" text/html"two")');
    expect(read(lines('Content-Type: message/rfc822', '', 'Content-Type: text/html', '', 'x'))).toBe(
      'message/rfc822[text/html"x"]',
    );
    expect(read(lines('Content-Type: message/global', '', 'A: b', '', 'x'))).toBe('message/global[text/plain"x"]');
  });

  it('the line end in front of a delimiter is not content, an empty line is', () => {
    expect(read(lines(multipart('b'), '', '--b', '', 'one', '', '--b--'))).toBe('multipart/mixed(text/plain"one\\r\\n")');
    expect(read('Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b--\n')).toBe('multipart/mixed(text/plain"one")');
  });

  it('RFC 2046 5.1.5: parts of a digest are messages', () => {
    expect(
      read(
        lines(
          multipart('b', 'digest'),
          '',
          '--b',
          '',
          'Subject: s',
          '',
          'x',
          '--b',
          'Content-Type: text/plain',
          '',
          'y',
          '--b--',
        ),
      ),
    ).toBe('multipart/digest(message/rfc822[text/plain"x"] text/plain"y")');
  });

  it('gives offsets, sizes and lines', () => {
    const bytes = Buffer.from(lines('Content-Type: message/rfc822', '', 'S: t', '', 'one', 'two', ''));
    const part = parseMessage(bytes);
    expect(part).toMatchObject({ headerStart: 0, headerEnd: 32, bodyEnd: bytes.length, size: bytes.length - 32, lines: 4 });
    expect(part.message!.structure).toMatchObject({ headerStart: 32, headerEnd: 40, size: 10, lines: 2 });
  });

  it('counts lines across blocks, and in nested messages, right', () => {
    const text = 'x'.repeat(37).concat('\n').repeat(5000);
    const bytes = Buffer.from(`Content-Type: message/rfc822\n\nContent-Type: message/rfc822\n\nA: b\n\n${text}\n\n`);
    const part = parseMessage(bytes);
    expect([part.lines, part.message!.structure.lines, part.message!.structure.message!.structure.lines]).toEqual([
      5006, 5004, 5002,
    ]);
  });
});

describe('delimiters', () => {
  it('RFC 2046 5.1.1: white space may follow, other text makes it none', () => {
    expect(
      read(
        lines(multipart('b'), '', '--b junk', '', 'one', '--bx', '--b-', '--b--x', ' --b', '--b--\t', 'epilogue', '--b', '', 'x'),
      ),
    ).toBe('multipart/mixed(text/plain"one\\r\\n--bx\\r\\n--b-\\r\\n--b--x\\r\\n --b")');
  });

  it('an outer delimiter ends unterminated inner multiparts', () => {
    expect(
      read(
        lines(
          multipart('outer'),
          '',
          '--outer',
          multipart('inner'),
          '',
          '--inner',
          '',
          'one',
          '--outer',
          '',
          'two',
          '--inner',
          '--outer--',
        ),
      ),
    ).toBe('multipart/mixed(multipart/mixed(text/plain"one") text/plain"two\\r\\n--inner")');
  });

  it('boundaries that begin with one another are told apart', () => {
    expect(
      read(lines(multipart('a'), '', '--a', multipart('a-1'), '', '--a-1', '', 'x', '--a-1--', '--a', '', 'y', '--a--')),
    ).toBe('multipart/mixed(multipart/mixed(text/plain"x") text/plain"y")');
    expect(read(lines(multipart('a'), '', '--a', multipart('a--'), '', '--a--', '', 'x', '--a----', '--a--'))).toBe(
      'multipart/mixed(multipart/mixed(text/plain"x"))',
    );
  });

  it('the same boundary inside and outside', () => {
    expect(read(lines(multipart('b'), '', '--b', multipart('b'), '', '--b', '', 'one', '--b--', '--b', '', 'two', '--b--'))).toBe(
      'multipart/mixed(multipart/mixed(text/plain"one") text/plain"two")',
    );
  });

  it('a delimiter ends a header that no empty line ends', () => {
    expect(read(lines(multipart('b'), '', '--b', 'Content-Type: text/html', '--b', 'X: y', ' --b', '', 'z', '--b--'))).toBe(
      'multipart/mixed(text/html"" text/plain"z")',
    );
    expect(read(lines(multipart('b'), '', '--b', '--b', '', '--b', '', '', '--b--'))).toBe(
      'multipart/mixed(text/plain"" text/plain"" text/plain"")',
    );
    expect(read(lines(multipart('b'), '', '--b', 'Content-Type: message/rfc822', '', 'Subject: s', '--b--'))).toBe(
      'multipart/mixed(message/rfc822[text/plain""])',
    );
  });

  it('8-bit, padded and RFC 2231 boundaries', () => {
    expect(read(lines('Content-Type: multipart/mixed; boundary="\xe9"', '', '--\xe9', '', 'x', '--\xe9--'))).toBe(
      'multipart/mixed(text/plain"x")',
    );
    expect(read(lines(multipart('b  '), '', '--b', '', 'x', '--b--'))).toBe('multipart/mixed(text/plain"x")');
    expect(read(lines('Content-Type: multipart/mixed; boundary*0=a; boundary*1=b', '', '--ab', '', 'x', '--ab--'))).toBe(
      'multipart/mixed(text/plain"x")',
    );
  });
});

describe('broken messages', () => {
  it('RFC 2045 5.2: what has no readable type is plain text', () => {
    for (const type of [
      '',
      'text',
      'text/',
      '/plain',
      'a b/c',
      'text/plain/x',
      'multipart/mixed',
      'multipart/mixed; boundary=""',
      'multipart/mixed; boundary=" "',
    ]) {
      expect(read(lines(`Content-Type: ${type}`, '', 'x')), type).toBe('text/plain"x"');
    }
    expect(parseMessage(Buffer.from('A: b\r\n\r\nx')).params).toEqual({ charset: 'us-ascii' });
    expect(read(lines('Content-Type: text/html charset=utf-8', '', 'x'))).toBe('text/html"x"');
  });

  it('a multipart without its delimiter holds its body in one piece', () => {
    expect(read(lines(multipart('b'), '', 'x'))).toBe('multipart/mixed!(text/plain"x")');
    expect(read(lines(multipart('b'), '', 'x', '--b--', 'y'))).toBe('multipart/mixed!(text/plain"x\\r\\n--b--\\r\\ny")');
    expect(read(multipart('b'))).toBe('multipart/mixed!(text/plain"")');
  });

  it('an encoded embedded message stays in one piece', () => {
    const bytes = Buffer.from(lines('Content-Type: message/rfc822', 'Content-Transfer-Encoding: base64', '', 'QTogYg=='));
    expect(sketch(bytes, parseMessage(bytes))).toBe('message/rfc822![text/plain"QTogYg=="]');
    expect(parseMessage(bytes).message!.structure.encoding).toBe('base64');
  });

  it('headers: none, unended, odd lines, mbox lines, bare line ends', () => {
    expect(read('')).toBe('text/plain""');
    expect(read('\r\nA: b\r\n\r\nx')).toBe('text/plain"A: b\\r\\n\\r\\nx"');
    expect(read('just text\r\nA: b\r\n')).toBe('text/plain"just text\\r\\nA: b\\r\\n"');
    expect(read('A: b')).toBe('text/plain""');
    expect(read('A: b\r\nodd line\r\nContent-Type: text/html\r\n\r\nx')).toBe('text/html"x"');
    expect(read('From a@b Sat Jan  3 01:05:34 1996\r\nContent-Type: text/html\r\n\r\nx')).toBe('text/html"x"');
    expect(read('Content-Type: text/html\n\nx\n')).toBe('text/html"x\\n"');
    expect(read('Content-Type: text/html;\rA: b\r\rx')).toBe('text/html""');
    expect(read('Content-Type: text/html\r\n \r\n\r\nx')).toBe('text/html"x"');
  });

  it('the first of several Content-Types counts', () => {
    expect(read(lines('Content-Type: text/html', 'Content-Type: text/plain', '', 'x'))).toBe('text/html"x"');
  });

  it('names out of Object.prototype are names', () => {
    const { params } = parseMessage(Buffer.from('Content-Type: text/plain; __proto__=x; constructor=y\r\n\r\n'));
    expect(Object.getPrototypeOf(params)).toBe(Object.prototype);
    expect(params['constructor']).toBe('y');
  });
});

describe('limits', () => {
  const nest = (depth: number) => Array.from({ length: depth }, (_, i) => `${multipart(`b${i}`)}\r\n\r\n--b${i}\r\n`).join('');

  it('depth: what is too deep stays in one piece', () => {
    expect(read(nest(3), { maxDepth: 2 })).toBe(
      'multipart/mixed(multipart/mixed!(text/plain"--b1\\r\\nContent-Type: multipart/mixed; boundary=\\"b2\\"\\r\\n\\r\\n--b2\\r\\n"))',
    );
    expect(read(lines('Content-Type: message/rfc822', '', 'Content-Type: message/rfc822', '', 'A: b'), { maxDepth: 2 })).toBe(
      'message/rfc822[message/rfc822![text/plain"A: b"]]',
    );
  });

  it('count, header bytes, header fields, boundary bytes, parameters', () => {
    const three = lines(multipart('b'), '', '--b', '', '1', '--b', '', '2', '--b', '', '3', '--b--');
    expect(read(three, { maxParts: 3 })).toBe('multipart/mixed(text/plain"1" text/plain"2")');
    expect(read(three, { maxParts: 1 })).toMatch(/^multipart\/mixed!\(text\/plain"--b/);
    expect(read(lines(`X: ${'y'.repeat(100)}`, 'Content-Type: text/html', '', 'x'), { maxHeaderBytes: 50 })).toBe(
      'text/plain"x"',
    );
    expect(read(lines('A: b', 'Content-Type: text/html', '', 'x'), { maxHeaderFields: 1 })).toBe('text/plain"x"');
    expect(read(three, { maxBoundaryBytes: 0 })).toMatch(/^multipart\/mixed!/);
    const { params } = parseMessage(Buffer.from('Content-Type: a/b; x=123456; y=2; z=3\r\n\r\n'), {
      maxParameters: 2,
      maxParameterChars: 3,
    });
    expect(params).toEqual({ x: '123', y: '2' });
  });
});
