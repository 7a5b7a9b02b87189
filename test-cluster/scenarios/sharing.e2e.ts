/** Mailboxes shared between users on real nodes, with Python's imaplib and imapflow: one user shares on one node, the other reads, files and loses the right on another. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withImapflow } from '../harness/clients.js';
import { Cluster } from '../harness/cluster.js';
import { machineHas } from '../harness/needs.js';
import type { NodeProcess } from '../harness/node-process.js';
import { runCommand } from '../harness/processes.js';

const alice = 'alice@example.test';
const bob = 'dora@example.test';
const team = 'team@example.test';
const password = 'a long password of hers';

/** Runs a script with `connection(port, user, password)` at hand; answers what it prints as JSON. */
async function python<T>(script: string, input: unknown): Promise<T> {
  const head = `
import imaplib, json, ssl, sys
argument = json.load(sys.stdin)
def connection(port, user, password):
    context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
    imap = imaplib.IMAP4_SSL('127.0.0.1', port, ssl_context=context, timeout=60)
    imap.login(user, password)
    return imap
def text(reply):
    return [reply[0], [line.decode() if isinstance(line, bytes) else line for line in reply[1]]]
`;
  const { code, stdout, stderr } = await runCommand('python3', ['-c', head + script], { input: JSON.stringify(input) });
  if (code !== 0) throw new Error(`python ended with ${code}: ${stderr}`);
  return JSON.parse(stdout) as T;
}

describe.skipIf(!machineHas('python3'))('a shared mailbox', () => {
  let cluster: Cluster;
  let first: NodeProcess;
  let second: NodeProcess;
  const aliceOn = (node: NodeProcess) => ({ port: node.port('imaps'), user: alice, password: node.password });
  const bobOn = (node: NodeProcess) => ({ port: node.port('imaps'), user: bob, password });

  async function cli(...args: string[]): Promise<void> {
    const { code, stdout, stderr } = await first.cli(...args);
    if (code !== 0) throw new Error(`starling ${args.join(' ')}: ${stdout}${stderr}`);
  }

  beforeAll(async () => {
    cluster = await Cluster.start({ nodes: 2 });
    [first, second] = cluster.nodes as [NodeProcess, NodeProcess];
    await cli('account', 'create', bob, '--password', password);
    await cli('group', 'create', team, '--member', bob);
  });
  afterAll(async () => {
    await cluster?.remove();
  });

  it('is given by imaplib on one node, and found, read and marked by imaplib on the other', async () => {
    const script = `
a = connection(*argument['alice'])
b = connection(*argument['bob'])
said = {}
a.create('Plans')
for number in range(3):
    a.append('Plans', None, None, b'Subject: plan %d\\r\\n\\r\\nText %d\\r\\n' % (number, number))
said['set'] = text(a.setacl('Plans', 'dora@example.test', 'lrs'))
said['get'] = text(a.getacl('Plans'))
said['namespace'] = text(b.namespace())
name = '"Other Users/alice@example.test/Plans"'
said['list'] = text(b.list('""', '"Other Users/*"'))
said['rights'] = text(b.myrights(name))
said['select'] = text(b.select(name))
said['body'] = b.fetch('2', '(BODY[TEXT])')[1][0][1].decode()
said['flagged'] = b.store('1', '+FLAGS', '(\\\\Flagged)')[0]
a.select('Plans')
said['seen'] = text(a.search(None, 'SEEN'))
said['root'] = text(b.getquotaroot(name))[0]
said['taken'] = text(a.deleteacl('Plans', 'dora@example.test'))
try:
    b.noop()
    said['end'] = 'none'
except imaplib.IMAP4.abort as error:
    said['end'] = str(error)
print(json.dumps(said))
`;
    const [one, other] = [aliceOn(first), bobOn(second)];
    const said = await python<Record<string, [string, string[]] | string>>(script, {
      alice: [one.port, one.user, one.password],
      bob: [other.port, other.user, other.password],
    });
    expect(said.set).toEqual(['OK', ['SETACL completed']]);
    expect(said.get).toEqual(['OK', [`Plans ${alice} lrswipkxteacd ${bob} lrs`]]);
    expect(said.namespace![1]![0]).toBe('(("" "/")) (("Other Users/" "/")) (("Shared Folders/" "/"))');
    expect(said.list).toEqual(['OK', [`(\\HasNoChildren) "/" "Other Users/${alice}/Plans"`]]);
    expect(said.rights).toEqual(['OK', [`"Other Users/${alice}/Plans" lrs`]]);
    expect(said.select).toEqual(['OK', ['3']]);
    expect(said.body).toBe('Text 1\r\n');
    expect(said.flagged).toBe('NO');
    expect(said.seen).toEqual(['OK', ['2']]);
    expect(said.root).toBe('OK');
    expect(said.taken![0]).toBe('OK');
    expect(said.end).toContain('no longer shared');
  });

  it('takes messages that imapflow moves between accounts, whole and once', async () => {
    await withImapflow(aliceOn(first), async (client) => {
      await client.mailboxCreate('Inbox of the team');
      for (let at = 0; at < 20; at++)
        await client.append('Inbox of the team', `Subject: number ${at}\r\n\r\n${'x'.repeat(at * 1_000)}\r\n`, ['\\Seen']);
    });
    await python(
      'print(json.dumps(text(connection(*argument).setacl(\'"Inbox of the team"\', "$team@example.test", "lrswite"))))',
      [first.port('imaps'), alice, first.password],
    );
    const shared = `Other Users/${alice}/Inbox of the team`;
    const moved = await withImapflow(bobOn(second), async (client) => {
      const listed = (await client.list()).map(({ path }) => path);
      expect(listed).toContain(shared);
      const lock = await client.getMailboxLock(shared);
      try {
        const result = await client.messageMove('1:15', 'INBOX');
        expect(result ? result.uidMap?.size : 0).toBe(15);
        return ((await client.status(shared, { messages: true })) as { messages?: number }).messages;
      } finally {
        lock.release();
      }
    });
    expect(moved).toBe(5);
    await withImapflow(bobOn(first), async (client) => {
      const lock = await client.getMailboxLock('INBOX');
      try {
        const sizes: number[] = [];
        for await (const { source, flags } of client.fetch('1:*', { source: true, flags: true })) {
          sizes.push(source!.length);
          expect(flags).toEqual(new Set(['\\Seen']));
        }
        expect(sizes).toEqual(Array.from({ length: 15 }, (_, at) => `Subject: number ${at}\r\n\r\n\r\n`.length + at * 1_000));
      } finally {
        lock.release();
      }
    });
    await withImapflow(aliceOn(second), async (client) => {
      expect(await client.status('Inbox of the team', { messages: true })).toMatchObject({ messages: 5 });
    });
  });

  it('of a group belongs to its members, on whichever node they are', async () => {
    await withImapflow(bobOn(first), async (client) => {
      await client.mailboxCreate(`Shared Folders/${team}/Issues`);
    });
    await withImapflow(bobOn(second), async (client) => {
      await client.append(`Shared Folders/${team}/Issues`, 'Subject: one\r\n\r\nText\r\n');
      expect(await client.status(`Shared Folders/${team}/Issues`, { messages: true })).toMatchObject({ messages: 1 });
    });
    await withImapflow(aliceOn(second), async (client) => {
      expect((await client.list()).map(({ path }) => path).filter((path) => path.startsWith('Shared'))).toEqual([]);
    });
  });

  it('leaves a sound store when one of the accounts is removed', async () => {
    await cli('account', 'remove', bob);
    const { code, stdout, stderr } = await first.cli('store', 'check');
    expect(code, stdout + stderr).toBe(0);
    await withImapflow(aliceOn(second), async (client) => {
      expect(await client.status('Inbox of the team', { messages: true })).toMatchObject({ messages: 5 });
    });
  });
});
