/** `FETCH 1:* (UID FLAGS RFC822.SIZE ENVELOPE)` on 10,000 messages: the first of a fresh process, and the later ones. */
import { ImapDialog } from '../harness/imap-dialog.js';
import { NodeProcess } from '../harness/node-process.js';
import { runCommand, waitFor } from '../harness/processes.js';
import { sendUntilAcknowledged } from '../harness/smtp-load.js';
import { median, round } from './figures.js';

const messages = 10_000;
const repeats = 5;

async function timed(work: () => Promise<Buffer>): Promise<{ ms: number; bytes: number; answers: number }> {
  const start = performance.now();
  const bytes = await work();
  return {
    ms: performance.now() - start,
    bytes: bytes.length,
    answers: bytes.toString('latin1').split(/^\* \d+ FETCH /m).length - 1,
  };
}

/** Fills a mailbox over SMTP, restarts the node, and fetches. */
export async function run(): Promise<Record<string, unknown>> {
  const node = await NodeProcess.start({ settings: '[log]\nlevel = "warn"\n' });
  try {
    await sendUntilAcknowledged({
      port: node.port('smtp'),
      recipients: ['alice@example.test'],
      count: messages,
      connections: 20,
    });
    await waitFor('an empty queue', 120_000, async () => {
      const { stdout } = await runCommand(process.execPath, node.cliArguments('queue', 'list', '--json'));
      return stdout.trim() === '[]';
    });
    await node.stop();
    await node.start();
    const imap = await ImapDialog.connect(node.port('imaps'), 'alice@example.test', node.password);
    const select = await timed(() => imap.command('SELECT INBOX'));
    const command = 'FETCH 1:* (UID FLAGS RFC822.SIZE ENVELOPE)';
    const first = await timed(() => imap.command(command));
    const later: Awaited<ReturnType<typeof timed>>[] = [];
    for (let index = 0; index < repeats; index++) later.push(await timed(() => imap.command(command)));
    const flags = await timed(() => imap.command('FETCH 1:* (FLAGS)'));
    const search = await timed(() => imap.command('SEARCH SUBJECT "token t1x"'));
    imap.close();
    const ms = median(later.map((result) => result.ms));
    return {
      messages: first.answers,
      selectMs: round(select.ms),
      firstFetchMs: round(first.ms),
      fetchMs: round(ms),
      messagesPerSecond: round((first.answers / ms) * 1000),
      megabytesPerSecond: round(first.bytes / 1000 / ms),
      flagsMs: round(flags.ms),
      searchSubjectMs: round(search.ms),
    };
  } finally {
    await node.remove();
  }
}
