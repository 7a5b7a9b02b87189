import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HeaderScan } from './header-scan.js';
import { receivedField, returnPathField } from './trace-fields.js';

function scan(chunks: Buffer[], maxHeaderBytes = 10_000) {
  const header = new HeaderScan(maxHeaderBytes);
  let taken = 0;
  for (const chunk of chunks) {
    taken++;
    const progress = header.push(chunk);
    if (progress === 'too-large') return { progress, taken };
    if (progress === 'complete') return { progress, taken, facts: header.facts(), held: Buffer.concat(header.chunks) };
  }
  header.end();
  return { progress: 'end', taken, facts: header.facts(), held: Buffer.concat(header.chunks) };
}

const header =
  'Received: a\r\n\tb\r\nRECEIVED : c\r\nX-Received: no\r\nFrom: Al <a@b>\r\n\t(x)\r\ndate: now\r\nMessage-Id: <1@2>\r\nSubject: From: no\r\n';

describe('header scan', () => {
  it('holds a header that comes octet by octet in few pieces', () => {
    const text = Buffer.from(`X-Long: ${'x'.repeat(50_000)}\r\n\r\nbody`);
    const scan = new HeaderScan(100_000);
    let progress = '';
    let at = 0;
    while (progress !== 'complete') progress = scan.push(text.subarray(at, ++at));
    expect(at).toBe(text.length - 4);
    expect(scan.chunks.length).toBeLessThan(15);
    expect(Buffer.concat(scan.chunks).equals(text.subarray(0, at))).toBe(true);
  });

  it('finds the same facts however the bytes are cut, and holds every byte', () => {
    const text = Buffer.from(`${header}\r\nReceived: not a header\r\n\r\nbody`);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }), (cuts) => {
        const chunks: Buffer[] = [];
        for (let at = 0, i = 0; at < text.length; i++) {
          const size = cuts[i % cuts.length]!;
          chunks.push(text.subarray(at, at + size));
          at += size;
        }
        const { progress, taken, facts, held } = scan(chunks);
        expect(progress).toBe('complete');
        expect(facts).toEqual({
          receivedFields: 2,
          hasDate: true,
          hasMessageId: true,
          messageId: '<1@2>',
          from: ['Al <a@b>\t(x)'],
          startsFolded: false,
        });
        expect(held).toEqual(Buffer.concat(chunks.slice(0, taken)));
        // Complete no later than with the chunk that ends the empty line.
        expect(Buffer.concat(chunks.slice(0, taken - 1)).length).toBeLessThan(header.length + 2);
      }),
    );
  });

  it('knows messages without a header, without a body, and empty ones', () => {
    expect(scan([Buffer.from('\r\nReceived: in the body\r\n')])).toMatchObject({
      progress: 'complete',
      facts: { receivedFields: 0 },
    });
    expect(scan([Buffer.from('\r'), Buffer.from('\nReceived: x\r\n')])).toMatchObject({
      progress: 'complete',
      facts: { receivedFields: 0 },
    });
    expect(scan([Buffer.from('Received: x\r\nDate: y\r\n')])).toMatchObject({
      progress: 'end',
      facts: { receivedFields: 1, hasDate: true },
    });
    expect(scan([Buffer.from(' folded\r\n\r\n')])).toMatchObject({ facts: { startsFolded: true } });
  });

  it('gives up on a header that is too large, wherever its end lies', () => {
    const line = Buffer.from(`X: ${'y'.repeat(95)}\r\n`);
    expect(scan(Array.from({ length: 200 }, () => line)).progress).toBe('too-large');
    expect(scan([Buffer.concat([...Array.from({ length: 200 }, () => line), Buffer.from('\r\nbody')])]).progress).toBe(
      'too-large',
    );
    expect(scan([Buffer.concat([line, Buffer.from('\r\n'), Buffer.alloc(50_000, 'b')])]).progress).toBe('complete');
  });
});

describe('trace fields', () => {
  const base = {
    hostname: 'mx.example.test',
    from: 'a@b.test',
    greetingName: 'client.test',
    remoteAddress: '192.0.2.1',
    mode: 'mx' as const,
    isExtended: true,
    isSecure: false,
    isAuthenticated: false,
    isUtf8: false,
    queueId: '01k80s3ta372dr4lsodg',
    nowMs: Date.UTC(2026, 10, 22, 5, 0, 0),
  };

  it('writes RFC 5321’s Received field', () => {
    expect(
      receivedField({
        ...base,
        onlyRecipient: 'bob@example.test',
        isSecure: true,
        tls: { protocol: 'TLSv1.3', cipher: 'TLS_AES_128_GCM_SHA256' },
      }),
    ).toBe(
      'Received: from client.test ([192.0.2.1])\r\n\t(TLSv1.3 TLS_AES_128_GCM_SHA256)\r\n' +
        '\tby mx.example.test with ESMTPS id 01k80s3ta372dr4lsodg\r\n\tfor <bob@example.test>;\r\n\tSun, 22 Nov 2026 05:00:00 +0000\r\n',
    );
    expect(receivedField({ ...base, remoteAddress: '2001:db8::1', isExtended: false })).toContain(
      '([IPv6:2001:db8::1])\r\n\tby mx.example.test with SMTP id',
    );
    expect(receivedField({ ...base, mode: 'submission', isSecure: true, isAuthenticated: true })).toContain(' with ESMTPSA id ');
    expect(receivedField({ ...base, mode: 'lmtp' })).toContain(' with LMTP id ');
    expect(receivedField({ ...base, isUtf8: true, isSecure: true })).toContain(' with UTF8SMTPS id ');
  });

  it('keeps control characters out', () => {
    const field = receivedField({ ...base, greetingName: 'x\r\nEvil: yes', onlyRecipient: 'a\nb@c' });
    expect(field).not.toMatch(/^Evil/m);
    expect(returnPathField('a\r\nEvil: 1@b')).toBe('Return-Path: <a Evil: 1@b>\r\n');
  });
});
