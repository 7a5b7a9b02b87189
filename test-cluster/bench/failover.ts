/**
 * How long mail stands still when a node is killed under load: messages that it had in hand (claimed, in the middle of a conversation with a host outside that
 * has not answered yet) and messages that wait in its shards. Counted from the kill to the moment at which another node hands each of them to the host
 * outside. The node is started again after each round.
 */
import { Cluster } from '../harness/cluster.js';
import type { NodeProcess } from '../harness/node-process.js';
import { idOf, nodeRows } from '../harness/node-rows.js';
import { waitAtMost } from '../harness/processes.js';
import { Sink } from '../harness/sink.js';
import { SmtpDialog, sendUntilAcknowledged, tokenMessage } from '../harness/smtp-load.js';
import { median, round } from './figures.js';
import type { BenchOptions } from './options.js';

const rounds = 5;
/** Fewer than a node delivers side by side: all are in conversations when it dies. */
const messagesPerRound = 40;
const alice = 'alice@example.test';
const holdMs = 45_000;

/** Local mail to all nodes, until told to stop. */
function load(cluster: Cluster): { stop(): Promise<number> } {
  let isOver = false;
  let acknowledged = 0;
  const running = (async () => {
    for (let turn = 0; !isOver; turn++) {
      const { acknowledged: taken } = await sendUntilAcknowledged({
        port: cluster.ports('smtp'),
        recipients: [alice, ['alice@example.test', 'bob@example.test']],
        count: 200,
        connections: 6,
        tokenPrefix: `load${turn}`,
      });
      acknowledged += taken.size;
    }
  })();
  return {
    async stop() {
      isOver = true;
      await running;
      return acknowledged;
    },
  };
}

interface Round {
  /** From the kill until the first, half, and all of what the victim had in hand was handed over by others. */
  firstSeconds: number;
  medianSeconds: number;
  lastSeconds: number;
  /** Until no other node lists the victim. */
  forgottenSeconds: number;
}

async function strike(cluster: Cluster, sink: Sink, manners: { isHolding: boolean }, index: number): Promise<Round> {
  const victim = cluster.node(index % cluster.nodes.length);
  const survivors = cluster.nodes.filter((node) => node !== victim);
  const id = await idOf(victim);
  const login = { user: alice, password: victim.password };
  const tokens = Array.from({ length: messagesPerRound }, (_, message) => `r${index}m${message}`);
  manners.isHolding = true;
  const smtp = await SmtpDialog.connect(victim.port('submissions'), { isTls: true, login });
  // A domain each, or the limit per domain would keep most of them waiting.
  for (const token of tokens) await smtp.send(alice, [`x@${token}.outside.test`], tokenMessage(token));
  const firstSince = (token: string, sinceMs: number) =>
    sink.copies.find((copy) => copy.token === token && copy.dotMs > sinceMs)?.dotMs;
  await waitAtMost('all conversations', 60_000, async () => tokens.every((token) => firstSince(token, 0) !== undefined));
  manners.isHolding = false;
  const killedMs = performance.now();
  const killed = victim.kill();
  const movedMs = await waitAtMost('all to move again', 60_000, async () => {
    const found = tokens.map((token) => firstSince(token, killedMs));
    return found.every((atMs) => atMs !== undefined) && found.map((atMs) => atMs! - killedMs);
  });
  await waitAtMost('the others to forget it', 60_000, async () => {
    const views = await Promise.all(survivors.map((node: NodeProcess) => nodeRows(node)));
    return views.every((rows) => rows.every((row) => row.id !== id));
  });
  const forgottenSeconds = (performance.now() - killedMs) / 1000;
  await killed;
  smtp.close();
  await victim.start();
  const seconds = (ms: number) => round(ms / 1000);
  return {
    firstSeconds: seconds(Math.min(...movedMs)),
    medianSeconds: seconds(median(movedMs)),
    lastSeconds: seconds(Math.max(...movedMs)),
    forgottenSeconds: round(forgottenSeconds),
  };
}

export async function run({ nodes = 3 }: BenchOptions = {}): Promise<Record<string, unknown>> {
  const manners = { isHolding: false };
  const sink = await Sink.start({
    host: '127.0.0.1',
    nowMs: () => performance.now(),
    random: () => (manners.isHolding ? 0.5 : 0),
    manners: { dropped: 0, deferredAfterDot: 0, deferredRecipient: 0, slow: 0, holdMs: 2 * holdMs },
  });
  let cluster: Cluster | undefined;
  try {
    const clusterSettings = `[outbound.relay]\nhost = "127.0.0.1"\nport = ${sink.port}\ntls = "none"\n`;
    cluster = await Cluster.start({ nodes, settings: '[log]\nlevel = "error"\n', clusterSettings });
    const mail = load(cluster);
    const results: Round[] = [];
    for (let index = 0; index < rounds; index++) {
      const result = await strike(cluster, sink, manners, index);
      process.stderr.write(`failover: round ${index + 1} of ${rounds}: ${JSON.stringify(result)}\n`);
      results.push(result);
      // The cluster is whole, and used to it, before the next one goes.
      await cluster.untilReady();
      await new Promise((resolve) => setTimeout(resolve, 5_000));
    }
    const loadMessages = await mail.stop();
    const last = results.map(({ lastSeconds }) => lastSeconds);
    return {
      store: 'postgres',
      nodes,
      rounds,
      messagesPerRound,
      loadMessages,
      firstMedianSeconds: round(median(results.map(({ firstSeconds }) => firstSeconds))),
      medianSeconds: round(median(results.map(({ medianSeconds }) => medianSeconds))),
      allMedianSeconds: round(median(last)),
      allMaxSeconds: Math.max(...last),
      forgottenMedianSeconds: round(median(results.map(({ forgottenSeconds }) => forgottenSeconds))),
      results,
    };
  } finally {
    await cluster?.remove();
    await sink.stop();
  }
}
