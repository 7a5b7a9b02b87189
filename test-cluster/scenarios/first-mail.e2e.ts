/** What a newcomer does: start a node, send with swaks, read with mbsync, imapflow and imaplib, send to the outside world. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { messagesByImapflow, messagesByImaplib, messagesByMbsync, swaks } from '../harness/clients.js';
import { TestDns } from '../harness/dns.js';
import { machineHas } from '../harness/needs.js';
import { NodeProcess, repositoryRoot } from '../harness/node-process.js';
import { Postfix } from '../harness/postfix.js';
import { runCommand, waitFor } from '../harness/processes.js';

const able = machineHas('swaks', 'mbsync', 'python3', 'postfix', 'unbound', 'openssl');

/** A message with all that a relay could be tempted to change: 8-bit text, odd white space, dots, long lines, folded fields, no Date. */
function awkwardMessage(subject: string, from = 'alice@example.test'): Buffer {
  const lines = [
    `From: "Somebody  A." <${from}>`,
    'To: Bob <bob@example.test>,\t<x@outside.test>',
    `Subject: ${subject}`,
    ' folded  twice',
    '\tand with a tab',
    'MIME-Version: 1.0',
    'Content-Type: text/plain; charset=utf-8',
    'Content-Transfer-Encoding: 8bit',
    'Message-ID: <awkward@example.test>',
    'Date: Sun, 22 Nov 2026 05:00:00 +0000',
    'dkim-signature: v=1; a=rsa-sha256; b=kept=as=it=stands;',
    '',
    'Grüße aus dem Moor  ',
    '.',
    '..two dots',
    '.leading dot',
    'x'.repeat(900),
    '',
    '',
    'trailing space ',
    '',
  ];
  return Buffer.from(lines.join('\r\n'), 'utf8');
}

/** What was sent must be at the end of what was filed, byte for byte; in front of it stand trace fields only. */
function expectIntact(filed: Buffer, sent: Buffer): void {
  expect(filed.subarray(-sent.length).equals(sent)).toBe(true);
  const trace = filed.subarray(0, filed.length - sent.length).toString('latin1');
  expect(trace).toMatch(/^Return-Path: <[^>]*>\r\n/);
  expect(trace).toMatch(/\r\nReceived: from /);
}

describe.skipIf(!able)('the first mail', () => {
  let node: NodeProcess;
  let postfix: Postfix;
  let dns: TestDns;
  const login = (name: string) => ({ port: node.port('imaps'), user: `${name}@example.test`, password: node.password });

  beforeAll(async () => {
    postfix = await Postfix.start({ domain: 'outside.test', delivery: 'maildir' });
    dns = await TestDns.start(['outside.test. IN MX 10 mx.outside.test.', 'mx.outside.test. IN A 127.0.0.1']);
    node = await NodeProcess.start({
      settings: `[dns]\nservers = ["${dns.address}"]\n`,
      clusterSettings: `[outbound]\nport = ${postfix.port}\n`,
    });
  });
  afterAll(async () => {
    await node?.remove();
    await postfix?.stop();
    await dns?.stop();
  });

  it('reaches alice through the MX port, and three clients read it byte for byte', async () => {
    const sent = awkwardMessage('to alice');
    await swaks({ port: node.port('smtp'), from: 'someone@elsewhere.test', to: 'alice@example.test', message: sent });
    const [filed] = await waitFor('the message', 10_000, async () => {
      const found = await messagesByImapflow(login('alice'));
      return found.length > 0 && found;
    });
    expectIntact(filed!, sent);
    expect(await messagesByImaplib(login('alice'))).toEqual([filed]);
    expect(await messagesByMbsync(login('alice'))).toEqual([filed]);
  });

  it('goes from alice with STARTTLS and AUTH to bob and to an outside domain behind a Postfix', async () => {
    const sent = awkwardMessage('from alice');
    const auth = { user: 'alice@example.test', password: node.password };
    await swaks({
      port: node.port('submission'),
      from: auth.user,
      to: 'bob@example.test,x@outside.test',
      message: sent,
      login: auth,
    });
    const [toBob] = await waitFor("bob's message", 10_000, async () => {
      const found = await messagesByImapflow(login('bob'));
      return found.length > 0 && found;
    });
    expectIntact(toBob!, sent);
    const [outside] = await waitFor("the Postfix's message", 20_000, async () => {
      const found = postfix.messages();
      return found.length > 0 && found;
    });
    // A Maildir has LF line ends.
    const bytes = sent.toString('latin1').replaceAll('\r\n', '\n');
    expect(outside!.toString('latin1').endsWith(bytes)).toBe(true);
    expect(outside!.toString('latin1')).not.toMatch(/Return-Path:.*\n[\s\S]*Return-Path:/);
    await node.untilQueueEmpty();
  });

  it('answers a login with the wrong password, a sender that is not theirs, and a stranger who wants to relay', async () => {
    const message = awkwardMessage('refused');
    const port = node.port('submission');
    const alice = { user: 'alice@example.test', password: node.password };
    const refused = (options: Parameters<typeof swaks>[0]) =>
      swaks(options).then(
        () => 'accepted',
        (error: Error) => error.message,
      );
    const wrong = { user: 'alice@example.test', password: 'wrong' };
    expect(await refused({ port, from: alice.user, to: 'bob@example.test', message, login: wrong })).toMatch(/535 5\.7\.8/);
    expect(await refused({ port, from: 'bob@example.test', to: 'bob@example.test', message, login: alice })).toMatch(
      /55[03] 5\.7\.1/,
    );
    expect(await refused({ port: node.port('smtp'), from: 'a@b.test', to: 'x@outside.test', message })).toMatch(/55\d 5\.7\.1/);
    expect(await refused({ port: node.port('smtp'), from: 'a@b.test', to: 'nobody@example.test', message })).toMatch(
      /550 5\.1\.1/,
    );
  });

  it('bounces what the outside refuses', async () => {
    const auth = { user: 'bob@example.test', password: node.password };
    const message = awkwardMessage('to nowhere', auth.user);
    await swaks({ port: node.port('submission'), from: auth.user, to: 'x@absent.test', message, login: auth });
    const bounce = await waitFor('the bounce', 20_000, async () => {
      const found = await messagesByImapflow(login('bob'));
      return found.find((bytes) => bytes.includes('multipart/report'));
    });
    expect(bounce.toString('latin1')).toMatch(/Final-Recipient: rfc822; ?x@absent\.test/i);
    expect(bounce.toString('latin1')).toMatch(/Status: 5\.1\.2/);
    expect(bounce.toString('latin1')).toMatch(/^Return-Path: <>\r\n/);
  });

  it('keeps a made-up password for itself, and refuses a second process in a sentence', async () => {
    const second = await runCommand(process.execPath, [
      ...[join(repositoryRoot, 'node', 'cli', 'starling.mjs'), 'quickstart', '--data', node.data],
      ...['--port-offset', String(node.portOffset)],
    ]);
    expect(second.code).toBe(1);
    expect(second.stderr).toMatch(/in use by another process|another process/);
    expect(second.stderr.split('\n').length).toBeLessThan(10);
  });

  it('stops when told, and what was there is there after the next start', async () => {
    const before = await messagesByImapflow(login('alice'));
    expect(await node.stop()).toBe(0);
    expect(existsSync(join(node.data, 'control.sock'))).toBe(false);
    await node.start();
    expect(await messagesByImapflow(login('alice'))).toEqual(before);
  });
});

describe('quickstart without a password', () => {
  it('makes passwords, prints them, and keeps them for its user alone', async () => {
    const node = await NodeProcess.start({ password: '' });
    try {
      const file = join(node.data, 'quickstart.json');
      expect(statSync(file).mode & 0o777).toBe(0o600);
      const kept = JSON.parse(readFileSync(file, 'utf8')) as { accounts: { address: string; password: string }[] };
      expect(kept.accounts.map((account) => account.address)).toEqual([
        'admin@example.test',
        'alice@example.test',
        'bob@example.test',
      ]);
      for (const account of kept.accounts) {
        expect(account.password.length).toBeGreaterThanOrEqual(16);
        expect(node.output.stdout).toContain(account.password);
      }
      const [, alice] = kept.accounts;
      expect(await messagesByImapflow({ port: node.port('imaps'), user: alice!.address, password: alice!.password })).toEqual([]);
    } finally {
      await node.remove();
    }
  });
});
