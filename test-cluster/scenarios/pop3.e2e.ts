/** Mail taken over POP3 with the programs that people have (Python's poplib, curl, fetchmail, getmail), and the lock of a maildrop that a dead node does not keep. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { messagesByImapflow } from '../harness/clients.js';
import { Cluster } from '../harness/cluster.js';
import { machineHas } from '../harness/needs.js';
import { NodeProcess } from '../harness/node-process.js';
import { runCommand, waitFor } from '../harness/processes.js';
import { SmtpDialog } from '../harness/smtp-load.js';
import { TlsDialog } from '../harness/tls-dialog.js';

const alice = 'alice@example.test';
const hash = (bytes: Buffer | string) => createHash('sha256').update(bytes).digest('hex');

/** Bodies that are hard to carry: dots, 8-bit, long lines, much of it. */
const bodies = [
  'a plain line\r\n',
  '.\r\n..\r\n.hidden\r\nFrom here\r\n',
  'Gr\u00fc\u00dfe, \u4f60\u597d\r\n',
  `${'x'.repeat(990)}\r\n`,
  `${'some line of a long message\r\n.and one with a dot\r\n'.repeat(20_000)}`,
];

async function deliver(node: NodeProcess, count = bodies.length): Promise<void> {
  const smtp = await SmtpDialog.connect(node.port('smtp'));
  try {
    for (let i = 0; i < count; i++) {
      const head = `From: s@client.test\r\nTo: ${alice}\r\nSubject: number ${i}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n`;
      await smtp.send('s@client.test', [alice], Buffer.from(`${head}\r\n${bodies[i % bodies.length]!.replace(/^\./gm, '..')}`));
    }
  } finally {
    smtp.close();
  }
}

const inbox = (node: NodeProcess) => messagesByImapflow({ port: node.port('imaps'), user: alice, password: node.password });

/** Content hashes, whatever the order; programs that write files end lines in LF, and put fields of their own in front. */
const bodiesOf = (messages: readonly Buffer[]) =>
  messages.map((bytes) => hash(bytes.toString('latin1').replaceAll('\r\n', '\n').split('\n\n').slice(1).join('\n\n'))).sort();

describe.skipIf(!machineHas('python3', 'curl', 'fetchmail', 'getmail'))('a maildrop', () => {
  let node: NodeProcess;
  let folder: string;
  beforeAll(async () => {
    node = await NodeProcess.start();
  });
  afterAll(async () => {
    await node?.remove();
  });
  beforeEach(async () => {
    await empty();
    folder = mkdtempSync(join(tmpdir(), 'starling-pop3-'));
  });
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  /** All of INBOX over POP3, removed. */
  const empty = async () => {
    const dialog = await TlsDialog.connect(node.port('pop3s'));
    await dialog.exchange(`USER ${alice}`, /\r\n$/);
    const count = Number(/^\+OK (\d+) /.exec(await dialog.exchange(`PASS ${node.password}`, /\r\n$/))?.[1]);
    for (let i = 1; i <= count; i++) expect(await dialog.exchange(`DELE ${i}`, /\r\n$/)).toMatch(/^\+OK/);
    expect(await dialog.exchange('QUIT', /\r\n$/)).toMatch(/^\+OK/);
    dialog.close();
    expect(await inbox(node)).toEqual([]);
  };

  it('is read by poplib after STLS, byte for byte, and left as it is', async () => {
    await deliver(node);
    const stored = await inbox(node);
    const script = `
import base64, hashlib, json, poplib, ssl, sys
port, user, password = json.load(sys.stdin)
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
poplib._MAXLINE = 65536
box = poplib.POP3('127.0.0.1', port)
assert 'STLS' in box.capa() and 'USER' not in box.capa()
box.stls(context)
capabilities = box.capa()
assert 'SCRAM-SHA-256' in capabilities['SASL'] and 'TOP' in capabilities, capabilities
box.utf8()
box.user(user); box.pass_(password)
count, octets = box.stat()
sizes = [int(line.split()[1]) for line in box.list()[1]]
assert sum(sizes) == octets and len(sizes) == count
uids = [line.split()[1] for line in box.uidl()[1]]
assert len(set(uids)) == count
found = []
for number in range(1, count + 1):
    message = b''.join(line + b'\\r\\n' for line in box.retr(number)[1])
    assert len(message) == sizes[number - 1], (number, len(message), sizes)
    head = box.top(number, 0)[1]
    assert head[-1] == b'' and len(box.top(number, 1)[1]) == len(head) + 1
    found.append(hashlib.sha256(message).hexdigest())
box.dele(1); box.rset(); box.noop(); box.quit()
print(json.dumps(found))
`;
    const { code, stdout, stderr } = await runCommand('python3', ['-c', script], {
      input: JSON.stringify([node.port('pop3'), alice, node.password]),
    });
    expect(code, stderr).toBe(0);
    expect(JSON.parse(stdout)).toEqual(stored.map(hash));
    expect(await inbox(node)).toHaveLength(bodies.length);
  });

  it.each(['PLAIN', 'LOGIN', 'SCRAM-SHA-256'])('is listed and read by curl with %s', async (mechanism) => {
    await deliver(node, 2);
    const options = [
      '-sS',
      '-k',
      '--max-time',
      '20',
      '--user',
      `${alice}:${node.password}`,
      '--login-options',
      `AUTH=${mechanism}`,
    ];
    const url = `pop3s://127.0.0.1:${node.port('pop3s')}/`;
    const listed = await runCommand('curl', [...options, url]);
    // Not every curl is built with SCRAM.
    if (mechanism.startsWith('SCRAM') && listed.code === 67) expect(listed.stderr).toContain('Login denied');
    else {
      expect(listed.stdout, listed.stderr).toMatch(/^1 \d+\r\n2 \d+\r\n$/);
      const read = await runCommand('curl', [...options, `${url}2`]);
      expect(bodiesOf([Buffer.from(read.stdout)])).toEqual([hash(bodies[1]!.replaceAll('\r\n', '\n'))]);
    }
  });

  it('is emptied by fetchmail', async () => {
    await deliver(node);
    const stored = await inbox(node);
    const rc = join(folder, 'fetchmailrc');
    const account = `user "${alice}" there with password "${node.password}" ssl no sslcertck no rewrite`;
    writeFileSync(
      rc,
      `poll 127.0.0.1 protocol pop3 service ${node.port('pop3s')} uidl ${account} mda "cat > ${folder}/mail.$$"\n`,
      { mode: 0o600 },
    );
    const args = ['-f', rc, '--nodetach', '--nosyslog', '-i', join(folder, 'ids'), '--pidfile', join(folder, 'pid')];
    const fetch = () => runCommand('fetchmail', args, { env: { HOME: folder } });
    const first = await fetch();
    expect(first.code, first.stdout + first.stderr).toBe(0);
    const files = readdirSync(folder).filter((name) => name.startsWith('mail.'));
    expect(bodiesOf(files.map((name) => readFileSync(join(folder, name))))).toEqual(bodiesOf(stored));
    expect(await inbox(node)).toEqual([]);
    // 1: there was no mail.
    expect((await fetch()).code).toBe(1);
  });

  it('is read by getmail, once each as long as it stays', async () => {
    await deliver(node);
    const stored = await inbox(node);
    writeFileSync(
      join(folder, 'getmailrc'),
      [
        '[retriever]',
        'type = SimplePOP3SSLRetriever',
        'server = 127.0.0.1',
        `port = ${node.port('pop3s')}`,
        `username = ${alice}`,
        `password = ${node.password}`,
        '[destination]',
        'type = MDA_external',
        'path = /bin/sh',
        `arguments = ("-c", "cat > ${folder}/mail.$$")`,
        'allow_root_commands = true',
        '[options]',
        'delete = false',
        'read_all = false',
        '',
      ].join('\n'),
      { mode: 0o600 },
    );
    const fetch = () => runCommand('getmail', ['--getmaildir', folder, '--rcfile', 'getmailrc'], { env: { HOME: folder } });
    const read = () =>
      readdirSync(folder)
        .filter((name) => name.startsWith('mail.'))
        .map((name) => readFileSync(join(folder, name)));
    const first = await fetch();
    expect(first.code, first.stdout + first.stderr).toBe(0);
    expect(bodiesOf(read())).toEqual(bodiesOf(stored));
    await deliver(node, 1);
    expect((await fetch()).code).toBe(0);
    expect(read()).toHaveLength(stored.length + 1);
  });

  it('is told goodbye by a drain, and keeps what was only marked', async () => {
    await deliver(node, 1);
    const dialog = await TlsDialog.connect(node.port('pop3s'));
    await dialog.exchange(`USER ${alice}`, /\r\n$/);
    await dialog.exchange(`PASS ${node.password}`, /\r\n$/);
    await dialog.exchange('DELE 1', /\r\n$/);
    node.signal('SIGTERM');
    expect(await dialog.until(/\r\n$/)).toMatch(/^-ERR \[SYS\/TEMP\] /);
    await node.end();
    await node.start();
    expect(await inbox(node)).toHaveLength(1);
  });
});

describe('a maildrop of two nodes', () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await Cluster.start({ nodes: 2 });
  });
  afterAll(async () => {
    await cluster?.remove();
  });

  const logIn = async (node: NodeProcess) => {
    const dialog = await TlsDialog.connect(node.port('pop3s'));
    await dialog.exchange(`USER ${alice}`, /\r\n$/);
    return { dialog, reply: await dialog.exchange(`PASS ${node.password}`, /\r\n$/) };
  };

  it('has one session at a time, and is free again when the node of that session was killed', async () => {
    const [first, second] = [cluster.node(0), cluster.node(1)];
    const held = await logIn(first);
    expect(held.reply).toMatch(/^\+OK/);
    const refused = await logIn(second);
    expect(refused.reply).toMatch(/^-ERR \[IN-USE\] /);
    refused.dialog.close();
    await first.kill();
    await waitFor('the lock of the dead node', 60_000, async () => {
      const { dialog, reply } = await logIn(second);
      dialog.close();
      return reply.startsWith('+OK');
    });
  });
});
