/** What a text dialog can't say: timing, large numbers, drains, back-pressure, broken connections. */
import { describe, expect, it } from 'vitest';
import { registry, silentLogger } from '../../../ops/telemetry/index.js';
import { MemorySocket } from '../testing/memory-socket.js';
import { startTestServer, TestHandler, type TestServer, type TestServerOptions } from '../testing/server.js';
import { Wire } from '../testing/wire.js';
import type { MessageSink, SessionInfo } from './handler.js';
import { SmtpSession } from './session.js';
import { transmissionType } from './transmission.js';

async function withServer(options: TestServerOptions, run: (server: TestServer, wire: Wire) => Promise<void>): Promise<void> {
  const server = await startTestServer(options);
  const wire = await Wire.open(server.port);
  try {
    await run(server, wire);
  } finally {
    wire.destroy();
    await server.close();
  }
}

async function begin(wire: Wire, from = 'a@b.test'): Promise<void> {
  await wire.reply();
  wire.send(`EHLO client.test\r\nMAIL FROM:<${from}>\r\nRCPT TO:<bob@example.test>\r\n`);
  await wire.reply();
  await wire.reply();
  await wire.reply();
}

const until = async (condition: () => boolean) => {
  for (let i = 0; i < 6_000 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  expect(condition()).toBe(true);
};

describe('SmtpSession', () => {
  it('takes 1,000 of 10,000 recipients and asks to send the rest later', () =>
    withServer({}, async (server, wire) => {
      await wire.reply();
      const rcpts = Array.from({ length: 10_000 }, (_, index) => `RCPT TO:<user${index}@example.test>\r\n`).join('');
      wire.send(`EHLO client.test\r\nMAIL FROM:<a@b.test>\r\n${rcpts}DATA\r\n`);
      expect((await wire.reply()).at(-1)).toMatch(/^250 /);
      expect(await wire.reply()).toEqual(['250 2.1.0 Sender accepted']);
      const codes = new Map<string, number>();
      for (let i = 0; i < 10_000; i++) {
        const code = (await wire.line())!.slice(0, 9);
        codes.set(code, (codes.get(code) ?? 0) + 1);
      }
      expect(Object.fromEntries(codes)).toEqual({ '250 2.1.5': 1000, '452 4.5.3': 9000 });
      expect(await wire.line()).toMatch(/^354/);
      wire.send('x\r\n.\r\n');
      expect(await wire.line()).toMatch(/^250/);
      expect(server.handler.messages[0]?.recipients).toHaveLength(1000);
    }));

  it('parses the same however its octets are cut', async () => {
    const octets =
      'EHLO client.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\n..x\r\n\r\n.\r\nMAIL FROM:<c@b.test>\r\n' +
      'RCPT TO:<bob@example.test>\r\nBDAT 3\r\n.\r\nBDAT 2 LAST\r\n\r\nQUIT\r\n';
    const expected = ['250', '250', '250', '354', '250', '250', '250', '250', '250', '221'];
    for (let cut = 1; cut < octets.length; cut += 1) {
      const socket = new MemorySocket();
      const handler = new TestHandler();
      const connection = { socket, remoteAddress: '192.0.2.1', remotePort: 1, localPort: 25, secure: false };
      const session = new SmtpSession({ connection, mode: 'mx', handler, hostname: 'mx.test', logger: silentLogger });
      session.start();
      socket.said();
      socket.feed(octets.slice(0, cut));
      await new Promise((resolve) => setImmediate(resolve));
      socket.feed(octets.slice(cut));
      socket.once('finish', () => socket.destroy());
      await session.closed();
      const codes = socket.said().match(/^[0-9]{3}(?= )/gm);
      expect(codes, `cut at ${cut}`).toEqual(expected);
      expect(handler.messages.map((message) => message.content.toString())).toEqual(['.x\r\n\r\n', '.\r\n\r\n']);
    }
  });

  it('acknowledges nothing before finish resolves', async () => {
    let settle: () => void = () => undefined;
    class Slow extends TestHandler {
      override data(session: SessionInfo, envelope: never): MessageSink {
        const sink = super.data(session, envelope) as MessageSink;
        const gate = new Promise<void>((resolve) => {
          settle = resolve;
        });
        return {
          write: (chunk) => sink.write(chunk),
          finish: (facts) => gate.then(() => sink.finish(facts)),
          abort: () => undefined,
        };
      }
    }
    await withServer({ handler: new Slow() }, async (server, wire) => {
      await begin(wire);
      wire.send('DATA\r\nx\r\n.\r\nNOOP\r\n');
      expect(await wire.line()).toMatch(/^354/);
      const answer = wire.line();
      const first = await Promise.race([answer, new Promise((resolve) => setTimeout(() => resolve('silence'), 60))]);
      expect(first).toBe('silence');
      settle();
      expect(await answer).toMatch(/^250 2.0.0 Accepted/);
      expect(await wire.line()).toBe('250 2.0.0 OK');
      expect(server.handler.messages).toHaveLength(1);
    });
  });

  it('pauses the client while the sink is slow, and keeps little of what waits', async () => {
    const writes: number[] = [];
    let release: () => void = () => undefined;
    class Blocked extends TestHandler {
      override data(): MessageSink {
        return {
          write: (chunk) => {
            writes.push(chunk.length);
            return new Promise((resolve) => {
              release = resolve;
            });
          },
          finish: () => ({ code: 250, enhanced: '2.0.0', text: 'OK' }),
          abort: () => undefined,
        };
      }
    }
    await withServer({ handler: new Blocked() }, async (server, wire) => {
      await begin(wire);
      wire.send('DATA\r\n');
      await wire.reply();
      const total = 20_000_000;
      wire.send(Buffer.alloc(total, 'abcdefgh\r\n'));
      wire.send('.\r\n');
      await until(() => writes.length > 0);
      await new Promise((resolve) => setTimeout(resolve, 100));
      expect(writes).toHaveLength(1);
      const answer = wire.line();
      const pump = setInterval(() => release(), 0);
      expect(await answer).toMatch(/^250/);
      clearInterval(pump);
      expect(writes.reduce((sum, bytes) => sum + bytes)).toBe(total);
      // 128 kB may wait, and one more read on top.
      expect(Math.max(...writes)).toBeLessThan(300_000);
      expect(server.sessions[0]?.messageCount).toBe(1);
    });
  });

  it('stops taking commands from a client that reads no replies', () =>
    withServer({ limits: { maxUnreadReplyBytes: 4096, commandTimeoutMs: 100_000 } }, async (server, wire) => {
      await wire.reply();
      wire.pause();
      for (let i = 0; i < 100; i++) wire.send('HELP\r\n'.repeat(1000));
      await new Promise((resolve) => setTimeout(resolve, 300));
      const { socket } = server.sessions[0]!.connection;
      expect(socket.writableLength).toBeLessThan(200_000);
      wire.resume();
      for (let i = 0; i < 100_000; i++) if (!(await wire.line())?.startsWith('214')) throw new Error(`no reply ${i}`);
    }));

  it('aborts the message when the client goes away in it', () =>
    withServer({}, async (server, wire) => {
      await begin(wire);
      wire.send('DATA\r\nhalf a mess');
      await wire.reply();
      await until(() => server.sessions[0]!.content !== undefined);
      wire.destroy();
      await until(() => server.handler.closedCount === 1);
      expect(server.handler.aborted).toEqual(['the connection was lost']);
      expect(server.handler.messages).toEqual([]);
    }));

  it('drains: at once when idle, after the message when busy', () =>
    withServer({}, async (server, wire) => {
      await begin(wire);
      wire.send('DATA\r\nx\r\n');
      await wire.reply();
      const idle = await Wire.open(server.port);
      await idle.reply();
      const drained = server.sessions.map((session) => session.drain());
      expect(await idle.line()).toMatch(/^421 4\.3\.2/);
      expect(await idle.rest()).toBe('');
      wire.send('.\r\nNOOP\r\n');
      expect(await wire.line()).toMatch(/^250 2\.0\.0 Accepted/);
      expect(await wire.line()).toMatch(/^421 4\.3\.2/);
      expect(await wire.rest()).toBe('');
      idle.destroy();
      wire.destroy();
      await Promise.all(drained);
      expect(server.handler.closedCount).toBe(2);
    }));

  it('drains at once where only an envelope was given: nobody waits for a client that sleeps there', () =>
    withServer({}, async (server, wire) => {
      await wire.reply();
      wire.send('EHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n');
      for (let replies = 0; replies < 3; replies++) await wire.reply();
      const drained = server.sessions[0]!.drain();
      expect(await wire.line()).toMatch(/^421 4\.3\.2/);
      expect(await wire.rest()).toBe('');
      wire.destroy();
      await drained;
    }));

  it('stops in the middle of a message, with a last word', () =>
    withServer({}, async (server, wire) => {
      await begin(wire);
      wire.send('DATA\r\nx\r\n');
      await wire.reply();
      server.sessions[0]!.stop();
      expect(await wire.line()).toMatch(/^421 4\.3\.2/);
      expect(await wire.rest()).toBe('');
      wire.destroy();
      await server.sessions[0]!.closed();
      expect(server.handler.aborted).toEqual(['the connection was lost']);
      expect(server.handler.messages).toEqual([]);
    }));

  it('closes the socket by itself after the last reply, even if the client does not', () =>
    withServer({ limits: { lingerMs: 30 } }, async (server, wire) => {
      await wire.reply();
      wire.send('QUIT\r\n');
      expect(await wire.line()).toMatch(/^221/);
      await server.sessions[0]!.closed();
      expect(server.handler.closedCount).toBe(1);
    }));

  it('refuses who talks while the greeting is being decided', async () => {
    const handler = new TestHandler();
    let greet: () => void = () => undefined;
    handler.greetGate = new Promise((resolve) => {
      greet = resolve;
    });
    await withServer({ handler }, async (server, wire) => {
      await until(() => server.sessions.length === 1);
      wire.send('EHLO bot.test\r\n');
      expect(await wire.line()).toMatch(/^554 5\.5\.1/);
      greet();
      expect(await wire.rest()).toBe('');
    });
  });

  it('handles a STARTTLS handshake that fails', () =>
    withServer({}, async (server, wire) => {
      await wire.reply();
      wire.send('STARTTLS\r\n');
      expect(await wire.line()).toMatch(/^220/);
      wire.send('this is no handshake\r\n');
      await server.sessions[0]!.closed();
      expect(server.handler.closedCount).toBe(1);
    }));

  it('does not hang on a STARTTLS handshake that never comes', () =>
    withServer({ limits: { tlsHandshakeTimeoutMs: 50 } }, async (server, wire) => {
      await wire.reply();
      wire.send('STARTTLS\r\n');
      expect(await wire.line()).toMatch(/^220/);
      await server.sessions[0]!.closed();
    }));

  it('tells the handler of resets, and counts', () =>
    withServer({}, async (server, wire) => {
      await begin(wire);
      wire.send('RSET\r\nMAIL FROM:<a@b.test>\r\nEHLO again.test\r\nRCPT TO:<a@b.test>\r\n');
      for (const code of ['250', '250', '250', '503']) expect((await wire.reply()).at(-1)).toMatch(new RegExp(`^${code}`));
      expect(server.handler.resets).toBe(2);
      const metrics = await registry.metrics();
      expect(metrics).toMatch(/starling_smtp_sessions_total\{mode="mx"\} [1-9]/);
      expect(metrics).toMatch(/starling_smtp_rejects_total\{mode="mx",stage="rcpt",code="503"\} [1-9]/);
      expect(metrics).toMatch(/starling_smtp_messages_total\{mode="mx",result="accepted"\} [1-9]/);
    }));

  it('bounds a message that trickles for ever', () =>
    withServer({ limits: { messageTimeoutMs: 150, dataTimeoutMs: 100 } }, async (server, wire) => {
      await begin(wire);
      wire.send('DATA\r\n');
      await wire.reply();
      const trickle = setInterval(() => wire.send('x'), 20);
      expect(await wire.line()).toMatch(/^421 4\.4\.2/);
      clearInterval(trickle);
      await until(() => server.handler.aborted.length === 1);
    }));
});

describe('transmissionType', () => {
  it('follows RFC 3848 and 6531', () => {
    const session = { mode: 'mx', extended: true, secure: false, principal: undefined } as const;
    const principal = { accountId: '1', login: 'a', name: '' };
    expect(transmissionType(session, false)).toBe('ESMTP');
    expect(transmissionType({ ...session, extended: false, secure: true }, false)).toBe('SMTP');
    expect(transmissionType({ ...session, secure: true, principal }, false)).toBe('ESMTPSA');
    expect(transmissionType({ ...session, secure: true }, true)).toBe('UTF8SMTPS');
    expect(transmissionType({ ...session, mode: 'lmtp' }, false)).toBe('LMTP');
  });
});
