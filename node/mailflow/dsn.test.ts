import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { findHeader, parseMessage } from '../../protocols/message/index.js';
import type { QueueMessage } from '../../store/queue/index.js';
import { buildReport, type ReportInput } from './dsn.js';

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
        'Remote-MTA: dns; mx.remote.test\r\nDiagnostic-Code: smtp; 550 5.1.1 No such user\r\nLast-Attempt-Date: Sun, 22 Nov 2026 06:00:00 +0000\r\n',
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

  it('is never made for the null sender', () => {
    expect(() => report({ message: { ...message, from: '' } })).toThrow(RangeError);
  });
});
