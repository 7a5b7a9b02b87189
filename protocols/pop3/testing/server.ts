/**
 * A POP3 server on 127.0.0.1 over the real stores (memory backend unless another is given) for tests: plain port with STLS, and TLS port. Accounts alice and
 * bob, password `secret`.
 */
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, TLSSocket } from 'node:tls';
import { type Clock, silentLogger, systemClock, systemRandom } from '../../../ops/telemetry/index.js';
import { type BlobStore, createBlobStore } from '../../../store/blobs/index.js';
import { nodeKeys } from '../../../store/keyspace.js';
import { type KvStore, openMemoryStore } from '../../../store/kv/index.js';
import { createMaildropLocks, createMailStore, type OpenMailStore } from '../../../store/mail/index.js';
import { summarizeWithin } from '../../message/index.js';
import type { AuthResult, SaslBackend } from '../../sasl/contract.js';
import { deriveScramKeys, serverChannelBinding } from '../../sasl/index.js';
import { testCertificate } from '../../testing/certificate.js';
import { defaultPop3Limits, type Pop3Connection, type Pop3Limits, Pop3Session } from '../index.js';

export interface TestServerOptions {
  limits?: Partial<Pop3Limits>;
  /** Of the sessions alone; the stores run on the machine's. */
  sessionClock?: Clock;
  /** USER without TLS; default true. */
  allowPlainAuth?: boolean;
  sasl?: SaslBackend;
  /** Default: a fresh memory store. One that is given stays open when the server closes. */
  kv?: KvStore;
  /** Default `node1`. Its fence is raised. */
  nodeId?: string;
}

export interface TestServer {
  port: number;
  tlsPort: number;
  mail: OpenMailStore;
  blobs: BlobStore;
  kv: KvStore;
  sessions: Set<Pop3Session>;
  /** Puts a message into alice's INBOX, and answers its UID. */
  deliver(text: string | Buffer): Promise<number>;
  /** UIDs and keywords of alice's INBOX. */
  inbox(): Promise<{ uid: number; keywords: readonly string[] }[]>;
  close(): Promise<void>;
}

export const testPassword = 'secret';
export const aliceId = 'alice0000000000a';
const logins = new Map([
  ['alice', aliceId],
  ['bob', 'bob000000000000b'],
]);
const salt = Buffer.from('0123456789abcdef');
const scramIterations = 4096;

const testBackend: SaslBackend = {
  async verifyPassword(login, password): Promise<AuthResult> {
    if (login === 'nobody-home') throw new Error('the directory is broken');
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

/** Raises or breaks the fence of a node, as membership does. */
export function setFence(kv: KvStore, nodeId: string, stands: boolean): Promise<void> {
  return kv.transact(async (tx) => {
    if (stands) tx.set(nodeKeys.fence(nodeId), Buffer.alloc(0));
    else tx.clear(nodeKeys.fence(nodeId));
  });
}

export async function startTestServer(options: TestServerOptions = {}): Promise<TestServer> {
  const { nodeId = 'node1' } = options;
  const clock = systemClock;
  const kv = options.kv ?? openMemoryStore({ clock });
  await setFence(kv, nodeId, true);
  const shared = { kv, clock, random: systemRandom, logger: silentLogger };
  const blobs = createBlobStore(shared);
  const mail = createMailStore({ ...shared, blobs });
  const locks = createMaildropLocks({ ...shared, nodeId: () => nodeId });
  const sessions = new Set<Pop3Session>();
  const tls = testCertificate();
  const serve = (connection: Pop3Connection) => {
    const session = new Pop3Session(connection, {
      mail,
      blobs,
      locks,
      sasl: options.sasl ?? testBackend,
      scram: { fakeSaltKey: Buffer.alloc(32, 7), iterations: scramIterations, saltBytes: salt.length },
      clock: options.sessionClock ?? clock,
      random: systemRandom,
      logger: silentLogger,
      serverName: 'mail.example.test',
      limits: { ...defaultPop3Limits, authFailureDelayMs: 5, ...options.limits },
      allowPlainAuth: options.allowPlainAuth ?? true,
    });
    sessions.add(session);
    void session.run().then(() => sessions.delete(session));
  };
  const sockets = new Set<Socket>();
  const track = (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    return { socket, remoteAddress: socket.remoteAddress ?? '', remotePort: socket.remotePort ?? 0 };
  };
  const plain = createServer({ allowHalfOpen: true }, (socket) => {
    let secured: TLSSocket | undefined;
    serve({
      ...track(socket),
      secure: false,
      channelBinding: (type) => secured && serverChannelBinding(secured)(type),
      startTls: async () => {
        secured = await upgrade(socket, tls);
        return secured;
      },
    });
  });
  const secure = createTlsServer({ ...tls }, (socket) =>
    serve({ ...track(socket), secure: true, channelBinding: serverChannelBinding(socket) }),
  );
  const inboxId = async () => {
    await mail.ensureAccount(aliceId);
    return (await mail.mailboxByPath(aliceId, ['INBOX']))!.mailbox.id;
  };
  return {
    port: await listen(plain),
    tlsPort: await listen(secure),
    mail,
    blobs,
    kv,
    sessions,
    async deliver(text) {
      const bytes = Buffer.isBuffer(text) ? text : Buffer.from(text);
      const { encoded, missingLineEndBytes } = summarizeWithin(bytes, 90_000);
      const writer = blobs.writer();
      await writer.write(bytes);
      const [inserted] = await mail.append(aliceId, [
        {
          blob: await writer.finish(),
          mailboxIds: [await inboxId()],
          receivedAtMs: clock.nowMs(),
          summary: encoded,
          messageIds: [],
          missingLineEndBytes,
        },
      ]);
      return inserted!.uids[0]!.uid;
    },
    inbox: async () => (await mail.entries(aliceId, await inboxId())).map(({ uid, keywords }) => ({ uid, keywords })),
    async close() {
      for (const socket of sockets) socket.destroy();
      await Promise.all([plain, secure].map((server) => new Promise((resolve) => server.close(resolve))));
      await Promise.all([...sessions].map((session) => session.run()));
      locks.stop();
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
    secured.once('close', () => reject(new Error('closed')));
  });
}

function listen(server: Server): Promise<number> {
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)));
}
