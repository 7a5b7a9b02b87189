/** The tokens of `tokenMessage` that a mailbox holds. */
import { withImapflow } from './clients.js';
import type { NodeProcess } from './node-process.js';
import { GivenUp, waitFor } from './processes.js';
import { copyOf } from './smtp-load.js';

/** A cluster's nodes are read after what was done to them: whether one of them just stands aside, and sends its sessions away, is not what is asked. */
const patienceMs = 15_000;

/** What these mailboxes hold, as the sender's ledger names it. */
export async function copiesIn(node: NodeProcess, names: readonly string[]): Promise<string[]> {
  const found = await Promise.all(
    names.map(async (name) => {
      const tokens = await waitFor(`the mailbox of ${name}`, patienceMs, () => tokensOf(node, name));
      return tokens.map((token) => copyOf(token, name));
    }),
  );
  return found.flat();
}

/** In the order of their UIDs. Throws when UIDs do not ascend. */
export function tokensOf(node: NodeProcess, name: string): Promise<string[]> {
  const login = { port: node.port('imaps'), user: `${name}@example.test`, password: node.password };
  return withImapflow(login, async (client) => {
    const lock = await client.getMailboxLock('INBOX');
    try {
      const tokens: string[] = [];
      let lastUid = 0;
      for await (const message of client.fetch('1:*', { envelope: true, uid: true })) {
        if (message.uid <= lastUid) throw new GivenUp(`UID ${message.uid} after ${lastUid}`);
        lastUid = message.uid;
        tokens.push(message.envelope!.subject!.replace('token ', ''));
      }
      if (!client.usable) throw new Error('the connection went away');
      return tokens;
    } finally {
      lock.release();
    }
  });
}
