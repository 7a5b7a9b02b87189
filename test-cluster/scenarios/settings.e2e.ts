/** Cluster-wide settings: changed on a running node they hold for the next session, changed on the store of a stopped one for the next start; secrets stay secret. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NodeProcess, starlingCommand } from '../harness/node-process.js';
import { runCommand } from '../harness/processes.js';
import { TlsDialog } from '../harness/tls-dialog.js';

const folder = mkdtempSync(join(tmpdir(), 'starling-settings-'));
let node: NodeProcess;
beforeAll(async () => {
  node = await NodeProcess.start({ clusterSettings: '[smtp]\nmaxMessageBytes = 1000000\n' });
});
afterAll(async () => {
  await node?.remove();
  rmSync(folder, { recursive: true, force: true });
});

/** Runs with `--json`; throws unless it succeeds. */
async function done<T>(...args: string[]): Promise<T> {
  const { code, stdout, stderr } = await node.cli('settings', ...args, '--json');
  if (code !== 0) throw new Error(`settings ${args.join(' ')} ended with ${code}: ${stdout}${stderr}`);
  return JSON.parse(stdout) as T;
}

/** What EHLO says of the largest message. */
async function announcedSize(): Promise<number> {
  const dialog = await TlsDialog.connect(node.port('submissions'));
  try {
    const answer = await dialog.exchange('EHLO client.test', /^250 .*\r\n$/m);
    return Number(/SIZE (\d+)/.exec(answer)![1]);
  } finally {
    dialog.close();
  }
}

interface Change {
  version: number;
  changes: { path: string }[];
}

describe('settings of the cluster', () => {
  it('begin with those of the first start', async () => {
    expect(await done('show', '--changed')).toEqual({
      smtp: { maxMessageBytes: 1_000_000 },
      directory: { minPasswordCharacters: 1 },
    });
    expect(await announcedSize()).toBe(1_000_000);
  });

  it('change on a running node, are in its history, and go back', async () => {
    expect(await done('set', 'smtp.maxMessageBytes=2000000', '--comment', 'more')).toMatchObject({ version: 2, isChanged: true });
    expect(await announcedSize()).toBe(2_000_000);
    const [last] = await done<{ who: string; comment: string }[]>('history', '--limit', '1');
    expect(last).toMatchObject({ version: 2, comment: 'more', who: expect.stringContaining(userInfo().username) });
    const stale = await node.cli('settings', 'set', 'smtp.maxMessageBytes=3000000', '--expected-version', '1');
    expect([stale.code, stale.stderr]).toEqual([1, expect.stringMatching(/no longer at version 1: they are at version 2/)]);
    await done('rollback', '1');
    expect(await announcedSize()).toBe(1_000_000);
  });

  it('take secrets from files and show them to nobody', async () => {
    const file = join(folder, 'password');
    writeFileSync(file, 'very-secret-password\n');
    const set = ['outbound.relay.host=relay.test', 'outbound.relay.user=me', '--secret-file', `outbound.relay.password=${file}`];
    const { changes } = await done<Change>('set', ...set);
    expect(changes.map(({ path }) => path)).toContain('outbound.relay.password');
    const plain = await node.cli('settings', 'show', 'outbound');
    expect(plain.stdout).toMatch(/^\[outbound\]/);
    expect(plain.stdout).toContain('password = "••••"');
    // What was shown can be applied: the secret stays.
    writeFileSync(join(folder, 'outbound.toml'), plain.stdout);
    await done('apply', join(folder, 'outbound.toml'));
    const everything = `${JSON.stringify([await done('show'), await done('history')])}${node.output.stderr}`;
    expect(everything).not.toContain('very-secret');
    for (const name of readdirSync(join(node.data, 'store')))
      expect(readFileSync(join(node.data, 'store', name)).includes('very-secret'), name).toBe(false);
    await done('unset', 'outbound.relay');
  });

  it('refuse what is wrong in one sentence', async () => {
    for (const [args, sentence] of [
      [['set', 'smtp.maxRecipients=0'], /would not be valid: smtp\.maxRecipients/],
      [['set', 'outbound.relay.password=x'], /is a secret: give it with --secret-file/],
      [['apply', join(folder, 'absent')], /can't read .*absent/],
    ] as const) {
      const { code, stdout, stderr } = await node.cli('settings', ...args);
      expect([code, stdout]).toEqual([1, '']);
      expect(stderr).toMatch(/^starling: [^\n]+\n$/);
      expect(stderr).toMatch(sentence);
    }
    expect((await node.cli('settings', 'set')).code).toBe(2);
    expect((await node.cli('settings', 'apply')).code).toBe(2);
  });

  it('change on the store of a stopped node, and hold when it starts', async () => {
    expect(await node.stop()).toBe(0);
    await done('set', 'smtp.maxMessageBytes=4000000');
    await node.start();
    expect(await announcedSize()).toBe(4_000_000);
  });

  it('are sealed with a key without which the node does not start', async () => {
    await node.stop();
    const key = readFileSync(join(node.data, 'cluster.key'));
    const quickstart = ['quickstart', '--data', node.data, '--port-offset', String(node.portOffset), '--password', node.password];
    const start = async (...more: string[]) => {
      const { code, stderr } = await runCommand(process.execPath, [starlingCommand, ...quickstart, ...more], {
        timeoutMs: 120_000,
      });
      return [
        code,
        stderr
          .split('\n')
          .filter((line) => !line.startsWith('{'))
          .join('\n'),
      ];
    };
    rmSync(join(node.data, 'cluster.key'));
    expect(await start()).toEqual([1, expect.stringMatching(/^starling: .*cluster\.key is not there[^\n]*\n$/)]);
    const { stdout: other } = await runCommand(process.execPath, [starlingCommand, 'cluster-key']);
    writeFileSync(join(folder, 'other.key'), other, { mode: 0o600 });
    expect(await start('--cluster-key-file', join(folder, 'other.key'))).toEqual([
      1,
      expect.stringMatching(/^starling: the secrets in this store are sealed with another cluster key[^\n]*\n$/),
    ]);
    writeFileSync(join(node.data, 'cluster.key'), key, { mode: 0o600 });
    await node.start();
    expect(await announcedSize()).toBe(4_000_000);
  });
});
