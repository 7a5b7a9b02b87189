/** From the final dot of a message over SMTP to `EXISTS` in an idle IMAP session, with other mail coming in at the same time. */
import { ImapDialog } from '../harness/imap-dialog.js';
import { NodeProcess } from '../harness/node-process.js';
import { SmtpDialog, sendUntilAcknowledged, tokenMessage } from '../harness/smtp-load.js';
import { percentile, round } from './figures.js';

const probes = 400;
const loadConnections = 10;
const loadMessages = 8_000;

/** Sends `count` messages to bob one after another, each timed until bob's idle session is told of it. Milliseconds. */
async function timeProbes(node: NodeProcess, count: number): Promise<number[]> {
  const imap = await ImapDialog.connect(node.port('imaps'), 'bob@example.test', node.password);
  const smtp = await SmtpDialog.connect(node.port('smtp'));
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

/** Alone, then under load. */
export async function run(): Promise<Record<string, unknown>> {
  const node = await NodeProcess.start({ settings: '[log]\nlevel = "warn"\n' });
  try {
    const alone = await timeProbes(node, 100);
    const start = performance.now();
    const load = sendUntilAcknowledged({
      port: node.port('smtp'),
      recipients: ['alice@example.test', 'admin@example.test'],
      count: loadMessages,
      connections: loadConnections,
    });
    let loadSeconds = 0;
    void load.then(() => {
      loadSeconds = (performance.now() - start) / 1000;
    });
    const loaded: number[] = [];
    while (loadSeconds === 0 && loaded.length < probes * 10) loaded.push(...(await timeProbes(node, 20)));
    await load;
    const summary = (times: number[]) => ({
      probes: times.length,
      p50Ms: round(percentile(times, 0.5)),
      p99Ms: round(percentile(times, 0.99)),
      maxMs: round(Math.max(...times)),
    });
    return { alone: summary(alone), underLoad: summary(loaded), loadMessagesPerSecond: round(loadMessages / loadSeconds) };
  } finally {
    await node.remove();
  }
}
