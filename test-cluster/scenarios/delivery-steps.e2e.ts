/**
 * The plug is pulled at each step of a delivery to another server. What is lost: nothing, at any step. What may be doubled: only what the peer had received
 * whole before its answer was saved.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { swaks } from '../harness/clients.js';
import { TestDns } from '../harness/dns.js';
import { machineHas } from '../harness/needs.js';
import { NodeProcess } from '../harness/node-process.js';
import { type PeerStep, peerSteps, StepPeer } from '../harness/step-peer.js';

const able = machineHas('swaks', 'unbound');

/** How often the peer may have the message in the end. */
const copies: Record<PeerStep, readonly number[]> = {
  connected: [1],
  ehlo: [1],
  mail: [1],
  rcpt: [1],
  data: [1],
  half: [1],
  // It has it, and nobody here knows.
  whole: [2],
  // Between its answer and our save; the save may have been faster than the plug.
  answered: [1, 2],
};

function message(token: string): Buffer {
  const lines = ['From: alice@example.test', 'To: x@outside.test', `Subject: token ${token}`, ''];
  for (let line = 0; line < 1_000; line++) lines.push(`${line} `.padEnd(70, 'x'));
  return Buffer.from([...lines, ''].join('\r\n'));
}

describe.skipIf(!able).each([{ chunking: false }, { chunking: true }])(
  'kill -9 in a delivery (chunking: $chunking)',
  ({ chunking }) => {
    let node: NodeProcess;
    let peer: StepPeer;
    let dns: TestDns;
    const table: string[] = [];

    beforeAll(async () => {
      peer = await StepPeer.start({ chunking });
      dns = await TestDns.start(['outside.test. IN MX 10 mx.outside.test.', 'mx.outside.test. IN A 127.0.0.1']);
      node = await NodeProcess.start({
        settings: `[dns]\nservers = ["${dns.address}"]\n`,
        clusterSettings: `[outbound]\nport = ${peer.port}\n`,
      });
    });
    afterAll(async () => {
      process.stderr.write(`kill -9 in a delivery, ${chunking ? 'BDAT' : 'DATA'}: ${table.join(', ')}\n`);
      await node?.remove();
      await peer?.stop();
      await dns?.stop();
    });

    it.each(peerSteps)('at the step "%s": lost nothing', async (step) => {
      // A conversation from its beginning.
      peer.hangUp();
      const reached = peer.stopsAt(step);
      const login = { user: 'alice@example.test', password: node.password };
      await swaks({ port: node.port('submission'), from: login.user, to: 'x@outside.test', message: message(step), login });
      await reached;
      await node.kill();
      await node.start();
      await node.untilQueueEmpty();
      const received = peer.whole.filter((token) => token === step).length;
      table.push(`${step} ${received}`);
      expect(copies[step]).toContain(received);
    });
  },
);
