/**
 * Durable accepts a second, sent with Postfix's smtp-source: against a Starling node that delivers to a mailbox meanwhile, a Postfix that throws away what it
 * has queued, and (where it is installed) a Haraka that hands on to a sink; on the same disk, in turns. Sessions and sizes as in a table; 50 sessions of 2 kB
 * are run several times.
 */
import { Haraka } from '../harness/haraka.js';
import { machineHas } from '../harness/needs.js';
import { NodeProcess } from '../harness/node-process.js';
import { freePort } from '../harness/ports.js';
import { Postfix } from '../harness/postfix.js';
import { runCommand, searchPath, startProcess, waitFor } from '../harness/processes.js';
import { median, round } from './figures.js';

interface Load {
  sessions: number;
  messageBytes: number;
  messages: number;
  /** smtp-source `-d`: go on over the same connection. */
  isReusing: boolean;
  rounds: number;
}

const loads: Load[] = [
  { sessions: 50, messageBytes: 2_000, messages: 6_000, isReusing: true, rounds: 3 },
  { sessions: 50, messageBytes: 2_000, messages: 6_000, isReusing: false, rounds: 1 },
  ...[10, 200].map((sessions) => ({ sessions, messageBytes: 2_000, messages: 6_000, isReusing: true, rounds: 1 })),
  ...[10, 50, 200].map((sessions) => ({ sessions, messageBytes: 20_000, messages: 3_000, isReusing: true, rounds: 1 })),
  ...[10, 50, 200].map((sessions) => ({ sessions, messageBytes: 500_000, messages: 400, isReusing: true, rounds: 1 })),
];

async function acceptsPerSecond(port: number, recipient: string, load: Load): Promise<number> {
  const args = ['-s', String(load.sessions), '-l', String(load.messageBytes), '-m', String(load.messages)];
  if (load.isReusing) args.push('-d');
  args.push('-f', 'load@client.test', '-t', recipient, `127.0.0.1:${port}`);
  const start = performance.now();
  const { code, stderr } = await runCommand('smtp-source', args, { env: { PATH: searchPath }, timeoutMs: 300_000 });
  if (code !== 0) throw new Error(`smtp-source ended with ${code}: ${stderr}`);
  return load.messages / ((performance.now() - start) / 1000);
}

async function queueIsEmpty(node: NodeProcess): Promise<boolean> {
  const { stdout } = await runCommand(process.execPath, node.cliArguments('queue', 'counts', '--json'));
  const counts = JSON.parse(stdout) as { dueNow: number; scheduled: number; claimed: number };
  return counts.dueNow + counts.scheduled + counts.claimed === 0;
}

interface Peers {
  postfix?: Postfix | undefined;
  haraka?: Haraka | undefined;
}

async function compare(node: NodeProcess, { postfix, haraka }: Peers, load: Load): Promise<Record<string, unknown>> {
  const starling: number[] = [];
  const byPostfix: number[] = [];
  const byHaraka: number[] = [];
  for (let index = 0; index < load.rounds; index++) {
    starling.push(await acceptsPerSecond(node.port('smtp'), 'alice@example.test', load));
    await waitFor('the queue to drain', 120_000, () => queueIsEmpty(node));
    if (postfix) byPostfix.push(await acceptsPerSecond(postfix.port, `x@${postfix.domain}`, load));
    if (haraka) byHaraka.push(await acceptsPerSecond(haraka.port, 'x@outside.test', load));
  }
  const { rounds: _, ...facts } = load;
  const against = (name: string, peer: readonly number[]) =>
    peer.length > 0 ? { [name]: round(median(peer)), [`${name}Ratio`]: round(median(starling) / median(peer)) } : {};
  return {
    ...facts,
    acceptsPerSecond: round(median(starling)),
    ...against('postfix', byPostfix),
    ...against('haraka', byHaraka),
  };
}

/** Starts the servers, runs all loads against each. */
export async function run(): Promise<Record<string, unknown>> {
  if (!machineHas('smtp-source', 'smtp-sink')) return { skipped: 'needs smtp-source and smtp-sink' };
  const sinkPort = await freePort();
  const sink = startProcess('smtp-sink', ['-u', 'nobody', `127.0.0.1:${sinkPort}`, '1000'], { env: { PATH: searchPath } });
  const node = await NodeProcess.start({
    settings: '[log]\nlevel = "warn"\n',
    clusterSettings: '[smtp]\nmaxMessagesPerSession = 100000\n',
  });
  const peers: Peers = {};
  try {
    peers.postfix = machineHas('postfix') ? await Postfix.start({ domain: 'outside.test', delivery: 'discard' }) : undefined;
    peers.haraka = await Haraka.start({ sinkPort });
    await acceptsPerSecond(node.port('smtp'), 'bob@example.test', loads[0]!); // warm
    const results: Record<string, unknown>[] = [];
    for (const load of loads) results.push(await compare(node, peers, load));
    return { ...(peers.haraka ? {} : { haraka: 'not found: STARLING_HARAKA names no folder' }), results };
  } finally {
    await node.remove();
    await peers.postfix?.stop();
    await peers.haraka?.stop();
    sink.child.kill('SIGTERM');
    await sink.ended;
  }
}
