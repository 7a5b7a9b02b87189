/**
 * Durable accepts a second: 2 kB messages over 20 connections with Postfix's smtp-source, against a Starling node that delivers them to a mailbox
 * meanwhile, and against a Postfix that throws them away, on the same disk, in turns.
 */
import { machineHas } from '../harness/needs.js';
import { NodeProcess } from '../harness/node-process.js';
import { Postfix } from '../harness/postfix.js';
import { runCommand, searchPath, waitFor } from '../harness/processes.js';
import { median, round } from './figures.js';

const messageBytes = 2_000;
const messagesPerRun = 6_000;
const rounds = 3;

interface Load {
  connections: number;
  /** smtp-source `-d`: go on over the same connection. */
  isReusing: boolean;
}

async function acceptsPerSecond(port: number, recipient: string, load: Load): Promise<number> {
  const args = ['-s', String(load.connections), '-l', String(messageBytes), '-m', String(messagesPerRun)];
  if (load.isReusing) args.push('-d');
  args.push('-f', 'load@client.test', '-t', recipient, `127.0.0.1:${port}`);
  const start = performance.now();
  const { code, stderr } = await runCommand('smtp-source', args, { env: { PATH: searchPath }, timeoutMs: 300_000 });
  if (code !== 0) throw new Error(`smtp-source ended with ${code}: ${stderr}`);
  return messagesPerRun / ((performance.now() - start) / 1000);
}

async function queueIsEmpty(node: NodeProcess): Promise<boolean> {
  const { stdout } = await runCommand(process.execPath, node.cliArguments('queue', 'counts', '--json'));
  const counts = JSON.parse(stdout) as { dueNow: number; scheduled: number; claimed: number };
  return counts.dueNow + counts.scheduled + counts.claimed === 0;
}

async function compare(node: NodeProcess, postfix: Postfix | undefined, load: Load): Promise<Record<string, unknown>> {
  const starling: number[] = [];
  const peer: number[] = [];
  const drainSeconds: number[] = [];
  for (let index = 0; index < rounds; index++) {
    starling.push(await acceptsPerSecond(node.port('smtp'), 'alice@example.test', load));
    const accepted = performance.now();
    await waitFor('the queue to drain', 120_000, () => queueIsEmpty(node));
    drainSeconds.push((performance.now() - accepted) / 1000);
    if (postfix) peer.push(await acceptsPerSecond(postfix.port, `x@${postfix.domain}`, load));
  }
  return {
    ...load,
    acceptsPerSecond: round(median(starling)),
    deliveredAfterSeconds: round(median(drainSeconds)),
    ...(postfix ? { postfixAcceptsPerSecond: round(median(peer)), ratio: round(median(starling) / median(peer)) } : {}),
  };
}

/** Starts both servers, runs both loads. */
export async function run(): Promise<Record<string, unknown>> {
  if (!machineHas('smtp-source')) return { skipped: 'needs smtp-source' };
  const node = await NodeProcess.start({ settings: '[log]\nlevel = "warn"\n' });
  const postfix = machineHas('postfix') ? await Postfix.start({ domain: 'outside.test', delivery: 'discard' }) : undefined;
  try {
    await acceptsPerSecond(node.port('smtp'), 'bob@example.test', { connections: 20, isReusing: true }); // warm
    const results = [
      await compare(node, postfix, { connections: 20, isReusing: true }),
      await compare(node, postfix, { connections: 20, isReusing: false }),
    ];
    return { messageBytes, messagesPerRun, rounds, results };
  } finally {
    await node.remove();
    await postfix?.stop();
  }
}
