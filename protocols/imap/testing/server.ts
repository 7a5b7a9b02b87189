/**
 * An IMAP server on 127.0.0.1 over the real stores (memory backend unless another is given) for tests: plain port with STARTTLS, and TLS port. Accounts alice, bob and carol, password
 * `secret`.
 */
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, TLSSocket } from 'node:tls';
import { type Clock, silentLogger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import { type BlobStore, createBlobStore } from '../../../store/blobs/index.js';
import { type KvStore, openMemoryStore } from '../../../store/kv/index.js';
import { createMailStore, type OpenMailStore } from '../../../store/mail/index.js';
import type { SearchStore } from '../../../store/search/contract.js';
import { summarizeWithin } from '../../message/index.js';
import type { AuthResult, SaslBackend } from '../../sasl/contract.js';
import { deriveScramKeys, serverChannelBinding } from '../../sasl/index.js';
import { testCertificate } from '../../testing/certificate.js';
import {
  defaultImapLimits,
  type ImapConnection,
  type ImapDirectory,
  type ImapLimits,
  type ImapPrincipal,
  type ImapServices,
  ImapSession,
} from '../index.js';

export interface TestServerOptions {
  limits?: Partial<ImapLimits>;
  /** Of the sessions alone; the stores run on the machine's. */
  sessionClock?: Clock;
  /** LOGIN without TLS; default true. */
  allowPlainAuth?: boolean;
  quotaLimitBytes?: number;
  /** Default: true. */
  sharesWithEveryone?: boolean;
  /** Of the directory, what is not as usual. */
  directory?: Partial<ImapDirectory>;
  /** Default: any number of connections. */
  admitConnection?: NonNullable<ImapServices['admitConnection']>;
  /** Who knows the accounts; default: alice, bob and carol. */
  sasl?: SaslBackend;
  /** The full-text index; default: none. */
  search?: SearchStore;
  /** Default: a fresh memory store. One that is given stays open when the server closes. */
  kv?: KvStore;
}

export interface TestServer {
  port: number;
  tlsPort: number;
  mail: OpenMailStore;
  blobs: BlobStore;
  kv: KvStore;
  sessions: Set<ImapSession>;
  /** Puts a message into a mailbox as delivery would. */
  deliver(
    login: string,
    mailbox: string,
    text: string | Buffer,
    options?: { receivedAtMs?: number; keywords?: string[] },
  ): Promise<number>;
  close(): Promise<void>;
}

export const testPassword = 'secret';
const logins = new Map([
  ['alice', 'alice0000000000a'],
  ['bob', 'bob000000000000b'],
  ['carol', 'carol0000000000c'],
  ['team', 'team00000000000t'],
]);

/** All users at example.test; `team` is a group with bob in it. */
const testDirectory: ImapDirectory = {
  byAddress: async (address) => {
    const [login = '', domain] = address.toLowerCase().split('@');
    return domain === undefined || domain === 'example.test' ? principalOf(login) : undefined;
  },
  byId: async (id) => principalOf([...logins].find(([, known]) => known === id)?.[0] ?? ''),
  groupsOf: async (accountId) => (accountId === logins.get('bob') ? [principalOf('team')!] : []),
};

function principalOf(login: string): ImapPrincipal | undefined {
  const id = logins.get(login);
  return id === undefined ? undefined : { id, kind: login === 'team' ? 'group' : 'account', address: `${login}@example.test` };
}

const scramIterations = 4096;

export function accountIdOf(login: string): string {
  return logins.get(login)!;
}

const salt = Buffer.from('0123456789abcdef');

const testBackend: SaslBackend = {
  async verifyPassword(login, password): Promise<AuthResult> {
    return conclude(login, password === testPassword);
  },
  async scramCredentials(login) {
    if (!logins.has(login)) return undefined;
    const { storedKey, serverKey } = await deriveScramKeys(testPassword, salt, scramIterations);
    return { accountRef: login, salt, iterations: scramIterations, storedKey, serverKey };
  },
  async scramDone({ login, proved }) {
    return conclude(login, proved);
  },
};

function conclude(login: string, proved: boolean): AuthResult {
  const accountId = logins.get(login);
  return accountId && proved ? { ok: true, principal: { accountId, login, name: '' } } : { ok: false, reason: 'invalid' };
}

export async function startTestServer(options: TestServerOptions = {}): Promise<TestServer> {
  const clock = systemClock;
  const kv = options.kv ?? openMemoryStore({ clock });
  const blobs = createBlobStore({ kv, clock, random: systemRandom, logger: silentLogger });
  const mail = createMailStore({ kv, blobs, clock, random: systemRandom, logger: silentLogger });
  const sessions = new Set<ImapSession>();
  const tls = testCertificate();
  const serve = (connection: ImapConnection) => {
    const session = new ImapSession(connection, {
      mail,
      blobs,
      sasl: options.sasl ?? testBackend,
      accounts: { quotaLimitBytes: async () => options.quotaLimitBytes },
      sharing: {
        directory: { ...testDirectory, ...options.directory },
        otherUsers: 'Other Users',
        groups: 'Shared Folders',
        withEveryone: options.sharesWithEveryone ?? true,
      },
      serverAnnotations: { comment: 'Mail of the test', admin: 'mailto:postmaster@example.test' },
      scram: { fakeSaltKey: Buffer.alloc(32, 7), iterations: scramIterations, saltBytes: salt.length },
      clock: options.sessionClock ?? clock,
      random: systemRandom,
      logger: silentLogger,
      serverName: 'mail.example.test',
      limits: { ...defaultImapLimits, authFailureDelayMs: 5, ...options.limits },
      allowPlainAuth: options.allowPlainAuth ?? true,
      ...(options.search ? { search: options.search } : {}),
      ...(options.admitConnection ? { admitConnection: options.admitConnection } : {}),
    });
    sessions.add(session);
    void session.run().then(() => sessions.delete(session));
  };
  const sockets = new Set<Socket>();
  const track = (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  };
  const plain = createServer({ allowHalfOpen: true }, (socket) => {
    track(socket);
    let secured: TLSSocket | undefined;
    serve({
      socket,
      remoteAddress: socket.remoteAddress ?? '',
      remotePort: socket.remotePort ?? 0,
      secure: false,
      channelBinding: (type) => secured && serverChannelBinding(secured)(type),
      startTls: async () => {
        secured = await upgrade(socket, tls);
        return secured;
      },
    });
  });
  const secure = createTlsServer({ ...tls }, (socket) => {
    track(socket);
    serve({
      socket,
      remoteAddress: socket.remoteAddress ?? '',
      remotePort: socket.remotePort ?? 0,
      secure: true,
      channelBinding: serverChannelBinding(socket),
    });
  });
  const port = await listen(plain);
  const tlsPort = await listen(secure);
  return {
    port,
    tlsPort,
    mail,
    blobs,
    kv,
    sessions,
    async deliver(login, mailboxName, text, { receivedAtMs, keywords } = {}) {
      const accountId = accountIdOf(login);
      await mail.ensureAccount(accountId);
      const found = await mail.mailboxByPath(accountId, mailboxName.split('/'));
      const bytes = Buffer.isBuffer(text) ? text : Buffer.from(text);
      const { summary, encoded } = summarizeWithin(bytes, 90_000);
      const [inserted] = await mail.append(accountId, [
        {
          blob: blobs.prepare(bytes),
          mailboxIds: [found!.mailbox.id],
          receivedAtMs: receivedAtMs ?? clock.nowMs(),
          keywords: keywords ?? [],
          summary: encoded,
          messageIds: summary.messageIds.own ? [summary.messageIds.own] : [],
        },
      ]);
      return inserted!.uids[0]!.uid;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await Promise.all([plain, secure].map((server) => new Promise((resolve) => server.close(resolve))));
      await mail.close();
      if (!options.kv) await kv.close();
    },
  };
}

function upgrade(socket: Socket, tls: { key: string; cert: string }): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const secured = new TLSSocket(socket, { isServer: true, ...tls });
    secured.once('secure', () => resolve(secured));
    secured.once('error', reject);
  });
}

function listen(server: Server): Promise<number> {
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)));
}
