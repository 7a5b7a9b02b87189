/**
 * From the final dot of a message over SMTP to `EXISTS` in an idle IMAP session, with other mail coming in at the same time. On several nodes the session
 * is on another one than that which takes the message, and the other mail comes in on all.
 */
import { Cluster } from '../harness/cluster.js';
import { ImapDialog } from '../harness/imap-dialog.js';
import { NodeProcess } from '../harness/node-process.js';
import { SmtpDialog, sendUntilAcknowledged, tokenMessage } from '../harness/smtp-load.js';
import { percentile, round } from './figures.js';
import type { BenchOptions } from './options.js';

const probes = 400;
const loadConnections = 10;
const loadMessages = 8_000;

/** Sends `count` messages to bob one after another, each timed until bob's idle session is told of it. Milliseconds. */
async function timeProbes(sender: NodeProcess, reader: NodeProcess, count: number): Promise<number[]> {
  const imap = await ImapDialog.connect(reader.port('imaps'), 'bob@example.test', reader.password);
  const smtp = await SmtpDialog.connect(sender.port('smtp'));
  const times: number[] = [];
  try {
    await imap.command('SELECT INBOX');
    imap.write('idle IDLE\r\n');
    await imap.until((tail) => /\+ [^\r\n]*\r\n$/.test(tail));
    for (let index = 0; index < count; index++) {
      const start = performance.now();
      const seen = imap.until((tail) => /\* \d+ EXISTS\r\n/.test(tail));
      await smtp.send('probe@client.test', ['bob@example.test'], tokenMessage(`p${index}`));
      await seen;
      times.push(performance.now() - start);
    }
  } finally {
    imap.close();
    smtp.close();
  }
  return times;
}

const settings = '[log]\nlevel = "warn"\n';

/** Alone, then under load. */
export async function run(options: BenchOptions = {}): Promise<Record<string, unknown>> {
  const { store = options.nodes === undefined ? 'embedded' : 'postgres', nodes = store === 'embedded' ? 1 : 3 } = options;
  if (store === 'embedded' && nodes === 1) {
    const node = await NodeProcess.start({ settings });
    try {
      return await measure([node]);
    } finally {
      await node.remove();
    }
  }
  if (store !== 'postgres')
    return { skipped: `${nodes} nodes need a store that they can share and that can be started here: postgres` };
  const cluster = await Cluster.start({ nodes, settings });
  try {
    return { store, nodes, ...(await measure(cluster.nodes)) };
  } finally {
    await cluster.remove();
  }
}

async function measure(nodes: readonly NodeProcess[]): Promise<Record<string, unknown>> {
  const [sender, reader] = [nodes[0]!, nodes.at(-1)!];
  const alone = await timeProbes(sender, reader, 100);
  const start = performance.now();
  const load = sendUntilAcknowledged({
    port: nodes.map((node) => node.port('smtp')),
    recipients: ['alice@example.test', 'admin@example.test'],
    count: loadMessages,
    connections: loadConnections * nodes.length,
  });
  let loadSeconds = 0;
  void load.then(() => {
    loadSeconds = (performance.now() - start) / 1000;
  });
  const loaded: number[] = [];
  while (loadSeconds === 0 && loaded.length < probes * 10) loaded.push(...(await timeProbes(sender, reader, 20)));
  await load;
  const summary = (times: number[]) => ({
    probes: times.length,
    p50Ms: round(percentile(times, 0.5)),
    p99Ms: round(percentile(times, 0.99)),
    maxMs: round(Math.max(...times)),
  });
  return { alone: summary(alone), underLoad: summary(loaded), loadMessagesPerSecond: round(loadMessages / loadSeconds) };
}
