/** The client against peers that mean harm or know no better, and the promises that it asks of a peer before it sends. */
import { describe, expect, it } from 'vitest';
import { systemClock } from '../../../ops/telemetry/index.js';
import { startTestServer } from '../testing/server.js';
import { SmtpClient } from './client.js';
import type { ConnectOptions, OutgoingMessage, SmtpConnectError } from './contract.js';
import { bodyOf, message, options, peer, sendTo, withPeer } from './test-peers.js';

/** Where connecting failed, in one line. */
const failureOf = (port: number, more: Partial<ConnectOptions> = {}) =>
  SmtpClient.connect(options(port, more)).then(
    (client) => {
      client.destroy();
      return 'connected';
    },
    (error: SmtpConnectError) => `${error.stage} ${error.outcome} ${error.code} ${error.enhanced}`,
  );

describe('hostile replies', () => {
  it.each([
    ['of 2,000 lines', `${'220-and\r\n'.repeat(2_000)}220 so on\r\n`],
    ['whose line has no end', '220 '.padEnd(200_000, 'x')],
    ['that are none', '\x00\x01\x02\r\n'],
  ])('%s end the connection, and nothing is kept of them', (_what, greeting) =>
    withPeer(peer([]), async (port) => expect(await failureOf(port)).toBe('greeting temporary 0 4.4.2'), greeting),
  );

  it('of 100 lines, with bare LF, or with octets above 127 are read', () =>
    withPeer(
      peer([], { MAIL: '250-a\n250-b\n250 c\n', RCPT: `${'250-x\r\n'.repeat(100)}250 ok\r\n`, '.': '250 2.0.0 \xe9\xff\r\n' }),
      async (port) => {
        const result = await sendTo(port, message('x'));
        expect(result).toMatchObject({ reusable: true, recipients: [{ outcome: 'delivered', code: 250 }] });
      },
      '220-\xff\n220 ok\n',
    ));

  it('that come one octet at a time do not stretch the time that there is for them', () =>
    withPeer(
      peer([]),
      async (port, _lines, socket) => {
        const started = failureOf(port, { timeouts: { greetingMs: 150 } });
        const drip = setInterval(() => socket()?.write('2'), 10);
        try {
          expect(await started).toBe('greeting temporary 0 4.4.2');
        } finally {
          clearInterval(drip);
        }
      },
      '',
    ));
});

describe('a peer that speaks before it is asked', () => {
  it('gets no message: an answer would pass for that to another command', () =>
    withPeer(peer(['CHUNKING'], { EHLO: '250-peer\r\n250 CHUNKING\r\n250 and\r\n250 so\r\n250 on\r\n' }), async (port, lines) => {
      const client = await SmtpClient.connect(options(port));
      const result = await client.send(message('x'));
      expect(result).toMatchObject({ reusable: false, recipients: [{ outcome: 'temporary', code: 0, stage: 'mail' }] });
      expect(lines.filter((line) => /^(BDAT|MAIL)/.test(line))).toEqual([]);
    }));

  it('with one answer too many is not believed to have taken the message', () =>
    withPeer(peer(['CHUNKING'], { RCPT: '250 ok\r\n250 2.0.0 taken\r\n' }), async (port, lines) => {
      const result = await sendTo(port, message('x'));
      expect(result).toMatchObject({ reusable: false, recipients: [{ outcome: 'temporary', code: 0 }] });
      expect(lines.filter((line) => line.startsWith('BDAT'))).toEqual([]);
    }));

  it('with 354 and a refusal at once gets nothing of the message, and its word counts', () =>
    withPeer(peer([], { DATA: '354 go\r\n554 5.7.1 no\r\n' }), async (port, lines) => {
      const result = await sendTo(port, message('secret\r\n'));
      expect(result).toMatchObject({ reusable: false, recipients: [{ outcome: 'permanent', code: 554, enhanced: '5.7.1' }] });
      expect(lines).not.toContain('secret');
      expect(lines).not.toContain('.');
    }));

  it('with 354 and 250 at once has not taken it', () =>
    withPeer(peer([], { DATA: '354 go\r\n250 2.0.0 taken already\r\n' }), async (port, lines) => {
      const result = await sendTo(port, message('x'));
      expect(result).toMatchObject({ reusable: false, recipients: [{ outcome: 'temporary', code: 0, enhanced: '4.5.0' }] });
      expect(lines).not.toContain('.');
    }));

  it.each([[[]], [['PIPELINING']]])('with one answer too many before DATA gets no message, to a peer with %j', (extensions) =>
    withPeer(peer(extensions, { RCPT: '250 ok\r\n250 2.0.0 taken\r\n' }), async (port, lines) => {
      const result = await sendTo(port, message('secret\r\n'));
      expect(result).toMatchObject({ reusable: false, recipients: [{ outcome: 'temporary', code: 0 }] });
      expect(lines).not.toContain('secret');
    }),
  );

  it.each([[[]], [['PIPELINING']]])('with 250 to DATA has taken nothing, to a peer with %j', (extensions) =>
    withPeer(peer(extensions, { DATA: '250 2.0.0 ok\r\n' }), async (port, lines) => {
      const result = await sendTo(port, message('secret\r\n'));
      expect(result).toMatchObject({
        reusable: false,
        recipients: [{ outcome: 'temporary', code: 0, enhanced: '4.5.0', stage: 'data', text: expect.stringContaining('250') }],
      });
      expect(lines).not.toContain('secret');
    }),
  );

  it('has refused nobody for good whose answer may be another one’s', () => {
    const answers = ['250 ok\r\n250 ok\r\n', '550 5.1.1 no\r\n'];
    const rest = peer(['PIPELINING']);
    const answer = (line: string) => (line.startsWith('RCPT') ? answers.shift() : rest(line));
    return withPeer(answer, async (port) => {
      const recipients = [{ address: 'one@example.test' }, { address: 'two@example.test' }, { address: 'three@example.test' }];
      answers.push('250 ok\r\n');
      const result = await sendTo(port, message('x', { recipients }));
      expect(result.recipients.map(({ outcome }) => outcome)).toEqual(['temporary', 'temporary', 'temporary']);
    });
  });

  it('with its farewell while the connection was idle is heard', () =>
    withPeer(peer([]), async (port, _lines, socket) => {
      const client = await SmtpClient.connect(options(port));
      expect((await client.send(message('x'))).reusable).toBe(true);
      socket().write('421 4.4.2 idle for too long\r\n');
      while (client.usable) await new Promise((resolve) => setTimeout(resolve, 5));
      expect(await client.send(message('x'))).toMatchObject({
        reusable: false,
        recipients: [{ outcome: 'temporary', code: 0, stage: 'mail', text: expect.stringContaining('421') }],
      });
    }));

  it('in plain text behind the 220 of STARTTLS is not tried again without TLS', () =>
    withPeer(peer(['STARTTLS'], { STARTTLS: '220 go\r\n250 injected\r\n' }), async (port, lines) => {
      await expect(SmtpClient.connect(options(port, { tls: { mode: 'opportunistic' } }))).rejects.toMatchObject({
        stage: 'starttls',
        outcome: 'temporary',
        enhanced: '4.7.0',
      });
      expect(lines.filter((line) => line.startsWith('EHLO'))).toHaveLength(1);
    }));
});

describe('a peer that leaves', () => {
  it('right after its 250 has taken the message; the connection is gone', () =>
    withPeer(peer([]), async (port, _lines, socket) => {
      const client = await SmtpClient.connect(options(port));
      const taken = await client.send(message('x'));
      expect(taken.recipients[0]).toMatchObject({ outcome: 'delivered' });
      socket().destroy();
      while (client.usable) await new Promise((resolve) => setTimeout(resolve, 5));
      expect((await client.send(message('x'))).recipients[0]).toMatchObject({ outcome: 'temporary', stage: 'mail', code: 0 });
    }));

  it('in the middle of LMTP answers has taken what it said, and may have taken the rest', () =>
    withPeer(
      (line) => (line.startsWith('LHLO') ? '250 peer\r\n' : line === '.' ? '250 2.1.5 one\r\n' : peer([])(line)),
      async (port, _lines, socket) => {
        const client = await SmtpClient.connect(options(port, { protocol: 'lmtp' }));
        const recipients = ['a@x.test', 'b@x.test'].map((address) => ({ address }));
        const sending = client.send(message('', { recipients, body: bodyOf('') }));
        setTimeout(() => socket().destroy(), 100);
        expect((await sending).recipients.map(({ outcome }) => outcome)).toEqual(['delivered', 'unknown']);
      },
    ));
});

describe('EHLO after STARTTLS', () => {
  it('is the one that counts', async () => {
    const server = await startTestServer({});
    try {
      const client = await SmtpClient.connect(options(server.port, { tls: { mode: 'opportunistic' } }));
      expect(client.capabilities.has('STARTTLS')).toBe(false);
      expect(client.tls.used).toBe(true);
      await client.quit();
    } finally {
      await server.close();
    }
  });
});

describe('what a peer must promise', () => {
  const of = async (port: number, outgoing: Partial<OutgoingMessage>, content = 'x') => {
    const result = await sendTo(port, message(content, outgoing));
    return result.recipients.map(({ outcome, enhanced }) => `${outcome} ${enhanced}`).join(', ');
  };
  const mailLines = (lines: string[]) => lines.filter((line) => line.startsWith('MAIL'));

  it('REQUIRETLS, under TLS', async () => {
    await withPeer(peer(['REQUIRETLS']), async (port, lines) => {
      expect(await of(port, { requireTls: true })).toBe('permanent 5.7.10');
      expect(mailLines(lines)).toEqual([]);
    });
    const server = await startTestServer({});
    try {
      const client = await SmtpClient.connect(options(server.port, { tls: { mode: 'required', ca: server.certificate.cert } }));
      const offered = client.capabilities.has('REQUIRETLS');
      const [result] = (await client.send(message('x', { requireTls: true }))).recipients;
      expect(result).toMatchObject(offered ? { outcome: 'delivered' } : { outcome: 'permanent', enhanced: '5.7.30' });
      await client.quit();
    } finally {
      await server.close();
    }
  });

  it('DELIVERBY, with what is left of the time', async () => {
    const untilMs = systemClock.nowMs() + 100_500;
    const back = { untilMs, mode: 'return' as const, isTraced: true };
    const tell = { untilMs: systemClock.nowMs() - 20_000, mode: 'notify' as const, isTraced: false };
    await withPeer(peer([]), async (port, lines) => {
      expect(await of(port, { deliverBy: back })).toBe('permanent 5.3.3');
      const told = await sendTo(port, message('x', { deliverBy: tell }));
      expect(told).toMatchObject({ recipients: [{ outcome: 'delivered' }] });
      expect(told.deliverByPassedOn).toBeUndefined();
      expect(mailLines(lines)).toEqual(['MAIL FROM:<a@b.test>']);
    });
    await withPeer(peer(['DELIVERBY 60']), async (port, lines) => {
      expect(await sendTo(port, message('x', { deliverBy: back }))).toMatchObject({ deliverByPassedOn: true });
      expect(await of(port, { deliverBy: tell })).toBe('delivered 2.0.0');
      expect(await of(port, { deliverBy: { ...back, untilMs: systemClock.nowMs() + 30_000 } })).toBe('permanent 5.4.7');
      expect(await of(port, { deliverBy: { ...back, untilMs: systemClock.nowMs() } })).toBe('permanent 5.4.7');
      const [first, second, ...more] = mailLines(lines);
      expect(first).toMatch(/^MAIL FROM:<a@b\.test> BY=(100|99|98);RT$/);
      expect(second).toMatch(/^MAIL FROM:<a@b\.test> BY=-2\d;N$/);
      expect(more).toEqual([]);
    });
  });

  it('MT-PRIORITY is told where it is offered and not normal', () =>
    withPeer(peer(['MT-PRIORITY MIXER']), async (port, lines) => {
      await of(port, { priority: -3 });
      await of(port, { priority: 0 });
      expect(mailLines(lines)).toEqual(['MAIL FROM:<a@b.test> MT-PRIORITY=-3', 'MAIL FROM:<a@b.test>']);
    }));

  it('8BITMIME, unless the caller sends as it is', () =>
    withPeer(peer([]), async (port, lines) => {
      expect(await of(port, {}, '\xe9')).toBe('permanent 5.6.3');
      expect(await of(port, { eightBit: 'send' }, '\xe9')).toBe('delivered 2.0.0');
      expect(mailLines(lines)).toEqual(['MAIL FROM:<a@b.test>']);
    }));

  it('LIMITS: what is over comes back at once, and the connection ends after MAILMAX', () =>
    withPeer(peer(['LIMITS RCPTMAX=2 MAILMAX=2 MAILMAX=x FOO=1', 'PIPELINING']), async (port, lines) => {
      const client = await SmtpClient.connect(options(port));
      expect(client.limits).toEqual({ maxMessages: 2, maxRecipients: 2 });
      const recipients = ['a@x.test', 'b@x.test', 'c@x.test'].map((address) => ({ address }));
      const first = await client.send(message('x', { recipients }));
      expect(first.recipients.map(({ outcome, enhanced, stage }) => `${outcome} ${enhanced} ${stage}`)).toEqual([
        'delivered 2.0.0 end-of-data',
        'delivered 2.0.0 end-of-data',
        'temporary 4.5.3 rcpt',
      ]);
      expect(first.reusable).toBe(true);
      expect((await client.send(message('x'))).reusable).toBe(false);
      expect(client.usable).toBe(true);
      await client.quit();
      expect(lines.filter((line) => line.startsWith('RCPT'))).toHaveLength(3);
    }));

  it('LIMITS: a connection takes no more domains than RCPTDOMAINMAX', () =>
    withPeer(peer(['LIMITS RCPTDOMAINMAX=2']), async (port, lines) => {
      const client = await SmtpClient.connect(options(port));
      expect(client.limits).toEqual({ maxRecipientDomains: 2 });
      const send = async (...to: string[]) => {
        const result = await client.send(message('x', { recipients: to.map((address) => ({ address })) }));
        return { ...result, recipients: result.recipients.map(({ outcome, stage }) => `${outcome} ${stage}`) };
      };
      const taken = 'delivered end-of-data';
      expect(await send('a@x.test', 'b@X.test')).toMatchObject({ reusable: true, recipients: [taken, taken] });
      expect(await send('a@x.test', 'a@y.test', 'a@z.test')).toMatchObject({
        reusable: true,
        recipients: [taken, taken, 'temporary rcpt'],
      });
      expect(await send('c@y.test')).toMatchObject({ reusable: true, recipients: [taken] });
      expect(await send('a@z.test')).toMatchObject({ reusable: false, recipients: ['temporary mail'] });
      await client.quit();
      expect(lines.filter((line) => line.includes('z.test'))).toEqual([]);
    }));

  it('452 for too many recipients is told apart from other 452', () =>
    withPeer(
      peer([], { 'RCPT TO:<m': '452 Too many recipients\r\n', 'RCPT TO:<f': '452 4.2.2 Mailbox full\r\n' }),
      async (port) => {
        const result = await sendTo(port, message('x', { recipients: [{ address: 'm@x.test' }, { address: 'f@x.test' }] }));
        expect(result.recipients.map(({ enhanced }) => enhanced)).toEqual(['4.5.3', '4.2.2']);
      },
    ));
});

describe('logins', () => {
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  const auth = { login: 'me', password: 'pw' };
  const loggedIn = (port: number, more: Partial<ConnectOptions> = {}) => failureOf(port, { auth, authWithoutTls: true, ...more });

  it('answer CRAM-MD5 without showing the password', () =>
    withPeer(
      (line) =>
        line.startsWith('AUTH CRAM-MD5')
          ? `334 ${base64('<1@x>')}\r\n`
          : /^[A-Za-z0-9+/=]{20,}$/.test(line)
            ? '235 in\r\n'
            : peer(['AUTH LOGIN CRAM-MD5'])(line),
      async (port, lines) => {
        expect(await loggedIn(port)).toBe('connected');
        expect(Buffer.from(lines[2]!, 'base64').toString()).toMatch(/^me [0-9a-f]{32}$/);
      },
    ));

  it('use a token where there is one, and hear why it is refused', () =>
    withPeer(
      (line) =>
        line.startsWith('AUTH XOAUTH2 ')
          ? `334 ${base64('{"status":"401"}')}\r\n`
          : line === '' || line === '*'
            ? '535 5.7.8 no\r\n'
            : peer(['AUTH PLAIN XOAUTH2'])(line),
      async (port, lines) => {
        expect(await loggedIn(port, { auth: { login: 'me', accessToken: 'tok' } })).toMatch(/^auth /);
        expect(Buffer.from(lines[1]!.slice('AUTH XOAUTH2 '.length), 'base64').toString()).toBe(
          'user=me\x01auth=Bearer tok\x01\x01',
        );
      },
    ));

  it('do not believe a server that says yes before it has proved itself', () =>
    withPeer(peer(['AUTH SCRAM-SHA-256'], { AUTH: '235 welcome\r\n' }), async (port) => {
      expect(await loggedIn(port)).toBe('auth temporary 0 4.7.8');
    }));

  it('obey the mechanisms that are allowed, and say so when none is left', () =>
    withPeer(peer(['AUTH PLAIN LOGIN'], { AUTH: '235 in\r\n' }), async (port, lines) => {
      expect(await loggedIn(port, { auth: { ...auth, mechanisms: ['SCRAM-SHA-256'] } })).toBe('auth temporary 0 4.7.4');
      expect(lines.filter((line) => line.startsWith('AUTH'))).toEqual([]);
    }));
});
