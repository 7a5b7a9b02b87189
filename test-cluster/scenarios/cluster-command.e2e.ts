/** `npm run cluster`: what it starts, what it says, what it keeps true, and that it takes everything down again. */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { ClusterState } from '../cluster/cluster-file.js';
import { messagesByImapflow } from '../harness/clients.js';
import { basePorts, repositoryRoot } from '../harness/node-process.js';
import { freePortOffset } from '../harness/ports.js';
import { PostgresServer } from '../harness/postgres-server.js';
import { GivenUp, startProcess, waitFor } from '../harness/processes.js';
import { SmtpDialog, tokenMessage } from '../harness/smtp-load.js';

const nodes = 2;
const portStep = 1_000;
const password = 'correct-horse-battery';

const folder = mkdtempSync(join(tmpdir(), 'starling-cluster-command-'));
let offset: number;
let started: ReturnType<typeof startProcess>[] = [];

beforeAll(async () => {
  // PostgreSQL, which does not run as root, must get to its data.
  chmodSync(folder, 0o711);
  const ports = Object.values(basePorts);
  offset = await freePortOffset(Array.from({ length: nodes }, (_, k) => ports.map((port) => port + k * portStep)).flat());
});
afterEach(async () => {
  for (const { child, ended } of started) {
    child.kill('SIGTERM');
    await ended;
  }
  started = [];
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function run(...args: string[]) {
  const running = startProcess('npm', ['run', '-s', 'cluster', '--', ...args], { cwd: repositoryRoot });
  started.push(running);
  return running;
}

const usual = (data: string, ...more: string[]) =>
  run('--nodes', String(nodes), '--store', 'postgres', '--data', join(folder, data), '--port-offset', String(offset), ...more);

const stateOf = (data: string) => JSON.parse(readFileSync(join(folder, data, 'cluster.json'), 'utf8')) as ClusterState;

const untilReady = (data: string, running: ReturnType<typeof run>) =>
  waitFor('the cluster', 90_000, async () => {
    if (running.child.exitCode !== null) throw new GivenUp(`it ended: ${running.output.stderr}`);
    return /The cluster is ready|^\{/m.test(running.output.stdout) && stateOf(data);
  });

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function send(node: number, token: string): Promise<void> {
  const smtp = await SmtpDialog.connect(basePorts.smtp + offset + node * portStep);
  await smtp.send('sender@client.test', ['alice@example.test'], tokenMessage(token));
  smtp.close();
}

const read = async (node: number, secret = password) => {
  const port = basePorts.imaps + offset + node * portStep;
  const messages = await messagesByImapflow({ port, user: 'alice@example.test', password: secret });
  return messages.map((message) => /Subject: token (\S+)/.exec(message.toString('latin1'))?.[1]);
};

describe('npm run cluster', () => {
  it('runs nodes on one PostgreSQL, keeps cluster.json true when one dies, drains all, and finds all again', async () => {
    const running = usual('first', '--password', password, '--restart', '1');
    const state = await untilReady('first', running);
    expect(state.store).toMatch(/^postgres:\/\/.*127\.0\.0\.1:\d+\//);
    expect(state.nodes).toMatchObject([
      { index: 0, portOffset: offset, data: join(folder, 'first', 'node-0'), state: 'ready' },
      { index: 1, portOffset: offset + portStep, data: join(folder, 'first', 'node-1'), state: 'ready' },
    ]);
    expect(new Set(state.nodes.map(({ id }) => id)).size).toBe(nodes);
    for (const { id } of state.nodes) expect(id).toMatch(/^[0-9a-f]{32}$/);
    expect(running.output.stdout).toContain(`swaks --server 127.0.0.1:${basePorts.smtp + offset} `);
    expect(statSync(join(folder, 'first', 'cluster.key')).mode & 0o777).toBe(0o600);
    await send(0, 'one');
    await waitFor('the message on the other node', 10_000, async () => (await read(1)).includes('one'));

    const before = state.nodes[1]!;
    process.kill(before.pid!, 'SIGKILL');
    const after = await waitFor('the node to be back', 60_000, async () => {
      const now = stateOf('first').nodes[1]!;
      return now.state === 'ready' && now.pid !== before.pid && now;
    });
    expect(after.id).not.toBe(before.id);
    expect(stateOf('first').nodes[0]).toEqual(state.nodes[0]);
    expect(await read(1)).toContain('one');

    running.child.kill('SIGTERM');
    expect(await running.ended).toBe(0);
    expect(stateOf('first').nodes.map((node) => [node.pid, node.state])).toEqual([
      [null, 'stopped'],
      [null, 'stopped'],
    ]);
    for (const pid of [state.nodes[0]!.pid!, after.pid!]) expect(isAlive(pid)).toBe(false);
    expect(existsSync(join(folder, 'first', 'postgres', 'postmaster.pid'))).toBe(false);

    const again = usual('first', '--password', password);
    await untilReady('first', again);
    expect(await read(0)).toEqual(['one']);
    await send(1, 'two');
    await waitFor('both', 10_000, async () => (await read(0)).includes('two'));
  });

  it('makes passwords that all nodes agree on, on a PostgreSQL that runs already, and shows a node that died as stopped', async () => {
    const server = await PostgresServer.start();
    try {
      const running = usual('second', '--postgres-url', server.url(), '--json');
      const state = await untilReady('second', running);
      expect(JSON.parse(running.output.stdout)).toEqual(state);
      const kept = readFileSync(join(folder, 'second', 'node-0', 'quickstart.json'), 'utf8');
      const { accounts } = JSON.parse(kept) as { accounts: { address: string; password: string }[] };
      const alice = accounts.find(({ address }) => address === 'alice@example.test')!;
      for (let node = 0; node < nodes; node++) expect(await read(node, alice.password)).toEqual([]);
      process.kill(state.nodes[1]!.pid!, 'SIGKILL');
      await waitFor('the word about it', 10_000, async () => /node 1 died: it was ended by SIGKILL/.test(running.output.stderr));
      expect(stateOf('second').nodes[1]).toMatchObject({ index: 1, id: null, pid: null, state: 'stopped' });
      expect(isAlive(state.nodes[0]!.pid!)).toBe(true);
      running.child.kill('SIGINT');
      expect(await running.ended).toBe(0);
      expect(await server.query('select 1 as one')).toEqual([{ one: 1 }]);
    } finally {
      await server.remove();
    }
  });

  it('says in a sentence what is wrong, and leaves nothing running', async () => {
    const wrong = run('--nodes', 'many');
    expect(await wrong.ended).toBe(2);
    expect(wrong.output.stderr).toMatch(/^cluster: --nodes takes a whole number/m);

    const noFile = run('--store', 'foundationdb', '--cluster-file', join(folder, 'absent'), '--data', join(folder, 'third'));
    expect(await noFile.ended).toBe(1);
    expect(noFile.output.stderr).toMatch(/^cluster: can't read the cluster file: [^\n]+\n$/m);

    const squatter = createServer();
    const port = basePorts.imaps + offset + portStep;
    await new Promise<void>((resolve) => squatter.listen(port, '127.0.0.1', resolve));
    try {
      // In a folder that nobody else may enter, besides.
      mkdirSync(join(folder, 'private'), { mode: 0o700 });
      const taken = usual('private/fourth', '--password', password);
      expect(await taken.ended).toBe(1);
      expect(taken.output.stderr).toMatch(
        new RegExp(`^cluster: node 1 did not start: .*imaps cannot listen on 127\\.0\\.0\\.1:${port}`, 'm'),
      );
      expect(stateOf('private/fourth').nodes.map(({ pid }) => pid)).toEqual([null, null]);
      const kept = realpathSync(join(folder, 'private', 'fourth', 'postgres'));
      expect(existsSync(join(kept, 'PG_VERSION'))).toBe(true);
      expect(existsSync(join(kept, 'postmaster.pid'))).toBe(false);
      expect(kept.startsWith(folder)).toBe(process.getuid?.() !== 0);
      rmSync(kept.startsWith(folder) ? kept : dirname(kept), { recursive: true });
    } finally {
      await new Promise((resolve) => squatter.close(resolve));
    }
  });
});
