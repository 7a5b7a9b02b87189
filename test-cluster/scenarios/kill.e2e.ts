/** The plug is pulled, again and again, while mail comes in: what was acknowledged is in a mailbox exactly once. */
import { describe, expect, it } from 'vitest';
import { judgeDelivery } from '../checker/delivered.js';
import { copiesIn } from '../harness/mailbox-tokens.js';
import { NodeProcess } from '../harness/node-process.js';
import { runCommand } from '../harness/processes.js';
import { sized } from '../harness/size.js';
import { sendUntilAcknowledged } from '../harness/smtp-load.js';

const messages = sized(2_000, 5_000);
const kills = sized(4, 10);

describe('kill -9', () => {
  it(`${kills} times while ${messages} messages are accepted: lost 0, doubled 0`, async () => {
    const node = await NodeProcess.start();
    try {
      let restarts = 0;
      let restarting: Promise<void> = Promise.resolve();
      const ledger = await sendUntilAcknowledged({
        port: node.port('smtp'),
        recipients:
          // To one: straight into the mailbox. To several: through the queue.
          ['alice@example.test', ['bob@example.test', 'admin@example.test'], 'bob@example.test'],
        count: messages,
        connections: 20,
        onAcknowledged(total) {
          if (restarts >= kills || total < ((restarts + 1) * messages) / (kills + 1)) return;
          restarts++;
          restarting = restarting.then(() => node.kill()).then(() => node.start());
        },
      });
      await restarting;
      expect(restarts).toBe(kills);
      await node.untilQueueEmpty();
      const found = await copiesIn(node, ['alice', 'bob', 'admin']);
      const verdict = judgeDelivery(ledger, found);
      process.stderr.write(
        `kill -9 x ${restarts}: ${verdict.acknowledged} acknowledged, lost ${verdict.lost.length}, doubled ${verdict.doubled.length}\n`,
      );
      expect(verdict).toMatchObject({ lost: [], doubled: [], unknown: [] });
      expect(verdict.acknowledged).toBeGreaterThanOrEqual(messages);
      const check = await runCommand(process.execPath, node.cliArguments('store', 'check', '--json'));
      expect(check.stdout).toMatch(/"differences":0/);
      expect(check.code).toBe(0);
    } finally {
      await node.remove();
    }
  });
});
