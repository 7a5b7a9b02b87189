/** One node's clock is a day ahead, another's a day behind (libfaketime): they work, keep what is theirs, and nothing waits a day for them. */
import { existsSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { judgeDelivery } from '../checker/delivered.js';
import { Cluster } from '../harness/cluster.js';
import { copiesIn } from '../harness/mailbox-tokens.js';
import type { NodeProcess } from '../harness/node-process.js';
import { runCommand } from '../harness/processes.js';
import { sendUntilAcknowledged } from '../harness/smtp-load.js';

const folders = ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib', '/usr/local/lib'];
const library = folders.map((folder) => `${folder}/faketime/libfaketimeMT.so.1`).find(existsSync);
if (!library && process.env.CI !== 'true') process.stderr.write('skipped: needs faketime\n');

const dayMs = 86_400_000;
/** Of the nodes' wall clocks. */
const offsets = ['+0', '+1d', '-1d'];
const names = ['alice', 'bob', 'admin'];
/** Longer than the term after which a silent node is declared dead. */
const watchedMs = 15_000;
/** In the log of a node that says so of another. */
const declaredDead = 'has been declared dead';

/** The wall clock of a process; intervals are left alone, as on a machine whose date is wrong. */
const clockEnv = (offset: string) => ({ LD_PRELOAD: library!, FAKETIME: offset, FAKETIME_DONT_FAKE_MONOTONIC: '1' });

describe.skipIf(!library && process.env.CI !== 'true')('clocks that are a day wrong', () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await Cluster.start({
      settings: '[log]\nlevel = "warn"\n',
      nodeOptions: (index) => (index === 0 ? {} : { env: clockEnv(offsets[index]!) }),
    });
  });
  afterAll(async () => {
    await cluster?.remove();
  });

  afterEach(({ task }) => {
    if (task.result?.state !== 'fail') return;
    for (const [index, { output }] of cluster.nodes.entries())
      process.stderr.write(`node ${index}:\n${output.stderr.slice(-8000)}\n`);
  });

  const load = (tokenPrefix: string, count: number) =>
    sendUntilAcknowledged({
      port: cluster.ports('smtp'),
      recipients: ['alice@example.test', ['bob@example.test', 'admin@example.test'], 'bob@example.test'],
      count,
      connections: 9,
      tokenPrefix,
    });

  const judge = async (ledger: Awaited<ReturnType<typeof load>>, prefix: string, reader: NodeProcess) =>
    judgeDelivery(
      ledger,
      (await copiesIn(reader, names)).filter((copy) => copy.startsWith(prefix)),
    );

  it('are really wrong', async () => {
    for (const [index, offset] of offsets.entries()) {
      const script = 'process.stdout.write(String(Date.now()))';
      const env = index === 0 ? {} : clockEnv(offset);
      const { stdout } = await runCommand(process.execPath, ['-e', script], { env });
      // Without the minus of -0.
      const wrongDays = Math.round((Number(stdout) - Date.now()) / dayMs) || 0;
      expect(wrongDays).toBe(offset === '+0' ? 0 : Number.parseInt(offset, 10));
    }
  });

  it('take and deliver mail', async () => {
    const startedMs = performance.now();
    const ledger = await load('all', 600);
    const sentMs = performance.now();
    await cluster.untilQueueEmpty();
    const seconds = [sentMs - startedMs, performance.now() - sentMs].map((ms) => (ms / 1000).toFixed(1));
    process.stderr.write(`wrong clocks: 600 messages taken in ${seconds[0]} s, delivered ${seconds[1]} s later\n`);
    expect(await judge(ledger, 'all', cluster.node(0))).toMatchObject({ lost: [], doubled: [], unknown: [] });
  });

  it('declare nobody dead, and are not declared dead', async () => {
    await new Promise((resolve) => setTimeout(resolve, watchedMs));
    await cluster.untilReady(10_000);
    for (const node of cluster.nodes) expect(node.output.stderr).not.toContain(declaredDead);
    const ids = await Promise.all(cluster.nodes.map(async (node) => idOf(node)));
    expect(new Set(ids).size).toBe(cluster.nodes.length);
  });

  it.each([1, 2])('do not hold up what node %i leaves behind when it dies', async (index) => {
    const prefix = `left${index}`;
    let dying: Promise<void> | undefined;
    const ledger = await sendUntilAcknowledged({
      port: cluster.node(index).port('smtp'),
      recipients: [names.map((name) => `${name}@example.test`)],
      count: 300,
      connections: 20,
      tokenPrefix: prefix,
      onAcknowledged(total) {
        if (total < 200) return;
        dying ??= cluster
          .node(index)
          .kill()
          .then(() => cluster.node(index).start());
      },
    });
    await dying;
    await cluster.untilQueueEmpty(60_000);
    expect(await judge(ledger, prefix, cluster.node(0))).toMatchObject({ lost: [], doubled: [], unknown: [] });
  });
});

async function idOf(node: NodeProcess): Promise<string> {
  const { stdout } = await node.cli('node', 'show', '--json');
  return (JSON.parse(stdout) as { id: string }).id;
}
