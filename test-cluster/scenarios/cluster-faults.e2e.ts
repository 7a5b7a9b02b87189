/**
 * Mail through three nodes while the ground shakes: PostgreSQL is killed and started again twice, one node is killed and started again once. What was
 * acknowledged is in a mailbox exactly once, and nothing waits for ever.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { judgeDelivery } from '../checker/delivered.js';
import { Cluster } from '../harness/cluster.js';
import { copiesIn } from '../harness/mailbox-tokens.js';
import { sized } from '../harness/size.js';
import { sendUntilAcknowledged } from '../harness/smtp-load.js';
import { strayRows } from '../harness/stray-rows.js';

const names = ['alice', 'bob', 'admin'];
const messages = sized(2_500, 10_000);
const pauseMs = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({ settings: '[log]\nlevel = "error"\n' });
});
afterAll(async () => {
  await cluster?.remove();
});

/** What happens when so many messages are acknowledged, each after the one before is over. */
const faults: { after: number; strike(): Promise<void> }[] = [
  { after: 0.2, strike: () => crashServer(2_000) },
  {
    after: 0.45,
    strike: async () => {
      await cluster.node(1).kill();
      await pauseMs(2_000);
      await cluster.node(1).start();
    },
  },
  { after: 0.7, strike: () => crashServer(4_000) },
];

async function crashServer(downMs: number): Promise<void> {
  await cluster.server.stop('immediate');
  await pauseMs(downMs);
  await cluster.server.start();
}

describe('three nodes on PostgreSQL', () => {
  it(`take ${messages} messages while PostgreSQL is killed twice and a node once: lost 0, doubled 0`, async () => {
    let struck = 0;
    let striking: Promise<void> = Promise.resolve();
    const startedMs = performance.now();
    const ledger = await sendUntilAcknowledged({
      port: cluster.ports('smtp'),
      // To one: straight into the mailbox. To several: through the queue.
      recipients: ['alice@example.test', ['bob@example.test', 'admin@example.test'], 'bob@example.test'],
      count: messages,
      connections: 30,
      retryPauseMs: 100,
      onAcknowledged(total) {
        const fault = faults[struck];
        if (!fault || total < fault.after * messages) return;
        struck++;
        striking = striking.then(() => fault.strike());
        // Judged below.
        striking.catch(() => undefined);
      },
    });
    await striking;
    const sentSeconds = (performance.now() - startedMs) / 1000;
    expect(struck).toBe(faults.length);
    // All by themselves: nobody starts the other two nodes again.
    await cluster.untilReady(30_000);
    await cluster.untilQueueEmpty(60_000);
    const views = await Promise.all(cluster.nodes.map((node) => copiesIn(node, names)));
    for (const view of views) expect(view).toEqual(views[0]);
    const verdict = judgeDelivery(ledger, views[0]!);
    const seconds = (performance.now() - startedMs) / 1000;
    process.stderr.write(
      `cluster faults: ${messages} messages in ${sentSeconds.toFixed(1)} s, all in mailboxes after ${seconds.toFixed(1)} s; ` +
        `${verdict.acknowledged} copies acknowledged, lost ${verdict.lost.length}, doubled ${verdict.doubled.length}\n`,
    );
    expect(verdict).toMatchObject({ lost: [], doubled: [], unknown: [] });
    for (const node of cluster.nodes) {
      const check = await node.cli('store', 'check', '--json');
      expect(check.code, check.stdout + check.stderr).toBe(0);
    }
    expect(await strayRows(cluster)).toEqual({ claims: [], fences: [], messages: 0, due: 0 });
  });
});
