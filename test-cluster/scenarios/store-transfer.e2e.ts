/**
 * Moving a whole installation: embedded → PostgreSQL → embedded, with a kill -9 in the middle, and by backup and restore, made while the node takes mail.
 * After each step `store check` finds nothing, and mbsync, which has seen the first node, finds nothing changed.
 */
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { ImapDialog } from '../harness/imap-dialog.js';
import { MbsyncMirror } from '../harness/mbsync-mirror.js';
import { machineHas } from '../harness/needs.js';
import { NodeProcess, starlingCommand } from '../harness/node-process.js';
import { PostgresServer } from '../harness/postgres-server.js';
import { runCommand, startProcess } from '../harness/processes.js';
import { sized } from '../harness/size.js';
import { sendUntilAcknowledged } from '../harness/smtp-load.js';

const messages = sized(2_400, 10_000);
const users = ['alice', 'bob', 'admin'] as const;
const root = mkdtempSync(join(tmpdir(), 'starling-transfer-'));
const quiet = '[log]\nlevel = "warn"\n';
const nodes: NodeProcess[] = [];
const mirrors = new Map<string, MbsyncMirror>();
let postgres: PostgresServer | undefined;
/** Of the database to which the store was moved. */
let movedUrl = '';

afterAll(async () => {
  for (const node of nodes) await node.remove();
  for (const mirror of mirrors.values()) mirror.remove();
  await postgres?.remove();
  rmSync(root, { recursive: true, force: true });
});

const dataOf = (name: string) => join(root, name);

/** A data directory for a store that comes from the first one: the cluster key goes with it. */
function prepareData(name: string): string {
  const data = dataOf(name);
  mkdirSync(data, { mode: 0o700 });
  copyFileSync(join(dataOf('first'), 'cluster.key'), join(data, 'cluster.key'));
  return data;
}

async function startNode(name: string, quickstartArguments: string[] = []): Promise<NodeProcess> {
  const node = await NodeProcess.start({ data: dataOf(name), settings: quiet, quickstartArguments });
  nodes.push(node);
  return node;
}

const starling = (...args: string[]) => runCommand(process.execPath, [starlingCommand, ...args], { timeoutMs: 400_000 });

/** The last line of standard output of a command that succeeds. */
async function done(...args: string[]): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await starling(...args, '--json');
  if (code !== 0) throw new Error(`starling ${args.join(' ')} ended with ${code}: ${stdout}${stderr.slice(-2_000)}`);
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as Record<string, unknown>;
}

async function refused(...args: string[]): Promise<string> {
  const { code, stdout } = await starling(...args, '--json');
  expect(code).toBe(1);
  return (JSON.parse(stdout) as { error: string }).error;
}

/** Flags and a second folder, so that there is something to lose. */
async function arrange(node: NodeProcess, user: string): Promise<void> {
  const imap = await ImapDialog.connect(node.port('imaps'), `${user}@example.test`, node.password);
  await imap.command('CREATE Archive/2026');
  await imap.command('SELECT INBOX');
  await imap.command('STORE 1:500 +FLAGS.SILENT (\\Seen)');
  await imap.command('STORE 100:200 +FLAGS.SILENT (\\Flagged \\Answered)');
  await imap.command('UID COPY 300:700 Archive/2026');
  await imap.command('STORE 50:60 +FLAGS.SILENT (\\Deleted)');
  await imap.command('EXPUNGE');
  imap.close();
}

async function expectUnchanged(node: NodeProcess, who: readonly string[] = users): Promise<void> {
  for (const user of who) {
    const mirror = mirrors.get(user)!;
    const before = mirror.contents();
    await mirror.pull(node.port('imaps'));
    expect(mirror.contents()).toEqual(before);
  }
}

/** Kills the copy when it has written something and is not yet done; false when it was done too soon. */
async function copyAndKill(from: string, to: string): Promise<boolean> {
  const copy = startProcess(process.execPath, [starlingCommand, 'store', 'copy', '--from', from, '--to', to, '--json']);
  const keys = () =>
    Math.max(0, ...Array.from(copy.output.stderr.matchAll(/"stage":"copying","keys":(\d+)/g), (match) => Number(match[1])));
  // A quick one may have copied all before it first says so, and compares the two.
  const isFarEnough = () => keys() > 5_000 || /"verifying"/.test(copy.output.stderr);
  copy.child.stderr.on('data', () => isFarEnough() && copy.child.kill('SIGKILL'));
  await copy.ended;
  if (copy.output.stdout !== '') return false;
  expect(isFarEnough(), copy.output.stderr).toBe(true);
  return true;
}

describe.runIf(machineHas('mbsync', 'openssl'))('moving a store', () => {
  const timeout = { timeout: 900_000 };

  it(`of ${messages} messages in 3 accounts is filled`, timeout, async () => {
    mkdirSync(dataOf('first'), { mode: 0o700 });
    const node = await startNode('first');
    await sendUntilAcknowledged({
      port: node.port('smtp'),
      recipients: users.map((user) => `${user}@example.test`),
      count: messages,
      connections: 20,
    });
    await node.untilQueueEmpty();
    for (const user of users) {
      await arrange(node, user);
      const mirror = new MbsyncMirror(`${user}@example.test`, node.password);
      mirrors.set(user, mirror);
      await mirror.pull(node.port('imaps'));
    }
    const pulled = users.reduce((sum, user) => sum + mirrors.get(user)!.messageCount, 0);
    expect(pulled).toBeGreaterThanOrEqual(messages + users.length * (401 - 11));
    // The mirror itself changes nothing when it looks again.
    await expectUnchanged(node);
    await node.stop();
    expect(await done('store', 'check', '--data', dataOf('first'))).toMatchObject({ differences: 0 });
  });

  it('goes to PostgreSQL, killed in the middle and taken up again', timeout, async () => {
    postgres = await PostgresServer.start();
    const first = `embedded:${join(dataOf('first'), 'store')}`;
    const key = ['--cluster-key-file', join(dataOf('first'), 'cluster.key')];
    let wasKilled = false;
    // Once more, into another database, when the copy was faster than the plug.
    for (let attempt = 0; attempt < 5 && !wasKilled; attempt++) {
      movedUrl = await postgres.createDatabase(`moved${attempt}`);
      wasKilled = await copyAndKill(first, movedUrl);
    }
    const url = movedUrl;
    const moved = ['--store', url] as const;
    expect(wasKilled).toBe(true);
    expect(await refused('store', 'check', ...moved, ...key)).toMatch(/unfinished copy of embedded:/);
    const copied = await done('store', 'copy', '--from', first, '--to', url);
    process.stderr.write(
      `embedded → postgres, the rest: ${JSON.stringify({ keys: copied.keys, bytes: copied.bytes, seconds: copied.seconds })}\n`,
    );
    expect(await refused('store', 'copy', '--from', first, '--to', url)).toMatch(/not empty/);
    expect(await done('store', 'check', ...moved, ...key)).toMatchObject({ differences: 0 });
    const data = prepareData('on-postgres');
    const node = await startNode('on-postgres', ['--store', url, '--cluster-key-file', join(data, 'cluster.key')]);
    await expectUnchanged(node);
    await node.stop();
  });

  it('comes back, and a client finds nothing changed', timeout, async () => {
    const data = prepareData('back');
    const url = movedUrl;
    const copied = await done('store', 'copy', '--from', url, '--to', `embedded:${join(data, 'store')}`);
    process.stderr.write(
      `postgres → embedded: ${JSON.stringify({ keys: copied.keys, bytes: copied.bytes, seconds: copied.seconds })}\n`,
    );
    await postgres!.stop();
    expect(await done('store', 'check', '--data', data, '--deep')).toMatchObject({ differences: 0 });
    await expectUnchanged(await startNode('back'));
  });

  it('is backed up while it takes mail, and restored elsewhere', timeout, async () => {
    const node = nodes.at(-1)!;
    const file = join(root, 'whole.backup');
    const load = sendUntilAcknowledged({
      port: node.port('smtp'),
      recipients: ['bob@example.test'],
      count: 500,
      connections: 4,
      tokenPrefix: 'late',
    });
    const saved = await done('store', 'backup', file, '--data', node.data, '--encrypt');
    process.stderr.write(
      `backup: ${JSON.stringify({ keys: saved.keys, bytes: saved.bytes, fileBytes: saved.fileBytes, seconds: saved.seconds })}\n`,
    );
    await load;
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(await done('store', 'verify', file, '--data', node.data)).toMatchObject({ keys: saved.keys });
    await node.untilQueueEmpty();
    expect(await done('store', 'check', '--data', node.data)).toMatchObject({ differences: 0 });
    await node.stop();

    const data = prepareData('restored');
    const cut = join(root, 'cut.backup');
    copyFileSync(file, cut);
    truncateSync(cut, Math.floor(statSync(cut).size * 0.9));
    expect(await refused('store', 'restore', cut, '--data', data)).toMatch(/cut off after/);
    expect(
      readdirSync(data)
        .filter((name) => name === 'store')
        .flatMap((name) => readdirSync(join(data, name))).length,
    ).toBeLessThan(4);

    const restored = await done('store', 'restore', file, '--data', data);
    expect(restored.subspaces).toEqual(saved.subspaces);
    expect(await refused('store', 'restore', file, '--data', data)).toMatch(/not empty/);
    expect(await done('store', 'check', '--data', data, '--deep')).toMatchObject({ differences: 0 });
    await expectUnchanged(await startNode('restored'), ['alice', 'admin']);
  });
});
