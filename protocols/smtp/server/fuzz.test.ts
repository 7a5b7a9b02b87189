/** Arbitrary input in arbitrary cuts: the session must neither throw nor hang, and every reply must be one. */
import { Duplex } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { silentLogger } from '../../../ops/telemetry/index.js';
import { ReplyReader } from '../grammar/reply.js';
import { TestHandler, testScram } from '../testing/server.js';
import type { SmtpMode } from './handler.js';
import { SmtpSession } from './session.js';

/** Both ends of a connection in memory. */
class Pipe extends Duplex {
  written: Buffer[] = [];
  override _read() {
    // Pushed to from outside.
  }
  override _write(chunk: Buffer, _encoding: string, done: () => void) {
    this.written.push(chunk);
    done();
  }
}

const pieces = fc.oneof(
  fc.constantFrom(
    'EHLO a.test\r\n',
    'LHLO a.test\r\n',
    'MAIL FROM:<a@b.test>\r\n',
    'MAIL FROM:<badwrite@b.test> BODY=BINARYMIME SMTPUTF8\r\n',
    'RCPT TO:<bob@example.test>\r\n',
    'RCPT TO:<unknown@example.test> NOTIFY=NEVER\r\n',
    'DATA\r\n',
    '.\r\n',
    '\r\n.\r\n',
    'BDAT 5\r\n',
    'BDAT 3 LAST\r\n',
    'BDAT 0 LAST\r\n',
    'RSET\r\n',
    'AUTH PLAIN AGFsaWNlQGV4YW1wbGUudGVzdAB4\r\n',
    'AUTH SCRAM-SHA-256\r\n',
    'AUTH LOGIN\r\n',
    'biws\r\n',
    '*\r\n',
    'VRFY x\r\n',
    'STARTTLS\r\n',
    'EXPN staff SMTPUTF8\r\n',
    'XCLIENT ADDR=192.0.2.7 HELO=c.test\r\n',
    'XCLIENT ADDR=[UNAVAILABLE]\r\n',
    'XFORWARD NAME=a+2B.test PORT=1\r\n',
    'MAIL FROM:<slow@b.test> BY=100;R MT-PRIORITY=9 HOLDFOR=5 REQUIRETLS\r\n',
    '\n',
    '\r',
    '\0',
  ),
  fc.string({ unit: 'binary', maxLength: 12 }),
  fc.stringMatching(/^(MAIL FROM|RCPT TO|AUTH|BDAT|EHLO|XCLIENT|XFORWARD)[ -~]{0,30}$/).map((text) => `${text}\r\n`),
);

async function talk(mode: SmtpMode, text: string, cuts: number[]): Promise<void> {
  const socket = new Pipe();
  const handler = new TestHandler();
  handler.policy = ({ remoteAddress, greetingName }) => {
    const policy = { isTrustedPeer: remoteAddress === '192.0.2.1', tarpitMs: greetingName === 'c.test' ? 1 : 0 };
    return greetingName === 'a.test' ? Promise.resolve(policy) : policy;
  };
  const errors: unknown[] = [];
  const logger = silentLogger.child({});
  logger.error = ((fields: { err?: unknown }, message: string) => {
    if (message === 'an SMTP session failed') errors.push(fields.err);
  }) as typeof logger.error;
  logger.child = (() => logger) as unknown as typeof logger.child;
  const connection = { socket, remoteAddress: '192.0.2.1', remotePort: 1, localPort: 25, secure: mode === 'submission' };
  const limits = { maxErrors: 1000, maxAuthFailures: 1000, lingerMs: 1 };
  const session = new SmtpSession({ connection, mode, handler, hostname: 'mx.test', logger, scram: testScram, limits });
  session.start();
  const octets = Buffer.from(text, 'utf8');
  const places = [...new Set([0, ...cuts.map((cut) => cut % (octets.length + 1)), octets.length])].sort((a, b) => a - b);
  for (const [index, end] of places.slice(1).entries()) {
    socket.push(Buffer.from(octets.subarray(places[index], end)));
    await new Promise((resolve) => setImmediate(resolve));
  }
  socket.push(null);
  await session.closed();
  expect(errors).toEqual([]);
  expect(handler.closedCount).toBe(1);
  const reader = new ReplyReader({ maxLineBytes: 1000, maxLines: 100 });
  const replies = reader.push(Buffer.concat(socket.written));
  expect(replies[0]?.code).toBe(220);
  expect(reader.partial).toBe(false);
}

describe('a session fed with anything', () => {
  it.each(['mx', 'submission', 'lmtp'] as const)('answers and ends (%s)', (mode) =>
    fc.assert(
      fc.asyncProperty(fc.array(pieces, { maxLength: 25 }), fc.array(fc.nat(500), { maxLength: 4 }), async (parts, cuts) => {
        const opening = mode === 'lmtp' ? 'LHLO a.test\r\n' : 'EHLO a.test\r\n';
        await talk(mode, opening + parts.join(''), cuts);
      }),
      { numRuns: 150 },
    ),
  );
});
