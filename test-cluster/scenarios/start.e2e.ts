/** Starting: what can't be started says why in one sentence and leaves nothing behind; what has started survives the loss of those who watch it. */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { servedCertificate } from '../harness/clients.js';
import { tokensOf } from '../harness/mailbox-tokens.js';
import { basePorts, NodeProcess, repositoryRoot, starlingCommand } from '../harness/node-process.js';
import { freePortOffset } from '../harness/ports.js';
import { runCommand, waitFor } from '../harness/processes.js';
import { SmtpDialog, tokenMessage } from '../harness/smtp-load.js';

const folder = mkdtempSync(join(tmpdir(), 'starling-start-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let offset: number;
beforeAll(async () => {
  offset = await freePortOffset(Object.values(basePorts));
});

/** Starts what can't start; answers what it says besides its log. */
async function refusal(...args: string[]): Promise<{ code: number | null; said: string; stdout: string }> {
  const { code, stdout, stderr } = await runCommand(process.execPath, [starlingCommand, ...args], { timeoutMs: 120_000 });
  const said = stderr
    .split('\n')
    // The first command after a change of the sources compiles them.
    .filter((line) => !line.startsWith('{') && line !== 'compiling ...')
    .join('\n');
  return { code, stdout, said };
}

function settings(name: string, text: string): string {
  const file = join(folder, `${name}.toml`);
  writeFileSync(file, text);
  return file;
}

const quickstart = (data: string, ...more: string[]) =>
  refusal('quickstart', '--data', join(folder, data), '--port-offset', String(offset), ...more);

describe('a start that fails', () => {
  const oneSentence = /^starling: [^\n]+\n$/;

  it('because the data directory can not be made', async () => {
    writeFileSync(join(folder, 'file'), '');
    const { code, said, stdout } = await quickstart('file', '--password', 'x');
    expect([code, stdout]).toEqual([1, '']);
    expect(said).toMatch(oneSentence);
    expect(said).toMatch(/can't make .*file\/store/);
  });

  it('because its path is too long for the control socket, before anything is made', async () => {
    const { code, said } = await quickstart('x'.repeat(120), '--password', 'x');
    expect(code).toBe(1);
    expect(said).toMatch(oneSentence);
    expect(said).toMatch(/control\.sock is longer than the 107 bytes/);
    expect(readdirSync(folder).filter((name) => name.startsWith('xxx'))).toEqual([]);
  });

  it.each([
    ['is not there', '', /can't use the certificate: ENOENT/],
    ['is not PEM', 'nonsense', /can't use the certificate: .*PEM/],
  ])('because the certificate %s', async (_what, content, sentence) => {
    const file = join(folder, `certificate-${content}.pem`);
    if (content) writeFileSync(file, content);
    const config = settings('certificate', `[tls]\ncertificateFile = "${file}"\nprivateKeyFile = "${file}"\n`);
    const { code, said } = await quickstart('certificate', '--password', 'x', '--config', config);
    expect(code).toBe(1);
    expect(said).toMatch(oneSentence);
    expect(said).toMatch(sentence);
  });

  it.each(['smtp', 'imaps', 'http', 'https'] as const)('because the port for %s is taken; no other stays taken', async (name) => {
    const port = basePorts[name] + offset;
    const squatter = createServer();
    await new Promise<void>((resolve) => squatter.listen(port, '127.0.0.1', resolve));
    try {
      const { code, said } = await quickstart('port', '--password', 'x');
      expect(code).toBe(1);
      expect(said).toMatch(oneSentence);
      expect(said).toContain(`${name} cannot listen on 127.0.0.1:${port}`);
      expect(existsSync(join(folder, 'port', 'control.sock'))).toBe(false);
    } finally {
      await new Promise((resolve) => squatter.close(resolve));
    }
  });

  it('because settings are wrong: names each, quotes no secret', async () => {
    const dns = settings('dns', '[dns]\nservers = ["nonsense"]\n');
    expect(await quickstart('settings', '--config', dns)).toMatchObject({
      code: 1,
      said: expect.stringMatching(/dns\.servers/),
    });
    const first = settings('first', '[smtp]\nmaxRecipients = 0\n[outbound.relay]\nhost = "x"\npassword = "very-secret"\n');
    const broken = settings('broken', '[outbound.relay]\nhost = "x"\npassword = "very-secret" x\n');
    for (const [option, file, sentence] of [
      ['--config', first, /smtp, outbound: these are settings of the whole cluster.*starling settings apply FILE/],
      ['--settings', first, /first\.toml is not valid: .*smtp\.maxRecipients: .*outbound\.relay: user and password go together/],
      ['--config', broken, /broken\.toml is not valid TOML \(line 3/],
      ['--settings', broken, /broken\.toml is not valid TOML \(line 3/],
    ] as const) {
      const { code, said } = await quickstart('settings', option, file);
      expect(code).toBe(1);
      expect(said).toMatch(oneSentence);
      expect(said).toMatch(sentence);
      expect(said).not.toContain('very-secret');
    }
    expect(existsSync(join(folder, 'settings'))).toBe(false);
  });

  it('because the kept passwords are damaged: and stops what ran already', async () => {
    mkdirSync(join(folder, 'kept'));
    writeFileSync(join(folder, 'kept', 'quickstart.json'), '{"accounts": [{"password": "very-secret"');
    const { code, said } = await quickstart('kept');
    expect(code).toBe(1);
    expect(said).toMatch(oneSentence);
    expect(said).toMatch(/quickstart\.json is damaged/);
    expect(said).not.toContain('very-secret');
    expect(existsSync(join(folder, 'kept', 'control.sock'))).toBe(false);
  });

  it.each([
    ['the control socket can not be made', 'control.sock/x', /the control socket cannot listen on/],
    ['the passwords can not be kept', 'quickstart.json.new/x', /can't make the accounts: EISDIR/],
    ['the passwords can not be read', 'quickstart.json/x', /can't read the passwords: EISDIR/],
    ['the certificate can not be kept', 'tls', /can't use the certificate: E/],
    ['the store is damaged', 'store/kv.sqlite', /kv\.sqlite can't be opened/],
  ])('because %s', async (_what, path, sentence) => {
    const data = `because-${path.replace(/\W/g, '-')}`;
    mkdirSync(join(folder, data, path, '..'), { recursive: true });
    writeFileSync(join(folder, data, path), 'nonsense'.repeat(3_000));
    const { code, said } = await quickstart(data);
    expect(code).toBe(1);
    expect(said).toMatch(oneSentence);
    expect(said).toMatch(sentence);
  });

  it('because it was called wrongly', async () => {
    for (const args of [['extra'], ['--password', ''], ['--port-offset', '70000'], ['--nonsense']]) {
      const { code, said } = await quickstart('usage', ...args);
      expect([code, said], args.join()).toEqual([2, expect.stringMatching(/^starling: [^\n]+\nTry 'starling help'\.\n$/)]);
    }
    expect((await refusal('serve')).code).toBe(2);
    expect(existsSync(join(folder, 'usage'))).toBe(false);
  });
});

describe('a node that has started', () => {
  it('keeps its files to itself, and standard output to what it has to say', async () => {
    const node = await NodeProcess.start();
    try {
      const smtp = await SmtpDialog.connect(node.port('smtp'));
      await smtp.send('a@client.test', ['alice@example.test'], tokenMessage('modes'));
      smtp.close();
      const open: string[] = [];
      const walk = (directory: string) => {
        for (const name of readdirSync(directory)) {
          const path = join(directory, name);
          const stat = lstatSync(path);
          if ((stat.mode & 0o077) !== 0) open.push(`${(stat.mode & 0o777).toString(8)} ${path}`);
          if (stat.isDirectory()) walk(path);
        }
      };
      walk(node.data);
      expect(open).toEqual([]);
      expect(await servedCertificate(node.port('https'))).toBe(await servedCertificate(node.port('imaps')));
      expect(node.output.stdout).toMatch(/^\nStarling is ready\.\n/);
      expect(node.output.stdout).not.toMatch(/SNI|finding/);
      expect(await node.stop()).toBe(0);
    } finally {
      await node.remove();
    }
  });

  it('does what its roles say, and nothing else', async () => {
    const node = await NodeProcess.start({ settings: 'roles = ["smtp", "http"]\n' });
    try {
      await expect(servedCertificate(node.port('imaps'))).rejects.toThrow(/no certificate served/);
      const smtp = await SmtpDialog.connect(node.port('smtp'));
      await smtp.send('a@client.test', ['alice@example.test', 'bob@example.test'], tokenMessage('queued'));
      smtp.close();
      // Two mailboxes are the queue's business, and this machine does not work it.
      const { stdout } = await node.cli('queue', 'list', '--json');
      expect(JSON.parse(stdout)).toMatchObject([{ states: ['due'], pending: 2 }]);
      expect(await node.stop()).toBe(0);
    } finally {
      await node.remove();
    }
  });

  /** A node whose standard streams are `stdio`; ended by its pid. */
  async function watched(stdio: ('pipe' | number)[], lookAway: (child: ChildProcess) => void): Promise<void> {
    const data = mkdtempSync(join(folder, 'watched-'));
    const args = [starlingCommand, 'quickstart', '--data', data, '--port-offset', String(offset), '--password', 'x'];
    const child = spawn(process.execPath, args, { stdio: ['ignore', ...stdio] });
    const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
    try {
      lookAway(child);
      const ready = async () => (await fetch(`http://127.0.0.1:${basePorts.http + offset}/health/ready`)).status === 200;
      await waitFor('a ready node', 20_000, ready);
      for (let index = 0; index < 5; index++) {
        const smtp = await SmtpDialog.connect(basePorts.smtp + offset);
        await smtp.send('a@client.test', ['alice@example.test'], tokenMessage(`unseen${index}`));
        smtp.close();
      }
      const seen = { port: (name: 'imaps') => basePorts[name] + offset, password: 'x' } as unknown as NodeProcess;
      await waitFor('the mail', 10_000, async () => (await tokensOf(seen, 'alice')).length === 5);
      child.kill('SIGTERM');
      expect(await ended).toBe(0);
    } finally {
      child.kill('SIGKILL');
    }
  }

  it('goes on when nobody reads its output any more', async () => {
    await watched(['pipe', 'pipe'], (child) => {
      child.stdout!.destroy();
      child.stderr!.destroy();
    });
  });

  it.skipIf(!existsSync('/dev/full'))('goes on when its log can not be written', async () => {
    const full = openSync('/dev/full', 'w');
    await watched([full, full], () => undefined);
  });

  it('stops in good order when it is told to while it starts', async () => {
    const data = mkdtempSync(join(folder, 'early-'));
    const args = [starlingCommand, 'quickstart', '--data', data, '--port-offset', String(offset), '--password', 'x'];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let log = '';
    child.stderr.on('data', (chunk) => {
      log += chunk;
      // The first line of its log comes before it listens.
      if (!log.includes('{"level"')) return;
      child.kill('SIGTERM');
      child.stderr.removeAllListeners('data');
      child.stderr.resume();
    });
    expect(await new Promise((resolve) => child.once('exit', resolve)), log).toBe(0);
    expect(existsSync(join(data, 'control.sock'))).toBe(false);
  });
});

describe('npm start', () => {
  it.each([
    ['SIGTERM to npm alone', 'SIGTERM', false],
    ['Ctrl-C to both', 'SIGINT', true],
  ] as const)('stops in good order on %s', async (_what, signal, isForGroup) => {
    const data = mkdtempSync(join(folder, 'npm-'));
    const log = join(data, 'log');
    const output = openSync(log, 'w');
    const args = ['start', '--', '--data', data, '--port-offset', String(offset), '--password', 'x'];
    // A session of its own, as a terminal gives it.
    const npm = spawn('npm', args, { cwd: repositoryRoot, stdio: ['ignore', output, output], detached: true });
    const ended = new Promise<number | string | null>((resolve) => npm.once('exit', (code, by) => resolve(code ?? by)));
    const alive = async () => (await fetch(`http://127.0.0.1:${basePorts.http + offset}/health/ready`)).status === 200;
    try {
      await waitFor('a ready node', 30_000, alive);
      process.kill(isForGroup ? -npm.pid! : npm.pid!, signal);
      expect(await ended, readFileSync(log, 'utf8')).toBe(0);
      expect(readFileSync(log, 'utf8')).toMatch(/"msg":"stopped"/);
      await expect(alive()).rejects.toThrow();
    } finally {
      // What is left of the group, if the above has failed.
      try {
        process.kill(-npm.pid!, 'SIGKILL');
      } catch {
        // Nothing is left.
      }
    }
  });
});
