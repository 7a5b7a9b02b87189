/**
 * Several nodes drain one long queue to many domains, one of which is down and one of which takes a minute for each message: whether the healthy ones notice.
 * First a part of the queue without the sick ones, then all of it with them.
 */
import { once } from 'node:events';
import { createServer } from 'node:net';
import { openPostgresStore } from '../../store/kv/postgres/index.js';
import { Cluster } from '../harness/cluster.js';
import { TestDns } from '../harness/dns.js';
import { machineHas } from '../harness/needs.js';
import { freePort } from '../harness/ports.js';
import { waitFor } from '../harness/processes.js';
import { Sink, type SinkManners } from '../harness/sink.js';
import { percentile, round } from './figures.js';
import type { BenchOptions } from './options.js';
import { type FillOptions, fillQueue } from './queue-fill.js';

const domains = 50;
/** Slower than any machine that this is run on fills a queue. */
const fillPerSecond = 1_000;
/** Without the sick domains goes one message of so many. */
const beforehandShare = 5;
const addresses = { healthy: '127.0.1.1', slow: '127.0.1.2', down: '127.0.1.3' };
const polite: Partial<SinkManners> = { dropped: 0, deferredAfterDot: 0, deferredRecipient: 0, slow: 0, slowStart: 0, holdMs: 0 };

/** Hangs up on everybody, and counts. */
async function refuser(host: string, port: number) {
  const server = createServer((socket) => {
    refused.connections++;
    socket.on('error', () => undefined); // it is meant to break
    socket.resetAndDestroy();
  });
  const refused = {
    connections: 0,
    async stop() {
      server.close();
      await once(server, 'close');
    },
  };
  server.listen(port, host);
  await once(server, 'listening');
  return refused;
}

const nameOf = (index: number) => `d${index}.test`;
const isHealthy = (index: number) => index > 1;

export async function run({ nodes = 4, messages = 100_000 }: BenchOptions = {}): Promise<Record<string, unknown>> {
  if (!machineHas('unbound')) return { skipped: 'needs unbound' };
  const port = await freePort();
  const sinkOptions = { port, nowMs: () => performance.now(), random: () => 0 };
  const healthy = await Sink.start({ ...sinkOptions, host: addresses.healthy, manners: polite });
  const slow = await Sink.start({ ...sinkOptions, host: addresses.slow, manners: { ...polite, slow: 1, slowMs: 120_000 } });
  const down = await refuser(addresses.down, port);
  const hostOf = (index: number) => (isHealthy(index) ? 'healthy' : index === 0 ? 'down' : 'slow');
  const dns = await TestDns.start([
    ...Object.entries(addresses).map(([name, address]) => `${name}.test. IN A ${address}`),
    ...Array.from({ length: domains }, (_, index) => `${nameOf(index)}. IN MX 10 ${hostOf(index)}.test.`),
  ]);
  let cluster: Cluster | undefined;
  try {
    cluster = await Cluster.start({
      nodes,
      settings: `[log]\nlevel = "error"\n[dns]\nservers = ["${dns.address}"]\n`,
      clusterSettings: `[outbound]\nport = ${port}\n`,
    });
    const { storeAddress: connectionString } = cluster;
    const open: FillOptions['open'] = (parts) => openPostgresStore({ connectionString, ...parts });
    /** Answers seconds from the first delivery to each of the others. */
    const drain = async (tokenPrefix: string, names: string[]): Promise<number[]> => {
      const dueAtSeconds = Math.ceil(Date.now() / 1000) + Math.ceil(names.length / fillPerSecond) + 5;
      await fillQueue({ open, domains: names, tokenPrefix, dueAtSeconds });
      if (Date.now() > dueAtSeconds * 1000) throw new Error('this machine fills a queue too slowly');
      const wanted = names.filter((name) => isHealthy(Number(name.slice(1, name.indexOf('.'))))).length;
      const from = healthy.copies.length;
      await waitFor('all healthy domains', 120_000 + names.length * 20, async () => healthy.copies.length >= from + wanted);
      const times = healthy.copies.slice(from).map(({ dotMs }) => dotMs);
      const first = times.reduce((least, time) => Math.min(least, time), Number.POSITIVE_INFINITY);
      return times.map((time) => (time - first) / 1000);
    };
    const healthyName = (at: number) => nameOf(2 + (at % (domains - 2)));
    const alone = await drain(
      'a',
      Array.from({ length: Math.ceil(messages / beforehandShare) }, (_, at) => healthyName(at)),
    );
    const wonBefore = await Promise.all(
      cluster.nodes.map((node) => node.metric('starling_queue_claims_total', { result: 'won' })),
    );
    const mixed = await drain(
      'b',
      Array.from({ length: messages }, (_, at) => nameOf(at % domains)),
    );
    const wonAfter = await Promise.all(
      cluster.nodes.map((node) => node.metric('starling_queue_claims_total', { result: 'won' })),
    );
    const won = wonAfter.map((count, at) => count - wonBefore[at]!);
    const mean = won.reduce((sum, one) => sum + one, 0) / nodes;
    const rate = (seconds: readonly number[]) => seconds.length / percentile(seconds, 1);
    const delivered = new Set(healthy.copies.map(({ token }) => token)).size;
    return {
      store: 'postgres',
      nodes,
      messages,
      domains,
      healthyPerSecond: {
        withoutSick: round(rate(alone)),
        withSick: round(rate(mixed)),
        ratio: round(rate(mixed) / rate(alone)),
      },
      sharePercentOfMean: won.map((one) => round((100 * one) / mean)),
      worstShareOffPercent: round(Math.max(...won.map((one) => Math.abs(100 * (one / mean - 1))))),
      down: { messages: messages / domains, connections: down.connections },
      slow: { messages: messages / domains, begun: slow.copies.length },
      delivered,
      deliveredTwice: healthy.copies.length - delivered,
    };
  } finally {
    await cluster?.remove();
    await Promise.all([healthy.stop(), slow.stop(), down.stop(), dns.stop()]);
  }
}
