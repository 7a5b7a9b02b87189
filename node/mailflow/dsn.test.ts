import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { findHeader, parseMessage } from '../../protocols/message/index.js';
import type { QueueMessage } from '../../store/queue/index.js';
import { buildReport, type ReportInput } from './dsn.js';
import { reportTexts } from './report-texts.js';

const message: QueueMessage = {
  id: '01k80s3ta372dr4lsodg',
  blobId: '0'.repeat(64),
  sizeBytes: 100,
  relayOffsetBytes: 0,
  from: 'sender@remote.test',
  receivedAtMs: Date.UTC(2026, 10, 22, 5, 0, 0),
  expiresAtMs: Date.UTC(2026, 10, 27, 5, 0, 0),
  isUtf8: false,
  body: '7BIT',
  priority: 0,
  source: { protocol: 'smtp' },
  partCount: 1,
};

const returned = { bytes: Buffer.from('Subject: original\r\nFrom: <sender@remote.test>\r\n'), isHeaderOnly: true };

function report(change: Partial<ReportInput> = {}) {
  return buildReport({
    kind: 'failed',
    hostname: 'mx.example.test',
    message,
    recipients: [
      {
        recipient: { address: 'bob@remote.test', orcpt: 'rfc822;old@remote.test' },
        action: 'failed',
        reply: { code: 550, enhanced: '5.1.1', text: 'No such user', host: 'mx.remote.test' },
      },
    ],
    returned,
    nowMs: Date.UTC(2026, 10, 22, 6, 0, 0),
    lastAttemptAtMs: Date.UTC(2026, 10, 22, 6, 0, 0),
    id: '01k80s3ta372dr4lsodh',
    ...change,
  });
}

/** The three parts as text, after a look at the frame. */
function partsOf(bytes: Buffer): string[] {
  const structure = parseMessage(bytes);
  expect(`${structure.type}/${structure.subtype}`).toBe('multipart/report');
  expect(structure.opaque).toBeUndefined();
  return structure.children!.map((part) => bytes.subarray(part.headerEnd, part.bodyEnd).toString('utf8'));
}

describe('reports', () => {
  it('says in RFC 3464’s words what happened', () => {
    const { bytes, relayOffsetBytes, isEightBit, isUtf8 } = report();
    expect(bytes.subarray(0, relayOffsetBytes).toString()).toBe('Return-Path: <>\r\n');
    expect([isEightBit, isUtf8]).toEqual([false, false]);
    const range = parseMessage(bytes);
    expect(findHeader(bytes, range, 'To')).toBe('sender@remote.test');
    expect(findHeader(bytes, range, 'Auto-Submitted')).toBe('auto-replied');
    expect(findHeader(bytes, range, 'Message-ID')).toBe('<01k80s3ta372dr4lsodh@mx.example.test>');
    const [text, status, original] = partsOf(bytes);
    expect(text).toContain('<bob@remote.test>:\r\n    mx.remote.test said: 550 5.1.1 No such user\r\n');
    expect(status).toBe(
      'Reporting-MTA: dns; mx.example.test\r\nArrival-Date: Sun, 22 Nov 2026 05:00:00 +0000\r\n\r\n' +
        'Original-Recipient: rfc822; old@remote.test\r\nFinal-Recipient: rfc822; bob@remote.test\r\nAction: failed\r\nStatus: 5.1.1\r\n' +
        'Remote-MTA: dns; mx.remote.test\r\nDiagnostic-Code: smtp; 550 5.1.1 No such user\r\nLast-Attempt-Date: Sun, 22 Nov 2026 06:00:00 +0000\r\n' +
        'Final-Log-ID: 01k80s3ta372dr4lsodg\r\n',
    );
    expect(original).toBe(returned.bytes.toString());
  });

  it('uses the internationalized types where an address or the message needs them', () => {
    const { bytes, isEightBit, isUtf8 } = report({
      message: { ...message, isUtf8: true, from: 'jörg@remote.test' },
      recipients: [
        {
          recipient: { address: 'bøb@remote.test', orcpt: 'utf-8;bøb@remote.test' },
          action: 'failed',
          reply: { code: 550, enhanced: '5.1.1', text: 'Nein' },
        },
      ],
    });
    expect([isEightBit, isUtf8]).toEqual([true, true]);
    const [, status, original] = parseMessage(bytes).children!;
    expect(`${status!.type}/${status!.subtype} ${status!.encoding}`).toBe('message/global-delivery-status 8bit');
    expect(`${original!.type}/${original!.subtype}`).toBe('message/global-headers');
    expect(partsOf(bytes)[1]).toContain(
      'Original-Recipient: utf-8; bøb@remote.test\r\nFinal-Recipient: utf-8; bøb@remote.test\r\n',
    );
  });

  it('stays in ASCII where the message did not come with SMTPUTF8', () => {
    const { bytes, isEightBit, isUtf8 } = report({
      recipients: [
        {
          recipient: { address: 'bøb@remote.test', orcpt: 'utf-8;bøb@remote.test' },
          action: 'failed',
          reply: { code: 550, enhanced: '5.1.1', text: 'Kein Benutzer für bøb', host: 'mx.remote.test' },
        },
      ],
    });
    expect([isEightBit, isUtf8]).toEqual([false, false]);
    expect(bytes.every((octet) => octet < 128)).toBe(true);
    const [, status] = parseMessage(bytes).children!;
    expect(`${status!.type}/${status!.subtype}`).toBe('message/delivery-status');
    expect(partsOf(bytes)[1]).toContain(
      'Original-Recipient: utf-8; b\\x{F8}b@remote.test\r\nFinal-Recipient: utf-8; b\\x{F8}b@remote.test\r\n',
    );
    expect(partsOf(bytes)[1]).toContain('Diagnostic-Code: smtp; 550 5.1.1 Kein Benutzer f?r b?b\r\n');
  });

  it.each([
    ['delayed', 'delayed', '4.4.1', 'Delayed mail (still being retried)', true],
    ['success', 'delivered', '2.1.5', 'Successful mail delivery report', false],
    ['success', 'relayed', '2.0.0', 'Successful mail delivery report', false],
    ['success', 'expanded', '2.1.5', 'Successful mail delivery report', false],
    ['failed', 'failed', '5.4.7', 'Undelivered mail returned to sender', false],
  ] as const)('has all fields of a report of kind %s, %s', (kind, action, enhanced, subject, isRetried) => {
    const { bytes } = report({
      kind,
      message: {
        ...message,
        envid: 'QQ314159',
        source: { protocol: 'smtp', helo: 'client.remote.test' },
        deliverBy: { untilMs: Date.UTC(2026, 10, 22, 7, 0, 0), mode: 'notify', isTraced: false },
      },
      recipients: ['bob', 'eve'].map((name) => ({
        recipient: { address: `${name}@remote.test` },
        action,
        reply: { code: 0, enhanced, text: 'x' },
      })),
    });
    expect(findHeader(bytes, parseMessage(bytes), 'Subject')).toBe(subject);
    const block = (name: string) =>
      `\r\nFinal-Recipient: rfc822; ${name}@remote.test\r\nAction: ${action}\r\nStatus: ${enhanced}\r\n` +
      'Last-Attempt-Date: Sun, 22 Nov 2026 06:00:00 +0000\r\nFinal-Log-ID: 01k80s3ta372dr4lsodg\r\n' +
      (isRetried ? 'Will-Retry-Until: Fri, 27 Nov 2026 05:00:00 +0000\r\n' : '');
    expect(partsOf(bytes)[1]).toBe(
      'Reporting-MTA: dns; mx.example.test\r\nOriginal-Envelope-Id: QQ314159\r\nReceived-From-MTA: dns; client.remote.test\r\n' +
        'Arrival-Date: Sun, 22 Nov 2026 05:00:00 +0000\r\nDeliver-By-Date: Sun, 22 Nov 2026 07:00:00 +0000\r\n' +
        `${block('bob')}${block('eve')}`,
    );
  });

  it('keeps the class of the status in line with the action', () => {
    const statusFor = (action: 'failed' | 'delayed' | 'relayed', enhanced: string) =>
      /Status: (\S+)/.exec(
        partsOf(
          report({ recipients: [{ recipient: { address: 'a@b.test' }, action, reply: { code: 0, enhanced, text: 'x' } }] }).bytes,
        )[1]!,
      )![1];
    expect(statusFor('failed', '4.4.1')).toBe('4.4.1');
    expect(statusFor('failed', 'nonsense')).toBe('5.0.0');
    expect(statusFor('relayed', '2.6.0')).toBe('2.6.0');
    expect(statusFor('delayed', '5.7.1')).toBe('4.7.1');
  });

  it('lets nothing that a peer or a sender says break out of its field or the frame', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary', maxLength: 2000 }),
        fc.string({ maxLength: 80 }),
        fc.string({ maxLength: 60 }),
        (words, host, address) => {
          const { bytes } = report({
            recipients: [
              {
                recipient: { address: `${address}\r\nAction: delivered@x`, orcpt: `rfc822;${address}` },
                action: 'failed',
                reply: {
                  code: 550,
                  enhanced: '5.0.0',
                  text: `${words}\r\n\r\nAction: delivered`,
                  host: `${host}\nAction: delivered`,
                },
              },
            ],
          });
          const [, status] = partsOf(bytes);
          expect(status!.match(/^Action: .*$/gm)).toEqual(['Action: failed']);
          expect(status!.split('\r\n\r\n')).toHaveLength(2);
          for (const line of bytes.toString('utf8').split('\r\n')) expect(Buffer.byteLength(line)).toBeLessThan(5000);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('keeps its frame whatever the host is called and administrators have written', () => {
    const texts = { en: { ...reportTexts['en'], said: '{host}\nhas said:', delivered: 'there\nnow' } };
    const reply = { code: 250, enhanced: '2.1.5', text: 'Ok', host: 'mx.remote.test' };
    const recipients = [{ recipient: { address: 'bob@remote.test' }, action: 'delivered' as const, reply }];
    const { bytes } = report({ kind: 'success', hostname: `${'long.'.repeat(40)}test`, recipients, texts });
    const [text] = partsOf(bytes);
    expect(text).toContain('<bob@remote.test> (there now):\r\n    mx.remote.test has said: 250 2.1.5 Ok\r\n');
    expect(bytes.toString().replaceAll('\r\n', '')).not.toMatch(/[\r\n]/);
    expect(/boundary="([^"]*)"/.exec(bytes.toString())![1]!.length).toBeLessThanOrEqual(70);
  });

  it('is never made for the null sender', () => {
    expect(() => report({ message: { ...message, from: '' } })).toThrow(RangeError);
  });
});
