/** Programs that people read mail with, against a node: OfflineIMAP in both directions, NeoMutt, imapflow with QRESYNC, imaplib for quotas, annotations and rights. */
import { mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ImapFlow } from 'imapflow';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { withImapflow } from '../harness/clients.js';
import { imaplib, neomutt, OfflineImap, subjectIn } from '../harness/mail-programs.js';
import { machineHas } from '../harness/needs.js';
import { NodeProcess } from '../harness/node-process.js';
import { runCommand, waitFor } from '../harness/processes.js';

const able = machineHas('python3', 'offlineimap', 'neomutt', 'script', 'curl', 'openssl');

describe.skipIf(!able)('mail programs', () => {
  let node: NodeProcess;
  const login = (name: string) => ({ port: node.port('imaps'), user: `${name}@example.test`, password: node.password });

  const message = (subject: string): Buffer =>
    Buffer.from(
      [
        'From: Ada <ada@outside.test>',
        'To: alice@example.test',
        `Subject: ${subject}`,
        `Message-ID: <${subject.replaceAll(' ', '.')}@outside.test>`,
        'Date: Mon, 07 Jan 2019 06:00:00 +0000',
        '',
        `text of ${subject}`,
        '',
      ].join('\r\n'),
    );

  /** Subject to flags in order, without \Recent. */
  const contents = (name: string, mailbox: string): Promise<Map<string, string>> =>
    withImapflow(login(name), async (client) => {
      const lock = await client.getMailboxLock(mailbox);
      try {
        const found = new Map<string, string>();
        for await (const { envelope, flags } of client.fetch('1:*', { envelope: true, flags: true })) {
          const known = [...(flags ?? [])].filter((flag) => flag !== '\\Recent');
          found.set(envelope?.subject ?? '', known.sort().join(' '));
        }
        return found;
      } finally {
        lock.release();
      }
    });

  const file = (name: string, mailbox: string, subjects: readonly string[]) =>
    withImapflow(login(name), async (client) => {
      if (mailbox !== 'INBOX') await client.mailboxCreate(mailbox);
      for (const subject of subjects) await client.append(mailbox, message(subject));
    });

  beforeAll(async () => {
    node = await NodeProcess.start({ settings: '[log]\nlevel = "warn"\n' });
  });
  afterAll(async () => {
    await node?.remove();
  });
  beforeEach(async () => {
    for (const name of ['alice', 'bob'])
      await withImapflow(login(name), async (client) => {
        const lock = await client.getMailboxLock('INBOX');
        try {
          await client.messageDelete('1:*');
        } finally {
          lock.release();
        }
      });
  });

  it('OfflineIMAP brings changes over in both directions', async () => {
    await file('alice', 'INBOX', ['one', 'two', 'three', 'four']);
    await file('alice', 'Projects/Heron', ['nest']);
    const offline = new OfflineImap(login('alice'));
    try {
      await offline.sync();
      expect([...offline.contents('INBOX').keys()].sort()).toEqual(['four', 'one', 'three', 'two']);
      expect([...offline.contents('Projects/Heron').keys()]).toEqual(['nest']);

      const inbox = offline.maildir('INBOX');
      for (const part of ['new', 'cur'])
        for (const name of readdirSync(join(inbox, part))) {
          const path = join(inbox, part, name);
          const subject = subjectIn(path);
          if (subject === 'one') renameSync(path, join(inbox, 'cur', `${name.replace(/:2,.*$/, '')}:2,FS`));
          if (subject === 'two') rmSync(path);
        }
      writeFileSync(join(inbox, 'cur', '1700000000.made.here:2,S'), message('five').toString('latin1').replaceAll('\r\n', '\n'));
      await withImapflow(login('alice'), async (client) => {
        const lock = await client.getMailboxLock('INBOX');
        try {
          await client.messageFlagsAdd({ header: { subject: 'three' } }, ['\\Answered']);
          await client.messageDelete({ header: { subject: 'four' } });
        } finally {
          lock.release();
        }
      });
      await offline.sync();
      const expected = { one: '\\Flagged \\Seen', three: '\\Answered', five: '\\Seen' };
      expect(Object.fromEntries(await contents('alice', 'INBOX'))).toEqual(expected);
      await offline.sync();
      expect(Object.fromEntries(offline.contents('INBOX'))).toEqual({ one: 'FS', three: 'R', five: 'S' });
      expect(Object.fromEntries(await contents('alice', 'INBOX'))).toEqual(expected);
    } finally {
      offline.remove();
    }
  });

  it('NeoMutt flags, copies, deletes', async () => {
    await file('bob', 'INBOX', ['one', 'two', 'three']);
    const keys = [
      '<first-entry><flag-message>',
      '<next-entry><copy-message><kill-line>=Kept<enter>',
      '<next-entry><display-message><exit><delete-message>',
      '<sync-mailbox><quit>',
    ];
    await neomutt(login('bob'), 'INBOX', keys.join(''));
    expect(Object.fromEntries(await contents('bob', 'INBOX'))).toEqual({ one: '\\Flagged', two: '' });
    expect([...(await contents('bob', 'Kept')).keys()]).toEqual(['two']);
    // Again, from the cache that it does not have any more and with what it left behind.
    await neomutt(login('bob'), 'INBOX', '<last-entry><display-message><exit><quit>');
    expect(Object.fromEntries(await contents('bob', 'INBOX'))).toEqual({ one: '\\Flagged', two: '\\Seen' });
  });

  it('imapflow hears of what has gone by QRESYNC, over a compressed connection where there is one', async () => {
    await file('alice', 'INBOX', ['one', 'two', 'three']);
    const { port, user, password } = login('alice');
    const client = new ImapFlow({
      host: '127.0.0.1',
      port,
      secure: true,
      auth: { user, pass: password },
      tls: { rejectUnauthorized: false },
      logger: false,
      qresync: true,
    });
    await client.connect();
    const vanished: number[] = [];
    const changed: string[] = [];
    client.on('expunge', (event: { vanished?: boolean; uid?: number }) => {
      if (event.vanished && event.uid !== undefined) vanished.push(event.uid);
    });
    client.on('flags', (event: { uid?: number; flags: Set<string> }) => changed.push([...event.flags].join(' ')));
    try {
      expect(client.enabled.has('QRESYNC')).toBe(true);
      const lock = await client.getMailboxLock('INBOX');
      const uids: number[] = [];
      for await (const { uid } of client.fetch('1:*', { uid: true })) uids.push(uid);
      await withImapflow(login('alice'), async (other) => {
        const held = await other.getMailboxLock('INBOX');
        await other.messageFlagsAdd(String(uids[0]), ['\\Flagged'], { uid: true });
        await other.messageDelete(String(uids[1]), { uid: true });
        held.release();
      });
      await waitFor('both changes', 20_000, async () => {
        await client.noop();
        return vanished.length > 0 && changed.length > 0;
      });
      expect(vanished).toEqual([uids[1]]);
      expect(changed.at(-1)).toContain('\\Flagged');
      lock.release();
    } finally {
      await client.logout();
    }
  });

  it('imaplib asks for quotas and namespaces, sorts and threads', async () => {
    await file('alice', 'INBOX', ['beta', 'alpha', 'Re: alpha']);
    const answers = await imaplib<Record<string, [string, unknown[]]>>(login('alice'), [
      'client.select("INBOX")',
      'result = {}',
      'result["quota"] = text(client.getquotaroot("INBOX"))',
      'result["namespace"] = text(client.namespace())',
      'result["sort"] = text(client.sort("(SUBJECT DATE)", "UTF-8", "ALL"))',
      'result["thread"] = text(client.thread("ORDEREDSUBJECT", "UTF-8", "ALL"))',
      'result["partial"] = text(client.fetch("1", "(BODY.PEEK[TEXT]<0.4>)"))',
    ]);
    expect(answers.quota?.[0]).toBe('OK');
    expect(answers.namespace?.[0]).toBe('OK');
    expect(answers.sort).toEqual(['OK', ['2 3 1']]);
    expect(answers.thread).toEqual(['OK', ['(1)(2 3)']]);
    expect(JSON.stringify(answers.partial)).toContain('"text"');
  });

  it('imaplib keeps annotations and gives rights', async () => {
    const answers = await imaplib<Record<string, [string, unknown[]]>>(login('alice'), [
      'imaplib.Commands.update({name: ("AUTH", "SELECTED") for name in ("SETMETADATA", "GETMETADATA")})',
      'result = {}',
      'client.create("Shared")',
      'result["set"] = text(client._simple_command("SETMETADATA", "Shared", \'(/private/comment "herons")\'))',
      'result["get"] = text(client._untagged_response(*client._simple_command("GETMETADATA", "Shared", "/private/comment"), "METADATA"))',
      'result["setacl"] = text(client.setacl("Shared", "bob@example.test", "lrs"))',
      'result["getacl"] = text(client.getacl("Shared"))',
      'result["myrights"] = text(client.myrights("Shared"))',
    ]);
    expect(answers.set?.[0]).toBe('OK');
    expect(JSON.stringify(answers.get)).toContain('herons');
    expect(answers.setacl?.[0]).toBe('OK');
    expect(JSON.stringify(answers.getacl)).toMatch(/bob@example\.test\\?"? lrs/);
    expect(answers.myrights?.[0]).toBe('OK');
  });

  it('curl searches and fetches', async () => {
    await file('alice', 'INBOX', ['one', 'two']);
    const { port, user, password } = login('alice');
    const curl = async (...args: string[]) => {
      const { code, stdout, stderr } = await runCommand('curl', ['-s', '-S', '-k', '-u', `${user}:${password}`, ...args]);
      if (code !== 0) throw new Error(`curl ended with ${code}: ${stderr}`);
      return stdout;
    };
    expect(await curl(`imaps://127.0.0.1:${port}/INBOX?SUBJECT%20two`)).toMatch(/^\* SEARCH \d+\r\n$/);
    const folder = mkdtempSync(join(tmpdir(), 'starling-curl-'));
    try {
      const path = join(folder, 'message');
      writeFileSync(path, message('three'));
      await curl('-T', path, `imaps://127.0.0.1:${port}/INBOX`);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
    expect([...(await contents('alice', 'INBOX')).keys()]).toEqual(['one', 'two', 'three']);
  });
});
