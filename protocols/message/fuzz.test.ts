/** The parser against hostile mail: the kept corpus, deterministic mutations of it, and inputs made to be slow. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decodeBody,
  decodeHeaderText,
  decodeSummary,
  decodeText,
  defaultMessageLimits,
  encodeSummary,
  fileNameOf,
  headerFields,
  headerFieldsSubset,
  htmlToText,
  type Part,
  parseAddressList,
  parseDate,
  parseMessage,
  parseParameterized,
  plainText,
  resolveSection,
  summarize,
  summarizeWithin,
} from './index.js';

const corpusFolder = join(import.meta.dirname, 'corpus');
const corpus = readdirSync(corpusFolder)
  .filter((name) => name.endsWith('.eml'))
  .map((name) => ({ name, bytes: readFileSync(join(corpusFolder, name)) }));

/** Reproducible numbers in [0, 1): a failing run fails again. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}

/** What must hold of every tree: offsets in order and inside the container's body, and the promises of `Part`. */
function checkPart(part: Part, from: number, to: number): number {
  expect(part.headerStart).toBeGreaterThanOrEqual(from);
  expect(part.headerEnd).toBeGreaterThanOrEqual(part.headerStart);
  expect(part.bodyEnd).toBeGreaterThanOrEqual(part.headerEnd);
  expect(part.bodyEnd).toBeLessThanOrEqual(to);
  expect(part.size).toBe(part.bodyEnd - part.headerEnd);
  expect(part.type).toMatch(/^[^\s/A-Z]+$/);
  expect(part.subtype).toMatch(/^[^\s/A-Z]+$/);
  expect(part.children !== undefined).toBe(part.type === 'multipart');
  expect(part.message !== undefined).toBe(part.type === 'message' && /^(rfc822|global)$/.test(part.subtype));
  expect(part.lines !== undefined).toBe(part.type === 'text' || part.message !== undefined);
  let count = 1;
  if (part.message) count += checkPart(part.message.structure, part.headerEnd, part.bodyEnd);
  if (part.children) {
    expect(part.children.length).toBeGreaterThan(0);
    let at = part.headerEnd;
    for (const child of part.children) {
      count += checkPart(child, at, part.bodyEnd);
      at = child.bodyEnd;
    }
  }
  return count;
}

function allParts(part: Part): Part[] {
  return [part, ...(part.children ?? []).flatMap(allParts), ...(part.message ? allParts(part.message.structure) : [])];
}

/** Does everything with a message that a server does, and checks what can be checked without knowing the message. */
function exercise(bytes: Buffer): void {
  const summary = summarize(bytes);
  checkPart(summary.structure, 0, bytes.length);
  expect(summary.structure.bodyEnd).toBe(bytes.length);
  expect(decodeSummary(encodeSummary(summary))).toEqual(summary);
  expect(JSON.parse(JSON.stringify(summary))).toEqual(summary);
  expect((summary.preview ?? '').length).toBeLessThanOrEqual(256);
  for (const value of [summary.envelope.subject, summary.envelope.date, summary.envelope.messageId])
    expect(value ?? '').not.toMatch(/[\r\n\0]/);
  decodeHeaderText(summary.envelope.subject ?? '');
  for (const path of ['', 'HEADER', 'TEXT', '1', '1.1', '1.MIME', '1.HEADER', '2.1.TEXT']) {
    const range = resolveSection(summary.structure, path);
    if (range) expect(range.start <= range.end && range.end <= bytes.length).toBe(true);
  }
  for (const part of allParts(summary.structure).slice(0, 50)) {
    decodeBody(bytes, part);
    decodeText(bytes, part);
    plainText(bytes, part, 1000);
    fileNameOf(part);
    const fields = headerFields(bytes, part);
    let at = part.headerStart;
    for (const field of fields) {
      expect(
        field.start >= at && field.valueStart > field.start && field.end >= field.valueStart && field.end <= part.headerEnd,
      ).toBe(true);
      at = field.end;
    }
    const subset = headerFieldsSubset(bytes, part, ['subject', 'from']);
    const rest = headerFieldsSubset(bytes, part, ['subject', 'from'], true);
    expect(subset.toString('latin1').endsWith('\r\n') && rest.toString('latin1').endsWith('\r\n')).toBe(true);
  }
}

describe('corpus', () => {
  for (const { name, bytes } of corpus) it(name, () => exercise(bytes));
});

const tokens = [
  '\r\n',
  '\n',
  '\r',
  '\r\n\r\n',
  '--b',
  '--b--',
  '\r\n--b\r\n',
  '--',
  ':',
  ' ',
  '\t',
  '\0',
  '"',
  '(',
  ')',
  '<',
  '>',
  '@',
  ';',
  '=',
  '=?utf-8?q?',
  '?=',
  '=\r\n',
  'Content-Type: multipart/mixed; boundary=b\r\n',
  'Content-Type: message/rfc822\r\n\r\n',
  'boundary',
  '*0*=',
  "utf-8''%",
  '\xff',
  '\xc3',
  '<!--',
  '<script>',
  '&#',
];

function mutate(random: () => number): Buffer {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
  let bytes: Buffer = Buffer.from(pick(corpus).bytes);
  for (let edits = 1 + Math.floor(random() * 6); edits > 0; edits--) {
    const at = Math.floor(random() * (bytes.length + 1));
    const until = Math.min(bytes.length, at + Math.floor(random() ** 3 * bytes.length));
    const choice = random();
    if (choice < 0.2 && at < bytes.length) bytes[at] = Math.floor(random() * 256);
    else if (choice < 0.4) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(until)]);
    else if (choice < 0.6) bytes = Buffer.concat([bytes.subarray(0, until), bytes.subarray(at)]);
    else if (choice < 0.9)
      bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from(pick(tokens), 'latin1'), bytes.subarray(at)]);
    else bytes = Buffer.concat([bytes.subarray(0, at), pick(corpus).bytes]);
  }
  return bytes;
}

describe('mutations', () => {
  for (let seed = 1; seed <= 8; seed++) {
    it(`of the corpus, seed ${seed}`, () => {
      const random = generator(seed);
      for (let i = 0; i < 100; i++) {
        const bytes = mutate(random);
        try {
          exercise(bytes);
        } catch (cause) {
          throw new Error(`round ${i}: ${JSON.stringify(bytes.toString('latin1').slice(0, 2000))}`, { cause });
        }
      }
    });
  }

  it('any text is read by every grammar without an exception', () => {
    const text = fc
      .array(fc.oneof(fc.constantFrom(...tokens), fc.string({ maxLength: 8 })), { maxLength: 30 })
      .map((pieces) => pieces.join(''));
    fc.assert(
      fc.property(text, (value) => {
        parseAddressList(value);
        parseDate(value);
        parseParameterized(value, defaultMessageLimits);
        decodeHeaderText(value);
        htmlToText(value, 100);
        parseMessage(Buffer.from(value, 'latin1'));
      }),
      { numRuns: 500 },
    );
  });
});

describe('inputs made to be slow', () => {
  // Each would run for minutes or for ever, far beyond the test's time limit, if the work grew with the square of the input.
  const parts = (structure: Part) => allParts(structure).length;
  const megabytes = (text: string, mb = 4) => text.repeat(Math.ceil((mb * 1e6) / text.length));

  it('keeps to maxParts however many delimiters come', () => {
    const bytes = Buffer.from(`Content-Type: multipart/mixed; boundary=b\r\n\r\n${megabytes('--b\r\n')}`);
    expect(parts(parseMessage(bytes))).toBe(defaultMessageLimits.maxParts);
  });

  it('keeps to maxDepth in nested multiparts and messages', () => {
    let nested = '';
    for (let i = 0; i < 10_000; i++) nested += `Content-Type: multipart/mixed; boundary=b${i}\r\n\r\n--b${i}\r\n`;
    expect(parts(parseMessage(Buffer.from(nested)))).toBeLessThanOrEqual(defaultMessageLimits.maxDepth + 1);
    const messages = Buffer.from('Content-Type: message/rfc822\r\n\r\n'.repeat(10_000));
    expect(parts(parseMessage(messages))).toBeLessThanOrEqual(defaultMessageLimits.maxDepth + 1);
  });

  it('looks for many boundaries that never come', () => {
    let siblings = 'Content-Type: multipart/mixed; boundary=outer\r\n\r\n';
    for (let i = 0; i < 1000; i++)
      siblings += `--outer\r\nContent-Type: multipart/mixed; boundary=never${i}\r\n\r\n${'--never\r\n'.repeat(400)}`;
    expect(parseMessage(Buffer.from(siblings)).children!.length).toBe(1000);
  });

  it.each([
    ['one header line', `Subject: ${megabytes('x')}\r\n\r\nhi`],
    ['a field of folds', `Subject: ${megabytes('\r\n x')}\r\n\r\nhi`],
    ['colons', megabytes('::')],
    ['lines that are no field', `A: b\r\n${megabytes('xx\r\n')}`],
    ['fields', megabytes('a:\r\n')],
    ['addresses', `To: ${megabytes('a@b, ')}\r\n\r\n`],
    ['open comments', `To: ${megabytes('(')}\r\nContent-Type: ${megabytes('(')}\r\n\r\n`],
    ['quotes', `From: ${megabytes('"\\')}\r\nContent-Type: a/b; ${megabytes('"=')}\r\n\r\n`],
    ['route addresses', `From: ${megabytes('<@a:')}\r\n\r\n`],
    ['angle brackets', `References: ${megabytes('<')}\r\nIn-Reply-To: ${megabytes('<a')}\r\n\r\n`],
    ['encoded words', `Subject: ${megabytes('=?a?q?')}\r\n\r\n`],
    ['parameters', `Content-Type: text/plain; ${megabytes('a=b; ')}\r\n\r\n`],
    ['parameter pieces', `Content-Type: text/plain; ${megabytes("a*0*=utf-8''a; ")}\r\n\r\n`],
    ['line ends', megabytes('\n')],
    ['a body without any', `A: b\r\n\r\n${megabytes('x', 20)}`],
    ['carriage returns', megabytes('\r')],
    ['tags', `Content-Type: text/html\r\n\r\n${megabytes('<')}`],
    ['tags with quotes', `Content-Type: text/html\r\n\r\n${megabytes('<a x=">" ')}`],
    ['scripts', `Content-Type: text/html\r\n\r\n${megabytes('<script>')}`],
    ['blanks in quoted-printable', `Content-Transfer-Encoding: quoted-printable\r\n\r\n${megabytes(' =')}`],
  ])('reads %s', (_name, text) => {
    const bytes = Buffer.from(text);
    const summary = summarize(bytes);
    checkPart(summary.structure, 0, bytes.length);
    plainText(bytes, summary.structure, 1e6);
    decodeHeaderText(text);
  });

  it('summarizeWithin keeps its size', () => {
    const crowded = `From: a@b\r\n${'To: "a very long name indeed" <someone@example.test>\r\n'.repeat(3000)}`;
    const many = `${crowded}Content-Type: multipart/mixed; boundary=b\r\n\r\n${'--b\r\nContent-Type: a/b; name="a long file name.txt"\r\n\r\n'.repeat(3000)}`;
    const { summary, encoded } = summarizeWithin(Buffer.from(many), 64 * 1024);
    expect(encoded.length).toBeLessThanOrEqual(64 * 1024);
    expect(decodeSummary(encoded)).toEqual(summary);
    expect(summary.envelope.from[0]!.host).toBe('b');
    const tiny = summarizeWithin(Buffer.from(many), 32 * 1024);
    expect(tiny.encoded.length).toBeLessThanOrEqual(32 * 1024);
    expect(summarizeWithin(Buffer.from('A: b\r\n\r\nc'), 32 * 1024).encoded).toEqual(
      encodeSummary(summarize(Buffer.from('A: b\r\n\r\nc'))),
    );
  });
});
