/**
 * What gossip is for: nodes that find and judge each other, hear of each other's changes at once, and give up a dead one in seconds. And what must not depend
 * on it: without it the same things happen, a little later.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Cluster } from '../harness/cluster.js';
import { ImapDialog } from '../harness/imap-dialog.js';
import { basePorts, NodeProcess, starlingCommand } from '../harness/node-process.js';
import { idOf, type NodeRow, nodeRows } from '../harness/node-rows.js';
import { freePortOffset } from '../harness/ports.js';
import { runCommand, waitFor } from '../harness/processes.js';
import { Sink } from '../harness/sink.js';
import { SmtpDialog, tokenMessage } from '../harness/smtp-load.js';

const alice = 'alice@example.test';
const quiet = '[log]\nlevel = "warn"\n';
const withoutGossip = `${quiet}[gossip]\nenabled = false\n`;

/** A host outside that keeps what it is given waiting for two minutes, while it `isHolding`. */
const manners = { isHolding: false };
/** In view of a machine on which other tests run; alone it takes a hundredth of it. */
const atOnceMs = 1_000;
const startSink = () =>
  Sink.start({
    host: '127.0.0.1',
    random: () => (manners.isHolding ? 0.5 : 0),
    nowMs: () => performance.now(),
    manners: { dropped: 0, deferredAfterDot: 0, deferredRecipient: 0, slow: 0, holdMs: 240_000 },
  });

/** Times from the beginning of an SMTP transaction on one node to `EXISTS` in an idle session on another, one message after another. */
async function idleTimes(sender: NodeProcess, reader: NodeProcess, count: number): Promise<number[]> {
  const imap = await ImapDialog.connect(reader.port('imaps'), alice, reader.password);
  const smtp = await SmtpDialog.connect(sender.port('smtp'));
  const times: number[] = [];
  try {
    await imap.command('SELECT INBOX');
    imap.write('idle IDLE\r\n');
    await imap.until((tail) => /\+ [^\r\n]*\r\n$/.test(tail));
    let last = 0;
    for (let index = 0; index < count; index++) {
      const told = imap.until((tail) => /\* \d+ EXISTS\r\n/.test(tail));
      const sentMs = performance.now();
      await smtp.send('sender@client.test', [alice], tokenMessage(`idle${index}`));
      const exists = Number(/\* (\d+) EXISTS\r\n/.exec((await told).toString('latin1'))![1]);
      times.push(performance.now() - sentMs);
      expect(exists).toBeGreaterThan(last);
      last = exists;
    }
  } finally {
    imap.close();
    smtp.close();
  }
  return times;
}

const freeOffset = () => freePortOffset(Object.values(basePorts));
const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]!;
const isWell = (row: NodeRow) => row.verdict === 'alive' && row.state === 'ready' && (row.isThisNode || row.phi !== null);
/** Until every one of these nodes sees all of them, and nobody else, in the best of health. */
const untilWell = (nodes: readonly NodeProcess[]) =>
  waitFor('nodes that know each other', 20_000, async () => {
    const views = await Promise.all(nodes.map(nodeRows));
    return views.every((rows) => rows.length === nodes.length && rows.every(isWell)) && views;
  });

describe('three nodes that gossip', () => {
  let cluster: Cluster;
  let sink: Sink;
  beforeAll(async () => {
    sink = await startSink();
    const clusterSettings = `[outbound.relay]\nhost = "127.0.0.1"\nport = ${sink.port}\ntls = "none"\n`;
    cluster = await Cluster.start({ settings: quiet, clusterSettings });
  });
  afterAll(async () => {
    await cluster?.remove();
    await sink?.stop();
  });
  afterEach(async () => {
    await untilWell(cluster.nodes);
  });

  it('find each other through the store, and each tells the whole of it', async () => {
    const views = await untilWell(cluster.nodes);
    const ids = views.map(([own]) => own!.id).sort();
    for (const [index, rows] of views.entries()) {
      expect(rows.map(({ id }) => id).sort()).toEqual(ids);
      expect(rows[0]!.isThisNode).toBe(true);
      expect(rows.reduce((sum, { shards }) => sum + shards, 0)).toBe(64);
      for (const row of rows) {
        expect(row.shards).toBeGreaterThanOrEqual(20);
        expect(row.heartbeatAgeSeconds).toBeLessThan(60);
        if (!row.isThisNode) expect(row.gossipAgeSeconds).toBeLessThan(60);
        expect(row.roles).toContain('queue');
      }
      const { gossipAddresses } = rows[0]!;
      expect(gossipAddresses).toEqual([`127.0.0.1:${cluster.node(index).port('gossip')}`]);
    }
    await waitFor('a holder of the job', 10_000, async () => {
      const rows = await nodeRows(cluster.node(1));
      return rows.flatMap(({ leases }) => leases.map(({ job }) => job)).join() === 'purge';
    });
    const listed = await cluster.node(0).cli('node', 'list', '--json');
    expect((JSON.parse(listed.stdout) as NodeRow[]).map(({ verdict }) => verdict)).toEqual(['alive', 'alive', 'alive']);
    const { stdout } = await cluster.node(0).cli('node', 'list');
    expect(stdout).toMatch(/^node +hostname +state +verdict +heard +row +phi +shards +claims +jobs +version\n/);
    expect(stdout.match(/ alive /g)).toHaveLength(3);
    const shown = await cluster.node(0).cli('node', 'show', ids[2]!.slice(0, 10), '--json');
    expect(JSON.parse(shown.stdout)).toMatchObject({ id: ids[2] });
  });

  it('tell each other of new mail at once', async () => {
    const times = await idleTimes(cluster.node(0), cluster.node(1), 50);
    process.stderr.write(`cluster gossip: new mail is seen on another node after ${median(times).toFixed(1)} ms (median)\n`);
    expect(median(times)).toBeLessThan(atOnceMs);
  });

  it('take a change of the settings at once', async () => {
    const [changed, other] = [cluster.node(0), cluster.node(2)];
    const size = async () => {
      const smtp = await SmtpDialog.connect(other.port('smtp'));
      const answer = await smtp.command('EHLO client.test', 250);
      smtp.close();
      return Number(/SIZE (\d+)/.exec(answer)![1]);
    };
    for (const bytes of [2_000_000, 3_000_000]) {
      const { code, stderr } = await changed.cli('settings', 'set', `smtp.maxMessageBytes=${bytes}`);
      expect(code, stderr).toBe(0);
      await waitFor('the new size on another node', 2_000, async () => (await size()) === bytes);
    }
  });

  it('give up a node that was killed, and take over what it had begun, within seconds', async () => {
    const victim = cluster.node(2);
    const survivors = [cluster.node(0), cluster.node(1)];
    const id = await idOf(victim);
    const login = { user: alice, password: victim.password };
    const smtp = await SmtpDialog.connect(victim.port('submissions'), { isTls: true, login });
    manners.isHolding = true;
    const tokens = Array.from({ length: 20 }, (_, index) => `taken-over${index}`);
    for (const token of tokens) await smtp.send(alice, [`x@${token}.outside.test`], tokenMessage(token));
    const arrived = (sinceMs: number) =>
      tokens.every((token) => sink.copies.some((copy) => copy.token === token && copy.dotMs >= sinceMs));
    await waitFor('the outside host to have them all', 20_000, async () => arrived(0));
    await waitFor('its claims to be seen', 5_000, async () => {
      const row = (await nodeRows(survivors[0]!)).find((one) => one.id === id);
      return row?.claims === tokens.length;
    });
    manners.isHolding = false;
    const killedMs = performance.now();
    await victim.kill();
    smtp.close();
    await waitFor('the others to take over', 15_000, async () => arrived(killedMs));
    const seconds = (performance.now() - killedMs) / 1000;
    process.stderr.write(`cluster gossip: all that a killed node had begun goes on after ${seconds.toFixed(1)} s\n`);
    await waitFor('nobody to know it any more', 10_000, async () => {
      const views = await Promise.all(survivors.map(nodeRows));
      return views.every((rows) => rows.length === 2 && rows.every(isWell) && rows[0]!.shards === 32);
    });
    await victim.start();
  });

  it('drain on a word from another', async () => {
    const [asked, other] = [cluster.node(0), cluster.node(1)];
    const id = await idOf(other);
    const refused = await asked.cli('node', 'drain', 'ffffffffffff');
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringMatching(/there is no node ffffffffffff/)]);
    const saidMs = performance.now();
    const { code, stdout, stderr } = await asked.cli('node', 'drain', id.slice(0, 8), '--json');
    expect(code, stderr).toBe(0);
    expect(JSON.parse(stdout)).toEqual({ draining: true, id });
    expect(await other.end()).toBe(0);
    expect(performance.now() - saidMs).toBeLessThan(60_000);
    await waitFor('the others to know', 5_000, async () => (await nodeRows(asked)).every((row) => row.id !== id));
    await other.start();
  });

  it('let nobody in who has another key, and take no harm', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'starling-foreign-'));
    const keyFile = join(folder, 'other.key');
    writeFileSync(keyFile, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600 });
    let foreign: NodeProcess | undefined;
    try {
      // On this store: told at once, although it waits for stores that are away.
      const args = [
        'quickstart',
        '--data',
        join(folder, 'node'),
        '--port-offset',
        String(await freeOffset()),
        '--cluster-key-file',
        keyFile,
      ];
      const started = await runCommand(process.execPath, [starlingCommand, ...args], {
        env: { STARLING_STORE: cluster.storeAddress },
        timeoutMs: 120_000,
      });
      expect(started.code).toBe(1);
      expect(started.stderr).toMatch(/starling: the secrets in this store are sealed with another cluster key/);
      // On a store of its own, with our addresses.
      const ours = cluster.ports('gossip').map((port) => `"127.0.0.1:${port}"`);
      foreign = await NodeProcess.start({
        settings: `${quiet}[gossip]\nbootstrap = [${ours.join(', ')}]\n`,
        quickstartArguments: ['--cluster-key-file', keyFile],
        env: { STARLING_STORE: await cluster.server.createDatabase('foreign') },
      });
      // How well they are is looked at afterwards: now and then a machine stands still for longer than a heartbeat.
      for (const untilMs = performance.now() + 3_000; performance.now() < untilMs; ) {
        const views = await Promise.all([foreign, ...cluster.nodes].map(nodeRows));
        expect(views.map((rows) => rows.length)).toEqual([1, 3, 3, 3]);
      }
      await untilWell(cluster.nodes);
      expect(median(await idleTimes(cluster.node(0), cluster.node(1), 10))).toBeLessThan(atOnceMs);
    } finally {
      await foreign?.remove();
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it('do not start where the port for gossip is taken: one sentence', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'starling-taken-'));
    const config = join(folder, 'taken.toml');
    const port = cluster.node(0).port('gossip');
    writeFileSync(config, `[gossip]\nport = ${port}\n`);
    try {
      const args = [
        'quickstart',
        '--data',
        join(folder, 'node'),
        '--port-offset',
        String(await freeOffset()),
        '--config',
        config,
      ];
      const { code, stderr } = await runCommand(
        process.execPath,
        [starlingCommand, ...args, '--cluster-key-file', cluster.keyFile],
        { env: { STARLING_STORE: cluster.storeAddress }, timeoutMs: 120_000 },
      );
      expect(code).toBe(1);
      expect(stderr).toMatch(new RegExp(`^starling: can't listen for gossip on .*${port}[^\n]*\n`, 'm'));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

describe('two nodes without gossip', () => {
  it('hear of new mail through the store, and know each other by their rows', async () => {
    const cluster = await Cluster.start({ nodes: 2, settings: withoutGossip });
    try {
      const times = await idleTimes(cluster.node(0), cluster.node(1), 20);
      process.stderr.write(`cluster gossip: without gossip, after ${median(times).toFixed(1)} ms (median)\n`);
      expect(median(times)).toBeLessThan(3_000);
      // Rows are looked at every other second only.
      const rows = await waitFor('the other node to have its share', 20_000, async () => {
        const seen = await nodeRows(cluster.node(0));
        return seen.every(({ shards }) => shards === 32) && seen;
      });
      expect(rows.map(({ verdict }) => verdict)).toEqual(['alive', 'alive']);
      expect(rows.flatMap(({ gossipAddresses }) => gossipAddresses)).toEqual([]);
    } finally {
      await cluster.remove();
    }
  });
});

describe('a store that is away when a node starts', () => {
  it('is waited for, and the node says so; it gives up at the limit, and at once on a wrong password', async () => {
    const cluster = await Cluster.start({ nodes: 1, isProxied: true });
    const folder = mkdtempSync(join(tmpdir(), 'starling-waiting-'));
    try {
      const node = cluster.node(0);
      expect(await node.stop()).toBe(0);
      await cluster.proxy.refuse();
      const starting = node.start(60_000);
      starting.catch(() => undefined);
      const isWaiting = async () => /this node waits for it/.test(node.output.stderr);
      await waitFor('a word about it', 20_000, isWaiting);
      node.signal('SIGTERM');
      expect(await node.end()).toBe(0);
      await expect(starting).rejects.toThrow(/ended with 0/);

      const again = node.start(60_000);
      again.catch(() => undefined);
      await waitFor('a word about it', 20_000, isWaiting);
      await cluster.proxy.accept();
      await again;
      expect(node.output.stderr).toMatch(/the store answers/);

      const run = async (limit: number, address: string) => {
        const config = join(folder, 'node.toml');
        writeFileSync(config, `[store]\nbackend = "postgres"\nurl = "${address}"\nstartTimeoutSeconds = ${limit}\n`);
        const args = [
          'quickstart',
          '--data',
          join(folder, 'node'),
          '--port-offset',
          String(await freeOffset()),
          '--config',
          config,
        ];
        return runCommand(process.execPath, [starlingCommand, ...args, '--cluster-key-file', cluster.keyFile], {
          timeoutMs: 240_000,
        });
      };
      const late = await run(1, cluster.storeAddress.replace(/:\d+\//, ':9/'));
      expect(late.code).toBe(1);
      expect(late.stderr).toMatch(/^starling: the store could not be reached for 1 s \(store\.startTimeoutSeconds\): /m);
      const wrong = await run(120, cluster.storeAddress.replace(/\/[^/]*$/, '/absent'));
      expect(wrong.code).toBe(1);
      expect(wrong.stderr).toMatch(/^starling: .*"absent" does not exist$/m);
    } finally {
      rmSync(folder, { recursive: true, force: true });
      await cluster.remove();
    }
  });
});
