/** Operators' Sieve scripts on the way in, set on a running node with `starling settings`, with swaks as the client. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { messagesByImapflow } from '../harness/clients.js';
import { machineHas } from '../harness/needs.js';
import { NodeProcess } from '../harness/node-process.js';
import { runCommand, waitFor } from '../harness/processes.js';

const scripts = `
[accept.ehlo]
script = "'names'"
[accept.mail]
script = "'senders'"
[accept.rcpt]
script = "protocol == 'smtp' ? 'recipients' : ''"
[accept.data]
script = "'content'"

[scripts.sieve]
names = '''
require ["environment", "ereject"];
if environment :matches "vnd.starling.helo" "*.dynamic.test" { ereject "550 5.7.1 No dynamic names"; }
'''
senders = '''
require ["envelope", "reject", "variables", "include"];
if envelope :domain "from" "spam.test" { reject "Not from there"; }
elsif envelope :domain "from" "trash.test" { discard; }
elsif envelope :matches "from" "*" { set "global.from" "\${1}"; }
'''
recipients = '''
require ["envelope", "copy"];
if envelope :localpart "to" "sales" { redirect "bob@example.test"; }
elsif envelope :localpart "to" "alice" { redirect :copy "bob@example.test"; }
'''
content = '''
require ["editheader", "variables", "include", "ereject"];
if header :contains "subject" "later" { ereject "451 4.7.1 Not today"; }
deleteheader "X-Secret";
addheader "X-Checked" "from \${global.from}";
'''
`;

describe.skipIf(!machineHas('swaks'))('scripts at the stages of SMTP', () => {
  let node: NodeProcess;
  let folder: string;
  let count = 0;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'starling-scripts-'));
    node = await NodeProcess.start();
    const file = join(folder, 'scripts.toml');
    writeFileSync(file, scripts);
    const applied = await node.cli('settings', 'apply', file);
    expect(applied.code, applied.stderr).toBe(0);
  });
  afterAll(async () => {
    await node?.remove();
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  });

  async function swaks(from: string, to: string, { helo = 'client.test', about = '', body = 'Hello' } = {}) {
    const subject = `script ${++count}${about}`;
    const data = join(folder, 'message');
    writeFileSync(data, `From: <${from}>\nSubject: ${subject}\nX-Secret: hidden\n folded\nX-Other:  kept  as it is\n\n${body}\n`);
    const { code, stdout, stderr } = await runCommand('swaks', [
      ...['--server', '127.0.0.1', '--port', String(node.port('smtp')), '--helo', helo, '--timeout', '30'],
      ...['--from', from, '--to', to, '--data', `@${data}`],
    ]);
    return { subject, code, output: stdout + stderr };
  }

  async function inboxOf(name: string): Promise<string[]> {
    const login = { port: node.port('imaps'), user: `${name}@example.test`, password: node.password };
    return (await messagesByImapflow(login)).map((bytes) => bytes.toString('latin1'));
  }

  const received = (name: string, subject: string) =>
    waitFor(`"${subject}" of ${name}`, 60_000, async () =>
      (await inboxOf(name)).find((message) => message.includes(`Subject: ${subject}\r\n`)),
    );

  it('refuse by name, sender and content, with their own words', async () => {
    expect((await swaks('a@b.test', 'bob@example.test', { helo: '1.dynamic.test' })).output).toContain(
      '550 5.7.1 No dynamic names',
    );
    expect((await swaks('a@spam.test', 'bob@example.test')).output).toContain('550 5.7.1 Not from there');
    expect((await swaks('a@b.test', 'bob@example.test', { about: ' later' })).output).toContain('451 4.7.1 Not today');
  });

  it('edit the header, and nothing else, of small and of large messages', async () => {
    const line = '0123456789abcdef'.repeat(4);
    for (const body of ['Hello', Array.from({ length: 20_000 }, (_, i) => `${i} ${line}`).join('\n')]) {
      const { code, output, subject } = await swaks('a@b.test', 'bob@example.test', { body });
      expect(code, output).toBe(0);
      const message = await received('bob', subject);
      const [, header, rest] = /\r\n(X-Checked: [\s\S]*?)\r\n\r\n([\s\S]*)$/.exec(message)!;
      expect(header).toBe(`X-Checked: from a@b.test\r\nFrom: <a@b.test>\r\nSubject: ${subject}\r\nX-Other:  kept  as it is`);
      expect(rest!.trimEnd() === body.replaceAll('\n', '\r\n')).toBe(true);
    }
  });

  it('send mail to others, besides and instead, and throw it away', async () => {
    const away = await swaks('a@trash.test', 'alice@example.test');
    expect(away.output).toMatch(/250 2\.0\.0 Ok: queued as/);
    const moved = await swaks('a@b.test', 'sales@example.test');
    expect(moved.code, moved.output).toBe(0);
    await received('bob', moved.subject);
    const copied = await swaks('a@b.test', 'alice@example.test');
    expect(copied.code, copied.output).toBe(0);
    await received('alice', copied.subject);
    await received('bob', copied.subject);
    const subjects = [...(await inboxOf('alice')), ...(await inboxOf('bob'))].join('\n');
    expect(subjects).not.toContain(`Subject: ${away.subject}\r\n`);
    const id = /queued as (\w+)/.exec(copied.output)![1]!;
    const { stdout } = await node.cli('explain', id);
    expect(stdout).toMatch(/script:recipients: rcpt redirected/);
    expect(stdout).toMatch(/script:content: data edited/);
    expect(await node.metric('starling_stage_scripts_total', { script: 'senders', result: 'discarded' })).toBe(1);
  });

  it('are refused with their place when they are wrong, and hold as soon as they are changed', async () => {
    const set = (path: string, value: string) => node.cli('settings', 'set', `${path}=${JSON.stringify(value)}`);
    const wrong = await set('scripts.sieve.senders', 'require "envelope"; if envelop "from" "x" { stop; }');
    expect([wrong.code, wrong.stderr]).toEqual([1, expect.stringMatching(/the script senders: line 1, column 24: .*'envelop'/)]);
    const missing = await set('accept.data.script', "'none'");
    expect([missing.code, missing.stderr]).toEqual([1, expect.stringContaining("there is no script 'none'")]);
    const changed = await set('scripts.sieve.senders', 'require "reject"; reject "Nobody today";');
    expect(changed.code, changed.stderr).toBe(0);
    expect((await swaks('a@b.test', 'bob@example.test')).output).toContain('550 5.7.1 Nobody today');
  });
});
