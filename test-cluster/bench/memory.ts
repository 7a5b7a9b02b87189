/** Resident memory of a node: idle, and the peak while a message of 50 MB goes in over SMTP and out over IMAP. */
import { readFileSync, writeFileSync } from 'node:fs';
import { ImapDialog } from '../harness/imap-dialog.js';
import { NodeProcess } from '../harness/node-process.js';
import { waitFor } from '../harness/processes.js';
import { SmtpDialog } from '../harness/smtp-load.js';
import { residentBytes, round } from './figures.js';

const bodyBytes = 50_000_000;
const mib = (bytes: number) => round(bytes / 2 ** 20);

function largeMessage(): Buffer {
  const head = Buffer.from(
    'From: <a@client.test>\r\nTo: <alice@example.test>\r\nSubject: large\r\nContent-Type: text/plain\r\n\r\n',
  );
  const line = Buffer.from(`${'0123456789abcdef'.repeat(4)}${'ghijklmnop'}\r\n`);
  const body = Buffer.alloc(bodyBytes - head.length - (bodyBytes % line.length), line);
  const end = body.lastIndexOf('\r\n') + 2;
  return Buffer.concat([head, body.subarray(0, end)]);
}

/** Alone on a fresh node, so that the peak is the message's. */
export async function run(): Promise<Record<string, unknown>> {
  const node = await NodeProcess.start({ settings: '[log]\nlevel = "warn"\n' });
  const status = () => readFileSync(`/proc/${node.pid}/status`, 'utf8');
  try {
    await new Promise((resolve) => setTimeout(resolve, 3_000)); // start-up garbage goes by itself
    const idle = residentBytes(status(), 'VmRSS');
    writeFileSync(`/proc/${node.pid}/clear_refs`, '5'); // resets the peak
    const message = largeMessage();
    const smtp = await SmtpDialog.connect(node.port('smtp'));
    const start = performance.now();
    await smtp.send('a@client.test', ['alice@example.test'], message);
    const inSeconds = (performance.now() - start) / 1000;
    smtp.close();
    const imap = await ImapDialog.connect(node.port('imaps'), 'alice@example.test', node.password);
    await waitFor('the message', 60_000, async () => /\* 1 EXISTS/.test((await imap.command('SELECT INBOX')).toString('latin1')));
    const peakIn = residentBytes(status(), 'VmHWM');
    const fetchStart = performance.now();
    const fetched = await imap.command('FETCH 1 BODY.PEEK[]');
    const outSeconds = (performance.now() - fetchStart) / 1000;
    const intact = fetched.includes(message);
    const peak = residentBytes(status(), 'VmHWM');
    imap.close();
    return {
      idleMib: mib(idle),
      messageMib: mib(message.length),
      peakInMib: mib(peakIn),
      peakMib: mib(peak),
      aboveIdleMib: mib(peak - idle),
      inSeconds: round(inSeconds),
      outSeconds: round(outSeconds),
      intact,
    };
  } finally {
    await node.remove();
  }
}
