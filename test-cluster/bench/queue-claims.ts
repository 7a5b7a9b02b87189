/**
 * Several nodes on one long queue: how fast they claim, what they claim in vain, and how evenly they share it. The messages are put into the store itself, all
 * due at the same moment, and go to a host outside that takes everything.
 */
import { openPostgresStore } from '../../store/kv/postgres/index.js';
import { Cluster } from '../harness/cluster.js';
import { waitFor } from '../harness/processes.js';
import { Sink } from '../harness/sink.js';
import { round } from './figures.js';
import type { BenchOptions } from './options.js';
import { type FillOptions, fillQueue } from './queue-fill.js';

/** Enough that the limit of deliveries per domain holds nobody up. */
const domains = 500;
/** Slower than any machine that this is run on fills a queue. */
const fillPerSecond = 1_000;

const results = ['won', 'lost', 'stale'] as const;
type Claims = Record<(typeof results)[number], number>;

async function claimsOf(cluster: Cluster): Promise<Claims[]> {
  return Promise.all(
    cluster.nodes.map(async (node) => {
      const counts = results.map(async (result) => [result, await node.metric('starling_queue_claims_total', { result })]);
      return Object.fromEntries(await Promise.all(counts)) as Claims;
    }),
  );
}

export async function run({ nodes = 4, messages = 100_000 }: BenchOptions = {}): Promise<Record<string, unknown>> {
  const sink = await Sink.start({
    host: '127.0.0.1',
    nowMs: () => performance.now(),
    random: () => 0,
    manners: { dropped: 0, deferredAfterDot: 0, deferredRecipient: 0, slow: 0, holdMs: 0 },
  });
  let cluster: Cluster | undefined;
  try {
    const clusterSettings = `[outbound.relay]\nhost = "127.0.0.1"\nport = ${sink.port}\ntls = "none"\n`;
    cluster = await Cluster.start({ nodes, settings: '[log]\nlevel = "error"\n', clusterSettings });
    const dueAtSeconds = Math.ceil(Date.now() / 1000) + Math.ceil(messages / fillPerSecond) + 5;
    const fillStartMs = performance.now();
    const { storeAddress: connectionString } = cluster;
    const open: FillOptions['open'] = (parts) => openPostgresStore({ connectionString, ...parts });
    const names = Array.from({ length: messages }, (_, index) => `d${index % domains}.test`);
    await fillQueue({ open, domains: names, tokenPrefix: 'q', dueAtSeconds });
    const fillSeconds = (performance.now() - fillStartMs) / 1000;
    if (Date.now() > dueAtSeconds * 1000)
      return { skipped: `this machine fills a queue too slowly (${round(messages / fillSeconds)}/s)` };
    const sum = (claims: Claims[], result: keyof Claims) => claims.reduce((total, one) => total + one[result], 0);
    const patienceMs = 60_000 + messages * 20;
    await waitFor('the first claims', patienceMs, async () => sum(await claimsOf(cluster!), 'won') > 0);
    const startMs = performance.now();
    let claimedSeconds = 0;
    const claims = await waitFor('all to be claimed', patienceMs, async () => {
      const now = await claimsOf(cluster!);
      claimedSeconds = (performance.now() - startMs) / 1000;
      return sum(now, 'won') >= messages && now;
    });
    await waitFor('all to be delivered', patienceMs, async () => sink.copies.length >= messages);
    const deliveredSeconds = (performance.now() - startMs) / 1000;
    const won = claims.map((one) => one.won);
    const mean = messages / nodes;
    const wasted = sum(claims, 'lost') + sum(claims, 'stale');
    const delivered = new Set(sink.copies.map(({ token }) => token)).size;
    return {
      store: 'postgres',
      nodes,
      messages,
      filledPerSecond: round(messages / fillSeconds),
      claimsPerSecond: round(messages / claimedSeconds),
      deliveriesPerSecond: round(messages / deliveredSeconds),
      wastedPercent: round((100 * wasted) / (sum(claims, 'won') + wasted)),
      claims,
      sharePercentOfMean: won.map((one) => round((100 * one) / mean)),
      worstShareOffPercent: round(Math.max(...won.map((one) => Math.abs(100 * (one / mean - 1))))),
      delivered,
      deliveredTwice: sink.copies.length - delivered,
    };
  } finally {
    await cluster?.remove();
    await sink.stop();
  }
}
