/** SORT and THREAD over the wire, where the facts of messages are shared, grow, and go. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { summarizeWithin } from '../../message/index.js';
import { TestClient } from '../testing/client.js';
import { accountIdOf, startTestServer, type TestServer } from '../testing/server.js';

const count = 2_500;
const dayMs = 86_400_000;
/** Sent in an order of its own: message i on day (7 i) mod `count`. */
const sentDay = (i: number) => (i * 7) % count;

async function fill(server: TestServer, from: number, to: number): Promise<void> {
  const accountId = accountIdOf('alice');
  await server.mail.ensureAccount(accountId);
  const inbox = await server.mail.mailboxByPath(accountId, ['INBOX']);
  const messages = Array.from({ length: to - from }, (_, n) => {
    const i = from + n;
    const date = new Date(sentDay(i) * dayMs).toUTCString().replace('GMT', '+0000');
    const bytes = Buffer.from(`Date: ${date}\r\nSubject: s${i}\r\n\r\n${i}\r\n`);
    const { encoded } = summarizeWithin(bytes, 90_000);
    return {
      blob: server.blobs.prepare(bytes),
      mailboxIds: [inbox!.mailbox.id],
      receivedAtMs: Date.UTC(2024, 0, 1),
      summary: encoded,
      messageIds: [],
    };
  });
  for (let at = 0; at < messages.length; at += 500) await server.mail.append(accountId, messages.slice(at, at + 500));
}

const bySent = (indexes: readonly number[]) => [...indexes].sort((a, b) => sentDay(a) - sentDay(b));
const uidLine = (indexes: readonly number[]) => `* SORT${indexes.map((i) => ` ${i + 1}`).join('')}`;
const upTo = (end: number) => Array.from({ length: end }, (_, i) => i);

describe('a large mailbox', () => {
  let server: TestServer;
  let clients: TestClient[];

  beforeAll(async () => {
    server = await startTestServer();
    await fill(server, 0, count);
    clients = await Promise.all([1, 2, 3].map(() => TestClient.login(server.port)));
    for (const client of clients) await client.ok('SELECT INBOX');
  });
  afterAll(async () => {
    for (const client of clients) client.close();
    await server.close();
  });

  it('is sorted for several sessions at once, one of which leaves in the middle', async () => {
    const [one, two, leaving] = clients as [TestClient, TestClient, TestClient];
    const expected = uidLine(bySent(upTo(count)));
    leaving.send('x UID SORT (DATE) UTF-8 ALL\r\n');
    const answers = [one, two].map((client) => client.ok('UID SORT (DATE) UTF-8 ALL'));
    leaving.close();
    for (const answer of answers) expect((await answer)[0]).toBe(expected);
  });

  it('is searched by sent dates alike, whether a SORT has left them behind or not', async () => {
    const [one] = clients as [TestClient];
    const fresh = await startTestServer();
    await fill(fresh, 0, 300);
    const other = await TestClient.login(fresh.port);
    await other.ok('SELECT INBOX');
    for (const key of ['SENTBEFORE', 'SENTON', 'SENTSINCE']) {
      const program = `UID SEARCH RETURN (ALL COUNT) UID 1:300 ${key} 1-Feb-1975`;
      const [known] = await one.ok(program);
      const [unknown] = await other.ok(program);
      expect(known!.replace(/TAG "[^"]*"/, '')).toBe(unknown!.replace(/TAG "[^"]*"/, ''));
    }
    other.close();
    await fresh.close();
  });

  it('forgets what goes, and adds what comes', async () => {
    const [one, two] = clients as [TestClient, TestClient];
    await one.ok(`UID STORE 1:${count - 500} +FLAGS.SILENT (\\Deleted)`);
    await one.ok('EXPUNGE');
    await fill(server, count, count + 5);
    const left = [...upTo(count).slice(count - 500), ...upTo(count + 5).slice(count)];
    for (const client of [one, two]) {
      const lines = await client.ok('UID SORT (DATE) UTF-8 ALL');
      expect(lines.find((line) => line.startsWith('* SORT'))).toBe(uidLine(bySent(left)));
    }
    const threads = (await two.ok('UID THREAD REFERENCES UTF-8 ALL')).find((line) => line.startsWith('* THREAD'));
    expect(threads).toBe(
      `* THREAD ${bySent(left)
        .map((i) => `(${i + 1})`)
        .join('')}`,
    );
  });
});
