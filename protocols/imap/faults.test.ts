/** What clients do to a server, and what a server does to its clients when it must: nobody else may notice. */
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../ops/telemetry/index.js';
import { TestClient } from './testing/client.js';
import { ManualClock } from './testing/manual-clock.js';
import { accountIdOf, startTestServer, type TestServer, type TestServerOptions } from './testing/server.js';

let server: TestServer;

async function start(options?: TestServerOptions): Promise<TestServer> {
  server = await startTestServer(options);
  return server;
}

afterEach(() => server.close());

describe('a drain', () => {
  it('says BYE to who is in the middle of a literal, and to who only listens', async () => {
    await start();
    const appending = await TestClient.login(server.port);
    appending.send('a APPEND INBOX {100}\r\n');
    expect(await appending.line()).toMatch(/^\+/);
    appending.send('Subject: half');
    const naming = await TestClient.login(server.port);
    naming.send('n CREATE {10}\r\n');
    expect(await naming.line()).toMatch(/^\+/);
    const listening = await TestClient.login(server.port);
    await listening.ok('SELECT INBOX');
    await listening.ok('NOTIFY SET (selected (MessageNew MessageExpunge))');
    const open = [appending, naming, listening];
    await Promise.all([...server.sessions].map((session) => session.drain()));
    for (const client of open) {
      expect(await client.line()).toBe('* BYE [UNAVAILABLE] Server is going down');
      await client.closed();
    }
    expect(await (await TestClient.login(server.port)).ok('STATUS INBOX (MESSAGES)')).toEqual(['* STATUS INBOX (MESSAGES 0)']);
  });
});

describe('a client that never reads', () => {
  it('holds no more than a buffer, and is cut off in the end; others go on', async () => {
    const clock = new ManualClock();
    await start({ sessionClock: clock });
    const body = 'x'.repeat(60_000);
    for (let i = 0; i < 100; i++) await server.deliver('alice', 'INBOX', `Subject: ${i}\r\n\r\n${body}`);
    const deaf = await TestClient.login(server.port);
    await deaf.ok('SELECT INBOX');
    deaf.socket.pause();
    // More than the kernel takes on both sides together.
    deaf.send('a UID FETCH 1:* BODY.PEEK[]\r\n'.repeat(8));
    await clock.waiting(300_000);
    const other = await TestClient.login(server.port);
    await other.ok('SELECT INBOX');
    await other.ok('UID STORE 1:* +FLAGS.SILENT (\\Flagged)');
    const before = server.sessions.size;
    // The deaf one's wait for room began no later than this.
    clock.advance(300_000);
    await expect.poll(() => server.sessions.size).toBe(before - 1);
    await other.ok('NOOP');
    deaf.close();
  });
});

describe('nesting and length', () => {
  it('is refused at a thousand parentheses, and at ten megabytes the connection ends', async () => {
    await start();
    const client = await TestClient.login(server.port);
    await client.ok('SELECT INBOX');
    const nested = `${'('.repeat(1_000)}ALL${')'.repeat(1_000)}`;
    expect((await client.command(`SEARCH ${nested}`)).at(-1)).toMatch(/ NO \[LIMIT\]/);
    expect((await client.command(`FETCH 1 ${nested}`)).at(-1)).toMatch(/ (BAD|NO)/);
    expect((await client.command(`SEARCH ${'NOT '.repeat(10_000)}ALL`)).at(-1)).toMatch(/ NO \[LIMIT\]/);
    expect((await client.command(`SELECT "${'x'.repeat(1_000)}`)).at(-1)).toMatch(/ BAD/);
    await client.ok('NOOP');
    client.send(Buffer.alloc(10_000_000, 'y'));
    expect(await client.line()).toMatch(/ BAD /);
    expect(await client.line()).toMatch(/^\* BYE/);
    await client.closed();
  });
});

describe('a long command', () => {
  it('tells how far it is (RFC 9585)', async () => {
    // Every look at this clock takes two seconds.
    let nowMs = 0;
    const slow = { ...systemClock, monotonicMs: () => (nowMs += 2_000) };
    await start({ sessionClock: slow, limits: { loginTimeoutMs: 1e9, idleTimeoutMs: 1e9 } });
    const client = await TestClient.login(server.port);
    for (let i = 0; i < 200; i++) await server.deliver('alice', 'INBOX', `Subject: ${i}\r\n\r\n`);
    await client.ok('SELECT INBOX');
    client.send('long UID FETCH 1:* (BODY.PEEK[])\r\n');
    const lines = await client.until('long');
    const told = lines.filter((line) => line.includes('INPROGRESS'));
    expect(told.length).toBeGreaterThan(0);
    for (const line of told) expect(line).toMatch(/^\* OK \[INPROGRESS \("long" \d+ 200\)\] /);
    // At most every ten seconds: five looks at the clock.
    expect(told.length).toBeLessThan(lines.length / 2);
    expect(lines.filter((line) => /^\* \d+ FETCH /.test(line)).length).toBe(200);
  });
});

describe('NOTIFY and a store that can not be read', () => {
  it('tells later what it could not tell at once', async () => {
    const clock = new ManualClock();
    await start({ sessionClock: clock });
    const client = await TestClient.login(server.port);
    await client.ok('NOTIFY SET (personal (MessageNew MessageExpunge))');
    const { changesSince } = server.mail;
    let failures = 0;
    server.mail.changesSince = async (...args) => {
      if (failures++ > 0) return changesSince(...args);
      const { KvError } = await import('../../store/kv/contract.js');
      throw new KvError('unavailable', 'not now');
    };
    await server.deliver('alice', 'INBOX', 'Subject: x\r\n\r\n');
    await expect.poll(() => failures).toBeGreaterThan(0);
    await clock.waiting(5_000);
    clock.advance(5_000);
    expect(await client.line()).toMatch(/^\* STATUS INBOX \(MESSAGES 1 /);
    expect((await server.mail.usage(accountIdOf('alice'))).messages).toBe(1);
  });
});
