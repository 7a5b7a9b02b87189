/** Clients that mean harm: floods, injection before TLS, sizes and lines without bounds, addresses at the edge of the grammar. */
import { connect } from 'node:net';
import { describe, expect, it } from 'vitest';
import { silentLogger } from '../../../ops/telemetry/index.js';
import { MemorySocket } from '../testing/memory-socket.js';
import { startTestServer, TestHandler, type TestServer, type TestServerOptions } from '../testing/server.js';
import { Wire } from '../testing/wire.js';
import type { SmtpLimits } from './limits.js';
import { SmtpSession } from './session.js';

async function withServer(options: TestServerOptions, run: (server: TestServer, wire: Wire) => Promise<void>): Promise<void> {
  const server = await startTestServer(options);
  const wire = await Wire.open(server.port);
  try {
    await wire.reply();
    await run(server, wire);
  } finally {
    wire.destroy();
    await server.close();
  }
}

/** A session over memory that has said EHLO; `ask` sends octets and gives what came back at once. */
function open(limits: Partial<SmtpLimits> = {}, handler = new TestHandler()) {
  const socket = new MemorySocket();
  const session = new SmtpSession({
    connection: { socket, remoteAddress: '192.0.2.1', remotePort: 1, localPort: 25, secure: false },
    mode: 'mx',
    handler,
    hostname: 'mx.test',
    logger: silentLogger,
    limits: { maxErrors: 1_000_000, ...limits },
  });
  session.start();
  const ask = (octets: string | Buffer) => {
    socket.feed(octets);
    return socket.said();
  };
  const greeting = socket.said();
  ask('EHLO a.test\r\n');
  return { session, handler, socket, greeting, ask };
}

const until = async (condition: () => boolean) => {
  for (let i = 0; i < 12_000 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(condition()).toBe(true);
};

describe('floods', () => {
  const limits = { maxUnreadReplyBytes: 16_384, maxPendingInputBytes: 32_768 };
  // One read of the socket (64 kB) on top of each bound, and the replies to it.
  const boundBytes = 32_768 + 16_384 + 4 * 65_536;
  const count = 833_334;

  it('answers 2 MB of RSET from a client that reads, and keeps little', async () => {
    const count = 333_334;
    const server = await startTestServer({ limits });
    const socket = connect({ port: server.port, host: '127.0.0.1' });
    let saidBytes = 0;
    let mostBytes = 0;
    let last = '';
    socket.on('data', (chunk) => {
      if (saidBytes === 0) socket.write(`${'RSET\r\n'.repeat(count)}QUIT\r\n`);
      else saidBytes += chunk.length;
      saidBytes ||= 1;
      last = chunk.toString('latin1', Math.max(0, chunk.length - 100));
      mostBytes = Math.max(mostBytes, server.sessions[0]!.bufferedBytes);
    });
    await new Promise((resolve) => socket.once('close', resolve));
    expect(saidBytes - 1).toBe('250 2.0.0 Reset\r\n'.length * count + '221 2.0.0 Bye\r\n'.length);
    expect(last).toMatch(/Reset\r\n221 2\.0\.0 Bye\r\n$/);
    expect(mostBytes).toBeGreaterThan(0);
    expect(mostBytes).toBeLessThan(boundBytes);
    await server.close();
  });

  it('is not answered in one piece: others have their turn in between, and a client that has closed its half gets the rest', async () => {
    const { socket, ask } = open();
    const commands = 5_000;
    const resets = (said: string) => said.split('250 2.0.0 Reset\r\n').length - 1;
    let heard = resets(ask('RSET\r\n'.repeat(commands)));
    expect(heard).toBeGreaterThan(0);
    expect(heard).toBeLessThan(commands / 2);
    socket.push(null);
    let turns = 0;
    for (; heard < commands && turns < 1_000; turns++) {
      await new Promise((resolve) => setImmediate(resolve));
      heard += resets(socket.said());
    }
    expect(heard).toBe(commands);
    expect(turns).toBeGreaterThan(2);
  });

  it('takes no more from a client that does not read', () =>
    withServer({ limits }, async (server, wire) => {
      const session = server.sessions[0]!;
      wire.pause();
      wire.send('RSET\r\n'.repeat(count));
      let before = -1;
      await until(() => {
        const still = session.bufferedBytes === before && before > limits.maxUnreadReplyBytes;
        before = session.bufferedBytes;
        return still;
      });
      expect(session.bufferedBytes).toBeLessThan(boundBytes);
    }));

  it('keeps octets that come one by one without copying them each time', () => {
    const { session, handler, ask } = open();
    let settle: () => void = () => undefined;
    handler.mailFrom = () =>
      new Promise((resolve) => {
        settle = () => resolve();
      });
    ask('MAIL FROM:<a@b.test>\r\n');
    const commands = 'NOOP x\r\n'.repeat(5000);
    for (const octet of commands) ask(octet);
    expect(session.bufferedBytes).toBe(commands.length);
    settle();
    return until(() => session.bufferedBytes === 0);
  });
});

describe('STARTTLS injection', () => {
  it('never runs what came before the handshake, in the same packet or the next', () =>
    withServer({}, async (server, wire) => {
      wire.send('STARTTLS\r\nEHLO evil.test\r\nMAIL FROM:<evil@b.test>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\n');
      expect(await wire.line()).toMatch(/^220 /);
      await wire.startTls();
      const session = server.sessions[0]!;
      await until(() => session.secure);
      expect([session.greetingName, session.mail, session.bufferedBytes]).toEqual(['', undefined, 0]);
      wire.send('MAIL FROM:<a@b.test>\r\nEHLO a.test\r\nNOOP\r\n');
      expect(await wire.line()).toBe('503 5.5.1 Say EHLO first');
      expect((await wire.reply()).at(0)).toBe('250-mx.example.test greets a.test');
      expect(await wire.line()).toBe('250 2.0.0 OK');
    }));

  it('ends where plain text comes instead of the handshake', () =>
    withServer({}, async (server, wire) => {
      wire.send('STARTTLS\r\n');
      expect(await wire.line()).toMatch(/^220 /);
      wire.send('EHLO evil.test\r\nMAIL FROM:<evil@b.test>\r\n');
      await server.sessions[0]!.closed();
      expect(await wire.rest()).not.toMatch(/^250/m);
    }));

  it('takes no login without TLS, nor one that was begun before it', () =>
    withServer({ mode: 'submission' }, async (server, wire) => {
      wire.send('EHLO a.test\r\nAUTH LOGIN\r\nSTARTTLS\r\nYWxpY2VAZXhhbXBsZS50ZXN0\r\n');
      expect((await wire.reply()).some((line) => line.includes('AUTH'))).toBe(false);
      expect(await wire.line()).toMatch(/^538 /);
      expect(await wire.line()).toMatch(/^220 /);
      await wire.startTls();
      wire.send('EHLO a.test\r\n');
      expect((await wire.reply()).at(-1)).toMatch(/^250 AUTH /);
      expect((server.handler.authBackend as { attempts?: unknown[] }).attempts).toEqual([]);
    }));
});

describe('BDAT sizes', () => {
  it.each(['', '-1', '1.5', '0x10', '9007199254740992', '99999999999999999999', '1 FIRST', '1e3', '٣'])(
    'closes at BDAT %s: what follows could be anything',
    (size) => {
      const { session, ask } = open();
      ask('MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@example.test>\r\n');
      const said = ask(Buffer.from(`BDAT ${size}\r\nMAIL FROM:<evil@b.test>\r\n`));
      session.stop();
      expect(said).toMatch(/^501 5\.5\.4/);
      expect(session.isClosing).toBe(true);
    },
  );

  it('takes empty chunks, and an empty message', async () => {
    const { handler, socket, ask } = open();
    ask('MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@example.test>\r\n');
    expect(ask('BDAT 0\r\nBDAT 0\r\n')).toMatch(/^250 2\.0\.0 0 octets.*\r\n250 2\.0\.0 0 octets/);
    ask('BDAT 0 LAST\r\n');
    await until(() => handler.messages.length === 1);
    await new Promise((resolve) => setImmediate(resolve));
    expect(socket.said()).toMatch(/^250 2\.0\.0 Accepted/);
    expect(handler.messages[0]?.content.length).toBe(0);
  });

  it('does not keep a drain waiting once a refused chunk is over', () => {
    const { session, ask } = open();
    ask('BDAT 10\r\nabc');
    void session.drain();
    expect(ask('defghi')).toBe('');
    ask('j');
    expect(session.isClosing).toBe(true);
    const other = open({ maxMessageBytes: 9 });
    other.ask('MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@example.test>\r\nBDAT 10\r\nabc');
    void other.session.drain();
    expect(other.ask('defghij')).toMatch(/^552 5\.3\.4 [^\r]*\r\n421 4\.3\.2 [^\r]*\r\n$/);
  });

  it('reads a refused chunk to its end, but not one without bounds', () => {
    const { session, ask } = open({ maxMessageBytes: 10, maxDroppedChunkBytes: 100 });
    const begin = 'MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@example.test>\r\n';
    ask(begin);
    expect(ask(`BDAT 100\r\n${'RSET\r\n'.repeat(20).slice(0, 100)}NOOP\r\n`)).toMatch(
      /^552 5\.3\.4 [^\r]*\r\n250 2\.0\.0 OK\r\n$/,
    );
    ask(begin);
    expect(ask('BDAT 101\r\nMAIL FROM:<evil@b.test>\r\n')).toMatch(/^552 5\.3\.4 [^\r]*\r\n421 4\.7\.0 [^\r]*\r\n$/);
    expect(session.isClosing).toBe(true);
    const worst = open();
    expect(worst.ask('BDAT 999999999999999\r\nNOOP\r\n')).toMatch(/^503 5\.5\.1 [^\r]*\r\n421 /);
  });
});

describe('replies of the handler', () => {
  const hostile = { code: 550, enhanced: '5.7.1\r\n250 2.0.0', text: ['no\r\n250 yes', 'no\n250 yes\r', '\r\n.\r\n'] };
  const isOneReply = /^550-no[^\r\n]*\r\n550-no[^\r\n]*\r\n550 [^\r\n]*\r\n$/;

  it('never begin a line that is not theirs', async () => {
    const { handler, socket, ask } = open();
    handler.vrfy = () => hostile;
    handler.ehlo = () => hostile;
    expect(ask('EHLO b.test\r\n')).toMatch(isOneReply);
    handler.mailFrom = () => hostile;
    expect(ask('MAIL FROM:<a@b.test>\r\n')).toMatch(isOneReply);
    handler.mailFrom = () => undefined;
    ask('MAIL FROM:<a@b.test>\r\n');
    handler.rcptTo = () => hostile;
    expect(ask('RCPT TO:<bob@example.test>\r\n')).toMatch(isOneReply);
    handler.rcptTo = () => undefined;
    ask('RCPT TO:<bob@example.test>\r\n');
    handler.data = () => ({ write: () => undefined, finish: async () => hostile, abort: () => undefined });
    ask('DATA\r\n');
    ask('x\r\n.\r\n');
    await new Promise((resolve) => setImmediate(resolve));
    expect(socket.said()).toMatch(isOneReply);
    handler.greet = () => ({ code: 220, text: 'mx\r\n250 yes' });
    const greeted = open({}, handler);
    expect(greeted.greeting).toBe('220 mx 250 yes\r\n');
  });

  it('tell no client that a message is taken for which there is no sink', () => {
    const { handler, ask } = open();
    handler.data = () => ({ code: 250, enhanced: '2.0.0', text: 'Thanks' });
    for (const body of ['BDAT 3 LAST\r\nx\r\n', 'DATA\r\n'])
      expect(ask(`MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@example.test>\r\n${body}`)).toMatch(
        /^250 [^\r]*\r\n250 [^\r]*\r\n451 4\.3\.0 [^\r]*\r\n$/,
      );
  });

  it('end the connection at once where the last one was sent together with those before', async () => {
    const { socket, session, ask } = open();
    // The last reply fills the bundle up that leaves in one piece.
    const count = Math.floor(16_384 / '250 2.0.0 Reset\r\n'.length);
    ask(`${'RSET\r\n'.repeat(count)}QUIT\r\n`);
    await new Promise((resolve) => setImmediate(resolve));
    expect(socket.writableEnded).toBe(true);
    expect(session.isClosing).toBe(true);
  });
});

describe('lines', () => {
  it('may be longer than those of AUTH where a limit says so, in any number of pieces', () => {
    const { ask } = open({ maxCommandBytes: 1000, maxAuthLineBytes: 100 });
    ask(`NOOP ${'a'.repeat(500)}`);
    expect(ask('b\r\n')).toBe('250 2.0.0 OK\r\n');
    ask(`NOOP ${'a'.repeat(1000)}`);
    expect(ask('b\r\n')).toBe('500 5.5.2 The line is too long\r\n');
  });

  it('of nothing but spaces cost no more than others', () => {
    const { ask } = open({ maxCommandBytes: 500_000, maxAuthLineBytes: 500_000 });
    const spaces = ' '.repeat(400_000);
    expect(ask(`VRFY a${spaces}x\r\n`)).toMatch(/^252 /);
    expect(ask(`VRFY a${spaces}SMTPUTF8\r\n`)).toMatch(/^252 /);
    expect(ask(`MAIL FROM:<a@b.test>${spaces}x\r\n`)).toMatch(/^555 /);
    expect(ask(`XCLIENT a${spaces}x\r\n`)).toMatch(/^550 /);
  });

  it('refuses what is too long, has NULs or controls in it, or is no UTF-8, and goes on', () => {
    const { session, ask } = open();
    expect(ask(`NOOP ${'a'.repeat(4089)}\r\n`)).toMatch(/^250/);
    expect(ask(`NOOP ${'a'.repeat(4090)}\r\n`)).toBe('500 5.5.2 The line is too long\r\n');
    expect(ask(`NOOP ${'a'.repeat(1_000_000)}`)).toBe('');
    expect(session.bufferedBytes).toBe(0);
    expect(ask('aaa\r\nNOOP\r\n')).toBe('500 5.5.2 The line is too long\r\n250 2.0.0 OK\r\n');
    for (const bad of ['NO\0OP', 'NOOP \x1b[2J', 'NOOP \x7f', 'NOOP a\rb', 'NOOP \xff\xfe', '\0'.repeat(100)])
      expect(ask(`${bad}\r\n`), JSON.stringify(bad)).toMatch(/^500 5\.5\.2 /);
    expect(ask('NOOP\n')).toBe('500 5.5.2 Lines end with CR LF\r\n');
    expect(ask('\r\n')).toMatch(/^500 5\.5\.1 /);
  });

  it('refuses 2,000 parameters', () => {
    const { ask } = open({ maxCommandBytes: 100_000, maxAuthLineBytes: 100_000 });
    const parameters = Array.from({ length: 2000 }, (_, index) => `X${index}=1`).join(' ');
    expect(ask(`MAIL FROM:<a@b.test> ${parameters}\r\n`)).toMatch(/^501 5\.5\.4 /);
    expect(ask(`MAIL FROM:<a@b.test>${' SIZE=1'.repeat(2000)}\r\n`)).toMatch(/^501 5\.5\.4 /);
    expect(ask(`MAIL FROM:<a@b.test>${' '.repeat(90_000)}SIZE=1\r\n`)).toMatch(/^250 /);
  });
});

describe('addresses', () => {
  const recipientOf = (text: string, mail = '') => {
    const { session, ask } = open();
    ask(`MAIL FROM:<>${mail}\r\n`);
    const said = ask(Buffer.from(`RCPT TO:${text}\r\n`));
    return session.recipients[0]?.address ?? said.slice(0, 9);
  };

  it.each([
    // RFC 5321 appendix C and F.2: source routes are read and dropped.
    ['<@relay.test,@other.test:user@example.test>', 'user@example.test'],
    ['<@[192.0.2.1]:user@example.test>', 'user@example.test'],
    ['<@relay.test:"a b"@example.test>', '"a b"@example.test'],
    ['<user%host@example.test>', 'user%host@example.test'],
    ['<"">', '501 5.1.3'],
    ['<""@example.test>', '""@example.test'],
    ['<"a>b"@example.test>', '"a>b"@example.test'],
    ['<"@"@example.test>', '"@"@example.test'],
    ['<"\\"@example.test>', '501 5.1.3'],
    ['<"a\\\\"@example.test>', '"a\\\\"@example.test'],
    ['<"user"@example.test>', 'user@example.test'],
    ['<user@[192.0.2.1]>', 'user@[192.0.2.1]'],
    ['<user@[IPv6:2001:db8::1]>', 'user@[IPv6:2001:db8::1]'],
    ['<Postmaster>', 'postmaster'],
    ['<postmaster@example.test>', 'postmaster@example.test'],
    [`<${'a'.repeat(64)}@example.test>`, `${'a'.repeat(64)}@example.test`],
  ])('takes %s', (text, address) => expect(recipientOf(text)).toBe(address));

  it.each([
    '<>',
    '<user>',
    'user@example.test',
    '<user@example.test',
    '<<user@example.test>>',
    '<user@example.test>>',
    '<user@@example.test>',
    '<a@b@example.test>',
    '<.user@example.test>',
    '<user.@example.test>',
    '<us..er@example.test>',
    '<us er@example.test>',
    '<user@>',
    '<@example.test>',
    '<user@.example.test>',
    '<user@example..test>',
    '<user@example.test.>',
    '<user@-example.test>',
    '<user@exa mple.test>',
    '<user@[192.0.2.256]>',
    '<user@[192.0.2.1>',
    '<user@[IPv6:fe80::1%eth0]>',
    '<user@[IPv6:192.0.2.1]>',
    '<user@[2001:db8::1]>',
    '<@relay.test>',
    '<@relay.test:>',
    '<@relay.test user@example.test>',
    '<@:user@example.test>',
    '<relay.test:user@example.test>',
    '<"a"b@example.test>',
    '<"a@example.test>',
    `<${'a'.repeat(65)}@example.test>`,
    `<user@${'a'.repeat(64)}.test>`,
    `<user@${'a.'.repeat(128)}test>`,
  ])('refuses %s', (text) => expect(recipientOf(text)).toBe('501 5.1.3'));

  it('takes UTF-8 with SMTPUTF8 and not without', () => {
    expect(recipientOf('<jürgen@münchen.test>', ' SMTPUTF8')).toBe('jürgen@münchen.test');
    expect(recipientOf('<"jürgen x"@example.test>', ' SMTPUTF8')).toBe('"jürgen x"@example.test');
    expect(recipientOf('<用户@例子.广告>', ' SMTPUTF8')).toBe('用户@例子.广告');
    expect(recipientOf('<@münchen.test:jürgen@example.test>', ' SMTPUTF8')).toBe('jürgen@example.test');
    expect(recipientOf('<jürgen@example.test>')).toBe('553 5.6.7');
    expect(recipientOf('<user@münchen.test>')).toBe('553 5.6.7');
    expect(recipientOf('<user@xn--mnchen-3ya.test>')).toBe('user@xn--mnchen-3ya.test');
    expect(recipientOf('<user@a\u202e.test>', ' SMTPUTF8')).toBe('501 5.1.3');
    const { ask } = open();
    expect(ask(Buffer.from('MAIL FROM:<jürgen@example.test>\r\n'))).toMatch(/^553 5\.6\.7 /);
    expect(ask(Buffer.from('MAIL FROM:<jürgen@example.test> SMTPUTF8\r\n'))).toMatch(/^250 /);
  });
});

describe('slow clients', () => {
  it('sends those away who take too long for a command, however they trickle', () =>
    withServer({ limits: { commandTimeoutMs: 100 } }, async (_server, wire) => {
      const trickle = setInterval(() => wire.send('N'), 10);
      expect(await wire.line()).toMatch(/^421 4\.4\.2 /);
      clearInterval(trickle);
    }));

  it('does not wait for ever for a chunk that was refused', () =>
    withServer({ limits: { dataTimeoutMs: 100 } }, async (_server, wire) => {
      wire.send('BDAT 1000\r\nabc');
      expect(await wire.line()).toMatch(/^421 4\.4\.2 /);
    }));
});
