/** The client against our own server, against scripted peers that misbehave, and against Postfix's smtp-sink. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { startTestServer, TestHandler, type TestServer, type TestServerOptions } from '../testing/server.js';
import { SmtpClient } from './client.js';
import { type ConnectOptions, type OutgoingMessage, SmtpConnectError } from './contract.js';
import { bodyOf, message, options, peer, sendTo, withPeer } from './test-peers.js';

async function withServer(server: TestServerOptions, run: (server: TestServer) => Promise<void>): Promise<void> {
  const started = await startTestServer(server);
  try {
    await run(started);
  } finally {
    await started.close();
  }
}

describe('SmtpClient with our server', () => {
  it('sends by BDAT, several messages in one connection, with results per recipient', () =>
    withServer({}, async (server) => {
      const client = await SmtpClient.connect(options(server.port));
      const recipients = [
        {
          address: 'bob@example.test',
          notify: ['SUCCESS' as const],
          originalRecipient: { type: 'rfc822', address: 'b+x@example.test' },
        },
        { address: 'unknown@example.test' },
        { address: 'later@example.test' },
      ];
      const big = Buffer.alloc(3_000_000, 'line of text\r\n');
      const first = await client.send(message(big, { recipients, ret: 'HDRS', envelopeId: 'id 1' }));
      expect(first).toEqual({
        dsnPassedOn: true,
        reusable: true,
        recipients: [
          {
            address: 'bob@example.test',
            outcome: 'delivered',
            code: 250,
            enhanced: '2.0.0',
            text: 'Accepted 1',
            stage: 'end-of-data',
            wide: true,
          },
          {
            address: 'unknown@example.test',
            outcome: 'permanent',
            code: 550,
            enhanced: '5.1.1',
            text: 'No such mailbox',
            stage: 'rcpt',
            wide: false,
          },
          {
            address: 'later@example.test',
            outcome: 'temporary',
            code: 451,
            enhanced: '4.7.1',
            text: 'Greylisted',
            stage: 'rcpt',
            wide: false,
          },
        ],
      });
      // Nobody accepted: the transaction stays open and is reset before the next.
      expect(
        (await client.send(message('x', { recipients: [{ address: 'unknown@example.test' }] }))).recipients[0]?.outcome,
      ).toBe('permanent');
      expect((await client.send(message('.\r\nsecond', { from: '' }))).recipients[0]?.outcome).toBe('delivered');
      expect(await client.probe()).toBe(true);
      await client.quit();
      expect(server.handler.messages.map(({ from, recipients: to }) => [from, to])).toEqual([
        ['a@b.test', ['bob@example.test']],
        ['', ['bob@example.test']],
      ]);
      expect(server.handler.messages[0]!.content.equals(big)).toBe(true);
      expect(server.handler.messages[0]!.envelope.mail.parameters).toMatchObject({
        ret: 'HDRS',
        envelopeId: 'id 1',
        sizeBytes: big.length,
      });
      expect(server.handler.messages[0]!.envelope.recipients[0]!.parameters).toEqual({
        notify: ['SUCCESS'],
        originalRecipient: { type: 'rfc822', address: 'b+x@example.test' },
      });
      expect(server.handler.messages[1]!.content.toString()).toBe('.\r\nsecond');
    }));

  it('classifies refusals of the sender, of the message, and failures', () =>
    withServer({}, async (server) => {
      const of = async (from: string) => (await sendTo(server.port, message('x\r\n', { from }))).recipients[0];
      expect(await of('x@refused.test')).toMatchObject({ outcome: 'permanent', code: 550, stage: 'mail', wide: true });
      expect(await of('virus@b.test')).toMatchObject({
        outcome: 'permanent',
        code: 554,
        enhanced: '5.7.1',
        stage: 'end-of-data',
      });
      expect(await of('badfinish@b.test')).toMatchObject({ outcome: 'temporary', code: 451, stage: 'end-of-data' });
      expect(await of('nosink@b.test')).toMatchObject({ outcome: 'temporary', code: 451, enhanced: '4.3.1' });
    }));

  it('speaks LMTP', () =>
    withServer({ mode: 'lmtp' }, async (server) => {
      const recipients = ['bob@example.test', 'unknown@x.test', 'full@example.test'].map((address) => ({ address }));
      const result = await sendTo(server.port, message('x', { recipients }), { protocol: 'lmtp' });
      expect(result.recipients.map(({ outcome, code, stage }) => [outcome, code, stage])).toEqual([
        ['delivered', 250, 'end-of-data'],
        ['permanent', 550, 'rcpt'],
        ['temporary', 452, 'end-of-data'],
      ]);
    }));

  it('uses STARTTLS, judges certificates, and authenticates', () =>
    withServer({ mode: 'submission' }, async (server) => {
      const auth = { login: 'alice@example.test', password: 'wonder, land=1' };
      await expect(SmtpClient.connect(options(server.port, { auth, tls: { mode: 'required' } }))).rejects.toMatchObject({
        stage: 'starttls',
        outcome: 'temporary',
        enhanced: '4.7.5',
        tls: { used: true, authorized: false, problem: 'DEPTH_ZERO_SELF_SIGNED_CERT' },
      });
      const trusted = { mode: 'required' as const, ca: server.certificate.cert };
      await expect(
        SmtpClient.connect(options(server.port, { auth, tls: { ...trusted, serverName: 'other.test' } })),
      ).rejects.toMatchObject({ tls: { problem: 'ERR_TLS_CERT_ALTNAME_INVALID' } });
      const client = await SmtpClient.connect(options(server.port, { auth, tls: trusted }));
      expect(client.tls).toMatchObject({ used: true, authorized: true, protocol: 'TLSv1.3' });
      expect((await client.send(message('x'))).recipients[0]?.outcome).toBe('delivered');
      await client.quit();
      expect(server.handler.messages[0]).toMatchObject({ login: 'alice@example.test', secure: true });
      const shown: unknown[] = [];
      const pinned = await SmtpClient.connect(
        options(server.port, {
          tls: {
            mode: 'required',
            verify: (certificate) => {
              shown.push(certificate.certificate.subject.CN, certificate.certificate.raw.length > 100);
              return { ok: true };
            },
          },
        }),
      );
      expect(shown).toEqual(['mx.example.test', true]);
      pinned.destroy();
      await expect(
        SmtpClient.connect(options(server.port, { auth: { ...auth, password: 'no' }, tls: trusted })),
      ).rejects.toMatchObject({ stage: 'auth', code: 535, outcome: 'permanent' });
      await expect(SmtpClient.connect(options(server.port, { auth, tls: { mode: 'none' } }))).rejects.toMatchObject({
        stage: 'auth',
        code: 0,
      });
    }));

  it('takes any certificate when opportunistic, and speaks implicit TLS', async () => {
    await withServer({}, async (server) => {
      const client = await SmtpClient.connect(options(server.port, { tls: { mode: 'opportunistic' } }));
      expect(client.tls).toMatchObject({ used: true, authorized: false });
      await client.quit();
    });
    await withServer({ implicitTls: true }, async (server) => {
      const client = await SmtpClient.connect(options(server.port, { tls: { mode: 'implicit', ca: server.certificate.cert } }));
      expect((await client.send(message('x'))).recipients[0]?.outcome).toBe('delivered');
      await client.quit();
    });
  });

  it('calls off by signal', () =>
    withServer(
      { handler: Object.assign(new TestHandler(), { mailFrom: () => new Promise(() => undefined) }) },
      async (server) => {
        const client = await SmtpClient.connect(options(server.port));
        const control = new AbortController();
        setTimeout(() => control.abort(), 30);
        const result = await client.send(message('x'), control.signal);
        expect(result).toMatchObject({ reusable: false, recipients: [{ outcome: 'temporary', stage: 'mail' }] });
        await expect(SmtpClient.connect(options(server.port, { signal: control.signal }))).rejects.toBeInstanceOf(
          SmtpConnectError,
        );
      },
    ));
});

describe('SmtpClient with peers of few talents', () => {
  it('falls back to HELO, sends step by step, stuffs dots', () =>
    withPeer(peer([], { EHLO: '502 what?\r\n' }), async (port, lines) => {
      const result = await sendTo(
        port,
        message('.a\n.b\r.c\r\n.\r\nend', { ret: 'FULL', recipients: [{ address: 'b@x.test', notify: ['NEVER'] }] }),
      );
      expect(result).toMatchObject({ dsnPassedOn: false, recipients: [{ outcome: 'delivered', code: 250, enhanced: '2.0.0' }] });
      expect(lines.slice(0, 5)).toEqual([
        'EHLO client.test',
        'HELO client.test',
        'MAIL FROM:<a@b.test>',
        'RCPT TO:<b@x.test>',
        'DATA',
      ]);
      expect(lines.slice(5, 10)).toEqual(['..a', '..b\r..c', '..', 'end', '.']);
    }));

  it('pipelines MAIL, RCPT and DATA, and ends a message that has no recipients', () =>
    withPeer(peer(['PIPELINING'], { 'RCPT TO:<x': '550 no\r\n' }), async (port, lines) => {
      const client = await SmtpClient.connect(options(port));
      const refused = await client.send(message('text', { recipients: [{ address: 'x1@x.test' }, { address: 'x2@x.test' }] }));
      expect(refused.recipients.map((recipient) => recipient.outcome)).toEqual(['permanent', 'permanent']);
      expect(refused.reusable).toBe(true);
      expect((await client.send(message('text'))).recipients[0]?.outcome).toBe('delivered');
      await client.quit();
      expect(lines).toEqual([
        'EHLO client.test',
        'MAIL FROM:<a@b.test>',
        'RCPT TO:<x1@x.test>',
        'RCPT TO:<x2@x.test>',
        'DATA',
        '.',
        'MAIL FROM:<a@b.test>',
        'RCPT TO:<bob@example.test>',
        'DATA',
        'text',
        '.',
        'QUIT',
      ]);
    }));

  it('does not send what the peer can not carry', () =>
    withPeer(peer(['SIZE 10']), async (port, lines) => {
      const of = async (outgoing: OutgoingMessage) =>
        (await sendTo(port, outgoing)).recipients.map(({ outcome, enhanced, code }) => `${outcome} ${enhanced} ${code}`);
      expect(await of(message('01234567890'))).toEqual(['permanent 5.3.4 0']);
      expect(await of(message('\xe9'))).toEqual(['permanent 5.6.3 0']);
      expect(await of(message('x', { body: bodyOf('x', { binary: true }) }))).toEqual(['permanent 5.6.3 0']);
      expect(await of(message('x', { body: bodyOf('x', { utf8: true }) }))).toEqual(['permanent 5.6.7 0']);
      expect(await of(message('x', { from: 'é@b.test' }))).toEqual(['permanent 5.6.7 0']);
      expect(lines.filter((line) => line.startsWith('MAIL'))).toEqual([]);
      const mixed = message('x', { from: 'a@bé.test', recipients: [{ address: 'é@b.test' }, { address: 'b@é.test' }] });
      expect(await of(mixed)).toEqual(['permanent 5.6.7 0', 'delivered 2.0.0 250']);
      expect(lines.filter((line) => /^(MAIL|RCPT)/.test(line))).toEqual([
        'MAIL FROM:<a@xn--b-bga.test> SIZE=1',
        'RCPT TO:<b@xn--9ca.test>',
      ]);
    }));

  it('says SMTPUTF8 only where it is needed', () =>
    withPeer(peer(['SMTPUTF8', '8BITMIME']), async (port, lines) => {
      await sendTo(port, message('x'));
      await sendTo(port, message('\xe9', { recipients: [{ address: 'a@é.test' }] }));
      expect(lines.filter((line) => line.startsWith('MAIL'))).toEqual([
        'MAIL FROM:<a@b.test>',
        'MAIL FROM:<a@b.test> BODY=8BITMIME SMTPUTF8',
      ]);
    }));

  it('reads 552 at RCPT for too many recipients as temporary, other 552 as they are', () =>
    withPeer(
      peer([], { 'RCPT TO:<m': '552 5.5.3 Too many recipients\r\n', 'RCPT TO:<f': '552 5.2.2 Mailbox full\r\n' }),
      async (port) => {
        const result = await sendTo(port, message('x', { recipients: [{ address: 'm@x.test' }, { address: 'f@x.test' }] }));
        expect(result.recipients.map(({ outcome, enhanced }) => [outcome, enhanced])).toEqual([
          ['temporary', '4.5.3'],
          ['permanent', '5.2.2'],
        ]);
      },
    ));
});

describe('SmtpClient with lost connections', () => {
  it('knows that nothing was taken when the peer leaves before the end of data', async () => {
    for (const [special, stage] of [
      [{ MAIL: undefined }, 'mail'],
      [{ RCPT: undefined }, 'rcpt'],
      [{ DATA: undefined }, 'data'],
    ] as const) {
      await withPeer(peer([], special), async (port) => {
        const result = await sendTo(port, message('x'));
        expect(result).toMatchObject({
          reusable: false,
          recipients: [{ outcome: 'temporary', code: 0, enhanced: '4.4.2', stage, wide: true }],
        });
      });
    }
  });

  it('does not know when it leaves after', () =>
    withPeer(peer([], { '.': undefined }), async (port) => {
      expect(await sendTo(port, message('x'))).toMatchObject({
        reusable: false,
        recipients: [{ outcome: 'unknown', stage: 'end-of-data', code: 0 }],
      });
    }));

  it('does not know when the answer never comes', () =>
    withPeer(peer([], { '.': '' }), async (port) => {
      const result = await sendTo(port, message('x'), { timeouts: { dataTerminationMs: 50 } });
      expect(result.recipients[0]).toMatchObject({ outcome: 'unknown', text: expect.stringContaining('Timeout') });
    }));

  it('hears a 421 at any place', async () => {
    for (const [special, stage] of [
      [{ MAIL: '421 4.3.2 bye\r\n' }, 'mail'],
      [{ RCPT: '421 4.3.2 bye\r\n' }, 'rcpt'],
      [{ DATA: '421 4.3.2 bye\r\n' }, 'data'],
      [{ '.': '421 4.3.2 bye\r\n' }, 'end-of-data'],
    ] as const) {
      await withPeer(peer(['PIPELINING'], special), async (port) => {
        expect(await sendTo(port, message('x'))).toMatchObject({
          reusable: false,
          recipients: [{ outcome: 'temporary', code: 421, enhanced: '4.3.2', stage }],
        });
      });
    }
  });

  it('believes the last words of a peer that cuts the content off', () => {
    let socket: (() => Socket) | undefined;
    return withPeer(
      (line) => {
        if (line === 'DATA') {
          setTimeout(() => socket!().end('552 5.3.4 too large\r\n'), 20);
          return '354 go\r\n';
        }
        return line.startsWith('EHLO') ? '250 peer\r\n' : /^(MAIL|RCPT)/.test(line) ? '250 OK\r\n' : '';
      },
      async (port, _lines, current) => {
        socket = current;
        const endless = bodyOf('', {
          sizeBytes: 1_000_000_000,
          async *open() {
            for (;;) {
              await new Promise((resolve) => setTimeout(resolve, 1));
              yield Buffer.alloc(1000, 'x\r\n');
            }
          },
        });
        const result = await sendTo(port, message('', { body: endless }));
        expect(result.recipients[0]).toMatchObject({ outcome: 'permanent', code: 552, enhanced: '5.3.4', stage: 'data' });
      },
    );
  });

  it.each(['DATA', 'BDAT'])('never completes a message that it can not read to its end, by %s', (verb) =>
    withPeer(peer(verb === 'BDAT' ? ['CHUNKING', 'PIPELINING'] : []), async (port, lines) => {
      const broken = bodyOf('', {
        sizeBytes: 100,
        async *open() {
          yield Buffer.from('half\r\n');
          throw new Error('the disk broke');
        },
      });
      expect(await sendTo(port, message('', { body: broken }))).toMatchObject({
        reusable: false,
        recipients: [{ outcome: 'temporary', code: 0, enhanced: '4.3.0' }],
      });
      for (const sizeBytes of [3, 5]) {
        const wrong = await sendTo(port, message('', { body: bodyOf('1234', { sizeBytes }) }));
        expect(wrong.recipients[0]).toMatchObject({ outcome: 'temporary', enhanced: '4.3.0' });
      }
      expect(lines).not.toContain('.');
      expect(lines.filter((line) => line.includes('LAST'))).toEqual([]);
    }),
  );

  it('reports where connecting failed', async () => {
    const of = (port: number, more: Partial<ConnectOptions> = {}) =>
      SmtpClient.connect(options(port, more)).then(
        () => 'connected',
        (error: SmtpConnectError) => `${error.stage} ${error.outcome} ${error.code} ${error.enhanced}`,
      );
    await withPeer(peer([]), async (port) => expect(await of(port)).toBe('greeting permanent 554 5.0.0'), '554 no mail here\r\n');
    await withPeer(peer([]), async (port) => expect(await of(port)).toBe('greeting temporary 421 4.3.2'), '421 4.3.2 later\r\n');
    await withPeer(peer([]), async (port) => expect(await of(port)).toBe('greeting temporary 0 4.4.2'), 'SSH-2.0-x\r\n');
    await withPeer(
      peer([]),
      async (port) => expect(await of(port, { timeouts: { greetingMs: 40 } })).toBe('greeting temporary 0 4.4.2'),
      '',
    );
    await withPeer(peer([], { EHLO: '451 no\r\n' }), async (port) => expect(await of(port)).toBe('ehlo temporary 451 4.0.0'));
    const closed = createServer();
    await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve));
    const { port } = closed.address() as AddressInfo;
    await new Promise((resolve) => closed.close(resolve));
    expect(await of(port)).toBe('connect temporary 0 4.4.1');
  });
});

describe('STARTTLS that does not work', () => {
  const broken = peer(['STARTTLS'], { STARTTLS: '220 go\r\n' });
  // The second line of a handshake that is none: the peer answers garbage.
  const answer = (line: string) => (/^(EHLO|STARTTLS|MAIL|RCPT|DATA|QUIT|\.|x$)/.test(line) ? broken(line) : 'garbage\r\n');

  it('leads to a plain connection when opportunistic', () =>
    withPeer(answer, async (port, lines) => {
      const client = await SmtpClient.connect(
        options(port, { tls: { mode: 'opportunistic' }, timeouts: { tlsHandshakeMs: 100 } }),
      );
      expect(client.tls).toMatchObject({
        mode: 'opportunistic',
        used: false,
        problem: expect.stringContaining('TLS handshake failed'),
      });
      expect((await client.send(message('x'))).recipients[0]?.outcome).toBe('delivered');
      expect(lines.filter((line) => line === 'STARTTLS')).toHaveLength(1);
      await client.quit();
    }));

  it('ends it when required', () =>
    withPeer(answer, async (port, lines) => {
      await expect(
        SmtpClient.connect(options(port, { tls: { mode: 'required' }, timeouts: { tlsHandshakeMs: 100 } })),
      ).rejects.toMatchObject({ stage: 'starttls', outcome: 'temporary', enhanced: '4.7.5' });
      expect(lines.filter((line) => line.startsWith('MAIL'))).toEqual([]);
    }));

  it('goes on plainly, or not, when it is not offered or refused', async () => {
    for (const talk of [peer([]), peer(['STARTTLS'], { STARTTLS: '454 no\r\n' })]) {
      await withPeer(talk, async (port) => {
        const client = await SmtpClient.connect(options(port, { tls: { mode: 'opportunistic' } }));
        expect(client.tls).toMatchObject({ used: false, problem: expect.any(String) });
        client.destroy();
        await expect(SmtpClient.connect(options(port, { tls: { mode: 'required' } }))).rejects.toMatchObject({
          stage: 'starttls',
        });
      });
    }
  });

  it('does not believe what was injected after the 220', () =>
    withPeer(peer(['STARTTLS'], { STARTTLS: '220 go\r\n250-peer\r\n250 AUTH PLAIN\r\n' }), async (port) => {
      await expect(SmtpClient.connect(options(port, { tls: { mode: 'required' } }))).rejects.toMatchObject({
        stage: 'starttls',
        message: expect.stringContaining('plain text after'),
      });
    }));
});

const sink = '/usr/sbin/smtp-sink';

describe.skipIf(!existsSync(sink))("Postfix's smtp-sink", () => {
  async function withSink(flags: string[], run: (port: number) => Promise<void>): Promise<void> {
    const probe = createServer();
    await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
    const { port } = probe.address() as AddressInfo;
    await new Promise((resolve) => probe.close(resolve));
    const child = spawn(sink, ['-u', process.env['USER'] ?? 'root', ...flags, `127.0.0.1:${port}`, '20'], { stdio: 'ignore' });
    try {
      for (let tries = 0; ; tries++) {
        const protocol = flags.includes('-L') ? 'lmtp' : 'smtp';
        const client = await SmtpClient.connect(options(port, { protocol })).catch(() => undefined);
        if (client) {
          await client.quit();
          break;
        }
        if (tries > 100) throw new Error('smtp-sink does not answer');
        await new Promise((resolve) => setTimeout(resolve, 30));
      }
      await run(port);
    } finally {
      child.kill();
    }
  }

  it('takes messages, with and without pipelining', async () => {
    for (const flags of [[], ['-p'], ['-e']]) {
      await withSink(flags, async (port) => {
        const client = await SmtpClient.connect(options(port));
        for (let i = 0; i < 5; i++) {
          const many = Array.from({ length: 50 }, (_, index) => ({ address: `user${index}@example.test` }));
          const result = await client.send(message('.dot\r\n'.repeat(1000), { recipients: many }));
          expect(new Set(result.recipients.map((recipient) => recipient.outcome))).toEqual(new Set(['delivered']));
        }
        await client.quit();
      });
    }
  });

  it('refuses and disconnects as told', async () => {
    await withSink(['-f', 'RCPT'], async (port) => {
      expect((await sendTo(port, message('x'))).recipients[0]).toMatchObject({ outcome: 'permanent', stage: 'rcpt' });
    });
    await withSink(['-q', '.'], async (port) => {
      expect((await sendTo(port, message('x'))).recipients[0]).toMatchObject({ outcome: 'unknown', stage: 'end-of-data' });
    });
    await withSink(['-q', 'DATA'], async (port) => {
      expect((await sendTo(port, message('x'))).recipients[0]).toMatchObject({ outcome: 'temporary', stage: 'data' });
    });
  });

  it('speaks LMTP', () =>
    withSink(['-L'], async (port) => {
      const result = await sendTo(port, message('x', { recipients: [{ address: 'a@b.test' }, { address: 'c@d.test' }] }), {
        protocol: 'lmtp',
      });
      expect(result.recipients.map((recipient) => recipient.outcome)).toEqual(['delivered', 'delivered']);
    }));
});
