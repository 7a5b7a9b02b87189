/** What is tried on the running cluster, step by step; each finding that is not as it must be is a sentence in `problems`. */
import { judgeDelivery } from '../checker/delivered.js';
import { type Login, messagesByImapflow, withImapflow } from '../harness/clients.js';
import { runCommand, waitFor } from '../harness/processes.js';
import { copyOf } from '../harness/smtp-load.js';
import { type ComposeCluster, type NodeName, nodeNames } from './cluster.js';
import { SteadyLoad } from './load.js';
import { PrometheusApi } from './prometheus.js';

const domain = 'example.test';
const names = ['alice', 'bob'];
const password = 'correct-horse-battery';
const victim: NodeName = 'node2';
const drained: NodeName = 'node3';
/** Of the balancer, on the inside network. */
const balancerAddress = '10.89.46.10';

export interface Findings {
  problems: string[];
  [finding: string]: unknown;
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** What every chapter works with. */
interface Scene {
  cluster: ComposeCluster;
  prometheus: PrometheusApi;
  load: SteadyLoad;
  findings: Findings;
  demand: Demand;
  report(line: string): void;
}

export async function tellStory(cluster: ComposeCluster, report: (line: string) => void): Promise<Findings> {
  const findings: Findings = { problems: [] };
  const demand: Demand = (isSo, otherwise) => {
    if (!isSo) findings.problems.push(otherwise);
  };
  const prometheus = new PrometheusApi(cluster.ports.prometheus);
  const load = new SteadyLoad(
    cluster.ports.smtp,
    names.map((name) => `${name}@${domain}`),
  );
  const scene: Scene = { cluster, prometheus, load, findings, demand, report };
  await inspectContainer(cluster, demand);
  await makeAccounts(cluster);
  await waitFor('Prometheus sees three nodes', 60_000, async () => (await targetsUp(prometheus)) === 3);
  await waitFor('the balancer sees three nodes', 60_000, () => isBalancerFull(cluster, prometheus));
  report('mail flows');
  load.start();
  await sleep(10_000);
  findings['longestPauseInPeaceMs'] = load.takeLongestGapMs();
  await killOne(scene);
  await drainOne(scene);
  report('counting');
  await countMail(scene);
  await checkClientAddress(scene);
  await checkWeb(scene);
  await checkMonitoring(scene);
  return findings;
}

/** `docker kill`, the verdict of the others, the alert; then the node comes back. Only the victim is ever declared dead. */
async function killOne({ cluster, prometheus, load, findings, demand, report }: Scene): Promise<void> {
  const { id: victimId } = await cluster.starling<{ id: string }>(victim, 'node', 'show');
  report(`docker kill ${victim}`);
  const killedAtMs = Date.now();
  await cluster.kill(victim);
  const survivors = nodeNames.filter((name) => name !== victim);
  const [declared] = await waitFor('the victim is declared dead', 60_000, async () => {
    const found = await declarations(cluster, survivors);
    return found.length > 0 && found;
  });
  findings['declaredDeadSeconds'] = (declared!.atMs - (await cluster.endedAtMs(victim))) / 1000;
  await waitFor(`the alert for ${victim}`, 120_000, async () =>
    (await prometheus.alerts('StarlingNodeDown')).some(
      ({ labels, state }) => state === 'firing' && labels['instance'] === `${victim}:2080`,
    ),
  );
  findings['alertSeconds'] = (Date.now() - killedAtMs) / 1000;
  findings['targetsUpAfterKill'] = await targetsUp(prometheus);
  findings['longestPauseAtKillMs'] = load.takeLongestGapMs();
  report(`${victim} comes back`);
  await cluster.start(victim);
  await cluster.waitUntilReady(120_000, [victim]);
  await waitFor('the alert is over', 120_000, async () => (await prometheus.alerts('StarlingNodeDown')).length === 0);
  const dead = [...new Set((await declarations(cluster, nodeNames)).map(({ deadNodeId }) => deadNodeId))];
  demand(dead.length === 1 && dead[0] === victimId, `declared dead: ${dead.join(', ')}; killed: ${victimId}`);
}

/** `docker-compose stop`, and start again: nobody is declared dead for it. */
async function drainOne({ cluster, load, findings, demand, report }: Scene): Promise<void> {
  report(`${drained} drains, as in a rolling upgrade`);
  load.takeLongestGapMs();
  const before = (await declarations(cluster, nodeNames)).length;
  const drain = await cluster.drain(drained);
  findings['drain'] = drain;
  demand(drain.exitCode === 0, `the drained node ended with ${drain.exitCode}`);
  await cluster.start(drained);
  await cluster.waitUntilReady(120_000, [drained]);
  await sleep(5_000);
  findings['longestPauseAtDrainMs'] = load.takeLongestGapMs();
  demand((await declarations(cluster, nodeNames)).length === before, 'a node was declared dead while one drained');
}

/** Every acknowledged message is in its mailbox once, read over IMAP through the balancer. */
async function countMail({ cluster, load, findings, demand }: Scene): Promise<void> {
  const ledger = await load.stop();
  await waitFor('the queue is empty', 120_000, () => isQueueEmpty(cluster));
  const found = (await Promise.all(names.map((name) => copiesThroughBalancer(cluster, name)))).flat();
  const { acknowledged, lost, doubled, unknown, unacknowledgedDelivered } = judgeDelivery(ledger, found);
  const counts = { acknowledged, lost: lost.length, doubled: doubled.length, unknown: unknown.length, unacknowledgedDelivered };
  Object.assign(findings, counts);
  demand(acknowledged > 1_000, `only ${acknowledged} messages went through`);
  const isExact = counts.lost + counts.doubled + counts.unknown === 0;
  demand(isExact, `mail: ${JSON.stringify({ lost, doubled, unknown }).slice(0, 500)}`);
}

async function checkMonitoring({ cluster, prometheus, findings, demand }: Scene): Promise<void> {
  await waitFor('Prometheus sees three nodes', 60_000, async () => (await targetsUp(prometheus)) === 3);
  findings['targetsUp'] = await targetsUp(prometheus);
  demand(await isBalancerFull(cluster, prometheus), 'the balancer does not see three nodes at the end');
  const { count, broken } = await prometheus.rules();
  findings['rules'] = count;
  demand(count > 30, `Prometheus has only ${count} rules`);
  demand(broken.length === 0, `rules that can't be evaluated: ${broken.join(', ')}`);
  findings['alertsAtTheEnd'] = (await prometheus.alerts()).map(({ labels, state }) => `${labels['alertname']} ${state}`);
}

/** Behind each port that is open to the world. */
async function isBalancerFull({ ports }: ComposeCluster, prometheus: PrometheusApi): Promise<boolean> {
  const { prometheus: _inside, ...open } = ports;
  const backends = await prometheus.query('haproxy_backend_active_servers');
  return backends.length === Object.keys(open).length && backends.every(({ value }) => value === 3);
}

type Demand = (isSo: boolean, otherwise: string) => void;

/** As the image and the compose file promise: no root, no capability, nothing to write on but data and /tmp, and tini as PID 1. */
async function inspectContainer(cluster: ComposeCluster, demand: Demand): Promise<void> {
  const shell = (script: string) => cluster.inNode('node1', 'sh', '-c', script);
  demand((await shell('id -u; id -g')).split('\n').slice(0, 2).join() === '10025,10025', 'the node runs as another user');
  demand(/^CapEff:\s+0+$/m.test(await shell('cat /proc/1/status')), 'the node has capabilities');
  demand((await shell('cat /proc/1/comm')).trim() === 'tini', 'PID 1 is not tini');
  demand(
    (await shell('touch /opt/starling/x 2>/dev/null || touch /x 2>/dev/null || echo refused')).trim() === 'refused',
    'the root file system can be written',
  );
  await shell('touch /var/lib/starling/x /tmp/x && rm /var/lib/starling/x /tmp/x');
}

async function makeAccounts(cluster: ComposeCluster): Promise<void> {
  await cluster.starling('node1', 'domain', 'create', domain);
  for (const name of names) await cluster.starling('node1', 'account', 'create', `${name}@${domain}`, '--password', password);
}

async function targetsUp(prometheus: PrometheusApi): Promise<number> {
  return (await prometheus.query('sum(up{job="starling"})'))[0]?.value ?? 0;
}

/** Who has declared whom dead, and when, by the logs of these nodes. */
async function declarations(
  cluster: ComposeCluster,
  names: readonly NodeName[],
): Promise<{ deadNodeId: string; atMs: number }[]> {
  const logs = await Promise.all(names.map((name) => cluster.logs(name)));
  return logs
    .flatMap((log) => log.split('\n'))
    .filter((line) => line.includes('"a node has been declared dead"'))
    .map((line) => JSON.parse(line) as { deadNodeId: string; time: string })
    .map(({ deadNodeId, time }) => ({ deadNodeId, atMs: Date.parse(time) }));
}

async function isQueueEmpty(cluster: ComposeCluster): Promise<boolean> {
  return (await cluster.starling<unknown[]>('node1', 'queue', 'list')).length === 0;
}

const loginOf = (cluster: ComposeCluster, name: string): Login => ({
  port: cluster.ports.imaps,
  user: `${name}@${domain}`,
  password,
});

/** What a mailbox holds, read over IMAP through the balancer, as the sender's ledger names it. Throws when UIDs do not ascend. */
function copiesThroughBalancer(cluster: ComposeCluster, name: string): Promise<string[]> {
  return withImapflow(loginOf(cluster, name), async (client) => {
    const lock = await client.getMailboxLock('INBOX');
    try {
      const copies: string[] = [];
      let lastUid = 0;
      for await (const { uid, envelope } of client.fetch('1:*', { envelope: true, uid: true })) {
        if (uid <= lastUid) throw new Error(`UID ${uid} after ${lastUid}`);
        lastUid = uid;
        copies.push(copyOf(envelope!.subject!.replace('token ', ''), name));
      }
      return copies;
    } finally {
      lock.release();
    }
  });
}

/** The Received field names the client as the PROXY header tells it, not the balancer. */
async function checkClientAddress({ cluster, findings, demand }: Scene): Promise<void> {
  const [first] = await messagesByImapflow(loginOf(cluster, names[0]!));
  const received = /^Received: from [^\r\n]*(?:\r\n[ \t][^\r\n]*)*/im.exec(first?.toString('latin1') ?? '')?.[0] ?? '';
  findings['clientAddress'] = /\[(?:IPv6:)?([0-9a-f.:]+)\]/i.exec(received)?.[1] ?? null;
  demand(
    findings['clientAddress'] !== null && findings['clientAddress'] !== balancerAddress,
    `the client is seen as ${received}`,
  );
}

/** HTTPS ends at the balancer and is answered by a node; what is for the inside only is not. */
async function checkWeb({ cluster, demand }: Scene): Promise<void> {
  const status = async (path: string) => {
    const { stdout } = await runCommand('curl', [
      '-sk',
      '-o',
      '/dev/null',
      '-w',
      '%{http_code}',
      `https://127.0.0.1:${cluster.ports.https}${path}`,
    ]);
    return stdout;
  };
  const found = await Promise.all(['/no-such-page', '/metrics', '/%6detrics', '/health/ready'].map(status));
  demand(found.join() === '404,403,403,403', `the web answers with ${found.join()}`);
}
