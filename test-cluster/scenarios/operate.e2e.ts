/** The command line, on a running node and on the store of a stopped one: what it does is seen over SMTP and IMAP, what it refuses has a sentence and an exit code. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { messagesByImapflow } from '../harness/clients.js';
import { tokensOf } from '../harness/mailbox-tokens.js';
import { NodeProcess, starlingCommand } from '../harness/node-process.js';
import { runCommand, waitFor } from '../harness/processes.js';
import { SmtpDialog, tokenMessage } from '../harness/smtp-load.js';
import { imapLogin, imapScram, smtpAuthPlain, TlsDialog } from '../harness/tls-dialog.js';

let node: NodeProcess;
beforeAll(async () => {
  // Nothing answers at this DNS server: every outside domain is out of reach, for now.
  node = await NodeProcess.start({ settings: '[dns]\nservers = ["127.0.0.1:9"]\n' });
});
afterAll(async () => {
  await node?.remove();
});

type Row = Record<string, unknown>;

/** Runs with `--json`; throws unless it succeeds. */
async function done<T = Row>(...args: string[]): Promise<T> {
  const { code, stdout, stderr } = await node.cli(...args, '--json');
  if (code !== 0) throw new Error(`starling ${args.join(' ')} ended with ${code}: ${stdout}${stderr}`);
  return JSON.parse(stdout) as T;
}

/** Runs with and without `--json`; answers the sentence of the refusal, which must be the same. */
async function refused(...args: string[]): Promise<string> {
  const plain = await node.cli(...args);
  expect([plain.code, plain.stdout], plain.stderr).toEqual([1, '']);
  expect(plain.stderr).toMatch(/^starling: [^\n]+\n$/);
  const json = await node.cli(...args, '--json');
  expect([json.code, json.stderr]).toEqual([1, '']);
  const { error } = JSON.parse(json.stdout) as { error: string };
  expect(plain.stderr).toBe(`starling: ${error}\n`);
  return error;
}

async function send(recipient: string, token: string): Promise<void> {
  const smtp = await SmtpDialog.connect(node.port('smtp'));
  try {
    await smtp.send('sender@client.test', [recipient], tokenMessage(token));
  } finally {
    smtp.close();
  }
}

const arrived = (name: string, token: string) =>
  waitFor(`${token} for ${name}`, 10_000, async () => (await tokensOf(node, name)).includes(token));

describe('on a running node', () => {
  const imap = (address: string, password: string) => imapLogin(node.port('imaps'), address, password);

  it('makes an account that can log in, is found by its alias, disabled, enabled, removed', async () => {
    const carol = 'carol@example.test';
    const made = await done(
      'account',
      'create',
      carol,
      '--password',
      'first-secret',
      '--alias',
      'c@example.test',
      '--name',
      'Carol C.',
    );
    expect(made).toMatchObject({
      address: carol,
      displayName: 'Carol C.',
      aliases: ['c@example.test'],
      isEnabled: true,
      isAdmin: false,
    });
    expect(await imap(carol, 'first-secret')).toMatch(/^a OK/);
    expect(await imap('c@example.test', 'first-secret')).toMatch(/^a OK/);
    await send('c@example.test', 'by-alias');
    await waitFor('the mail', 10_000, async () => {
      const messages = await messagesByImapflow({ port: node.port('imaps'), user: carol, password: 'first-secret' });
      return messages.some((message) => message.includes('by-alias'));
    });
    expect(await done('account', 'show', carol)).toMatchObject({ messages: 1 });

    await done('account', 'update', carol, '--password', 'second-secret');
    expect(await imap(carol, 'first-secret')).toMatch(/^a NO \[AUTHENTICATIONFAILED\]/);
    expect(await imap(carol, 'second-secret')).toMatch(/^a OK/);

    expect(await done('account', 'disable', carol)).toMatchObject({ isEnabled: false });
    expect(await imap(carol, 'second-secret')).toMatch(/^a NO/);
    expect(await imapScram(node.port('imaps'), carol, 'second-secret')).toMatch(/^a NO/);
    expect(await smtpAuthPlain(node.port('submissions'), carol, 'second-secret')).toMatch(/^5\d\d /);
    await expect(send(carol, 'to-disabled')).rejects.toThrow(/550 5\.2\.1/);
    await done('account', 'enable', carol);
    expect(await imap(carol, 'second-secret')).toMatch(/^a OK/);

    expect(await refused('account', 'create', carol)).toMatch(/carol@example\.test/);
    expect(await done('account', 'remove', carol)).toEqual({ removed: carol });
    expect(await imap(carol, 'second-secret')).toMatch(/^a NO/);
    await expect(send(carol, 'to-removed')).rejects.toThrow(/550 5\.1\.1/);
    expect(await refused('account', 'show', carol)).toMatch(/there is no account carol@example\.test/);
    expect((await done<Row[]>('account', 'list')).map(({ address }) => address)).not.toContain(carol);
  });

  it('gives app passwords, and takes them back', async () => {
    const { password } = await done<{ password: string }>('account', 'add-app-password', 'bob@example.test', 'phone');
    expect(await imap('bob@example.test', password)).toMatch(/^a OK/);
    expect(await done<Row[]>('account', 'app-passwords', 'bob@example.test')).toMatchObject([{ name: 'phone' }]);
    await done('account', 'remove-app-password', 'bob@example.test', 'phone');
    expect(await imap('bob@example.test', password)).toMatch(/^a NO/);
    expect(await imap('bob@example.test', node.password)).toMatch(/^a OK/);
    expect(await refused('account', 'remove-app-password', 'bob@example.test', 'phone')).toMatch(/phone/);
  });

  it.each([
    ['é, composed', 'caf\u00e9-secret', 'cafe\u0301-secret'],
    ['full-width letters', '\uff33\uff45\uff43\uff52\uff45\uff54-pass', 'Secret-pass'],
    ['a no-break space, a soft hyphen, an emoji', 'a\u00a0b\u00adc\u{1f426}-pass', 'a bc\u{1f426}-pass'],
  ])('takes a password with %s, for every mechanism and however it is typed', async (_what, password, otherwise) => {
    await done('account', 'update', 'bob@example.test', '--password', password);
    for (const typed of [password, otherwise]) {
      expect(await smtpAuthPlain(node.port('submissions'), 'bob@example.test', typed)).toMatch(/^235 2\.7\.0/);
      expect(await imap('bob@example.test', typed)).toMatch(/^a OK/);
    }
    expect(await imapScram(node.port('imaps'), 'bob@example.test', otherwise)).toMatch(/^a OK/);
    expect(await imapScram(node.port('imaps'), 'bob@example.test', `${password}x`)).toMatch(/^a NO/);
    expect(await smtpAuthPlain(node.port('submissions'), 'bob@example.test', `${password}x`)).toMatch(/^535 /);
    await done('account', 'update', 'bob@example.test', '--password', node.password);
  });

  it('sets a quota that is kept to', async () => {
    expect(await done('account', 'create', 'small@example.test', '--password', node.password, '--quota', '10k')).toMatchObject({
      quotaLimitBytes: 10_240,
    });
    const imap = await TlsDialog.connect(node.port('imaps'));
    await imap.exchange(`a LOGIN small@example.test "${node.password}"`, /^a OK/m);
    const append = (bytes: number) => {
      const message = tokenMessage('quota', bytes).toString('latin1');
      return imap.exchange(`b APPEND INBOX {${message.length}+}\r\n${message}`, /^b [^\r\n]*\r\n$/m);
    };
    expect(await append(2_000)).toMatch(/^b OK/m);
    expect(await append(20_000)).toMatch(/^b NO \[OVERQUOTA\]/m);
    await done('account', 'update', 'small@example.test', '--quota', '1M');
    expect(await append(20_000)).toMatch(/^b OK/m);
    imap.close();
    expect(await refused('account', 'update', 'small@example.test', '--quota', 'much')).toMatch(/quota/);
    await done('account', 'remove', 'small@example.test');
  });

  it('takes domains, and lets go of them when they are empty', async () => {
    await expect(send('alice@second.test', 'early')).rejects.toThrow(/550 5\.7\.1/);
    await done('domain', 'create', 'second.test', '--catch-all', 'alice@example.test');
    expect((await done<Row[]>('domain', 'list')).map(({ name }) => name)).toContain('second.test');
    await send('anything@second.test', 'caught');
    await arrived('alice', 'caught');
    await done('account', 'create', 'x@second.test', '--password', node.password);
    expect(await refused('domain', 'remove', 'second.test')).toMatch(/still has addresses/);
    await done('account', 'remove', 'x@second.test');
    expect(await done('domain', 'remove', 'second.test')).toEqual({ removed: 'second.test' });
    await expect(send('anything@second.test', 'late')).rejects.toThrow(/550 5\.7\.1/);
    expect(await refused('domain', 'remove', 'second.test')).toMatch(/second\.test/);
    expect(await refused('domain', 'create', 'not a domain')).toMatch(/domain/);
  });

  it('makes lists that reach each member once, and groups', async () => {
    const members = ['--member', 'alice@example.test', '--member', 'bob@example.test'];
    await done('list', 'create', 'all@example.test', ...members);
    await send('all@example.test', 'to-all');
    await Promise.all([arrived('alice', 'to-all'), arrived('bob', 'to-all')]);
    for (const name of ['alice', 'bob']) {
      expect((await tokensOf(node, name)).filter((token) => token === 'to-all')).toHaveLength(1);
    }
    await done('list', 'update', 'all@example.test', '--member', 'bob@example.test');
    await send('all@example.test', 'to-bob');
    await arrived('bob', 'to-bob');
    expect(await tokensOf(node, 'alice')).not.toContain('to-bob');
    const group = await done('group', 'create', 'team@example.test', ...members);
    expect(group).toMatchObject({ members: ['alice@example.test', 'bob@example.test'] });
    expect(await refused('group', 'show', 'all@example.test')).toMatch(/there is no group all@example\.test/);
    await done('list', 'remove', 'all@example.test');
    await done('group', 'remove', 'team@example.test');
    await expect(send('all@example.test', 'gone')).rejects.toThrow(/550 5\.1\.1/);
  });

  it('shows what is in the queue, holds it, lets it go, tries it again, cancels it', async () => {
    const smtp = await TlsDialog.connect(node.port('submissions'));
    const reply = /^\d{3} [^\r\n]*\r\n$/m;
    await smtp.exchange('EHLO client.test', reply);
    const credentials = Buffer.from(`\0alice@example.test\0${node.password}`).toString('base64');
    await smtp.exchange(`AUTH PLAIN ${credentials}`, reply);
    await smtp.exchange('MAIL FROM:<alice@example.test>', reply);
    expect(await smtp.exchange('RCPT TO:<x@unreachable.test>', reply)).toMatch(/^250/);
    await smtp.exchange('DATA', reply);
    const message = 'From: <alice@example.test>\r\nSubject: stuck\r\n\r\nx\r\n.';
    expect(await smtp.exchange(message, reply)).toMatch(/^250 2\.0\.0/);
    smtp.close();

    const row = await waitFor('a first attempt', 60_000, async () => {
      const [only] = await done<Row[]>('queue', 'list');
      return (only?.states as string[] | undefined)?.join() === 'due' && only;
    });
    expect(row).toMatchObject({ from: 'alice@example.test', domains: ['unreachable.test'], pending: 1 });
    const id = String(row.id);
    const { destinations } = await done<{ destinations: Row[] }>('queue', 'show', id);
    expect(destinations).toMatchObject([
      { domain: 'unreachable.test', recipients: [{ address: 'x@unreachable.test', status: 'pending' }] },
    ]);
    const state = async () => (await done<{ destinations: { state: string }[] }>('queue', 'show', id)).destinations[0]!.state;
    await done('queue', 'hold', id);
    expect(await state()).toBe('held');
    await done('queue', 'unhold', id);
    expect(['due', 'claimed']).toContain(await state());
    await done('queue', 'hold', id).catch(() => undefined); // it may be claimed at this moment
    await waitFor('a due destination', 60_000, async () => (await state()) !== 'claimed');
    await done('queue', 'unhold', id).catch(() => undefined);
    await waitFor('a retry that is taken', 60_000, async () => (await node.cli('queue', 'retry', id)).code === 0);
    expect(await done('queue', 'counts')).toMatchObject({ isComplete: true });
    expect(await done('queue', 'cancel', id)).toMatchObject({ id });
    expect(await done('queue', 'list')).toEqual([]);
    for (const verb of ['show', 'hold', 'unhold', 'retry', 'cancel']) expect(await refused('queue', verb, id)).toContain(id);
  });

  it('tells of itself', async () => {
    expect(await done<Row[]>('node', 'list')).toMatchObject([{ state: 'ready', isThisNode: true }]);
    expect(await done('node', 'show')).toMatchObject({ state: 'ready', pid: node.pid, store: 'embedded' });
    expect((await done<Row[]>('cert', 'list'))[0]!.names).toContain('mail.example.test');
    expect(await done('store', 'check')).toMatchObject({ differences: 0 });
    const table = await node.cli('account', 'list');
    expect(table.stdout).toMatch(/^address +id +displayName/);
    expect(table.stdout).toMatch(/^alice@example\.test /m);
  });

  it('writes no password to its log', () => {
    for (const secret of ['first-secret', 'second-secret', 'caf\u00e9-secret', node.password]) {
      expect(node.output.stderr).not.toContain(secret);
      expect(node.output.stdout).not.toContain(secret);
    }
    expect(node.output.stderr).toContain('login refused');
  });
});

describe('wrong usage', () => {
  it.each([
    [['nonsense'], /no such command: nonsense/],
    [['constructor'], /no such command/],
    [['account'], /no such command: account/],
    [['account', 'constructor'], /no such command/],
    [['account', 'show'], /usage: starling account show ADDRESS/],
    [['account', 'show', 'a@b.test', 'c@d.test'], /usage: starling account show ADDRESS/],
    [['account', 'create', 'x@example.test', '--member', 'alice@example.test'], /takes no --member/],
    [['account', 'list', '--nonsense'], /nonsense/],
    [['queue', 'list', '--limit', 'many'], /--limit takes a whole number/],
    [['queue', 'list', '--limit'], /limit/],
  ])('%j ends with 2 and says why', async (args, sentence) => {
    const { code, stdout, stderr } = await node.cli(...args);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(sentence);
    expect(stderr).toMatch(/Try 'starling help'/);
  });

  it('help ends with 0, nothing at all with 2', async () => {
    const bare = await runCommand(process.execPath, [starlingCommand]);
    const help = await node.cli('help');
    expect([bare.code, help.code]).toEqual([2, 0]);
    expect(bare.stdout).toBe(help.stdout);
    expect(help.stdout).toMatch(/starling account create ADDRESS/);
    expect(await node.cli('account', 'create', '--help')).toEqual(help);
  });
});

describe('on the store of a stopped node', () => {
  it('does the same, and the node finds it', async () => {
    expect(await node.stop()).toBe(0);
    const dave = 'dave@example.test';
    await done('account', 'create', dave, '--password', 'p\u00e4ssword-of-dave', '--alias', 'd@example.test');
    const { password } = await done<{ password: string }>('account', 'add-app-password', dave, 'laptop');
    await done('account', 'disable', 'bob@example.test');
    await done('list', 'create', 'both@example.test', '--member', dave, '--member', 'alice@example.test');
    await done('domain', 'create', 'third.test');
    expect(await done('queue', 'list')).toEqual([]);
    expect(await done('store', 'check')).toMatchObject({ differences: 0 });
    for (const command of [['list'], ['show'], ['drain']])
      expect(await refused('node', ...command)).toMatch(/no node is running/);
    // The quickstart takes any password, until the cluster's settings say otherwise.
    await done('settings', 'set', 'directory.minPasswordCharacters=8');
    expect(await refused('account', 'create', 'weak@example.test', '--password', 'short')).toMatch(/password has 8 characters/);
    expect(await refused('account', 'show', 'nobody@example.test')).toMatch(/there is no account/);
    expect((await node.cli('account', 'show')).code).toBe(2);

    await node.start();
    const imaps = node.port('imaps');
    expect(await imapLogin(imaps, dave, 'p\u00e4ssword-of-dave')).toMatch(/^a OK/);
    expect(await imapScram(imaps, 'd@example.test', 'p\u00e4ssword-of-dave')).toMatch(/^a OK/);
    expect(await imapLogin(imaps, dave, password)).toMatch(/^a OK/);
    expect(await imapLogin(imaps, 'bob@example.test', node.password)).toMatch(/^a NO/);
    await send('both@example.test', 'to-both');
    await arrived('alice', 'to-both');
    expect((await done<Row[]>('domain', 'list')).map(({ name }) => name)).toContain('third.test');
    expect(await node.stop()).toBe(0);
  });
});
