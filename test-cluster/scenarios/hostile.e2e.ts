/** What strangers and broken clients send, at a whole node: a clear answer each time, and no harm to anybody else. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { residentBytes } from '../bench/figures.js';
import { ImapDialog } from '../harness/imap-dialog.js';
import { NodeProcess } from '../harness/node-process.js';
import { waitFor } from '../harness/processes.js';
import { SmtpDialog, tokenMessage } from '../harness/smtp-load.js';

let node: NodeProcess;
beforeAll(async () => {
  node = await NodeProcess.start({
    clusterSettings: '[smtp]\ncommandTimeoutSeconds = 2\ndataTimeoutSeconds = 2\nmaxRecipients = 10000\n',
  });
});
afterAll(async () => {
  // Whatever was thrown at it, it is still the same process and in good health.
  expect(await node.isReady()).toBe(true);
  expect(await node.stop()).toBe(0);
  await node.remove();
});

/** Everything a port says to these bytes until it closes, or until `until` matches. */
async function exchange(port: number, bytes: Buffer | string, until?: RegExp, half = false): Promise<string> {
  const socket: Socket = createConnection({ port, host: '127.0.0.1', allowHalfOpen: true });
  let heard = '';
  socket.on('data', (chunk) => {
    heard += chunk.toString('latin1');
  });
  socket.on('error', () => undefined); // a reset is an answer too: what was heard before is judged
  await once(socket, 'connect');
  socket.write(bytes);
  if (half) socket.end();
  let closed = false;
  socket.on('close', () => {
    closed = true;
  });
  socket.on('end', () => {
    closed = true;
  });
  await waitFor(`an answer on ${port} (heard: ${heard})`, 20_000, async () => closed || (until?.test(heard) ?? false));
  socket.destroy();
  return heard;
}

describe('SMTP', () => {
  it('refuses lines without end', async () => {
    const heard = await exchange(node.port('smtp'), `EHLO client.test\r\nNOOP ${'x'.repeat(100_000)}\r\nQUIT\r\n`, /221|500/);
    expect(heard).toMatch(/^500 5\.5\.[26]/m);
  });

  it('refuses commands before the greeting was read only by good order, and goes on in order', async () => {
    const heard = await exchange(node.port('smtp'), 'EHLO a.test\r\nMAIL FROM:<a@b.test>\r\nQUIT\r\n', /221|554|421/);
    expect(heard).toMatch(/^(220|554|421)/);
  });

  it('answers NUL bytes in a command with a 5xx', async () => {
    expect(await exchange(node.port('smtp'), 'EHLO a.test\r\nMAIL FROM:<a\0@b.test>\r\nQUIT\r\n', /221/)).toMatch(/^50\d /m);
  });

  it('takes 10,000 recipients, and refuses one more', async () => {
    const smtp = await SmtpDialog.connect(node.port('smtp'));
    await smtp.command('MAIL FROM:<many@client.test>', 250);
    for (let index = 0; index < 10_000; index++) await smtp.command(`RCPT TO:<alice+${index}@example.test>`, 250);
    await smtp.command('RCPT TO:<alice+more@example.test>', 452);
    smtp.close();
  });

  it('closes politely on TLS bytes at a plain port', async () => {
    const hello = Buffer.from('160301020001000001fc0303', 'hex');
    expect(await exchange(node.port('smtp'), Buffer.concat([hello, Buffer.alloc(500, 7)]))).toMatch(
      /^(220[^\r\n]*\r\n)?(5\d\d|421) /m,
    );
  });

  it('says 421 to a client that falls asleep, in a command and in DATA', async () => {
    expect(await exchange(node.port('smtp'), 'EHLO slow.test\r\n')).toMatch(/^421 4\.4\.2/m);
    const data = 'EHLO slow.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n';
    expect(await exchange(node.port('smtp'), `${data}Subject: half a mess`)).toMatch(/^421 4\.4\.2/m);
  });

  it('finishes what a half-closed client sent', async () => {
    const dialog =
      'EHLO half.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\nSubject: half closed\r\n\r\nbody\r\n.\r\nQUIT\r\n';
    expect(await exchange(node.port('smtp'), dialog, undefined, true)).toMatch(/^250 2\.0\.0[^\r\n]*\r\n221/m);
  });

  it('answers 100 MB of RSET one by one, keeps nothing of them, and has time for others meanwhile', async () => {
    const chunk = Buffer.from('RSET\r\n'.repeat(10_000));
    const chunks = Math.ceil(100_000_000 / chunk.length);
    const socket = createConnection(node.port('smtp'), '127.0.0.1');
    await once(socket, 'data'); // the greeting
    const residentMib = () => residentBytes(readFileSync(`/proc/${node.pid}/status`, 'utf8'), 'VmRSS') / 2 ** 20;
    const before = residentMib();
    let most = before;
    const replies = Buffer.from('250 2.0.0 Reset\r\n'.repeat(10_000));
    const wantedBytes = chunks * replies.length;
    const period = replies.length / 10_000;
    let heardBytes = 0;
    let areOthers = false;
    socket.on('data', (heard: Buffer) => {
      const part = heard.subarray(0, Math.max(0, wantedBytes - heardBytes));
      areOthers ||= !part.equals(replies.subarray(heardBytes % period).subarray(0, part.length));
      heardBytes += heard.length;
    });
    const ended = once(socket, 'end');
    for (let sent = 0; sent < chunks; sent++) {
      if (!socket.write(chunk)) await once(socket, 'drain');
      if (sent % 400 !== 200) continue;
      const other = await SmtpDialog.connect(node.port('smtp'), { replyTimeoutMs: 30_000 });
      await other.send('a@client.test', ['alice@example.test'], tokenMessage(`between-${sent}`));
      other.close();
      most = Math.max(most, residentMib());
    }
    socket.end('QUIT\r\n');
    await ended;
    expect(areOthers).toBe(false);
    expect(heardBytes - wantedBytes).toBe('221 2.0.0 Bye\r\n'.length);
    expect(most - before).toBeLessThan(100);
  });

  it('never takes a bare line end for the end of a message', async () => {
    for (const end of ['\n.\n', '\n.\r\n', '\r.\r', '\r\n.\n', '\r\n.\r', '\r.\r\n']) {
      const smuggled = `MAIL FROM:<evil@b.test>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n`;
      const dialog = `EHLO s.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\nSubject: outer\r\n\r\nbody${end}${smuggled}QUIT\r\n`;
      const heard = await exchange(node.port('smtp'), dialog, /^221/m);
      expect(heard.match(/^354/gm), JSON.stringify(end)).toHaveLength(1);
      expect(heard, JSON.stringify(end)).toMatch(/^550 5\.6\.11/m);
    }
  });
});

describe('IMAP', () => {
  const login = () => ImapDialog.connect(node.port('imaps'), 'alice@example.test', node.password);

  it('refuses a literal that is too large before it is sent', async () => {
    const imap = await login();
    await expect(imap.command('APPEND INBOX {4000000000}')).rejects.toThrow(/NO \[TOOBIG\]|BAD/);
    await imap.command('NOOP');
    imap.close();
  });

  it('keeps nothing of a literal that ends early', async () => {
    const imap = await login();
    imap.write('a APPEND INBOX {1000+}\r\nSubject: cut off');
    imap.close();
    const again = await login();
    await again.command('SELECT INBOX');
    expect((await again.command('SEARCH SUBJECT "cut off"')).toString()).not.toMatch(/\* SEARCH \d/);
    again.close();
  });

  it('answers absurd sets, depths and lines', async () => {
    const imap = await login();
    await imap.command('SELECT INBOX');
    await imap.command('UID FETCH 1:4294967295 FLAGS');
    await expect(imap.command(`SEARCH ${'('.repeat(5_000)}ALL${')'.repeat(5_000)}`)).rejects.toThrow(/BAD|NO/);
    await expect(imap.command(`NOOP ${'x'.repeat(200_000)}`)).rejects.toThrow(/BAD|closed/);
    imap.close();
  });

  it('refuses passwords without TLS, and TLS bytes on the plain port', async () => {
    const heard = await exchange(node.port('imap'), 'a LOGIN alice@example.test x\r\nb LOGOUT\r\n', /^b OK/m);
    expect(heard).toMatch(/LOGINDISABLED/);
    expect(heard).toMatch(/^a NO \[PRIVACYREQUIRED\]/m);
    await exchange(node.port('imap'), Buffer.concat([Buffer.from('160301020001000001fc0303', 'hex'), Buffer.alloc(500, 7)]));
  });

  it('lets nobody wait for a client that does not read', async () => {
    const smtp = await SmtpDialog.connect(node.port('smtp'));
    await smtp.send('a@client.test', ['alice@example.test'], tokenMessage('large', 5_000_000));
    smtp.close();
    const deaf = connectTls({ host: '127.0.0.1', port: node.port('imaps'), rejectUnauthorized: false });
    deaf.on('error', () => undefined); // it is destroyed below, mid-flight
    await once(deaf, 'secureConnect');
    deaf.pause();
    deaf.write(`a LOGIN alice@example.test "${node.password}"\r\nb SELECT INBOX\r\n`);
    for (let index = 0; index < 50; index++) deaf.write(`c${index} FETCH 1:* BODY.PEEK[]\r\n`);
    const other = await login();
    await other.command('SELECT INBOX');
    other.close();
    deaf.destroy();
  });
});

describe('HTTP', () => {
  it('refuses what it does not know, and what is too large', async () => {
    const base = `http://127.0.0.1:${node.port('http')}`;
    expect((await fetch(`${base}/absent`)).status).toBe(404);
    expect((await fetch(`${base}/metrics`, { method: 'POST', body: 'x' })).status).toBe(405);
    expect(
      (await fetch(`${base}/health/live`, { headers: { 'x-long': 'x'.repeat(60_000) } }).catch(() => ({ status: 431 }))).status,
    ).toBe(431);
    expect((await fetch(`${base}/health/live`)).status).toBe(200);
  });
});
