/** IMAP sections, and the record of a summary. */
import { describe, expect, it } from 'vitest';
import {
  decodeSummary,
  encodeSummary,
  findPart,
  formatBodyStructure,
  formatEnvelope,
  parseMessage,
  parseSectionPath,
  renderingOf,
  resolveSection,
  SummaryFormatError,
  summarize,
} from './index.js';

const message = (...lines: string[]) => Buffer.from(lines.join('\r\n'), 'latin1');

describe('sections (RFC 9051 6.4.5)', () => {
  const bytes = message(
    'Subject: root',
    'Content-Type: multipart/mixed; boundary=a',
    '',
    '--a',
    '',
    'part one',
    '--a',
    'Content-Type: application/octet-stream',
    '',
    'part two',
    '--a',
    'Content-Type: message/rfc822',
    '',
    'Subject: three',
    'Content-Type: multipart/mixed; boundary=b',
    '',
    '--b',
    'Content-Type: text/plain',
    '',
    'three one',
    '--b',
    'Content-Type: application/octet-stream',
    '',
    'three two',
    '--b--',
    '--a',
    'Content-Type: multipart/mixed; boundary=c',
    'X-Four: yes',
    '',
    '--c',
    'Content-Type: image/gif',
    '',
    'four one',
    '--c',
    'Content-Type: message/rfc822',
    '',
    'Subject: four two',
    '',
    'simple text',
    '--c--',
    '--a--',
    '',
  );
  const root = parseMessage(bytes);
  const section = (path: string) => {
    const range = resolveSection(root, path);
    return range && bytes.toString('latin1', range.start, range.end);
  };

  it.each([
    ['1', 'part one'],
    ['1.MIME', '\r\n'],
    ['2', 'part two'],
    ['2.MIME', 'Content-Type: application/octet-stream\r\n\r\n'],
    ['3.HEADER', 'Subject: three\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n'],
    ['3.MIME', 'Content-Type: message/rfc822\r\n\r\n'],
    ['3.1', 'three one'],
    ['3.2', 'three two'],
    ['3.2.MIME', 'Content-Type: application/octet-stream\r\n\r\n'],
    ['4.MIME', 'Content-Type: multipart/mixed; boundary=c\r\nX-Four: yes\r\n\r\n'],
    ['4.1', 'four one'],
    ['4.2', 'Subject: four two\r\n\r\nsimple text'],
    ['4.2.header', 'Subject: four two\r\n\r\n'],
    ['4.2.TEXT', 'simple text'],
    ['4.2.1', 'simple text'],
    ['4.2.1.MIME', 'Subject: four two\r\n\r\n'],
    ['HEADER', 'Subject: root\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n'],
  ])('[%s]', (path, wanted) => expect(section(path)).toBe(wanted));

  it('gives the whole message, its text, and a part that is a message as it is', () => {
    expect(section('')).toBe(bytes.toString('latin1'));
    expect(section('TEXT')).toBe(bytes.toString('latin1', root.headerEnd));
    expect(section('3')!.startsWith('Subject: three\r\n') && section('3')!.endsWith('--b--')).toBe(true);
    expect(section('3.TEXT')!.startsWith('--b\r\n')).toBe(true);
  });

  it.each([
    '5',
    '1.1',
    '1.HEADER',
    '1.TEXT',
    '3.3',
    '4.HEADER',
    '4.2.2',
    '4.2.1.1',
    '3.1.1',
    'MIME',
    '0',
    '01',
    '1..2',
    '1.',
    '.1',
    'FOO',
    '1.FOO',
    '9999999999',
  ])('[%s] does not exist', (path) => expect(resolveSection(root, path)).toBeUndefined());

  it('a message that is no multipart has part 1', () => {
    const simple = message('Subject: s', '', 'text');
    const structure = parseMessage(simple);
    expect(resolveSection(structure, '1')).toEqual({ start: structure.headerEnd, end: simple.length });
    expect(resolveSection(structure, '1.MIME')).toEqual({ start: 0, end: structure.headerEnd });
    expect(resolveSection(structure, '2')).toBeUndefined();
    expect(resolveSection(structure, '1.1')).toBeUndefined();
    const embedded = parseMessage(message('Content-Type: message/rfc822', '', 'Subject: in', '', 'text'));
    expect(resolveSection(embedded, '1.1')).toEqual({ start: 47, end: 51 });
    expect(findPart(embedded, [1, 1])).toBe(embedded.message!.structure);
  });

  it('parses paths', () => {
    expect(parseSectionPath('1.2.mime')).toEqual({ numbers: [1, 2], text: 'MIME' });
    expect(parseSectionPath(`${'1.'.repeat(300)}1`)).toBeUndefined();
  });
});

describe('summary record', () => {
  it('is compact and refuses what it cannot read', () => {
    const bytes = message('From: a@b', 'Subject: s', '', 'text');
    const record = encodeSummary(summarize(bytes));
    const texts = renderingOf(record)!;
    expect(record.length - texts.envelope.length - texts.bodyStructure.length).toBeLessThan(75);
    expect(() => decodeSummary(Buffer.from([0xc1]))).toThrow(SummaryFormatError);
    expect(() => decodeSummary(Buffer.from([0x91, 0x63]))).toThrow('format 99');
    expect(() => decodeSummary(Buffer.from([0x92, 0x01, 0x01]))).toThrow(SummaryFormatError);
    expect(() => decodeSummary(record.subarray(0, record.length - 3))).toThrow(SummaryFormatError);
  });

  it("carries IMAP's texts, which are taken out undecoded", () => {
    for (const subject of ['s', 'x'.repeat(300), 'é"\\']) {
      const summary = summarize(message('From: a@b', `Subject: ${subject}`, '', 'text'));
      const texts = { envelope: formatEnvelope(summary.envelope), bodyStructure: formatBodyStructure(summary.structure, true) };
      expect(renderingOf(encodeSummary(summary))).toEqual(texts);
    }
    const large = summarize(message(`Subject: ${'y'.repeat(12_000)}`, '', ''));
    expect(renderingOf(encodeSummary(large))).toBeUndefined();
    expect(decodeSummary(encodeSummary(large))).toEqual(large);
    // As the releases before wrote it: an array of eight, whose end may look like anything.
    const record = encodeSummary(summarize(message('Subject: s', '', '')));
    expect(renderingOf(Buffer.concat([Buffer.of(0x98), record.subarray(1)]))).toBeUndefined();
    expect(renderingOf(Buffer.of(0x99, 1, 1))).toBeUndefined();
  });
});
