/** The tokens of `tokenMessage` that a mailbox holds. */
import { withImapflow } from './clients.js';
import type { NodeProcess } from './node-process.js';
import { copyOf } from './smtp-load.js';

/** A cluster's nodes are read after what was done to them: whether one of them is just standing aside is not what is asked. */
const patienceMs = 15_000;

/** What these mailboxes hold, as the sender's ledger names it. */
export async function copiesIn(node: NodeProcess, names: readonly string[]): Promise<string[]> {
  const found = await Promise.all(
    names.map(async (name) => (await tokensOf(node, name, patienceMs)).map((token) => copyOf(token, name))),
  );
  return found.flat();
}

/** In the order of their UIDs. Throws when UIDs do not ascend. */
export function tokensOf(node: NodeProcess, name: string, patienceMs = 0): Promise<string[]> {
  const login = { port: node.port('imaps'), user: `${name}@example.test`, password: node.password, patienceMs };
  return withImapflow(login, async (client) => {
    const lock = await client.getMailboxLock('INBOX');
    try {
      const tokens: string[] = [];
      let lastUid = 0;
      for await (const message of client.fetch('1:*', { envelope: true, uid: true })) {
        if (message.uid <= lastUid) throw new Error(`UID ${message.uid} after ${lastUid}`);
        lastUid = message.uid;
        tokens.push(message.envelope!.subject!.replace('token ', ''));
      }
      return tokens;
    } finally {
      lock.release();
    }
  });
}
