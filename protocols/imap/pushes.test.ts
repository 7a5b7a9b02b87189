import { afterEach, describe, expect, it } from 'vitest';
import { TestClient } from './testing/client.js';
import { startTestServer, type TestServer } from './testing/server.js';

let server: TestServer;

afterEach(() => server.close());

const message = (text: string) => `Subject: ${text}\r\nFrom: a@example.org\r\n\r\n${text}\r\n`;

async function idling(mailbox = 'INBOX'): Promise<TestClient> {
  const client = await TestClient.login(server.port);
  await client.ok(`SELECT ${mailbox}`);
  client.send('i IDLE\r\n');
  expect(await client.line()).toBe('+ idling');
  return client;
}

async function leave(client: TestClient): Promise<string[]> {
  client.send('DONE\r\n');
  return client.until('i');
}

describe('news for many sessions in IDLE on one mailbox', () => {
  it('reach each of them once, in its own words', async () => {
    server = await startTestServer();
    await server.deliver('alice', 'INBOX', message('one'));
    const plain = await Promise.all(Array.from({ length: 40 }, () => idling()));
    const condstore = await TestClient.login(server.port);
    await condstore.ok('SELECT INBOX (CONDSTORE)');
    condstore.send('i IDLE\r\n');
    expect(await condstore.line()).toBe('+ idling');
    const writer = await TestClient.login(server.port);
    await writer.ok('SELECT INBOX');
    await writer.ok('STORE 1 +FLAGS (\\Flagged)');
    const all = [...plain, condstore];
    for (const client of plain) expect(await client.line()).toMatch(/^\* 1 FETCH \(UID 1 FLAGS \([^)]*\\Flagged[^)]*\)\)$/);
    expect(await condstore.line()).toMatch(/^\* 1 FETCH \(.*MODSEQ \(\d+\)\)$/);
    await server.deliver('alice', 'INBOX', message('two'));
    for (const client of all) expect(await client.line()).toBe('* 2 EXISTS');
    // Nothing is told twice, with \Recent of one session left aside.
    for (const client of all) {
      const rest = (await leave(client)).filter((line) => !line.endsWith(' RECENT'));
      expect(rest).toEqual(['i OK IDLE completed']);
    }
  });

  it('reach those who stay when others leave, and when who came first has selected another mailbox', async () => {
    server = await startTestServer();
    await server.deliver('alice', 'INBOX', message('one'));
    const clients = [await idling(), await idling(), await idling()];
    await server.deliver('alice', 'INBOX', message('two'));
    for (const client of clients) expect(await client.line()).toBe('* 2 EXISTS');
    const [first, ...others] = clients as [TestClient, ...TestClient[]];
    await leave(first);
    await first.ok('SELECT Archive');
    first.send('i IDLE\r\n');
    expect(await first.line()).toBe('+ idling');
    await server.deliver('alice', 'INBOX', message('three'));
    const next = async (client: TestClient): Promise<string | undefined> => {
      const line = await client.line();
      return line?.endsWith(' RECENT') ? next(client) : line;
    };
    for (const client of others) expect(await next(client)).toBe('* 3 EXISTS');
    await server.deliver('alice', 'Archive', message('elsewhere'));
    expect(await next(first)).toBe('* 1 EXISTS');
    for (const client of others) await leave(client);
    // All have left: who comes next has a queue of its own.
    const late = await idling();
    await server.deliver('alice', 'INBOX', message('four'));
    expect(await next(late)).toBe('* 4 EXISTS');
  });

  it('reach the others where one can not be told', async () => {
    server = await startTestServer();
    await server.deliver('alice', 'INBOX', message('one'));
    const clients = [await idling(), await idling()];
    const gone = await idling();
    gone.close();
    await server.deliver('alice', 'INBOX', message('two'));
    for (const client of clients) expect(await client.line()).toBe('* 2 EXISTS');
    await expect.poll(() => server.sessions.size, { timeout: 60_000 }).toBe(2);
    await server.deliver('alice', 'INBOX', message('three'));
    for (const client of clients) {
      let line = await client.line();
      if (line?.endsWith(' RECENT')) line = await client.line();
      expect(line).toBe('* 3 EXISTS');
    }
  });
});
