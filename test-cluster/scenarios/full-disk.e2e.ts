/** The disk fills up and is emptied again: clear refusals meanwhile, nothing acknowledged is lost, service comes back by itself. */
import { appendFileSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { messagesByImapflow } from '../harness/clients.js';
import { ImapDialog } from '../harness/imap-dialog.js';
import { NodeProcess } from '../harness/node-process.js';
import { runCommand, waitFor } from '../harness/processes.js';
import { SmtpDialog, tokenMessage } from '../harness/smtp-load.js';

const isRoot = process.getuid?.() === 0;
if (!isRoot && process.env.CI !== 'true') process.stderr.write('skipped: needs root to mount a small disk\n');

/** Sends one message; answers its token, or the refusal. */
async function trySend(node: NodeProcess, token: string): Promise<{ token?: string; refusal?: string }> {
  const smtp = await SmtpDialog.connect(node.port('smtp'));
  try {
    await smtp.send('sender@client.test', ['alice@example.test'], tokenMessage(token, 20_000));
    return { token };
  } catch (error) {
    return { refusal: (error as Error).message };
  } finally {
    smtp.close();
  }
}

/** Takes what is left of the disk, to the last page. */
function fillUp(path: string): void {
  for (const bytes of [65_536, 4_096]) {
    try {
      for (;;) appendFileSync(path, Buffer.alloc(bytes, 1));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    }
  }
}

describe.skipIf(!isRoot && process.env.CI !== 'true')('a full disk', () => {
  it('is answered with 452, NO [OVERQUOTA] and 503, and forgotten when there is space again', async () => {
    const disk = mkdtempSync(join(tmpdir(), 'starling-disk-'));
    const mounted = await runCommand('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'tmpfs', disk]);
    expect(mounted.code, mounted.stderr).toBe(0);
    const node = await NodeProcess.start({ data: join(disk), settings: '' });
    try {
      const acknowledged: string[] = [];
      const first = await trySend(node, 'before');
      expect(first.refusal).toBeUndefined();
      acknowledged.push('before');

      const { bavail, bsize } = statfsSync(disk);
      writeFileSync(join(disk, 'ballast'), Buffer.alloc(Math.max(0, bavail * bsize - 300_000), 1));
      let refusal: string | undefined;
      for (let index = 0; index < 200 && refusal === undefined; index++) {
        const sent = await trySend(node, `filling${index}`);
        if (sent.token) acknowledged.push(sent.token);
        refusal = sent.refusal;
      }
      expect(refusal).toMatch(/452 4\.3\.1/);
      // What is left may be enough for a small write, or not: a login must do without.
      fillUp(join(disk, 'ballast'));

      const imap = await ImapDialog.connect(node.port('imaps'), 'alice@example.test', node.password);
      const literal = tokenMessage('appended', 100_000);
      await expect(imap.command(`APPEND INBOX {${literal.length}+}\r\n${literal.toString('latin1')}`)).rejects.toThrow(
        /NO \[OVERQUOTA\]/,
      );
      imap.close();
      const readiness = await waitFor('the node to say that it is not ready', 10_000, async () => {
        const response = await fetch(`http://127.0.0.1:${node.port('http')}/health/ready`);
        return response.status === 503 && response.text();
      });
      expect(readiness).toMatch(/space/);

      rmSync(join(disk, 'ballast'));
      await waitFor('the node to be ready again', 20_000, () => node.isReady());
      const after = await trySend(node, 'after');
      expect(after.refusal).toBeUndefined();
      acknowledged.push('after');

      const found = await waitFor('all acknowledged mail', 60_000, async () => {
        const messages = await messagesByImapflow({
          port: node.port('imaps'),
          user: 'alice@example.test',
          password: node.password,
        });
        return messages.length >= acknowledged.length && messages;
      });
      const tokens = found.map((message) => /Subject: token (\S+)/.exec(message.toString('latin1'))?.[1]);
      expect(tokens.sort()).toEqual(acknowledged.sort());
    } finally {
      await node.kill();
      await runCommand('umount', ['-l', disk]);
      rmSync(disk, { recursive: true, force: true });
    }
  });
});
