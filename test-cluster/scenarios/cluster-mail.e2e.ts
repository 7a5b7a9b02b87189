/** Three nodes on one PostgreSQL, in peace: whatever is done on one is seen on the others, and three that write into one mailbox stay out of each other's way. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { judgeDelivery } from '../checker/delivered.js';
import { withImapflow } from '../harness/clients.js';
import { Cluster } from '../harness/cluster.js';
import { ImapDialog } from '../harness/imap-dialog.js';
import { copiesIn, tokensOf } from '../harness/mailbox-tokens.js';
import type { NodeProcess } from '../harness/node-process.js';
import { waitFor } from '../harness/processes.js';
import { sized } from '../harness/size.js';
import { SmtpDialog, sendUntilAcknowledged, tokenMessage } from '../harness/smtp-load.js';
import { strayRows } from '../harness/stray-rows.js';
import { imapLogin, imapScram, smtpAuthPlain } from '../harness/tls-dialog.js';

const alice = 'alice@example.test';
const bob = 'bob@example.test';
const admin = 'admin@example.test';
/** For what must not wait for a timer of ours: watches, not polls. */
const promptlyMs = 10_000;

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({ settings: '[log]\nlevel = "warn"\n' });
});
afterAll(async () => {
  await cluster?.remove();
});

async function send(node: NodeProcess, recipients: string[], token: string): Promise<void> {
  const smtp = await SmtpDialog.connect(node.port('smtp'));
  try {
    await smtp.send('sender@client.test', recipients, tokenMessage(token));
  } finally {
    smtp.close();
  }
}

const imapOf = (node: NodeProcess, user: string) => ImapDialog.connect(node.port('imaps'), user, node.password);

/** Waits until the node's view of a mailbox holds a token. */
const arrived = (node: NodeProcess, name: string, token: string) =>
  waitFor(`${token} for ${name}`, promptlyMs, async () => (await tokensOf(node, name)).includes(token));

/** UIDs in the order in which the server gives them. */
async function uidsOf(imap: ImapDialog): Promise<number[]> {
  const text = (await imap.command('UID SEARCH ALL')).toString('latin1');
  const found = /^\* SEARCH([ \d]*)\r$/m.exec(text) ?? [];
  return (found[1] ?? '').split(' ').filter(Boolean).map(Number);
}

describe('mail on three nodes', () => {
  it.each([0, 1, 2])('is accepted on node %i, the short way and through the queue, and read on the other two', async (index) => {
    const from = cluster.node(index);
    await send(from, [alice], `short${index}`);
    await send(from, [alice, bob], `queued${index}`);
    for (const other of cluster.nodes.filter((node) => node !== from)) {
      await arrived(other, 'alice', `short${index}`);
      await arrived(other, 'alice', `queued${index}`);
      await arrived(other, 'bob', `queued${index}`);
    }
  });

  it('delivers into one mailbox from three nodes at once: nothing lost or doubled, and no UID appears below one that was seen', async () => {
    const names = ['admin', 'bob'];
    const count = sized(1_500, 3_000);
    const reader = await imapOf(cluster.node(2), admin);
    await reader.command('SELECT INBOX');
    let isOver = false;
    const watched = (async () => {
      let seen: number[] = [];
      let looks = 0;
      for (; !isOver; looks++) {
        const now = await uidsOf(reader);
        expect(now.slice(0, seen.length)).toEqual(seen);
        expect(now.every((uid, place) => place === 0 || uid > now[place - 1]!)).toBe(true);
        seen = now;
      }
      return { looks, seen: seen.length };
    })();
    watched.catch(() => undefined);
    const ledger = await sendUntilAcknowledged({
      port: cluster.ports('smtp'),
      recipients: [admin, [admin, bob], admin],
      count,
      connections: 24,
      tokenPrefix: 'many',
    });
    await cluster.untilQueueEmpty();
    isOver = true;
    const { looks } = await watched;
    reader.close();
    expect(looks).toBeGreaterThan(3);
    const views = await Promise.all(cluster.nodes.map((node) => copiesIn(node, names)));
    for (const view of views) expect(view).toEqual(views[0]);
    const found = views[0]!.filter((copy) => copy.startsWith('many'));
    const verdict = judgeDelivery(ledger, found);
    expect(verdict).toMatchObject({ lost: [], doubled: [], unknown: [] });
    expect(found.length).toBeGreaterThanOrEqual((count * 4) / 3);
    const shares = await Promise.all(
      cluster.nodes.map((node) => node.metric('starling_queue_messages_total', { event: 'accepted' })),
    );
    for (const share of shares) expect(share).toBeGreaterThan(0);
  });

  it('tells an idle session on one node of mail that another accepts', async () => {
    const idle = await imapOf(cluster.node(1), bob);
    await idle.command('SELECT INBOX');
    idle.write('i IDLE\r\n');
    await idle.until((tail) => /\+ [^\r\n]*\r\n$/.test(tail));
    for (let index = 0; index < 5; index++) {
      const told = idle.until((tail) => /\* \d+ EXISTS\r\n/.test(tail));
      await send(cluster.node(index % 2 === 0 ? 0 : 2), [bob], `idle${index}`);
      await told;
    }
    idle.close();
  });

  it('shows flags, keywords and expunges of one node on another, in sessions that are open', async () => {
    await send(cluster.node(0), [alice], 'flagged');
    const [a, b] = [await imapOf(cluster.node(0), alice), await imapOf(cluster.node(1), alice)];
    for (const imap of [a, b]) await imap.command('SELECT INBOX');
    const [last] = (await uidsOf(a)).slice(-1);
    const place = (await uidsOf(b)).indexOf(last!) + 1;
    expect(place).toBeGreaterThan(0);
    b.write('i IDLE\r\n');
    await b.until((tail) => /\+ [^\r\n]*\r\n$/.test(tail));
    const flagged = b.until((tail) => new RegExp(`\\* ${place} FETCH [^\\r\\n]*\\\\Flagged[^\\r\\n]*\\r\\n`).test(tail));
    await a.command(`UID STORE ${last} +FLAGS (\\Flagged $Work)`);
    expect((await flagged).toString('latin1')).toMatch(/\$Work/i);
    const gone = b.until((tail) => tail.includes(`* ${place} EXPUNGE\r\n`));
    await a.command(`UID STORE ${last} +FLAGS (\\Deleted)`);
    await a.command(`UID EXPUNGE ${last}`);
    await gone;
    a.close();
    b.close();
    // And in one that is opened afterwards.
    expect(await tokensOf(cluster.node(2), 'alice')).not.toContain('flagged');
  });

  it('shows mailboxes that are made, renamed and removed on another node at once', async () => {
    const login = (index: number) => ({
      port: cluster.node(index).port('imaps'),
      user: alice,
      password: cluster.node(index).password,
    });
    const paths = (index: number) => withImapflow(login(index), async (client) => (await client.list()).map(({ path }) => path));
    await withImapflow(login(0), (client) => client.mailboxCreate('Projects'));
    expect(await paths(1)).toContain('Projects');
    await withImapflow(login(1), (client) => client.mailboxRename('Projects', 'Archive/Projects'));
    expect(await paths(2)).toContain('Archive/Projects');
    await withImapflow(login(2), (client) => client.mailboxDelete('Archive/Projects'));
    expect(await paths(0)).not.toContain('Archive/Projects');
  });

  it('lets a new password count, and the old one count no more, on every node at once', async () => {
    const carol = 'carol@example.test';
    const done = async (node: NodeProcess, ...args: string[]) => {
      const { code, stderr } = await node.cli(...args);
      expect(code, stderr).toBe(0);
    };
    await done(cluster.node(0), 'account', 'create', carol, '--password', 'first-secret');
    for (const node of cluster.nodes) expect(await imapLogin(node.port('imaps'), carol, 'first-secret')).toMatch(/^a OK/);
    await done(cluster.node(1), 'account', 'update', carol, '--password', 'second-secret');
    for (const node of cluster.nodes) {
      expect(await imapLogin(node.port('imaps'), carol, 'first-secret')).toMatch(/^a NO/);
      expect(await smtpAuthPlain(node.port('submissions'), carol, 'first-secret')).toMatch(/^535 /);
      expect(await imapLogin(node.port('imaps'), carol, 'second-secret')).toMatch(/^a OK/);
      expect(await imapScram(node.port('imaps'), carol, 'second-secret')).toMatch(/^a OK/);
    }
    await done(cluster.node(2), 'account', 'remove', carol);
    for (const node of cluster.nodes) expect(await imapLogin(node.port('imaps'), carol, 'second-secret')).toMatch(/^a NO/);
  });

  it('leaves a store that holds nothing but what it should', async () => {
    const check = await cluster.node(0).cli('store', 'check', '--json');
    expect(check.code, check.stdout + check.stderr).toBe(0);
    expect(await strayRows(cluster)).toEqual({ claims: [], fences: [], messages: 0, due: 0 });
    expect(await cluster.node(2).stop()).toBe(0);
    expect(await strayRows(cluster)).toEqual({ claims: [], fences: [], messages: 0, due: 0 });
  });
});
