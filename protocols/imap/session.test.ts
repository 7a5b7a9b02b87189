import { createHash, randomBytes } from 'node:crypto';
import { connect as connectTls } from 'node:tls';
import { afterEach, describe, expect, it } from 'vitest';
import { openMemoryStore } from '../../store/kv/index.js';
import { defaultImapLimits } from './index.js';
import { TestClient } from './testing/client.js';
import { ManualClock } from './testing/manual-clock.js';
import { accountIdOf, startTestServer, type TestServer, type TestServerOptions } from './testing/server.js';

let server: TestServer;

async function start(options?: TestServerOptions): Promise<TestServer> {
  server = await startTestServer(options);
  return server;
}

afterEach(() => server.close());

const message = (text: string) => `Subject: ${text}\r\nFrom: a@example.org\r\n\r\n${text}\r\n`;

describe('time', () => {
  it('says that it is still there in IDLE, every two minutes (TRAPS 31)', async () => {
    const clock = new ManualClock();
    await start({ sessionClock: clock });
    const client = await TestClient.login(server.port);
    client.send('i IDLE\r\n');
    expect(await client.line()).toBe('+ idling');
    for (let i = 0; i < 3; i++) {
      await clock.waiting(120_000);
      clock.advance(120_000);
      expect(await client.line()).toBe('* OK Still here');
    }
    client.send('DONE\r\n');
    expect(await client.line()).toBe('i OK IDLE completed');
  });

  it('finds in IDLE what no notice told, with the next sign of life', async () => {
    const clock = new ManualClock();
    await start({ sessionClock: clock });
    await server.deliver('alice', 'INBOX', message('one'));
    server.mail.onChange = () => () => {};
    const client = await TestClient.login(server.port);
    await client.ok('SELECT INBOX');
    client.send('i IDLE\r\n');
    expect(await client.line()).toBe('+ idling');
    await clock.waiting(120_000);
    await server.deliver('alice', 'INBOX', message('two'));
    clock.advance(120_000);
    expect(await client.line()).toBe('* OK Still here');
    expect(await client.line()).toBe('* 2 EXISTS');
  });

  it('says so too where only other mailboxes change, of which the client hears nothing', async () => {
    const clock = new ManualClock();
    await start({ sessionClock: clock });
    const client = await TestClient.login(server.port);
    await client.ok('SELECT INBOX');
    client.send('i IDLE\r\n');
    expect(await client.line()).toBe('+ idling');
    await clock.waiting(120_000);
    clock.advance(100_000);
    await server.deliver('alice', 'Archive', message('elsewhere'));
    await clock.waiting(20_000);
    clock.advance(20_000);
    expect(await client.line()).toBe('* OK Still here');
  });

  it('says so too while the store can not be read', async () => {
    const clock = new ManualClock();
    const kv = openMemoryStore();
    await start({ sessionClock: clock, kv });
    let notify: (notice: { accountId: string; modseq: number }) => void = () => {};
    server.mail.onChange = (_, listener) => {
      notify = listener;
      return () => {};
    };
    const client = await TestClient.login(server.port);
    await client.ok('SELECT INBOX');
    client.send('i IDLE\r\n');
    expect(await client.line()).toBe('+ idling');
    await clock.waiting(120_000);
    kv.faults.outage = true;
    notify({ accountId: accountIdOf('alice'), modseq: 99 });
    for (let passedMs = 0; passedMs < 120_000; passedMs += 5_000) {
      await clock.waiting(5_000);
      clock.advance(5_000);
    }
    expect(await client.line()).toBe('* OK Still here');
    kv.faults.outage = false;
  });

  it('logs out who does not log in, and who is silent for half an hour', async () => {
    const clock = new ManualClock();
    await start({ sessionClock: clock });
    const stranger = await TestClient.open(server.port);
    const client = await TestClient.login(server.port);
    await stranger.line();
    await clock.waiting(60_000);
    clock.advance(60_000);
    expect(await stranger.line()).toMatch(/^\* BYE Autologout/);
    await stranger.closed();
    await client.ok('NOOP');
    await clock.waiting(30 * 60_000);
    clock.advance(30 * 60_000 - 1);
    await client.ok('NOOP');
    await clock.waiting(30 * 60_000);
    clock.advance(30 * 60_000);
    expect(await client.line()).toMatch(/^\* BYE Autologout/);
  });

  it('does not wait half an hour in the middle of a literal', async () => {
    const clock = new ManualClock();
    await start({ sessionClock: clock });
    const client = await TestClient.login(server.port);
    client.send('a APPEND INBOX {100}\r\n');
    expect(await client.line()).toMatch(/^\+/);
    client.send('Subject: half');
    await clock.waiting(defaultImapLimits.literalTimeoutMs);
    clock.advance(defaultImapLimits.literalTimeoutMs);
    expect(await client.line()).toMatch(/^\* BYE/);
    await client.closed();
  });
});

describe('STARTTLS', () => {
  it('goes on under TLS, and drops what was sent in front of the handshake', async () => {
    await start({ allowPlainAuth: false });
    const client = await TestClient.open(server.port);
    await client.line();
    client.send('a STARTTLS\r\nb LOGIN alice secret\r\n');
    expect(await client.line()).toMatch(/^a OK Begin TLS/);
    client.socket.removeAllListeners('data');
    const secured = connectTls({ socket: client.socket, rejectUnauthorized: false });
    const heard: string[] = [];
    secured.on('data', (chunk: Buffer) => heard.push(chunk.toString('latin1')));
    secured.write('c CAPABILITY\r\n');
    await expect.poll(() => heard.join('')).toMatch(/c OK/);
    // Neither was b run, nor is STARTTLS offered again, and the state is that of a new connection.
    expect(heard.join('')).not.toMatch(/b OK|b NO|b BAD|STARTTLS|LOGINDISABLED/);
    secured.write('d STARTTLS\r\ne LOGIN alice secret\r\n');
    await expect.poll(() => heard.join('')).toMatch(/d BAD[\s\S]*e OK/);
    secured.destroy();
  });
});

describe('the end of a connection', () => {
  it('answers what came before the client closed its side', async () => {
    await start();
    const client = await TestClient.login(server.port);
    client.socket.end('a SELECT INBOX\r\nb NOOP\r\n');
    expect((await client.until('b')).at(-1)).toBe('b OK NOOP completed');
    await client.closed();
    await expect.poll(() => server.sessions.size).toBe(0);
  });

  it('survives clients that vanish anywhere', async () => {
    await start();
    for (let i = 0; i < 50; i++) await server.deliver('alice', 'INBOX', message(`m${i}`) + 'x'.repeat(20_000));
    const scripts = [
      'a FETCH 1:* BODY[]\r\n',
      'a APPEND INBOX {5000+}\r\nabc',
      'a APPEND INBOX {5000}\r\n',
      'a IDLE\r\n',
      'a SEARCH TEXT nothing\r\n',
      'a AUTHENTICATE PLAIN\r\n',
      'a NOO',
    ];
    for (const script of scripts) {
      const client = await TestClient.login(server.port);
      await client.ok('SELECT INBOX');
      client.send(script);
      await new Promise((resolve) => setImmediate(resolve));
      client.close();
    }
    await expect.poll(() => server.sessions.size).toBe(0);
    const client = await TestClient.login(server.port);
    expect(await client.ok('STATUS INBOX (MESSAGES)')).toEqual(['* STATUS INBOX (MESSAGES 50)']);
  });

  it('drains politely: idle, waiting and busy sessions', async () => {
    await start();
    for (let i = 0; i < 20; i++) await server.deliver('alice', 'INBOX', message(`m${i}`));
    const idle = await TestClient.login(server.port);
    idle.send('i IDLE\r\n');
    await idle.line();
    const waiting = await TestClient.login(server.port);
    const busy = await TestClient.login(server.port);
    await busy.ok('SELECT INBOX');
    busy.send('f FETCH 1:* BODY.PEEK[]\r\n');
    await busy.line();
    await Promise.all([...server.sessions].map((session) => session.drain()));
    expect(await idle.line()).toBe('* BYE [UNAVAILABLE] Server is going down');
    expect(await waiting.line()).toBe('* BYE [UNAVAILABLE] Server is going down');
    expect((await busy.until('f')).at(-1)).toBe('f OK FETCH completed');
    expect(await busy.line()).toBe('* BYE [UNAVAILABLE] Server is going down');
    await Promise.all([idle.closed(), waiting.closed(), busy.closed()]);
  });

  it('sends clients elsewhere when it can serve nobody, and cuts off what does not end', async () => {
    await start();
    await server.deliver('alice', 'INBOX', message('one'));
    const idle = await TestClient.login(server.port);
    await idle.ok('SELECT INBOX');
    idle.send('i IDLE\r\n');
    expect(await idle.line()).toBe('+ idling');
    const stuck = await TestClient.login(server.port);
    let hang = () => {};
    const hangs = new Promise<void>((resolve) => {
      hang = resolve;
    });
    server.mail.mailboxByPath = () => {
      hang();
      return new Promise(() => {});
    };
    stuck.send('s SELECT INBOX\r\n');
    await hangs;
    const sessions = [...server.sessions];
    for (const session of sessions) session.turnAway();
    const bye = '* BYE [UNAVAILABLE] The server can not serve you now, please log in again';
    expect([await idle.line(), await idle.line()]).toEqual([bye, undefined]);
    for (const session of sessions) session.stop();
    expect(await stuck.line()).toBeUndefined();
  });

  it('ends who sends nothing but nonsense', async () => {
    await start();
    const client = await TestClient.open(server.port);
    await client.line();
    client.send('x FROBNICATE\r\n'.repeat(defaultImapLimits.maxBadCommands + 5));
    const lines: string[] = [];
    for (let line = await client.line(); line !== undefined; line = await client.line()) lines.push(line);
    expect(lines.at(-1)).toBe('* BYE Too many bad commands');
    expect(lines.length).toBe(defaultImapLimits.maxBadCommands + 2);
  });

  it('bears a client that asks in vain now and then for as long as it likes', async () => {
    await start();
    const client = await TestClient.login(server.port);
    for (let i = 0; i < defaultImapLimits.maxBadCommands + 5; i++) {
      expect((await client.command('FROBNICATE INBOX')).at(-1)).toMatch(/BAD Unknown command/);
      await client.ok('NOOP');
    }
  });
});

describe('lengths', () => {
  it('refuses a line that is too long and goes on; ends a flood', async () => {
    await start();
    const client = await TestClient.login(server.port);
    client.send(`long SEARCH ${'1,'.repeat(60_000)}1\r\nnext NOOP\r\n`);
    expect(await client.line()).toBe('long BAD [LIMIT] Line too long');
    expect(await client.line()).toBe('next OK NOOP completed');
    client.send(`flood ${'x'.repeat(2_000_000)}`);
    expect(await client.line()).toBe('flood BAD [LIMIT] Line too long');
    expect(await client.line()).toMatch(/^\* BYE/);
  });

  it('skips a refused literal of a client that does not wait, and stays in step', async () => {
    await start({ limits: { grammar: { ...defaultImapLimits.grammar, maxMessageBytes: 1_000 } } });
    const client = await TestClient.login(server.port);
    client.send(`a APPEND INBOX {300000+}\r\n${'A1 LOGOUT\r\n'.repeat(30_000).slice(0, 300_000)}\r\nb NOOP\r\n`);
    expect(await client.line()).toBe('a NO [TOOBIG] Message too large');
    expect(await client.line()).toBe('b OK NOOP completed');
    expect(await client.ok('STATUS INBOX (MESSAGES)')).toEqual(['* STATUS INBOX (MESSAGES 0)']);
  });

  it('appends and fetches 20 MB byte for byte without gathering output', async () => {
    await start();
    const client = await TestClient.login(server.port);
    await client.ok('SELECT INBOX');
    const body = Buffer.concat([
      Buffer.from('Subject: big\r\nContent-Type: application/octet-stream\r\n\r\n'),
      randomBytes(20_000_000),
    ]);
    client.send(`a APPEND INBOX {${body.length}+}\r\n`);
    for (let at = 0; at < body.length; at += 1_000_000) {
      if (!client.socket.write(body.subarray(at, at + 1_000_000)))
        await new Promise((resolve) => client.socket.once('drain', resolve));
    }
    client.send('\r\n');
    expect((await client.until('a')).at(-1)).toMatch(/^a OK \[APPENDUID \d+ 1\]/);
    client.socket.removeAllListeners('data');
    const hash = createHash('sha256');
    let received = 0;
    let head: Buffer | undefined = Buffer.alloc(0);
    let tail = '';
    const done = new Promise<void>((resolve) => {
      client.socket.on('data', (chunk: Buffer) => {
        let bytes = chunk;
        if (head) {
          head = Buffer.concat([head, chunk]);
          const start = head.indexOf('}\r\n');
          if (start < 0) return;
          expect(head.toString('latin1', 0, start)).toBe(`* 1 FETCH (BODY[] {${body.length}`);
          bytes = head.subarray(start + 3);
          head = undefined;
        }
        const mine = bytes.subarray(0, Math.max(0, body.length - received));
        hash.update(mine);
        received += mine.length;
        tail += bytes.toString('latin1', mine.length);
        if (tail.endsWith('completed\r\n')) resolve();
      });
    });
    client.send('f FETCH 1 BODY.PEEK[]\r\n');
    await done;
    expect(hash.digest('hex')).toBe(createHash('sha256').update(body).digest('hex'));
    expect(tail).toBe(')\r\nf OK FETCH completed\r\n');
  });

  it('reads no further while a command runs', async () => {
    await start();
    const client = await TestClient.login(server.port);
    const { mailboxByPath } = server.mail;
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    server.mail.mailboxByPath = async (...args) => {
      await held;
      return mailboxByPath(...args);
    };
    client.send('a STATUS INBOX (MESSAGES)\r\n');
    const flood = 32 * 1024 * 1024;
    client.send(Buffer.alloc(flood, 'x NOOP\r\n'));
    // What the kernel takes of it is a few megabytes; then it stands still.
    let last = -1;
    for (let same = 0; same < 20; ) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      same = client.socket.writableLength === last ? same + 1 : 0;
      last = client.socket.writableLength;
    }
    expect(last).toBeGreaterThan(flood / 2);
    release();
    expect((await client.until('a')).at(-1)).toBe('a OK STATUS completed');
    client.close();
  });

  it('reads only the range that is asked for', async () => {
    await start();
    await server.deliver('alice', 'INBOX', `Subject: x\r\n\r\n${'0123456789'.repeat(300_000)}`);
    const ranges: unknown[] = [];
    const { read, stream } = server.blobs;
    server.blobs.read = (id, range) => {
      ranges.push(range);
      return read.call(server.blobs, id, range);
    };
    server.blobs.stream = (id, range) => {
      ranges.push(range);
      return stream.call(server.blobs, id, range);
    };
    const client = await TestClient.login(server.port);
    await client.ok('SELECT INBOX');
    expect(await client.ok('FETCH 1 BODY.PEEK[TEXT]<1000005.6>')).toEqual(['* 1 FETCH (BODY[TEXT]<1000005> {6}\r\n567890)']);
    expect(ranges).toEqual([{ start: 1_000_019, end: 1_000_025 }]);
  });

  it('waits for a client that does not read, and ends one that never does', async () => {
    const clock = new ManualClock();
    await start({ sessionClock: clock });
    for (let i = 0; i < 60; i++) await server.deliver('alice', 'INBOX', message('m') + 'x'.repeat(300_000));
    const client = await TestClient.login(server.port);
    await client.ok('SELECT INBOX');
    let reads = 0;
    const { stream } = server.blobs;
    server.blobs.stream = (id, range) => {
      reads++;
      return stream.call(server.blobs, id, range);
    };
    client.socket.pause();
    client.send('f FETCH 1:* BODY.PEEK[]\r\n');
    await expect.poll(() => reads).toBeGreaterThan(0);
    // The write time limit is the only one of this length: it stands while the session waits for the client.
    await clock.waiting(defaultImapLimits.writeTimeoutMs);
    expect(reads).toBeLessThan(60);
    clock.advance(defaultImapLimits.writeTimeoutMs);
    await expect.poll(() => server.sessions.size).toBe(0);
  });
});

describe('many messages', () => {
  it('tells what somebody else changed right behind our own change', async () => {
    await start();
    await server.deliver('alice', 'INBOX', message('one'));
    const client = await TestClient.login(server.port);
    await client.ok('SELECT INBOX');
    const { changeFlags } = server.mail;
    server.mail.changeFlags = async (...args) => {
      const result = await changeFlags(...args);
      await changeFlags(args[0], args[1], [1], { mode: 'add', keywords: ['$answered'], deleted: false });
      return result;
    };
    const own = '* 1 FETCH (UID 1 FLAGS (\\Flagged \\Recent))';
    expect(await client.ok('STORE 1 +FLAGS (\\Flagged)')).toEqual([
      own,
      '* 1 FETCH (UID 1 FLAGS (\\Answered \\Flagged \\Recent))',
    ]);
    // In front of it: .SILENT does not hide what was not ours.
    server.mail.changeFlags = async (...args) => {
      await changeFlags(args[0], args[1], [1], { mode: 'add', keywords: ['$draft'], deleted: false });
      return changeFlags(...args);
    };
    expect(await client.ok('STORE 1 +FLAGS.SILENT (\\Seen)')).toEqual([
      '* 1 FETCH (UID 1 FLAGS (\\Seen \\Answered \\Flagged \\Draft \\Recent))',
    ]);
    server.mail.changeFlags = changeFlags;
    expect(await client.ok('STORE 1 -FLAGS.SILENT (\\Seen)')).toEqual([]);
  });

  it('keeps sessions of one mailbox on one list of UIDs', async () => {
    await start();
    for (let i = 0; i < 5; i++) await server.deliver('alice', 'INBOX', message(`m${i}`));
    const id = accountIdOf('alice');
    const box = (await server.mail.mailboxByPath(id, ['INBOX']))!.mailbox.id;
    const index = await server.mail.openIndex(id, box);
    const before = index.uids();
    const copy = [...before];
    await server.mail.changeFlags(id, box, [2], { mode: 'add', keywords: [], deleted: true });
    await server.mail.expunge(id, box, [2]);
    await server.deliver('alice', 'INBOX', message('new'));
    await index.refresh();
    // What sessions have announced must not change under them: the index gives out a new list instead.
    expect([...before]).toEqual(copy);
    expect([...index.uids()]).toEqual([1, 3, 4, 5, 6]);
    index.release();
  });

  it('lists 1,280 messages in order with every item, and all of them once', async () => {
    await start();
    for (let i = 0; i < 20; i++) await server.deliver('alice', 'INBOX', message(`m${i}`));
    const client = await TestClient.login(server.port);
    await client.ok('SELECT INBOX');
    for (let i = 0; i < 6; i++) await client.ok('COPY 1:* INBOX');
    const lines = await client.ok('FETCH 1:* (UID FLAGS ENVELOPE RFC822.SIZE BODYSTRUCTURE)');
    expect(lines.length).toBe(20 * 64);
    for (const [i, line] of lines.entries()) {
      const start = `* ${i + 1} FETCH (UID ${i + 1} FLAGS (\\Recent) RFC822.SIZE `;
      expect(line.startsWith(start)).toBe(true);
      expect(line).toContain(` ENVELOPE (NIL "m${i % 20}" `);
    }
  });
});
