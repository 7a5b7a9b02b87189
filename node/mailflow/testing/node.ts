/**
 * One node for tests, from the real parts: store, blobs, queue, mailboxes, directory, receiver, runner, SMTP server. Several may share one memory
 * database. The clock can be set forward; names are looked up in a table.
 */
import { randomBytes } from 'node:crypto';
import { type Clock, silentLogger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import type { DnsOutcome, MxRecord, Resolver } from '../../../protocols/dns/index.js';
import type { SaslBackend } from '../../../protocols/sasl/contract.js';
import { SmtpClient } from '../../../protocols/smtp/client/client.js';
import type { OutgoingMessage } from '../../../protocols/smtp/client/contract.js';
import type { SmtpMode } from '../../../protocols/smtp/server/handler.js';
import { startTestServer, type TestServer, type TestServerOptions } from '../../../protocols/smtp/testing/server.js';
import { createBlobStore } from '../../../store/blobs/index.js';
import { createDirectory } from '../../../store/directory/index.js';
import { key, keyItems, keysFrom, subspace } from '../../../store/keyspace.js';
import type { KvStore } from '../../../store/kv/index.js';
import { createMailStore } from '../../../store/mail/index.js';
import { createQueue, type QueueShare } from '../../../store/queue/index.js';
import { createNodeMembership } from '../../membership.js';
import { createQueueRunner, type QueueRunnerDependencies } from '../../services/index.js';
import { createDirectDelivery } from '../deliver-direct.js';
import { createDelivery, createReceiver, defaultMailflowSettings, type MailflowSettings } from '../index.js';
import type { ReceiverDependencies } from '../types.js';

/** The system's clock, whose wall time can be set forward. */
export class ShiftedClock implements Clock {
  shiftMs = 0;
  nowMs = () => systemClock.nowMs() + this.shiftMs;
  monotonicMs = () => systemClock.monotonicMs();
  setTimer = systemClock.setTimer;
  sleep = systemClock.sleep;
}

/** Answers from a table: domain to mail host, host to address. What is not in it does not exist. */
export class TableResolver implements Resolver {
  readonly mailHosts = new Map<string, string[]>();
  readonly addresses = new Map<string, string>();
  isDown = false;

  #answer<T>(records: T[] | undefined): DnsOutcome<T> {
    if (this.isDown) return { status: 'temporary', reason: 'SERVFAIL' };
    if (!records) return { status: 'nxdomain', authenticated: false };
    return records.length > 0
      ? { status: 'found', records, authenticated: false, ttlSeconds: 60 }
      : { status: 'nodata', authenticated: false };
  }

  async mx(name: string): Promise<DnsOutcome<MxRecord>> {
    return this.#answer(this.mailHosts.get(name)?.map((exchange, at) => ({ preference: at * 10, exchange })));
  }

  async a(name: string): Promise<DnsOutcome<string>> {
    const address = this.addresses.get(name);
    return this.#answer(address === undefined ? undefined : [address]);
  }

  async aaaa(name: string): Promise<DnsOutcome<string>> {
    return this.#answer(this.addresses.has(name) ? [] : undefined);
  }

  async txt(): Promise<DnsOutcome<string>> {
    return this.#answer<string>(undefined);
  }

  async ptr(): Promise<DnsOutcome<string>> {
    return this.#answer<string>(undefined);
  }
}

export interface TestNodeOptions {
  kv: KvStore;
  settings?: Partial<MailflowSettings>;
  limits?: QueueRunnerDependencies['limits'];
  /** Small messages for one mailbox go there without a stay in the queue. */
  isDirect?: boolean;
  clock?: ShiftedClock;
  /** When false, the node has not joined and its runner is not started. */
  isRunning?: boolean;
  shares?: () => readonly QueueShare[];
  maySend?: () => boolean;
  /** What accepting mail needs besides: stages, limits, bans, history. */
  receiver?: Partial<ReceiverDependencies>;
}

export async function startTestNode(options: TestNodeOptions) {
  const { kv } = options;
  const clock = options.clock ?? new ShiftedClock();
  const parts = { kv, clock, random: systemRandom, logger: silentLogger };
  const blobs = createBlobStore(parts);
  const queue = createQueue({ ...parts, blobs });
  const mail = createMailStore({ ...parts, blobs });
  const directory = createDirectory(parts);
  const resolver = new TableResolver();
  const settings = { ...defaultMailflowSettings('mx.example.test', 'postmaster@example.test'), ...options.settings };
  const { maySend } = options;
  const delivery = createDelivery({ ...parts, blobs, queue, mail, directory, resolver, settings: () => settings, maySend });
  const node = { nodeId: randomBytes(16).toString('hex'), incarnation: 1 };
  const membership = createNodeMembership({
    config: { hostname: 'mx.example.test', listeners: [], roles: [] },
    stores: { ...parts, queue },
    logger: silentLogger,
    node,
  });
  const runner = createQueueRunner({ ...parts, queue, node, ...delivery, limits: options.limits, shares: options.shares });
  const history = options.receiver?.history;
  const receiver = createReceiver({
    ...parts,
    blobs,
    queue,
    directory,
    mail,
    settings: () => settings,
    desk: runner,
    direct: options.isDirect
      ? createDirectDelivery({ ...parts, blobs, mail, directory, ...(history && { history }) })
      : undefined,
    authBackend: authOf(directory),
    nodeId: node.nodeId,
    ...options.receiver,
  });
  const servers: TestServer[] = [];
  if (options.isRunning !== false) {
    await membership.join();
    runner.start();
  }

  return {
    ...parts,
    clock,
    blobs,
    queue,
    mail,
    directory,
    resolver,
    settings: () => settings,
    delivery,
    node,
    membership,
    runner,
    receiver,
    /** Opens an SMTP port of this node. */
    async listen(mode: SmtpMode = 'mx', more: TestServerOptions = {}): Promise<TestServer> {
      const server = await startTestServer({ mode, handler: receiver.handler, clock, ...more });
      servers.push(server);
      return server;
    },
    async account(
      address: string,
      more: { quotaLimitBytes?: number; aliases?: string[]; password?: string } = {},
    ): Promise<string> {
      const domain = address.slice(address.indexOf('@') + 1);
      if (!(await directory.domains()).some(({ name }) => name === domain)) await directory.createDomain(domain);
      const { id } = await directory.createPrincipal({ kind: 'account', address, ...more });
      await mail.ensureAccount(id);
      return id;
    },
    /** The messages of a mailbox, as text, in UID order. */
    async mailbox(accountId: string, path: string[] = ['INBOX']): Promise<string[]> {
      const found = await mail.mailboxByPath(accountId, path);
      if (!found) return [];
      const entries = await mail.entries(accountId, found.mailbox.id);
      const messages = await mail.messages(
        accountId,
        entries.map(({ emailId }) => emailId),
      );
      return Promise.all(messages.map(async (message) => (await blobs.read(message!.blobId)).toString('utf8')));
    },
    /** Waits until nothing is in hand and nothing is due or claimed. */
    async settled(): Promise<void> {
      for (let i = 0; i < 1000; i++) {
        const { dueNow, claimed } = await queue.counts(Math.floor(clock.nowMs() / 1000));
        if (runner.size === 0 && dueNow === 0 && claimed === 0) return;
        await clock.sleep(10);
      }
      throw new Error('the queue does not come to rest');
    },
    async close(): Promise<void> {
      await Promise.all(servers.map((server) => server.close()));
      await runner.stop();
      await membership.stop();
      delivery.close();
      await mail.close();
    },
  };
}

export type TestNode = Awaited<ReturnType<typeof startTestNode>>;

function authOf(directory: ReturnType<typeof createDirectory>): SaslBackend {
  return {
    async verifyPassword(login, password) {
      const result = await directory.verifyPassword(login, password);
      if (!result.ok) return { ok: false, reason: 'invalid' };
      const { id, address, displayName } = result.principal;
      return { ok: true, principal: { accountId: id, login: address, name: displayName } };
    },
    scramCredentials: async () => undefined,
    scramDone: async () => ({ ok: false, reason: 'invalid' }),
  };
}

export interface Posted {
  from?: string;
  to: string | string[];
  text?: string;
  recipients?: OutgoingMessage['recipients'];
  ret?: 'FULL' | 'HDRS';
  envelopeId?: string;
  auth?: { login: string; password: string };
}

/** Sends one message through our own client; answers what was said for each recipient. */
export async function post(port: number, { from = 'sender@remote.test', to, text, recipients, auth, ...more }: Posted) {
  const client = await SmtpClient.connect({
    address: '127.0.0.1',
    port,
    heloName: 'client.remote.test',
    tls: auth ? { mode: 'required', verify: () => ({ ok: true }) } : { mode: 'none' },
    auth,
  });
  const bytes = Buffer.from(
    text ?? 'Subject: hello\r\nMessage-ID: <m1@remote.test>\r\nFrom: <sender@remote.test>\r\n\r\nHello.\r\n',
  );
  const result = await client.send({
    from,
    recipients: recipients ?? [to].flat().map((address) => ({ address })),
    ...more,
    body: {
      sizeBytes: bytes.length,
      eightBit: bytes.some((octet) => octet > 127),
      utf8: false,
      async *open() {
        yield bytes;
      },
    },
  });
  await client.quit();
  return result.recipients;
}

/** Ids of the nodes that have a row or a fence. */
export async function nodesIn(kv: KvStore): Promise<string[]> {
  const { begin, end } = keysFrom(key(subspace.node));
  const keys = (await kv.read((reads) => reads.getRange(begin, end))).map((pair) => keyItems(pair.key));
  return [...new Set(keys.filter(([, kind]) => kind !== 'lease').map(([, , nodeId]) => nodeId as string))];
}

/** Keys that must not be left once everything is delivered: the queue's (receipts and history aside), and blob links of the queue. */
export async function queueLeftovers(kv: KvStore): Promise<unknown[][]> {
  return kv.read(async (reads) => {
    const left: unknown[][] = [];
    for (const prefix of [key(subspace.queue), key(subspace.blob, 'link')]) {
      const { begin, end } = keysFrom(prefix);
      for (const pair of await reads.getRange(begin, end)) left.push(keyItems(pair.key));
    }
    return left.filter((items) =>
      items[0] === subspace.queue ? items[1] !== 'receipt' && items[1] !== 'history' : items.includes('queue'),
    );
  });
}
