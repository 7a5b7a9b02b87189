/** A node is told to stop under load: unready while it still answers, a last word for every session, exit 0 in time, and nothing lost or doubled. */
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { createConnection } from 'node:net';
import { describe, expect, it } from 'vitest';
import { judgeDelivery } from '../checker/delivered.js';
import { ImapDialog } from '../harness/imap-dialog.js';
import { copiesIn, tokensOf } from '../harness/mailbox-tokens.js';
import { NodeProcess } from '../harness/node-process.js';
import { waitFor } from '../harness/processes.js';
import { copyOf, SmtpDialog, sendUntilAcknowledged, tokenMessage } from '../harness/smtp-load.js';

const names = ['alice', 'bob', 'admin'];
const drainTimeoutSeconds = 20;
/** What the machine may take besides: to start the command, to end the process. */
const slowMachineMs = 20_000;
const settings = `drainTimeoutSeconds = ${drainTimeoutSeconds}\n`;

/** Everything that a plain port says until it closes. */
function listenIn(
  port: number,
  bytes: string,
): { heard(): string; closed: Promise<unknown>; write(more: string | Buffer): void } {
  const socket = createConnection(port, '127.0.0.1');
  let heard = '';
  socket.on('data', (chunk) => {
    heard += chunk.toString('latin1');
    if (heard.startsWith('220 ') && bytes !== '') {
      socket.write(bytes);
      bytes = '';
    }
  });
  socket.on('error', () => undefined); // what was heard before is judged
  return { heard: () => heard, closed: once(socket, 'close'), write: (more) => void socket.write(more) };
}

/** One connection, kept: is it answered on it, and what? */
function keepAliveProbe(port: number): {
  ask(): Promise<{ status: number; text: string }>;
  connections(): number;
  close(): void;
} {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const localPorts = new Set<number | undefined>();
  return {
    ask: async () => {
      const asked = request({ host: '127.0.0.1', port, path: '/health/ready', agent }).end();
      const [response] = await once(asked, 'response');
      localPorts.add(response.socket.localPort);
      let text = '';
      for await (const chunk of response) text += chunk;
      return { status: response.statusCode, text };
    },
    connections: () => localPorts.size,
    close: () => agent.destroy(),
  };
}

async function drainUnderLoad(tell: (node: NodeProcess) => Promise<void> | void): Promise<void> {
  const node = await NodeProcess.start({ settings });
  try {
    const probe = keepAliveProbe(node.port('http'));
    expect((await probe.ask()).status).toBe(200);
    const idleSmtp = listenIn(node.port('smtp'), 'EHLO open.test\r\n');
    const begun = listenIn(node.port('smtp'), 'EHLO begun.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<bob@example.test>\r\n');
    const opening = 'EHLO slow.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\nSubject: token slow\r\n';
    const midMessage = listenIn(node.port('smtp'), opening);
    const idle = await ImapDialog.connect(node.port('imaps'), 'alice@example.test', node.password);
    await idle.command('SELECT INBOX');
    idle.write('i IDLE\r\n');
    await idle.until((tail) => tail.includes('+ '));
    const bye = idle.until((tail) => /\* BYE [^\r\n]*\r\n/.test(tail));
    await waitFor('the open sessions', 10_000, async () => {
      return midMessage.heard().includes('354 ') && begun.heard().includes('250 2.1.5') && idleSmtp.heard().includes('250 ');
    });

    let drained: Promise<void> | undefined;
    const observe = async () => {
      const startedAtMs = performance.now();
      await tell(node);
      const unready = await waitFor('503', 5_000, async () => {
        const answer = await probe.ask();
        return answer.status === 503 && answer.text;
      });
      expect(unready).toMatch(/draining/);
      expect((await bye).toString('latin1')).toMatch(/\* BYE /);
      await Promise.all([idleSmtp.closed, begun.closed]);
      expect(idleSmtp.heard()).toMatch(/\r\n421 4\.3\.2 [^\r\n]+\r\n$/);
      expect(begun.heard()).toMatch(/\r\n421 4\.3\.2 [^\r\n]+\r\n$/);
      // A message that was on its way in is still taken, and holds up the end until then.
      expect((await probe.ask()).status).toBe(503);
      midMessage.write(Buffer.concat([Buffer.from('From: <a@b.test>\r\n\r\nslow\r\n.\r\n')]));
      await midMessage.closed;
      expect(midMessage.heard()).toMatch(/\r\n250 2\.0\.0 [^\r\n]*\r\n421 4\.3\.2 [^\r\n]*\r\n$/);
      expect(await node.end()).toBe(0);
      expect(performance.now() - startedAtMs).toBeLessThan(drainTimeoutSeconds * 1000 + slowMachineMs);
      probe.close();
      await node.start();
    };
    const count = 1_500;
    const ledger = await sendUntilAcknowledged({
      port: node.port('smtp'),
      recipients: [...names, names].map((to) => [to].flat().map((name) => `${name}@example.test`)),
      count,
      connections: 20,
      onAcknowledged(total) {
        if (total < count / 3) return;
        drained ??= observe();
        // Judged below, when the load has ended.
        drained.catch(() => undefined);
      },
    });
    await drained;
    ledger.acknowledged.add(copyOf('slow', 'alice'));
    await node.untilQueueEmpty();
    const found = await copiesIn(node, names);
    expect(judgeDelivery(ledger, found)).toMatchObject({ lost: [], doubled: [], unknown: [] });
    const check = await node.cli('store', 'check', '--json');
    expect(check.stdout).toMatch(/"differences":0/);
    expect(await node.stop()).toBe(0);
  } finally {
    await node.remove();
  }
}

describe('a drain under load', () => {
  it('by SIGTERM', async () => {
    await drainUnderLoad((node) => node.signal('SIGTERM'));
  });

  it('by `starling node drain`', async () => {
    await drainUnderLoad(async (node) => {
      const { code, stdout } = await node.cli('node', 'drain', '--json');
      expect(code).toBe(0);
      expect(JSON.parse(stdout)).toMatchObject({ draining: true });
    });
  });
});

describe('a drain that is not left in peace', () => {
  it('ends in time, with a last word, for who never comes to an end', async () => {
    const node = await NodeProcess.start({ settings: 'drainTimeoutSeconds = 1\n' });
    try {
      const opening = 'EHLO stuck.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\nSubject: half\r\n';
      const stuck = listenIn(node.port('smtp'), opening);
      await waitFor('354', 10_000, async () => stuck.heard().includes('354 '));
      expect(await node.stop()).toBe(0);
      await stuck.closed;
      expect(stuck.heard()).toMatch(/\r\n421 4\.3\.2 [^\r\n]*\r\n$/);
      await node.start();
      expect(await tokensOf(node, 'alice')).toEqual([]);
    } finally {
      await node.remove();
    }
  });

  it('takes two signals at once for one, and ends at once on a later one; what was acknowledged is there', async () => {
    const node = await NodeProcess.start({ settings });
    try {
      const smtp = await SmtpDialog.connect(node.port('smtp'));
      await smtp.send('a@client.test', ['alice@example.test'], tokenMessage('kept'));
      await smtp.command('MAIL FROM:<a@client.test>', 250);
      await smtp.command('RCPT TO:<alice@example.test>', 250);
      await smtp.command('DATA', 354);
      node.signal('SIGINT');
      node.signal('SIGINT');
      await waitFor('the drain', 5_000, async () => !(await node.isReady()));
      await new Promise((resolve) => setTimeout(resolve, 1_200));
      expect(await node.isReady()).toBe(false);
      node.signal('SIGTERM');
      expect(await node.end()).toBe(1);
      smtp.close();
      await node.start();
      await waitFor('the message', 10_000, async () => (await tokensOf(node, 'alice')).includes('kept'));
      expect(await tokensOf(node, 'alice')).toEqual(['kept']);
    } finally {
      await node.remove();
    }
  });

  it('is not begun by SIGHUP', async () => {
    const node = await NodeProcess.start();
    try {
      node.signal('SIGHUP');
      await waitFor('a word about it', 5_000, async () => node.output.stderr.includes('SIGHUP'));
      expect(await node.isReady()).toBe(true);
      expect(await node.stop()).toBe(0);
    } finally {
      await node.remove();
    }
  });
});
