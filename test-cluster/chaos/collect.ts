/** When the load is over: waits until everything is at rest, then reads all mailboxes on every node, and has the store checked. */
import type { MailboxView } from '../checker/history.js';
import type { ChaosCluster } from '../harness/chaos-cluster.js';
import type { ChaosNode } from '../harness/chaos-node.js';
import { ImapDialog } from '../harness/imap-dialog.js';
import { waitAtMost } from '../harness/processes.js';
import { type StrayRows, strayRows } from '../harness/stray-rows.js';
import { statusValue } from './imap-traffic.js';
import { within } from './pace.js';
import type { Recorder } from './recorder.js';

const readyMs = 60_000;
const emptyMs = 90_000;
/** A node that was killed at the last moment is found dead after a term, and its leftovers are cleared away. */
const strayMs = 30_000;
const readMs = 60_000;
/** What is queued longer than this after the load is worth a look. */
const lateMs = 5_000;
const accounts = ['alice', 'bob', 'admin'];

/** As `queue list` shows it. */
interface QueuedMessage {
  id: string;
  states: string[];
  nextAttemptAt: string | null;
}

/** Waits for readiness and an empty queue; what does not come in time is a violation. */
export async function settle(cluster: ChaosCluster, recorder: Recorder): Promise<void> {
  const waits = async (kind: string, what: string, timeoutMs: number, probe: () => Promise<boolean>) => {
    await waitAtMost(what, timeoutMs, probe).catch((error: Error) => recorder.violate(kind, error.message));
  };
  await waits('not-ready', 'all nodes to be ready', readyMs, async () =>
    (await Promise.all(cluster.nodes.map((node) => node.isReady()))).every(Boolean),
  );
  recorder.note('all nodes are ready');
  const restMs = recorder.nowMs();
  let isNoted = false;
  await waits('queue', 'an empty queue', emptyMs, async () => {
    const queued = (await cluster.nodes[0]!.ask('queue list')) as QueuedMessage[];
    if (!isNoted && queued.length > 0 && recorder.nowMs() > restMs + lateMs) {
      isNoted = true;
      const words = queued.slice(0, 5).map(({ id, states, nextAttemptAt }) => `${id} ${states.join('+')} ${nextAttemptAt ?? ''}`);
      recorder.note(`${queued.length} still queued: ${words.join('; ')}`);
    }
    return queued.length === 0;
  });
  recorder.note('the queue is empty');
}

/** Every mailbox of every account on every node. */
export async function readAllMailboxes({ nodes, password }: ChaosCluster): Promise<MailboxView[]> {
  const views = await Promise.all(
    nodes.map(async (node) => {
      const ofNode: MailboxView[] = [];
      for (const account of accounts) {
        const ofAccount = await readAccount(node, account, password).catch((error: Error) => {
          throw new Error(`${account} on node ${node.index} can't be read: ${error.message}`, { cause: error });
        });
        ofNode.push(...ofAccount);
      }
      return ofNode;
    }),
  );
  return views.flat();
}

async function readAccount(node: ChaosNode, account: string, password: string): Promise<MailboxView[]> {
  const user = `${account}@example.test`;
  const dialog = await within(readMs, ImapDialog.connect(node.port('imaps'), user, password, node.host));
  try {
    const ask = async (command: string) => (await within(readMs, dialog.command(command))).toString('latin1');
    const names = [...(await ask('LIST "" "*"')).matchAll(/^\* LIST \([^)]*\) \S+ "?([^"\r\n]+)"?\r$/gm)].map(
      ([, name]) => name!,
    );
    const views: MailboxView[] = [];
    for (const mailbox of names) views.push(await readMailbox(ask, { node: node.index, account, mailbox }));
    return views;
  } finally {
    dialog.close();
  }
}

async function readMailbox(
  ask: (command: string) => Promise<string>,
  name: Pick<MailboxView, 'node' | 'account' | 'mailbox'>,
): Promise<MailboxView> {
  const status = await ask(`STATUS "${name.mailbox}" (UIDVALIDITY UIDNEXT HIGHESTMODSEQ MESSAGES)`);
  const value = (item: string) => statusValue(status, item);
  const messages: MailboxView['messages'][number][] = [];
  if (value('MESSAGES') > 0) {
    await ask(`EXAMINE "${name.mailbox}"`);
    const fetched = await ask('UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])');
    for (const part of fetched.split(/^(?=\* \d+ FETCH )/m)) {
      const uid = /\bUID (\d+)/.exec(part)?.[1];
      if (uid === undefined) continue;
      const flags = (/FLAGS \(([^)]*)\)/.exec(part)?.[1] ?? '').split(' ').filter((flag) => flag !== '' && flag !== '\\Recent');
      messages.push({ uid: Number(uid), token: /^Subject: token (\S+)/m.exec(part)?.[1] ?? '(no token)', flags });
    }
  }
  return {
    ...name,
    uidValidity: value('UIDVALIDITY'),
    uidNext: value('UIDNEXT'),
    highestModseq: value('HIGHESTMODSEQ'),
    messages,
  };
}

/** What must be so in the store when all is at rest: nothing missing, left over or counted wrong; no claims, no fences of the dead. */
export async function checkStore(cluster: ChaosCluster, recorder: Recorder): Promise<void> {
  const none: StrayRows = { claims: [], fences: [], messages: 0, due: 0 };
  const isNone = (rows: StrayRows) => JSON.stringify(rows) === JSON.stringify(none);
  let rows: StrayRows | undefined;
  await waitAtMost('no stray rows', strayMs, async () => isNone((rows = await strayRows(cluster)))).catch((error: Error) =>
    recorder.violate('stray', rows ? JSON.stringify(rows) : error.message),
  );
  const { code, stdout, stderr } = await cluster.nodes[0]!.cli('store', 'check', '--json');
  if (code !== 0) recorder.violate('store-check', `${stdout}${stderr}`.trim().slice(0, 1_000));
}
