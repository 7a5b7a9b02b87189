/**
 * The shared store goes away in every way that a server can: stopped, hung, unreachable, out of connections, out of space. Meanwhile nodes say so in each
 * protocol; afterwards they are well again by themselves, and nothing that was acknowledged is missing.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cluster } from '../harness/cluster.js';
import { ImapDialog } from '../harness/imap-dialog.js';
import { tokensOf } from '../harness/mailbox-tokens.js';
import type { NodeProcess } from '../harness/node-process.js';
import { runCommand, waitFor } from '../harness/processes.js';
import { SmtpDialog, tokenMessage } from '../harness/smtp-load.js';

const alice = 'alice@example.test';
/** From the outage to a clear word, at most. */
const wordMs = 60_000;
/** From the end of the outage to service. */
const wellMs = 45_000;
const quiet = '[log]\nlevel = "error"\n';

/** Sends one message; answers the refusal. Throws when the server neither takes nor refuses it in time. */
async function trySend(node: NodeProcess, token: string, message = tokenMessage(token)): Promise<string | undefined> {
  let smtp: SmtpDialog | undefined;
  const attempt = async () => {
    smtp = await SmtpDialog.connect(node.port('smtp'));
    await smtp.send('sender@client.test', [alice], message);
  };
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('SMTP says nothing')), wordMs);
  });
  const sending = attempt().then(
    () => undefined,
    (error: Error) => error.message,
  );
  try {
    return await Promise.race([sending, late]);
  } finally {
    clearTimeout(timer);
    smtp?.close();
  }
}

async function readiness(node: NodeProcess): Promise<{ status: number; text: string }> {
  const response = await fetch(`http://127.0.0.1:${node.port('http')}/health/ready`, { signal: AbortSignal.timeout(15_000) });
  return { status: response.status, text: await response.text() };
}

/** All of them say that they can't, in each protocol, to sessions that were open before and to new ones. */
async function expectRefusals(cluster: Cluster, sessions: readonly ImapDialog[]): Promise<void> {
  await Promise.all(
    cluster.nodes.map(async (node, index) => {
      const unready = await waitFor('503', wordMs, async () => {
        const answer = await readiness(node);
        return answer.status === 503 && answer.text;
      });
      const { reasons } = JSON.parse(unready) as { reasons: string[] };
      expect(reasons.length).toBeGreaterThan(0);
      for (const reason of reasons) expect(reason).toMatch(/^[A-Z].{10,}/);
      expect(await trySend(node, `refused${index}`)).toMatch(/got: (421 4|451 4|452 4)\.\d\.\d /);
      await expectNo(sessions[index]!);
    }),
  );
}

/** `NO [UNAVAILABLE]` to a command, or `* BYE` and the end. */
async function expectNo(imap: ImapDialog): Promise<void> {
  const answer = imap.command('STATUS INBOX (MESSAGES UIDNEXT)').then(
    (bytes) => bytes.toString('latin1'),
    (error: Error) => (error.message.startsWith('connection closed') ? imap.lastWords : error.message),
  );
  const silence = new Promise<string>((resolve) => setTimeout(resolve, wordMs, 'silence').unref());
  expect(await Promise.race([answer, silence])).toMatch(/NO \[(UNAVAILABLE|OVERQUOTA)\]|^\* BYE /m);
}

/** Ready by itself, takes mail on each node and shows it, with all that was acknowledged before, on all. */
async function expectWell(cluster: Cluster, acknowledged: string[], round: string): Promise<void> {
  await cluster.untilReady(wellMs);
  for (const [index, node] of cluster.nodes.entries()) {
    const token = `${round}well${index}`;
    const refusal = await waitFor('mail to be taken', wellMs, async () => {
      const answer = await trySend(node, token);
      return answer === undefined ? 'taken' : undefined;
    });
    expect(refusal).toBe('taken');
    acknowledged.push(token);
  }
  for (const node of cluster.nodes) {
    await waitFor('all acknowledged mail', wellMs, async () => {
      const tokens = await tokensOf(node, 'alice');
      return acknowledged.every((token) => tokens.filter((found) => found === token).length === 1);
    });
  }
}

const openSessions = (cluster: Cluster) =>
  Promise.all(
    cluster.nodes.map(async (node) => {
      const imap = await ImapDialog.connect(node.port('imaps'), alice, node.password);
      await imap.command('SELECT INBOX');
      return imap;
    }),
  );

describe('an outage of the shared store', () => {
  let cluster: Cluster;
  const acknowledged: string[] = [];
  beforeAll(async () => {
    cluster = await Cluster.start({ nodes: 2, isProxied: true, settings: quiet });
  });
  afterAll(async () => {
    await cluster?.remove();
  });

  it.each<[string, () => unknown, () => unknown]>([
    ['stopped in good order', () => cluster.server.stop('fast'), () => cluster.server.start()],
    ['killed', () => cluster.server.stop('immediate'), () => cluster.server.start()],
    ['hung (SIGSTOP)', () => cluster.server.signalAll('SIGSTOP'), () => cluster.server.signalAll('SIGCONT')],
    ['behind a network that swallows everything', () => cluster.proxy.pause(), () => cluster.proxy.resume()],
    [
      'behind a network that swallows everything, and then resets',
      () => cluster.proxy.pause(),
      () => {
        cluster.proxy.cutAll();
        cluster.proxy.resume();
      },
    ],
    [
      'unreachable, all connections reset',
      async () => {
        await cluster.proxy.refuse();
        cluster.proxy.cutAll();
      },
      () => cluster.proxy.accept(),
    ],
  ])('%s: 421/451, NO [UNAVAILABLE] or BYE, 503 with a reason; well again by itself', async (what, begin, end) => {
    await expectWell(cluster, acknowledged, `before ${what}`.replace(/\W/g, ''));
    const sessions = await openSessions(cluster);
    const pids = cluster.nodes.map((node) => node.pid);
    await begin();
    try {
      await expectRefusals(cluster, sessions);
    } finally {
      await end();
    }
    await expectWell(cluster, acknowledged, `after ${what}`.replace(/\W/g, ''));
    for (const imap of sessions) imap.close();
    expect(cluster.nodes.map((node) => node.pid)).toEqual(pids);
  });

  it('leaves a store that is as it should be', async () => {
    await cluster.untilQueueEmpty();
    const check = await cluster.node(0).cli('store', 'check', '--json');
    expect(check.code, check.stdout + check.stderr).toBe(0);
  });
});

describe('a server with no connection to spare', () => {
  it('refuses the nodes: they say so, and are well again when there are some', async () => {
    const cluster = await Cluster.start({ nodes: 2, postgres: { settings: { max_connections: '60' } }, settings: quiet });
    const hogs: pg.Client[] = [];
    const acknowledged: string[] = [];
    /** Takes every connection that is free. */
    const hog = async () => {
      for (;;) {
        const client = new pg.Client({ connectionString: cluster.server.url() });
        client.on('error', () => undefined);
        try {
          await client.connect();
          hogs.push(client);
        } catch (error) {
          expect((error as Error).message).toMatch(/too many clients|connection slots/);
          return;
        }
      }
    };
    try {
      await expectWell(cluster, acknowledged, 'first');
      await hog();
      // With the connections that they have, the nodes go on: more clients than connections wait, or are refused for now.
      const burst = await Promise.all(
        Array.from({ length: 100 }, async (_, index) => {
          const token = `burst${index}`;
          const refusal = await trySend(cluster.nodes[index % 2]!, token);
          if (refusal === undefined) acknowledged.push(token);
          return refusal;
        }),
      );
      for (const refusal of burst) if (refusal !== undefined) expect(refusal).toMatch(/got: 4\d\d /);
      const sessions = await openSessions(cluster);
      // Now without: those of the nodes are ended, and taken by others at once.
      const stop = { isOver: false };
      const greedy = (async () => {
        while (!stop.isOver) {
          await hogs[0]!.query('select count(pg_terminate_backend(pid)) from pg_stat_activity where pid <> all($1)', [
            hogs.map((client) => (client as unknown as { processID: number }).processID),
          ]);
          await hog();
        }
      })();
      greedy.catch(() => undefined);
      try {
        await expectRefusals(cluster, sessions);
      } finally {
        stop.isOver = true;
        await greedy;
        await Promise.all(hogs.splice(0).map((client) => client.end()));
      }
      await expectWell(cluster, acknowledged, 'last');
      for (const imap of sessions) imap.close();
    } finally {
      for (const client of hogs) client.end().catch(() => undefined);
      await cluster.remove();
    }
  });
});

/** 60 kB that no compression makes shorter. */
function incompressible(token: string): Buffer {
  const lines = randomBytes(45_000).toString('base64').replace(/.{76}/g, '$&\r\n');
  return Buffer.concat([tokenMessage(token, 500), Buffer.from(`${lines}\r\n`)]);
}

const isRoot = process.getuid?.() === 0;
if (!isRoot && process.env.CI !== 'true') process.stderr.write('skipped: needs root to mount a small disk\n');

describe.skipIf(!isRoot && process.env.CI !== 'true')('a server whose disk is full', () => {
  it('refuses what is new; nodes say so, and are well again when there is space', async () => {
    const disk = mkdtempSync(join(tmpdir(), 'starling-server-disk-'));
    const mounted = await runCommand('mount', ['-t', 'tmpfs', '-o', 'size=400m,mode=755', 'tmpfs', disk]);
    expect(mounted.code, mounted.stderr).toBe(0);
    let cluster: Cluster | undefined;
    const acknowledged: string[] = [];
    try {
      const settings = { max_wal_size: '64MB', min_wal_size: '32MB', checkpoint_timeout: '30s' };
      cluster = await Cluster.start({ nodes: 2, postgres: { folder: disk, settings }, settings: quiet });
      await expectWell(cluster, acknowledged, 'first');
      const { bavail, bsize } = statfsSync(disk);
      const ballast = join(disk, 'ballast');
      writeFileSync(ballast, Buffer.alloc(Math.max(0, bavail * bsize - 3_000_000), 1));
      let refusal: string | undefined;
      for (let index = 0; index < 500 && refusal === undefined; index++) {
        const token = `filling${index}`;
        refusal = await trySend(cluster.nodes[index % 2]!, token, incompressible(token));
        if (refusal === undefined) acknowledged.push(token);
      }
      expect(refusal).toMatch(/got: 4(21|51|52) 4\./);
      for (const node of cluster.nodes) {
        const unready = await waitFor('503', wordMs, async () => {
          const answer = await readiness(node);
          return answer.status === 503 && answer.text;
        });
        expect(unready).toMatch(/space|server|store/i);
      }
      rmSync(ballast);
      // A server that could not write its log has ended itself, and whoever runs it starts it again.
      if (cluster.server.pid === undefined) await cluster.server.start();
      await expectWell(cluster, acknowledged, 'last');
      const check = await cluster.node(0).cli('store', 'check', '--json');
      expect(check.code, check.stdout + check.stderr).toBe(0);
    } finally {
      await cluster?.remove();
      await runCommand('umount', ['-l', disk]);
      rmSync(disk, { recursive: true, force: true });
    }
  });
});
