/** What we build, our parser reads back; and the wire form keeps to the RFCs' line lengths and alphabets. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Random } from '../../ops/telemetry/index.js';
import {
  addressHeader,
  type BodyTree,
  type BuildOptions,
  buildMessage,
  composeBody,
  createTransferDecoder,
  decodeBody,
  decodeHeaderText,
  decodeText,
  decodeTransfer,
  encodeBase64,
  encodeQuotedPrintable,
  fileNameOf,
  findHeader,
  findPart,
  MessageBuildError,
  type MessageDraft,
  messageIdHeader,
  type Part,
  parameterizedHeader,
  parseAddressList,
  parseMessage,
  parseParameterized,
  rawToUnicode,
  reportBody,
  structuredHeader,
  summarize,
  textHeader,
  unfold,
} from './index.js';

function seeded(start = 1): Random {
  let counter = start;
  return { float: () => 0.5, bytes: (length) => Buffer.alloc(length, counter++) };
}
const options: BuildOptions = { random: seeded() };
const draft = (body: BodyTree, more: Partial<MessageDraft> = {}): MessageDraft => ({
  from: [{ name: 'Ann', local: 'ann', domain: 'example.com' }],
  date: { epochMs: Date.UTC(2026, 10, 22), offsetMinutes: 60 },
  messageId: '1@example.com',
  body,
  ...more,
});
const fieldValue = (header: string) => header.slice(header.indexOf(':') + 1);
const linesOf = (bytes: Buffer | string) => bytes.toString('latin1' as never).split('\r\n');

describe('header fields', () => {
  it('leaves ASCII alone and folds at 78', () => {
    expect(textHeader('Subject', 'plain text')).toBe('Subject: plain text\r\n');
    const long = textHeader('Subject', 'word '.repeat(60));
    expect(linesOf(long).every((line) => line.length <= 78)).toBe(true);
    expect(unfold(fieldValue(long))).toBe('word '.repeat(60).trim());
    expect(textHeader('Subject', '')).toBe('Subject:\r\n');
  });

  it('smuggles no line end', () => {
    expect(textHeader('Subject', 'a\r\nBcc: evil@x')).toBe('Subject: a Bcc: evil@x\r\n');
    expect(addressHeader('To', [{ name: 'a\r\nX: y', local: 'a', domain: 'b' }])).toBe('To: "a X: y" <a@b>\r\n');
    expect(() => messageIdHeader('References', ['a\r\nb'])).toThrow(MessageBuildError);
    expect(() => structuredHeader('A:b', 'c')).toThrow(MessageBuildError);
    expect(() => addressHeader('To', [{ local: 'a', domain: 'b>\r\nX: y' }])).toThrow(MessageBuildError);
    expect(() => addressHeader('To', [{ local: 'a\r\n', domain: 'b' }])).toThrow(MessageBuildError);
  });

  it('writes internationalized addresses as the receiver can take them', () => {
    const mailbox = { name: 'Jürgen', local: 'jürgen', domain: 'bücher.example' };
    expect(() => addressHeader('To', [mailbox])).toThrow(expect.objectContaining({ code: 'eai-required' }));
    expect(addressHeader('To', [mailbox], true)).toBe('To: Jürgen <jürgen@bücher.example>\r\n');
    expect(addressHeader('To', [{ ...mailbox, local: 'j' }])).toBe('To: =?utf-8?q?J=C3=BCrgen?= <j@xn--bcher-kva.example>\r\n');
    expect(addressHeader('To', [{ group: 'G', members: [] }])).toBe('To: G:;\r\n');
    expect(() => structuredHeader('X', 'ü')).toThrow(MessageBuildError);
    expect(() => structuredHeader('X', 'x'.repeat(2000))).toThrow(expect.objectContaining({ code: 'line-too-long' }));
  });

  const unicodeText = fc.string({ unit: 'grapheme', maxLength: 200 });

  it('any text comes back, with and without EAI', () => {
    fc.assert(
      fc.property(fc.oneof(unicodeText, fc.string({ maxLength: 1500 })), fc.boolean(), (text, eai) => {
        const header = textHeader('Subject', text, eai);
        const wire = Buffer.from(header, 'utf8').toString('latin1');
        expect(linesOf(wire).every((line) => line.length <= 998)).toBe(true);
        if (!eai) expect(wire).toMatch(/^[\x20-\x7e\t\r\n]*$/);
        const wanted = text
          .toString()
          .replace(/[\r\n\0]+/g, ' ')
          .trim();
        expect(decodeHeaderText(unfold(fieldValue(wire)))).toBe(wanted);
      }),
    );
  });

  it('any mailbox comes back', () => {
    const local = fc.stringMatching(/^[ -~]{1,30}$/).filter((text) => text.trim() === text);
    const mailbox = fc.record({ name: unicodeText, local, domain: fc.constantFrom('example.com', 'a.b', '[192.0.2.1]') });
    fc.assert(
      fc.property(fc.array(mailbox, { minLength: 1, maxLength: 6 }), (list) => {
        const wire = Buffer.from(addressHeader('To', list), 'utf8').toString('latin1');
        expect(linesOf(wire).every((line) => line.length <= 998)).toBe(true);
        const found = parseAddressList(unfold(fieldValue(wire)));
        expect(found).toEqual(
          list.map(({ name, local, domain }) => {
            const plain = name.replace(/[\r\n\0]+/g, ' ').trim();
            return { kind: 'mailbox', name: plain === '' ? null : expect.any(String), route: null, local, domain };
          }),
        );
        for (const [index, one] of found.entries()) {
          const plain = list[index]!.name.replace(/[\r\n\0]+/g, ' ').trim();
          if (one.kind === 'mailbox' && one.name !== null) expect(decodeHeaderText(one.name)).toBe(plain);
        }
      }),
    );
  });

  it('any parameter comes back', () => {
    const limits = { maxParameters: 64, maxParameterChars: 5000 };
    fc.assert(
      fc.property(fc.oneof(unicodeText, fc.string({ maxLength: 400 })), fc.string({ maxLength: 20 }), (fileName, other) => {
        const wire = parameterizedHeader('Content-Disposition', 'attachment', { filename: fileName, x: other });
        expect(linesOf(wire).every((line) => line.length <= 78)).toBe(true);
        const clean = (text: string) => text.replace(/[\r\n\0]+/g, ' ');
        const { value, params } = parseParameterized(unfold(fieldValue(wire)), limits);
        expect(value).toBe('attachment');
        expect(params).toEqual({ filename: clean(fileName), x: clean(other) });
      }),
    );
  });
});

describe('transfer encodings', () => {
  const chunked = (encoding: string, bytes: Buffer, cuts: number[]) => {
    const decoder = createTransferDecoder(encoding);
    const out: Buffer[] = [];
    let at = 0;
    for (const cut of [...cuts.map((c) => Math.min(bytes.length, at + c)), bytes.length]) {
      const next = Math.min(bytes.length, Math.max(at, cut));
      out.push(decoder.push(bytes.subarray(at, next)));
      at = next;
    }
    return Buffer.concat([...out, decoder.end()]);
  };

  it('base64 and quoted-printable come back, whole and in pieces', () => {
    const text = fc.array(
      fc.oneof(fc.constantFrom('\r\n', ' ', '\t', '=', '.', 'From ', '\r', '\n'), fc.string({ maxLength: 90 })),
      { maxLength: 30 },
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 500 }),
          text.map((pieces) => Buffer.from(pieces.join(''))),
        ),
        fc.array(fc.nat(40), { maxLength: 30 }),
        (given, cuts) => {
          const bytes = Buffer.from(given);
          for (const [encoding, encode] of [
            ['base64', encodeBase64],
            ['quoted-printable', encodeQuotedPrintable],
          ] as const) {
            const encoded = encode(bytes);
            expect(linesOf(encoded).every((line) => line.length <= 76)).toBe(true);
            expect(decodeTransfer(encoded, encoding).equals(bytes)).toBe(true);
            expect(chunked(encoding, encoded, cuts).equals(bytes)).toBe(true);
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it('broken input decodes to the same in pieces as whole', () => {
    const junk = fc.array(
      fc.constantFrom('=', '=4', '=41', ' ', '\t', '\r\n', '\n', '\r', 'a', 'YQ==', 'YWJj', '-', '!', '=\r\n', '= \n'),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(junk, fc.array(fc.nat(5), { maxLength: 40 }), (pieces, cuts) => {
        const bytes = Buffer.from(pieces.join(''));
        for (const encoding of ['base64', 'quoted-printable', '7bit']) {
          expect(chunked(encoding, bytes, cuts).toString('latin1')).toBe(decodeTransfer(bytes, encoding).toString('latin1'));
        }
      }),
      { numRuns: 1000 },
    );
  });
});

describe('messages', () => {
  it('nests a simple body as readers expect it', () => {
    const body = composeBody({
      text: 'Grüße',
      html: '<p>Grüße <img src="cid:pic@x"></p>',
      inline: [
        { kind: 'file', contentType: 'image/png', content: Buffer.from([1, 2, 3]), contentId: 'pic@x', disposition: 'inline' },
      ],
      attachments: [{ kind: 'file', contentType: 'application/pdf', content: Buffer.alloc(100, 7), fileName: 'Übersicht.pdf' }],
    });
    const bytes = buildMessage(
      draft(body, { subject: 'Grüße', to: [{ local: 'bob', domain: 'example.org' }], references: ['a@b', 'c@d'] }),
      options,
    );
    const { structure, envelope, messageIds, sentAtMs, preview } = summarize(bytes);
    expect(structure.subtype).toBe('mixed');
    expect(structure.children!.map((part) => `${part.type}/${part.subtype}`)).toEqual([
      'multipart/alternative',
      'application/pdf',
    ]);
    expect(findPart(structure, [1, 2])).toMatchObject({ subtype: 'related', params: { type: 'text/html' } });
    expect(findPart(structure, [1, 2, 2])).toMatchObject({ id: '<pic@x>', disposition: 'inline', encoding: 'base64' });
    expect(fileNameOf(findPart(structure, [2])!)).toBe('Übersicht.pdf');
    expect(decodeText(bytes, findPart(structure, [1, 1])!)).toBe('Grüße');
    expect(decodeHeaderText(envelope.subject!)).toBe('Grüße');
    expect(messageIds).toEqual({ own: '1@example.com', inReplyTo: [], references: ['a@b', 'c@d'] });
    expect(sentAtMs).toBe(Date.UTC(2026, 10, 22));
    expect(preview).toBe('Grüße');
    const boundaries = [...bytes.toString('latin1').matchAll(/boundary="?([^"\r]+)/g)].map((match) => match[1]);
    expect(new Set(boundaries).size).toBe(3);
  });

  it('chooses the lightest encoding', () => {
    const encodingOf = (text: string, more: Partial<BuildOptions> = {}) => {
      const bytes = buildMessage(draft({ kind: 'text', text }), { ...options, ...more });
      const structure = parseMessage(bytes);
      expect(decodeText(bytes, structure).replace(/\r\n$/, '')).toBe(text.replace(/\r\n|\n/g, '\r\n').replace(/\r\n$/, ''));
      return structure.encoding;
    };
    expect(encodingOf('plain\nlines\n')).toBe('7bit');
    expect(encodingOf(`a few ümlauts in ${'much '.repeat(20)}`)).toBe('quoted-printable');
    expect(encodingOf(`a few ümlauts in ${'much '.repeat(20)}`, { allow8bit: true })).toBe('8bit');
    expect(encodingOf('日本語のテキスト')).toBe('base64');
    expect(encodingOf('x'.repeat(999))).toBe('quoted-printable');
    expect(encodingOf(`${'ü'.repeat(600)}`, { allow8bit: true })).toBe('base64');
  });

  it('never reuses a boundary that occurs inside', () => {
    const repeating: Random = { float: () => 0, bytes: (length) => Buffer.alloc(length, 9) };
    const inner = buildMessage(draft(composeBody({ text: 'a', html: 'b' })), { random: repeating });
    const outer = buildMessage(
      draft({
        kind: 'multipart',
        subtype: 'mixed',
        parts: [
          { kind: 'text', text: 'x' },
          { kind: 'message', message: inner },
        ],
      }),
      { random: repeating },
    );
    const structure = parseMessage(outer);
    expect(structure.children!.length).toBe(2);
    expect(findPart(structure, [2])!.message!.structure.children!.length).toBe(2);
    expect(decodeBody(outer, findPart(structure, [2])!).equals(inner)).toBe(true);
  });

  it('writes a delivery report (RFC 3464, 6522) and its internationalized form (RFC 6533)', () => {
    const original = buildMessage(draft({ kind: 'text', text: 'hello' }, { subject: 'original' }), options);
    const report = (recipient: string, eai: boolean, message: Buffer) =>
      buildMessage(
        draft(
          reportBody(
            'delivery-status',
            { kind: 'text', text: 'It failed.' },
            {
              kind: 'delivery-status',
              message: [['Reporting-MTA', 'dns; mx.example.com']],
              recipients: [
                [
                  ['Final-Recipient', recipient],
                  ['Action', 'failed'],
                  ['Status', '5.1.1'],
                ],
                [
                  ['Final-Recipient', 'rfc822; b@c'],
                  ['Action', 'delayed'],
                  ['Status', '4.4.1'],
                ],
              ],
            },
            { kind: 'headers', message },
          ),
        ),
        { ...options, eai },
      );
    const plain = report('rfc822; a@b', false, original);
    const structure = parseMessage(plain);
    expect(structure).toMatchObject({ subtype: 'report', params: { 'report-type': 'delivery-status' } });
    expect(structure.children!.map((part) => `${part.type}/${part.subtype}`)).toEqual([
      'text/plain',
      'message/delivery-status',
      'text/rfc822-headers',
    ]);
    expect(decodeBody(plain, structure.children![1]!).toString()).toBe(
      'Reporting-MTA: dns; mx.example.com\r\n\r\nFinal-Recipient: rfc822; a@b\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\nFinal-Recipient: rfc822; b@c\r\nAction: delayed\r\nStatus: 4.4.1\r\n',
    );
    expect(decodeText(plain, structure.children![2]!)).toContain('Subject: original');

    const eaiOriginal = buildMessage(draft({ kind: 'text', text: 'x' }, { subject: 'Grüße' }), { ...options, eai: true });
    const global = report('utf-8; jürgen@bücher.example', true, eaiOriginal);
    const found = parseMessage(global);
    expect(found.children!.map((part) => `${part.subtype}/${part.encoding}`)).toEqual([
      'plain/7bit',
      'global-delivery-status/8bit',
      'global-headers/8bit',
    ]);
    const downgraded = parseMessage(report('utf-8; jürgen@bücher.example', false, eaiOriginal));
    expect(downgraded.children![1]!.encoding).toBe('quoted-printable');
    const carried = buildMessage(draft({ kind: 'message', message: eaiOriginal }), options);
    expect(parseMessage(carried)).toMatchObject({ subtype: 'global', encoding: 'base64', opaque: true });
    expect(decodeBody(carried, parseMessage(carried)).equals(eaiOriginal)).toBe(true);
  });

  it('writes foreign diagnostics and identifiers, or leaves them out', () => {
    const status: BodyTree = {
      kind: 'delivery-status',
      message: [],
      recipients: [[['Diagnostic-Code', `smtp; 550 \x1b[1m${'x'.repeat(3000)}\r\nBcc: y`]]],
    };
    const bytes = buildMessage(draft(status, { inReplyTo: ['has space', 'ok@x'], references: ['<', 'ü@x'] }), options);
    const structure = parseMessage(bytes);
    expect(linesOf(bytes).every((line) => line.length <= 998)).toBe(true);
    expect(decodeBody(bytes, structure).toString()).toMatch(/^\r\nDiagnostic-Code: smtp; 550\r\n \?\[1mx{296}\r\n x{300}\r\n x/);
    expect(decodeBody(bytes, structure).toString()).not.toMatch(/^Bcc/m);
    expect(findHeader(bytes, structure, 'in-reply-to')).toBe('<ok@x>');
    expect(findHeader(bytes, structure, 'references')).toBeUndefined();
  });

  it('refuses what cannot be written', () => {
    expect(() => buildMessage(draft({ kind: 'text', text: 'x' }, { from: [] }), options)).toThrow(MessageBuildError);
    expect(() => buildMessage(draft({ kind: 'file', contentType: 'a/b\r\nX: y', content: Buffer.alloc(0) }), options)).toThrow(
      MessageBuildError,
    );
    expect(() => buildMessage(draft({ kind: 'multipart', subtype: 'mixed', parts: [] }), options)).toThrow(MessageBuildError);
  });
});

/** Any tree of parts, not too deep. */
const anyBody = fc.letrec<{ body: BodyTree }>((tie) => ({
  body: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    fc.record({
      kind: fc.constant('text' as const),
      text: fc.string({ unit: 'grapheme', maxLength: 300 }),
      subtype: fc.constantFrom('plain', 'html'),
    }),
    fc.record({
      kind: fc.constant('file' as const),
      contentType: fc.constantFrom('application/octet-stream', 'text/csv', 'image/png'),
      content: fc.uint8Array({ maxLength: 300 }),
      fileName: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 80 }),
    }),
    fc
      .tuple(tie('body'), fc.string({ unit: 'grapheme', maxLength: 40 }))
      .map(([body, subject]) => ({ kind: 'message' as const, message: buildMessage(draft(body, { subject }), options) })),
    fc.record({
      kind: fc.constant('multipart' as const),
      subtype: fc.constantFrom('mixed', 'alternative', 'related', 'digest'),
      parts: fc.array(tie('body'), { minLength: 1, maxLength: 4 }),
    }),
  ),
})).body;

function compare(bytes: Buffer, part: Part, tree: BodyTree): void {
  switch (tree.kind) {
    case 'text': {
      const wanted = tree.text.replace(/\r\n|\r|\n/g, '\r\n');
      expect([part.type, part.subtype]).toEqual(['text', tree.subtype]);
      // The first character may be a byte order mark, which decoding drops; the message's last line gets its end.
      expect(decodeText(bytes, part).replace(/\r\n$/, '')).toBe(wanted.replace(/^\ufeff/, '').replace(/\r\n$/, ''));
      return;
    }
    case 'file': {
      const decoded = decodeBody(bytes, part);
      const wanted = Buffer.from(tree.content);
      expect(decoded.equals(wanted) || decoded.equals(Buffer.concat([wanted, Buffer.from('\r\n')]))).toBe(true);
      expect(fileNameOf(part)).toBe(tree.fileName!.replace(/[\r\n\0]+/g, ' '));
      return;
    }
    case 'message':
      expect(part.message).toBeDefined();
      expect(decodeBody(bytes, part).equals(Buffer.from(tree.message))).toBe(true);
      return;
    case 'multipart':
      expect(part.subtype).toBe(tree.subtype);
      expect(part.children!.length).toBe(tree.parts.length);
      for (const [index, child] of tree.parts.entries()) compare(bytes, part.children![index]!, child);
      return;
    default:
      throw new Error('not generated here');
  }
}

describe('builder to parser', () => {
  it('any tree comes back', () => {
    fc.assert(
      fc.property(anyBody, fc.string({ unit: 'grapheme', maxLength: 60 }), fc.boolean(), (body, subject, allow8bit) => {
        const bytes = buildMessage(draft(body, { subject }), { ...options, allow8bit });
        const structure = parseMessage(bytes);
        compare(bytes, structure, body);
        expect(decodeHeaderText(findHeader(bytes, structure, 'subject')!)).toBe(
          rawToUnicode(Buffer.from(subject.replace(/[\r\n\0]+/g, ' ').trim()).toString('latin1')),
        );
        if (body.kind !== 'message' && !JSON.stringify(body).includes('"message"')) {
          expect(linesOf(bytes).every((line) => line.length <= 998)).toBe(true);
        }
      }),
      { numRuns: 200 },
    );
  });
});
