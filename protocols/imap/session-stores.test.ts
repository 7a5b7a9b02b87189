/** Sessions and their stores: failures, what is acknowledged, texts that are searched. */
import { randomBytes } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import { BlobCorrupt, BlobMissing } from '../../store/blobs/contract.js';
import { openMemoryStore } from '../../store/kv/index.js';
import { TestClient } from './testing/client.js';
import { accountIdOf, startTestServer, type TestServer, type TestServerOptions } from './testing/server.js';

let server: TestServer;

async function start(options?: TestServerOptions): Promise<TestServer> {
  server = await startTestServer(options);
  return server;
}

afterEach(() => server.close());

const message = (text: string) => `Subject: ${text}\r\nFrom: a@example.org\r\n\r\n${text}\r\n`;

describe('a store in trouble', () => {
  it('answers NO [UNAVAILABLE] and goes on afterwards', async () => {
    const kv = openMemoryStore();
    await start({ kv });
    await server.deliver('alice', 'INBOX', message('one'));
    const client = await TestClient.login(server.port);
    await client.ok('SELECT INBOX');
    kv.faults.outage = true;
    expect((await client.command('STORE 1 +FLAGS (\\Seen)')).at(-1)).toMatch(/NO \[UNAVAILABLE\]/);
    expect((await client.command('STATUS INBOX (MESSAGES)')).at(-1)).toMatch(/NO \[UNAVAILABLE\]/);
    kv.faults.outage = false;
    expect(await client.ok('FETCH 1 FLAGS')).toEqual(['* 1 FETCH (FLAGS (\\Recent))']);
  });

  it('lets people read while there is no space to write', async () => {
    const kv = openMemoryStore();
    await start({ kv });
    await server.deliver('alice', 'INBOX', message('one'));
    const client = await TestClient.login(server.port);
    await client.ok('SELECT INBOX');
    const { changeFlags, append } = server.mail;
    const { KvError } = await import('../../store/kv/index.js');
    const full = async () => {
      throw new KvError('unavailable', 'disk full', 'no-space');
    };
    server.mail.changeFlags = full;
    server.mail.append = full;
    expect((await client.ok('FETCH 1 BODY[TEXT]'))[0]).toBe('* 1 FETCH (BODY[TEXT] {5}\r\none\r\n)');
    expect((await client.command('APPEND INBOX {5+}\r\nhello')).at(-1)).toMatch(/NO \[OVERQUOTA\]/);
    Object.assign(server.mail, { changeFlags, append });
    expect((await client.ok('FETCH 1 BODY[TEXT]'))[0]).toMatch(/^\* 1 FETCH \(FLAGS \(\\Seen \\Recent\) BODY\[TEXT\]/);
  });
});

describe('what is done stays done', () => {
  it('answers OK for a committed change though the news after it can not be read', async () => {
    const kv = openMemoryStore();
    await start({ kv });
    await server.deliver('alice', 'INBOX', message('one'));
    const client = await TestClient.login(server.port);
    await client.ok('SELECT INBOX');
    const { append } = server.mail;
    server.mail.append = async (...args) => {
      const inserted = await append(...args);
      kv.faults.outage = true;
      return inserted;
    };
    expect((await client.command('APPEND INBOX {5+}\r\nhello')).at(-1)).toMatch(/OK \[APPENDUID \d+ 2\]/);
    kv.faults.outage = false;
    expect(await client.ok('NOOP')).toEqual(['* 2 EXISTS', '* 2 RECENT']);
  });

  it('gives the other messages where the bytes of one are gone', async () => {
    await start();
    for (const text of ['one', 'two', 'three']) await server.deliver('alice', 'INBOX', message(text));
    const id = accountIdOf('alice');
    const inbox = (await server.mail.mailboxByPath(id, ['INBOX']))!.mailbox.id;
    const [, second] = await server.mail.entries(id, inbox);
    const [lost] = await server.mail.messages(id, [second!.emailId]);
    const { read } = server.blobs;
    let loss: (blobId: string) => Error;
    server.blobs.read = (blobId, range) =>
      blobId === lost!.blobId ? Promise.reject(loss(blobId)) : read.call(server.blobs, blobId, range);
    const client = await TestClient.login(server.port);
    await client.ok('EXAMINE INBOX');
    for (const item of ['BODY.PEEK[]', 'BODY.PEEK[TEXT]', '(BODY.PEEK[HEADER] BODY.PEEK[1])']) {
      loss = (blobId) => (item.includes('TEXT') ? new BlobCorrupt(blobId, 'a test') : new BlobMissing(blobId));
      const lines = await client.ok(`UID FETCH 1:* ${item}`);
      expect(lines.map((line) => /UID \d+/.exec(line)![0])).toEqual(['UID 1', 'UID 3']);
      expect((await client.command(`FETCH 1:* ${item}`)).at(-1)).toMatch(/NO \[EXPUNGEISSUED\]/);
    }
  });

  it('appends all messages of a MULTIAPPEND or none, and leaves no bytes behind', async () => {
    await start();
    const client = await TestClient.login(server.port);
    const aborted: number[] = [];
    const { writer } = server.blobs;
    server.blobs.writer = () => {
      const made = writer.call(server.blobs);
      const { abort } = made;
      made.abort = () => {
        aborted.push(made.sizeBytes);
        return abort.call(made);
      };
      return made;
    };
    const { append } = server.mail;
    server.mail.append = async () => {
      throw new Error('broken');
    };
    const two = 'APPEND INBOX {5+}\r\nhello {6+}\r\nhello!';
    expect((await client.command(two)).at(-1)).toMatch(/NO \[SERVERBUG\]/);
    expect(aborted).toEqual([5, 6]);
    server.mail.append = append;
    expect(await client.ok('STATUS INBOX (MESSAGES)')).toEqual(['* STATUS INBOX (MESSAGES 0)']);
    await client.ok(two);
    expect(await client.ok('STATUS INBOX (MESSAGES)')).toEqual(['* STATUS INBOX (MESSAGES 2)']);
    expect(aborted).toHaveLength(2);
  });

  it('appends with \\Deleted in one transaction', async () => {
    await start();
    const client = await TestClient.login(server.port);
    const before = await server.mail.usage(accountIdOf('alice'));
    await client.ok('APPEND INBOX (\\Deleted) {5+}\r\nhello (\\Seen) {5+}\r\nhello');
    expect(await server.mail.usage(accountIdOf('alice'))).toMatchObject({ modseq: before.modseq + 1, messages: 2 });
    expect(await client.ok('STATUS INBOX (MESSAGES UNSEEN DELETED)')).toEqual(['* STATUS INBOX (MESSAGES 2 UNSEEN 1 DELETED 1)']);
  });

  it('counts what a message lacks of line ends, for POP3', async () => {
    await start();
    const client = await TestClient.login(server.port);
    const missing = async () =>
      (await server.mail.missingLineEnds(accountIdOf('alice'), { limit: 9 })).map(
        ({ missingLineEndBytes }) => missingLineEndBytes,
      );
    await client.ok('APPEND INBOX {9+}\r\nA: 1\n\nx\n\n {10+}\r\nA: 1\r\n\r\nx\n');
    expect((await missing()).sort()).toEqual([1, 4]);
    await client.ok('SELECT INBOX');
    await client.ok('REPLACE 1 INBOX {11+}\r\nA: 1\r\n\r\nx\r\n');
    expect(await missing()).toEqual([1]);
    // So it is in a binary literal.
    await client.ok('APPEND INBOX ~{6+}\r\nA: 1\n\n');
    expect((await missing()).sort()).toEqual([1, 2]);
  });

  it('appends more at once than a transaction takes, and holds little of it', async () => {
    await start();
    const client = await TestClient.login(server.port);
    const { append } = server.mail;
    let heldBytes = 0;
    server.mail.append = (accountId, messages, options) => {
      heldBytes = messages.reduce((sum, { blob }) => sum + (blob.heldBytes ?? 0), 0);
      return append(accountId, messages, options);
    };
    const count = 120;
    const parts = Array.from({ length: count }, () => randomBytes(100_000));
    const marked = parts.flatMap((bytes) => [Buffer.from(` {${bytes.length}+}\r\n`), bytes]);
    client.send(Buffer.concat([Buffer.from('a APPEND INBOX'), ...marked, Buffer.from('\r\n')]));
    expect((await client.until('a')).at(-1)).toMatch(/^a OK \[APPENDUID \d+ 1:120\]/);
    expect(heldBytes).toBeGreaterThan(2_000_000);
    expect(heldBytes).toBeLessThanOrEqual(2_500_000);
    const inbox = (await server.mail.mailboxByPath(accountIdOf('alice'), ['INBOX']))!.mailbox.id;
    const entries = await server.mail.entries(accountIdOf('alice'), inbox);
    const [first, last] = await server.mail.messages(accountIdOf('alice'), [entries[0]!.emailId, entries[count - 1]!.emailId]);
    expect((await server.blobs.read(first!.blobId)).equals(parts[0]!)).toBe(true);
    expect((await server.blobs.read(last!.blobId)).equals(parts[count - 1]!)).toBe(true);
  });

  it('lets APPENDs wait for one another above the limit of bytes in flight', async () => {
    await start({ limits: { maxAppendBytesInFlight: 10 } });
    const first = await TestClient.login(server.port);
    const second = await TestClient.login(server.port);
    first.send('a APPEND INBOX {8}\r\n');
    expect(await first.line()).toMatch(/^\+/);
    let mayGo = false;
    second.send('b APPEND INBOX {8}\r\n');
    const goAhead = second.line().then((line) => {
      expect(mayGo).toBe(true);
      return line;
    });
    await (await TestClient.login(server.port)).ok('NOOP');
    mayGo = true;
    first.close();
    expect(await goAhead).toMatch(/^\+/);
    second.send('12345678\r\n');
    expect(await second.line()).toMatch(/^b OK/);
  });

  it('lets nobody hold up the APPENDs of others with slow ones of their own', async () => {
    await start({ limits: { maxAppendBytesInFlight: 100 } });
    const slow = await Promise.all([1, 2, 3].map(() => TestClient.login(server.port)));
    slow[0]!.send('a APPEND INBOX {20}\r\n');
    expect(await slow[0]!.line()).toMatch(/^\+/);
    // Both are more than a quarter together with the first.
    for (const client of slow.slice(1)) client.send('a APPEND INBOX {60}\r\n');
    await (await TestClient.login(server.port)).ok('NOOP');
    const other = await TestClient.login(server.port, 'bob');
    other.send('b APPEND INBOX {70}\r\n');
    expect(await other.line()).toMatch(/^\+/);
    other.send(`${'x'.repeat(70)}\r\n`);
    expect(await other.line()).toMatch(/^b OK/);
    slow[0]!.send(`${'x'.repeat(20)}\r\n`);
    expect(await slow[0]!.line()).toMatch(/^a OK/);
    for (const client of slow.slice(1)) {
      expect(await client.line()).toMatch(/^\+/);
      client.send(`${'x'.repeat(60)}\r\n`);
      expect(await client.line()).toMatch(/^a OK/);
    }
  });
});

describe('summaries', () => {
  it('are made anew where they can not be read', async () => {
    await start();
    await server.deliver('alice', 'INBOX', message('one'));
    const { summaries } = server.mail;
    server.mail.summaries = async (...args) => (await summaries(...args)).map(() => Buffer.from([0x91, 0x63]));
    const client = await TestClient.login(server.port);
    await client.ok('SELECT INBOX');
    expect((await client.ok('FETCH 1 ENVELOPE'))[0]).toContain('(NIL "one" ((NIL NIL "a" "example.org"))');
    expect(await client.ok('SEARCH SUBJECT one')).toEqual(['* SEARCH 1']);
  });
});

describe('text', () => {
  it('is searched decoded, in any charset and transfer encoding, headers too', async () => {
    await start();
    const part = (type: string, encoding: string, body: string) =>
      `--b\r\nContent-Type: ${type}\r\nContent-Transfer-Encoding: ${encoding}\r\n\r\n${body}\r\n`;
    const koi8 = Buffer.from([0xd0, 0xd2, 0xc9, 0xd7, 0xc5, 0xd4]).toString('base64');
    await server.deliver(
      'alice',
      'INBOX',
      `Subject: =?iso-8859-1?Q?Gr=FC=DFe?=\r\nX-Note: =?utf-8?B?${Buffer.from('Überraschung').toString('base64')}?=\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n` +
        part('text/plain; charset=koi8-r', 'base64', koi8) +
        part('text/html; charset=utf-8', 'quoted-printable', '<b>Sch=C3=B6</b>ne W=\r\nelt') +
        '--b--\r\n',
    );
    await server.deliver('alice', 'INBOX', message('other'));
    const client = await TestClient.login(server.port);
    await client.ok('SELECT INBOX');
    const search = async (key: string, text: string) => {
      const bytes = Buffer.from(text);
      const [line] = await client.ok(`SEARCH CHARSET UTF-8 ${key} {${bytes.length}+}\r\n${bytes.toString('latin1')}`);
      return line;
    };
    for (const [key, text] of [
      ['SUBJECT', 'GRÜSSE'.replace('SS', 'ß')],
      ['BODY', 'ПРИВЕТ'],
      ['BODY', 'schöne welt'],
      ['TEXT', 'überraschung'],
      ['HEADER X-NOTE', 'ÜBER'],
      ['NOT SUBJECT', 'other'],
    ] as const) {
      expect([key, text, await search(key, text)]).toEqual([key, text, '* SEARCH 1']);
    }
    expect(await search('BODY', 'überraschung')).toBe('* SEARCH');
    expect(await search('BODY', koi8)).toBe('* SEARCH');
  });
});
