/** How many connections one user may have over IMAP: counted over all nodes, given back by whoever leaves, and by a node that was killed. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cluster } from '../harness/cluster.js';
import type { NodeProcess } from '../harness/node-process.js';
import { waitFor } from '../harness/processes.js';
import { TlsDialog } from '../harness/tls-dialog.js';

const tagged = /^a [^\r\n]*\r\n$/m;

describe('connections of one user', () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await Cluster.start({
      nodes: 2,
      nodeOptions: () => ({ clusterSettings: '[imap]\nmaxConnectionsPerUser = 3\n' }),
    });
  });
  afterAll(async () => {
    await cluster?.remove();
  });

  const logIn = async (node: NodeProcess, user = 'alice') => {
    const dialog = await TlsDialog.connect(node.port('imaps'));
    const reply = await dialog.exchange(`a LOGIN ${user}@example.test "${node.password}"`, tagged);
    return { dialog, reply };
  };

  it('are limited on all nodes together', async () => {
    const [first, second] = [cluster.node(0), cluster.node(1)];
    const held = [await logIn(first), await logIn(first), await logIn(second)];
    for (const { reply } of held) expect(reply).toMatch(/^a OK /m);
    for (const node of [first, second]) {
      const { dialog, reply } = await logIn(node);
      expect(reply).toMatch(/^a NO \[LIMIT\] /m);
      dialog.close();
    }
    const other = await logIn(second, 'bob');
    expect(other.reply).toMatch(/^a OK /m);
    other.dialog.close();
    await held[2]!.dialog.exchange('a LOGOUT', tagged);
    held[2]!.dialog.close();
    const isFree = async () => {
      const { dialog, reply } = await logIn(second);
      if (!/^a OK /m.test(reply)) dialog.close();
      return /^a OK /m.test(reply);
    };
    await waitFor('the place of the one that left', 10_000, isFree);
    await first.kill();
    await waitFor('the places of the dead node', 60_000, isFree);
  });
});
