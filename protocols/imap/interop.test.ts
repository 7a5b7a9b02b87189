/** Real clients against the server, over TLS: Python's imaplib, curl, mbsync (isync), imapflow. A client that is not installed is skipped by name. */
import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ImapFlow } from 'imapflow';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { testCertificate } from '../testing/certificate.js';
import { accountIdOf, startTestServer, type TestServer, testPassword } from './testing/server.js';

const run = promisify(execFile);
let server: TestServer;
let folder: string;

beforeEach(async () => {
  server = await startTestServer({ allowPlainAuth: false });
  folder = mkdtempSync(join(tmpdir(), 'starling-imap-'));
});

afterEach(async () => {
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

function has(program: string): boolean {
  try {
    execFileSync('sh', ['-c', `command -v ${program}`], { stdio: 'pipe' });
    return true;
  } catch {
    return false;
  }
}

/** Messages of many kinds: sizes, 8-bit, long lines, MIME, empty body. */
function sample(i: number): Buffer {
  const head = `From: Zoë Example <zoe${i}@example.org>\r\nTo: alice@example.test\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe_${i}?=\r\nMessage-ID: <${i}@example.org>\r\nDate: Tue, 6 Feb 2024 10:${String(i % 60).padStart(2, '0')}:00 +0000\r\n`;
  switch (i % 4) {
    case 0:
      return Buffer.from(`${head}\r\n${'line of text\r\n'.repeat(i * 7)}`);
    case 1:
      return Buffer.from(
        `${head}Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße, Nr. ${i}\r\n.\r\n..dots\r\nFrom here\r\n${'x'.repeat(2_000)}\r\n`,
      );
    case 2:
      return Buffer.from(
        `${head}MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello ${i}\r\n--b\r\nContent-Type: application/octet-stream; name="data ${i}.bin"\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment\r\n\r\n${Buffer.alloc(500, i).toString('base64')}\r\n--b--\r\n`,
      );
    default:
      return Buffer.from(`${head}\r\n`);
  }
}

const hash = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

/** CRLF for bare line feeds. */
const withLineEnds = (bytes: Buffer): Buffer => Buffer.from(bytes.toString('latin1').replace(/\r?\n/g, '\r\n'), 'latin1');

/** mbsync marks each message that it carries with a header line of its own. */
const withoutMark = (bytes: Buffer): Buffer =>
  Buffer.from(bytes.toString('latin1').replace(/^X-TUID: \S{12}\r\n/m, ''), 'latin1');

/** Content hashes of a mailbox, sorted. */
async function hashesOf(path: string[]): Promise<string[]> {
  const id = accountIdOf('alice');
  const box = await server.mail.mailboxByPath(id, path);
  const entries = await server.mail.entries(id, box!.mailbox.id);
  const messages = await server.mail.messages(
    id,
    entries.map((entry) => entry.emailId),
  );
  const contents = await Promise.all(messages.map((message) => server.blobs.read(message!.blobId)));
  return contents.map((bytes) => hash(withoutMark(bytes))).sort();
}

describe.skipIf(!has('python3'))('imaplib', () => {
  const script = `
import imaplib, ssl, sys, time
context = ssl.create_default_context(cafile=sys.argv[2])
def check(answer, what='OK'):
    assert answer[0] == what, answer
    return answer[1]
c = imaplib.IMAP4_SSL('localhost', int(sys.argv[1]), ssl_context=context)
check(c.login('alice', '${testPassword}'))
check(c.create('"Folder A"'))
message = b'Subject: from python\\r\\nFrom: p@example.org\\r\\n\\r\\nbody \\xc3\\xbc\\r\\n'
data = check(c.append('"Folder A"', '(\\\\Flagged)', imaplib.Time2Internaldate(time.time()), message))
assert b'APPENDUID' in data[0], data
assert check(c.select('"Folder A"')) == [b'1']
data = check(c.fetch('1', '(UID FLAGS BODY.PEEK[])'))
assert data[0][1] == message, data
assert b'\\\\Flagged' in data[0][0], data
assert check(c.search(None, 'FLAGGED', 'SUBJECT', '"PYTHON"')) == [b'1']
c.literal = 'Grü'.encode()
check(c.search('UTF-8', 'BODY'))
check(c.store('1', '+FLAGS', '(\\\\Deleted \\\\Seen)'))
check(c.uid('COPY', '1', 'INBOX'))
assert check(c.expunge()) == [b'1']
check(c.close())
assert b'INBOX' in b''.join(check(c.list()))
assert b'MESSAGES 1' in check(c.status('INBOX', '(MESSAGES UNSEEN)'))[0]
check(c.rename('"Folder A"', 'Other'))
check(c.delete('Other'))
check(c.logout(), 'BYE')
d = imaplib.IMAP4('localhost', int(sys.argv[3]))
d.starttls(context)
check(d.authenticate('PLAIN', lambda _: b'\\0alice\\0${testPassword}'))
check(d.enable('UTF8=ACCEPT'))
check(d.select('INBOX', readonly=True))
check(d.logout(), 'BYE')
print('done')
`;

  it('does its round', async () => {
    const ca = join(folder, 'ca.pem');
    writeFileSync(ca, testCertificate().cert);
    const { stdout } = await run('python3', ['-c', script, String(server.tlsPort), ca, String(server.port)]);
    expect(stdout.trim()).toBe('done');
  });
});

describe.skipIf(!has('curl'))('curl', () => {
  const curl = async (path: string, ...more: string[]): Promise<Buffer> => {
    const url = `imaps://127.0.0.1:${server.tlsPort}/${path}`;
    const { stdout } = await run('curl', ['-sS', '-k', '-u', `alice:${testPassword}`, url, ...more], { encoding: 'buffer' });
    return stdout;
  };

  it('uploads, lists and reads', async () => {
    const file = join(folder, 'message.eml');
    writeFileSync(file, sample(5));
    await curl('INBOX', '-T', file);
    expect((await curl('INBOX;UID=1')).equals(sample(5))).toBe(true);
    expect((await curl('INBOX?SUBJECT%20gr')).toString()).toBe('* SEARCH 1\r\n');
    expect((await curl('')).toString()).toContain('* LIST (\\HasNoChildren) "/" INBOX');
    expect((await curl('INBOX', '-X', 'STATUS INBOX (MESSAGES)')).toString()).toContain('MESSAGES 1');
  });
});

/** isync renamed the setting in 1.5. */
function tlsKeyword(): string {
  const version = /(\d+)\.(\d+)/.exec(execFileSync('mbsync', ['--version']).toString())!;
  return Number(version[1]) > 1 || Number(version[2]) >= 5 ? 'TLSType' : 'SSLType';
}

describe.skipIf(!has('mbsync'))('mbsync', () => {
  it('carries hundreds of messages both ways, byte for byte, with their flags', async () => {
    const maildir = join(folder, 'mail');
    mkdirSync(maildir);
    for (let i = 0; i < 200; i++) await server.deliver('alice', 'INBOX', sample(i), { keywords: i % 3 === 0 ? ['$seen'] : [] });
    const config = join(folder, 'mbsyncrc');
    writeFileSync(join(folder, 'ca.pem'), testCertificate().cert);
    writeFileSync(
      config,
      `IMAPAccount a\nHost localhost\nPort ${server.tlsPort}\nUser alice\nPass ${testPassword}\n${tlsKeyword()} IMAPS\nCertificateFile ${folder}/ca.pem\n\nIMAPStore far\nAccount a\n\nMaildirStore near\nPath ${maildir}/\nInbox ${maildir}/INBOX\nSubFolders Verbatim\n\nChannel c\nFar :far:\nNear :near:\nPatterns INBOX Sent\nCreate Both\nExpunge Both\nSync All\nSyncState *\n`,
    );
    const sync = () => run('mbsync', ['-c', config, 'c'], { env: { ...process.env, HOME: folder } });
    await sync();
    const files = () =>
      ['cur', 'new'].flatMap((sub) => readdirSync(join(maildir, 'INBOX', sub)).map((name) => join(maildir, 'INBOX', sub, name)));
    // mbsync keeps files with bare line feeds.
    const near = () => files().map((file) => hash(withoutMark(withLineEnds(readFileSync(file)))));
    expect(near().sort()).toEqual(await hashesOf(['INBOX']));
    expect(files().filter((file) => /:2,.*S/.test(file)).length).toBe(67);

    // Now the other way: new ones here, removals and flags there and here.
    for (let i = 200; i < 300; i++) {
      writeFileSync(
        join(maildir, 'INBOX', 'cur', `1700000000.${i}.here:2,F`),
        sample(i).toString('latin1').replace(/\r\n/g, '\n'),
        'latin1',
      );
    }
    const gone = files()
      .filter((file) => /:2,.*S/.test(file))
      .slice(0, 10);
    for (const file of gone) rmSync(file);
    const id = accountIdOf('alice');
    const box = (await server.mail.mailboxByPath(id, ['INBOX']))!.mailbox.id;
    await server.mail.changeFlags(id, box, [2, 3], { mode: 'add', keywords: ['$answered'], deleted: false });
    await sync();
    const { counts } = (await server.mail.mailboxByPath(id, ['INBOX']))!;
    expect(counts.total).toBe(290);
    expect(near().sort()).toEqual(await hashesOf(['INBOX']));
    const flagged = (await server.mail.entries(id, box)).filter((entry) => entry.keywords.includes('$flagged'));
    expect(flagged.length).toBe(100);
    expect(files().filter((file) => /:2,.*R/.test(file)).length).toBe(2);
    // A third run has nothing to do.
    const { modseq } = await server.mail.usage(id);
    await sync();
    expect((await server.mail.usage(id)).modseq).toBe(modseq);
    expect((await server.mail.recount(id)).differences).toEqual([]);
  });
});

describe('imapflow', () => {
  const open = async (): Promise<ImapFlow> => {
    const client = new ImapFlow({
      host: '127.0.0.1',
      port: server.tlsPort,
      secure: true,
      tls: { rejectUnauthorized: false },
      auth: { user: 'alice', pass: testPassword },
      logger: false,
    });
    await client.connect();
    return client;
  };

  it('appends, fetches, searches, flags, moves, and hears news in IDLE', async () => {
    const client = await open();
    for (let i = 0; i < 12; i++) await client.append('INBOX', sample(i), i % 2 ? ['\\Seen'] : []);
    const lock = await client.getMailboxLock('INBOX');
    try {
      expect((client.mailbox as { exists: number }).exists).toBe(12);
      const subjects: string[] = [];
      for await (const message of client.fetch('1:*', {
        envelope: true,
        flags: true,
        bodyStructure: true,
        size: true,
        uid: true,
        source: true,
      })) {
        expect(message.source!.equals(sample(message.uid - 1))).toBe(true);
        expect(message.size).toBe(sample(message.uid - 1).length);
        expect(message.flags!.has('\\Seen')).toBe((message.uid - 1) % 2 === 1);
        if (message.uid % 4 === 3) expect(message.bodyStructure!.childNodes!.length).toBe(2);
        subjects.push(message.envelope!.subject!);
      }
      expect(subjects).toEqual(Array.from({ length: 12 }, (_, i) => `Grüße ${i}`));
      expect(await client.search({ seen: false, body: 'Grüße' }, { uid: true })).toEqual([]);
      expect(await client.search({ body: 'grüße' }, { uid: true })).toEqual([2, 6, 10]);
      await client.messageFlagsAdd('1:3', ['\\Flagged', '$Work']);
      const moved = await client.messageMove('1:2', 'Archive');
      expect([...(moved as { uidMap: Map<number, number> }).uidMap]).toEqual([
        [1, 1],
        [2, 2],
      ]);
      const { content } = await client.download('7', '2', { uid: true });
      const chunks: Buffer[] = [];
      for await (const chunk of content!) chunks.push(chunk as Buffer);
      expect(Buffer.concat(chunks).equals(Buffer.alloc(500, 6))).toBe(true);
      const news = new Promise((resolve) => client.once('exists', resolve));
      const idle = client.idle();
      await server.deliver('alice', 'INBOX', sample(50));
      expect(await news).toMatchObject({ path: 'INBOX', count: 11 });
      await client.noop();
      await idle;
      await client.messageDelete('1:*');
    } finally {
      lock.release();
    }
    expect(await client.status('INBOX', { messages: true, uidNext: true })).toMatchObject({ messages: 0, uidNext: 14 });
    expect((await client.list()).map((box) => [box.path, box.specialUse])).toContainEqual(['Sent', '\\Sent']);
    await client.mailboxCreate('Proj & Ünï/日本');
    expect((await client.list()).map((box) => box.path)).toContain('Proj & Ünï/日本');
    await client.logout();
  });
});
