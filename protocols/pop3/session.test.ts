/** What dialogs can't show: hostile clients, time, drain, and locks between nodes. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterEach, describe, expect, it } from 'vitest';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { openMemoryStore } from '../../store/kv/index.js';
import { createMaildropLocks, MaildropLockLost } from '../../store/mail/index.js';
import { TestClient } from '../imap/testing/client.js';
import { ManualClock } from '../imap/testing/manual-clock.js';
import { aliceId, setFence, startTestServer, type TestServer, type TestServerOptions } from './testing/server.js';

const open: { close(): unknown }[] = [];
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await each.close();
});

async function start(options?: TestServerOptions): Promise<TestServer> {
  const server = await startTestServer(options);
  open.push(server);
  return server;
}

/** Answers the reply to PASS. */
async function logIn(port: number): Promise<{ client: TestClient; reply: string | undefined }> {
  const client = await TestClient.open(port);
  open.push(client);
  client.send('USER alice\r\nPASS secret\r\n');
  await client.line();
  await client.line();
  return { client, reply: await client.line() };
}

async function ask(client: TestClient, command: string): Promise<string | undefined> {
  client.send(`${command}\r\n`);
  return client.line();
}

const message = (i: number) => `Subject: ${i}\r\n\r\nbody ${i}\r\n`;

describe('the maildrop', () => {
  it('has the sizes of what is sent, wherever a message has come from', async () => {
    const server = await start();
    const bare = 'Subject: bare\n\none\n.\nno end';
    for (const text of [message(1), bare, message(3)]) await server.deliver(text);
    const { mail } = server;
    const [inbox, archive] = await Promise.all(
      ['INBOX', 'Archive'].map(async (name) => (await mail.mailboxByPath(aliceId, [name]))!.mailbox.id),
    );
    // A second message in the same mailbox, one that leaves and comes back, and a changed flag keep what is known.
    await mail.copy(aliceId, inbox!, [2], inbox!);
    await mail.move(aliceId, inbox!, [2], archive!);
    await mail.move(aliceId, archive!, [1], inbox!);
    await mail.changeFlags(aliceId, inbox!, [4, 5], { mode: 'add', keywords: ['$flagged', 'mine'], deleted: false });
    const { client, reply } = await logIn(server.port);
    const size = Buffer.byteLength(bare) + 6;
    const ordinary = message(1).length;
    expect(reply).toBe(`+OK 4 messages (${2 * ordinary + 2 * size} octets)`);
    for (const [number, bytes] of [ordinary, ordinary, size, size].entries()) {
      expect(await ask(client, `LIST ${number + 1}`)).toBe(`+OK ${number + 1} ${bytes}`);
      expect(await ask(client, `RETR ${number + 1}`)).toBe(`+OK ${bytes} octets`);
      let received = 0;
      for (let line = await client.line(); line !== '.'; line = await client.line())
        received += line!.replace(/^\./, '').length + 2;
      expect(received).toBe(bytes);
    }
    await ask(client, 'DELE 3');
    expect(await ask(client, 'STAT')).toBe(`+OK 3 ${2 * ordinary + size}`);
    await ask(client, 'RSET');
    expect(await ask(client, 'STAT')).toBe(`+OK 4 ${2 * ordinary + 2 * size}`);
  });

  it('stays as it was at login, whatever others do', async () => {
    const server = await start();
    for (let i = 1; i <= 3; i++) await server.deliver(message(i));
    const { client } = await logIn(server.port);
    await server.deliver(message(4));
    const inbox = (await server.mail.mailboxByPath(aliceId, ['INBOX']))!.mailbox.id;
    await server.mail.expunge(aliceId, inbox, [2], { onlyDeleted: false });
    expect(await ask(client, 'STAT')).toMatch(/^\+OK 3 /);
    expect(await ask(client, 'RETR 2')).toBe('-ERR That message has been removed by another session');
    expect(await ask(client, 'DELE 2')).toMatch(/^\+OK/);
    expect(await ask(client, 'DELE 3')).toMatch(/^\+OK/);
    expect(await ask(client, 'QUIT')).toBe('+OK Bye, 2 messages removed');
    expect((await server.inbox()).map(({ uid }) => uid)).toEqual([1, 4]);
  });

  it('marks what was retrieved as seen at QUIT, unless it is told not to', async () => {
    for (const marksSeen of [true, false]) {
      const server = await start({ limits: { marksSeen } });
      await server.deliver(message(1));
      await server.deliver(message(2));
      const { client } = await logIn(server.port);
      client.send('RETR 1\r\nTOP 2 1\r\nQUIT\r\n');
      await client.closed();
      expect((await server.inbox()).map(({ keywords }) => keywords)).toEqual([marksSeen ? ['$seen'] : [], []]);
    }
  });

  it('removes nothing when the time is up, and says nothing', async () => {
    const clock = new ManualClock();
    const server = await start({ sessionClock: clock });
    await server.deliver(message(1));
    const { client } = await logIn(server.port);
    await ask(client, 'DELE 1');
    clock.advance(10 * 60_000 - 1);
    expect(await ask(client, 'NOOP')).toMatch(/^\+OK/);
    clock.advance(10 * 60_000);
    expect(await client.line()).toBeUndefined();
    expect(await server.inbox()).toHaveLength(1);
  });

  it('is left alone by a drain, which says why', async () => {
    const server = await start();
    await server.deliver(message(1));
    const { client } = await logIn(server.port);
    await ask(client, 'DELE 1');
    await Promise.all([...server.sessions].map((session) => session.drain()));
    expect(await client.line()).toMatch(/^-ERR \[SYS\/TEMP\] /);
    expect(await client.line()).toBeUndefined();
    expect(await server.inbox()).toHaveLength(1);
    expect((await logIn(server.port)).reply).toMatch(/^\+OK 1 /);
  });
});

describe('a node that can serve nobody now', () => {
  it('says so at once, though the lock can not be given back', async () => {
    const kv = openMemoryStore({ clock: systemClock });
    open.push(kv);
    const server = await start({ kv });
    await server.deliver(message(1));
    const { client } = await logIn(server.port);
    await ask(client, 'DELE 1');
    let letGo = () => {};
    const away = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    const { transact } = kv;
    kv.transact = async (...args) => {
      await away;
      return transact.apply(kv, args as Parameters<typeof transact>) as never;
    };
    const over = [...server.sessions].map((session) => {
      session.turnAway();
      return session.run();
    });
    expect(await client.line()).toBe('-ERR [SYS/TEMP] The server can not serve you now, nothing was removed');
    expect(await client.line()).toBeUndefined();
    kv.transact = transact;
    letGo();
    await Promise.all(over);
    expect((await logIn(server.port)).reply).toMatch(/^\+OK 1 /);
  });
});

describe('the lock of the maildrop', () => {
  it('is exclusive over two nodes, and free when the node of its session is dead', async () => {
    const kv = openMemoryStore({ clock: systemClock });
    open.push(kv);
    const first = await start({ kv, nodeId: 'first' });
    const second = await start({ kv, nodeId: 'second' });
    await first.deliver(message(1));
    const { client } = await logIn(first.port);
    await ask(client, 'DELE 1');
    expect((await logIn(second.port)).reply).toBe('-ERR [IN-USE] Another session has the maildrop');
    await setFence(kv, 'first', false);
    const after = await logIn(second.port);
    expect(after.reply).toMatch(/^\+OK 1 /);
    // The node that was thought dead goes on: what it wanted to remove stays.
    expect(await ask(client, 'QUIT')).toMatch(/^-ERR \[IN-USE\] /);
    expect(await first.inbox()).toHaveLength(1);
    // Its end does not take the lock from whoever has it now.
    expect((await logIn(second.port)).reply).toMatch(/^-ERR \[IN-USE\]/);
    expect(await ask(after.client, 'RETR 1')).toMatch(/^\+OK/);
  });

  it('is free when the client has gone', async () => {
    const server = await start();
    for (let i = 0; i < 5; i++) {
      const { client, reply } = await logIn(server.port);
      expect(reply).toMatch(/^\+OK/);
      client.close();
      while (server.sessions.size > 0) await new Promise((resolve) => setImmediate(resolve));
    }
  });

  it('of a process before this one is free at once, and a node without a fence takes none', async () => {
    const kv = openMemoryStore({ clock: systemClock });
    open.push(kv);
    const locksOf = (nodeId: string) =>
      createMaildropLocks({ kv, clock: systemClock, random: systemRandom, logger: silentLogger, nodeId: () => nodeId });
    await setFence(kv, 'a', true);
    expect(await locksOf('a').acquire(aliceId)).toBeDefined();
    // The same node's id, and nobody here who holds it: left over.
    const again = await locksOf('a').acquire(aliceId);
    expect(again).toBeDefined();
    await expect(locksOf('nobody').acquire(aliceId)).rejects.toThrow(MaildropLockLost);
    await setFence(kv, 'b', true);
    expect(await locksOf('b').acquire(aliceId)).toBeUndefined();
    await again!.release();
    expect(await locksOf('b').acquire(aliceId)).toBeDefined();
  });

  it('is taken once under unknown commits', async () => {
    const kv = openMemoryStore({
      clock: systemClock,
      faults: { conflict: 0.2, commitUnknownApplied: 0.2, commitUnknownLost: 0.2 },
    });
    open.push(kv);
    await setFence(kv, 'a', true);
    await setFence(kv, 'b', true);
    const make = (nodeId: string) =>
      createMaildropLocks({ kv, clock: systemClock, random: systemRandom, logger: silentLogger, nodeId: () => nodeId });
    const nodes = [make('a'), make('b')];
    for (let i = 0; i < 40; i++) {
      const locks = await Promise.all([...nodes, ...nodes].map((node) => node.acquire(aliceId)));
      const taken = locks.filter((lock) => lock !== undefined);
      expect(taken).toHaveLength(1);
      await taken[0]!.release();
    }
  });
});

describe('hostile clients', () => {
  it('survives lines of 10 MB', async () => {
    const server = await start();
    const { client } = await logIn(server.port);
    client.send(Buffer.alloc(10_485_760, 0x41));
    client.send('\r\nNOOP\r\n');
    const lines: (string | undefined)[] = [];
    for (let line = await client.line(); line !== undefined; line = await client.line()) lines.push(line);
    expect(lines).toEqual(['-ERR Line too long']);
    expect((await logIn(server.port)).reply).toMatch(/^\+OK/);
  });

  it('ends a connection that sends nothing but nonsense', async () => {
    const server = await start();
    const client = await TestClient.open(server.port);
    open.push(client);
    client.send('nonsense\r\n'.repeat(1_000));
    let count = 0;
    while ((await client.line()) !== undefined) count++;
    expect(count).toBeLessThan(30);
  });

  it('holds little for a client that never reads, and cuts it', async () => {
    const clock = new ManualClock();
    const server = await start({ sessionClock: clock });
    const bytes = Buffer.from(`Subject: big\r\n\r\n${'a line of text\r\n'.repeat(131_072)}`);
    await server.deliver(bytes);
    const socket = connect(server.port, '127.0.0.1');
    open.push({ close: () => socket.destroy() });
    socket.pause();
    socket.write(`USER alice\r\nPASS secret\r\n${'RETR 1\r\n'.repeat(500)}`);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => {});
    while (server.sessions.size > 0) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      clock.advance(60_000);
    }
    socket.destroy();
    await closed;
    expect((await logIn(server.port)).reply).toMatch(/^\+OK 1 /);
  });

  it('gives the storage its stream back when a client goes away in the middle of a message', async () => {
    const server = await start();
    await server.deliver(`Subject: big\r\n\r\n${'a line of text\r\n'.repeat(20_000)}`);
    let isOpen = false;
    server.blobs.stream = async function* () {
      isOpen = true;
      try {
        // Far more than all buffers on the way take.
        for (let i = 0; i < 10_000; i++) yield Buffer.alloc(65_536, 0x61);
      } finally {
        isOpen = false;
      }
    };
    const { client } = await logIn(server.port);
    client.socket.pause();
    client.send('RETR 1\r\n');
    await expect.poll(() => isOpen).toBe(true);
    client.close();
    await expect.poll(() => server.sessions.size).toBe(0);
    expect(isOpen).toBe(false);
  });

  it('drops what came before the handshake of STLS', async () => {
    const server = await start({ allowPlainAuth: false });
    const plain = connect(server.port, '127.0.0.1');
    open.push({ close: () => plain.destroy() });
    await once(plain, 'data');
    plain.write('STLS\r\nUSER alice\r\n');
    const [begin] = await once(plain, 'data');
    expect(String(begin)).toBe('+OK Begin TLS negotiation\r\n');
    const secure = connectTls({ socket: plain, rejectUnauthorized: false });
    await once(secure, 'secureConnect');
    secure.write('PASS secret\r\n');
    const [answer] = await once(secure, 'data');
    expect(String(answer)).toBe('-ERR USER comes first\r\n');
  });

  it('hangs up on TLS on the plain port', async () => {
    const server = await start();
    await expect(TestClient.open(server.port, true)).rejects.toThrow();
  });
});

it('reads the records of many messages at once, whichever end a client begins at', async () => {
  const server = await start();
  const count = 200;
  for (let i = 1; i <= count; i++) await server.deliver(message(i));
  const { messages } = server.mail;
  let reads = 0;
  server.mail.messages = (accountId, ids) => {
    reads++;
    return messages(accountId, ids);
  };
  for (const step of [1, -1]) {
    reads = 0;
    const { client } = await logIn(server.port);
    const numbers = Array.from({ length: count }, (_, i) => (step > 0 ? i + 1 : count - i));
    client.send(numbers.map((number) => `TOP ${number} 0\r\n`).join(''));
    for (const number of numbers) {
      await client.line();
      expect(await client.line()).toBe(`Subject: ${number}`);
      while ((await client.line()) !== '.');
    }
    expect(reads).toBeLessThanOrEqual(5);
    await ask(client, 'QUIT');
  }
});

it('takes a pipelined maildrop of 300 messages in order', async () => {
  const server = await start();
  for (let i = 1; i <= 300; i++) await server.deliver(message(i));
  const { client } = await logIn(server.port);
  client.send(Array.from({ length: 300 }, (_, i) => `RETR ${i + 1}\r\nDELE ${i + 1}\r\n`).join(''));
  for (let i = 1; i <= 300; i++) {
    expect(await client.line()).toMatch(/^\+OK \d+ octets$/);
    expect(await client.line()).toBe(`Subject: ${i}`);
    while ((await client.line()) !== '.');
    expect(await client.line()).toBe('+OK Marked to be deleted');
  }
  expect(await ask(client, 'QUIT')).toBe('+OK Bye, 300 messages removed');
  expect(await server.inbox()).toEqual([]);
});
