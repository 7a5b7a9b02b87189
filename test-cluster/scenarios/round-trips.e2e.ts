/**
 * What everyday work costs in round trips to a shared store, which is what it costs in time: counted by the node itself, over one operation after another,
 * and judged by the lowest tenth, because heartbeats and other upkeep fall in between, the more often the slower the machine is: they only add.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { percentile } from '../bench/figures.js';
import { Cluster } from '../harness/cluster.js';
import { ImapDialog } from '../harness/imap-dialog.js';
import type { NodeProcess } from '../harness/node-process.js';
import { SmtpDialog, sendUntilAcknowledged, tokenMessage } from '../harness/smtp-load.js';

const alice = 'alice@example.test';
const bob = 'bob@example.test';
const samples = 25;
const usual = (counts: readonly number[]) => percentile(counts, 0.1);

let cluster: Cluster;
let node: NodeProcess;
beforeAll(async () => {
  cluster = await Cluster.start({ nodes: 1, settings: '[log]\nlevel = "warn"\n' });
  node = cluster.node(0);
  await sendUntilAcknowledged({ port: node.port('smtp'), recipients: [bob], count: 1_000, connections: 10 });
});
afterAll(async () => {
  await cluster?.remove();
});

/** What somebody waited for; not polls and connects, which are upkeep. */
async function count(): Promise<number> {
  const kinds = ['begin', 'read', 'commit'].map((kind) => node.metric('starling_postgres_round_trips_total', { kind }));
  return (await Promise.all(kinds)).reduce((sum, value) => sum + value, 0);
}

/** Round trips of each run of `work`, with a pause around each for what the run before may have left to do. */
async function roundTrips(work: (sample: number) => Promise<unknown>): Promise<number[]> {
  const counts: number[] = [];
  for (let sample = 0; sample < samples; sample++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    const before = await count();
    await work(sample);
    counts.push((await count()) - before);
  }
  process.stderr.write(`round trips: ${counts.join(' ')}\n`);
  return counts;
}

describe('round trips to PostgreSQL', () => {
  it('are counted', async () => {
    expect(await count()).toBeGreaterThan(10);
  });

  it('of a delivery from MAIL to the 250, when the message is in its mailbox: at most 4', async () => {
    const smtp = await SmtpDialog.connect(node.port('smtp'));
    for (let index = 0; index < 20; index++) await smtp.send('a@client.test', [alice], tokenMessage(`warm${index}`));
    const counts = await roundTrips((sample) => smtp.send('a@client.test', [alice], tokenMessage(`one${sample}`)));
    smtp.close();
    expect(Math.min(...counts)).toBeGreaterThan(0);
    expect(usual(counts)).toBeLessThanOrEqual(4);
  });

  const openInbox = async () => {
    const imap = await ImapDialog.connect(node.port('imaps'), bob, node.password);
    await imap.command('SELECT INBOX');
    return imap;
  };
  const fetchFlags = async (imap: ImapDialog) => {
    const text = (await imap.command('FETCH 1:1000 (FLAGS)')).toString('latin1');
    expect(text.split(/^\* \d+ FETCH /m).length - 1).toBe(1_000);
  };

  it('of FETCH 1:1000 (FLAGS) in a session that goes on: at most 2', async () => {
    const imap = await openInbox();
    expect(usual(await roundTrips(() => fetchFlags(imap)))).toBeLessThanOrEqual(2);
    imap.close();
  });

  it('of the first FETCH 1:1000 (FLAGS) of a session: at most 2', async () => {
    const sessions: ImapDialog[] = [];
    for (let index = 0; index < samples; index++) sessions.push(await openInbox());
    expect(usual(await roundTrips((sample) => fetchFlags(sessions[sample]!)))).toBeLessThanOrEqual(2);
    for (const imap of sessions) imap.close();
  });

  it('of the first FETCH 1:1000 (FLAGS) after a restart: at most 2', async () => {
    const selects: number[] = [];
    const fetches: number[] = [];
    for (let start = 0; start < 3; start++) {
      await node.stop();
      await node.start();
      const imap = await ImapDialog.connect(node.port('imaps'), bob, node.password);
      await new Promise((resolve) => setTimeout(resolve, 500));
      const counts = [await count()];
      await imap.command('SELECT INBOX');
      counts.push(await count());
      await fetchFlags(imap);
      counts.push(await count());
      selects.push(counts[1]! - counts[0]!);
      fetches.push(counts[2]! - counts[1]!);
      imap.close();
    }
    process.stderr.write(`round trips after a restart: SELECT ${selects.join(' ')}, FETCH ${fetches.join(' ')}\n`);
    expect(Math.min(...fetches)).toBeLessThanOrEqual(2);
  });
});
