/**
 * A server for tests: real sockets, real TLS, `SmtpSession`, and a handler whose answers depend on the addresses. It keeps what it
 * accepted in memory.
 */

import type { AddressInfo } from 'node:net';
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, TLSSocket } from 'node:tls';
import { type Clock, type Logger, silentLogger } from '../../../ops/telemetry/index.js';
import { deriveScramKeys, type SaslBackend, type ScramSettings, serverChannelBinding } from '../../sasl/index.js';
import { type TestCertificate, testCertificate } from '../../testing/certificate.js';
import { type Reply, reply } from '../grammar/reply.js';
import type {
  BodyFacts,
  Envelope,
  ForwardedClient,
  MailCommand,
  MessageSink,
  SessionInfo,
  SessionPolicy,
  SmtpHandler,
  SmtpMode,
  Verdict,
} from '../server/handler.js';
import type { SmtpLimits } from '../server/limits.js';
import { SmtpSession, type SmtpSessionOptions } from '../server/session.js';

export interface ReceivedMessage {
  from: string;
  recipients: string[];
  envelope: Envelope;
  content: Buffer;
  facts: BodyFacts;
  login: string | undefined;
  secure: boolean;
  /** Of XCLIENT, or the peer's own. */
  remoteAddress: string;
  forwarded: ForwardedClient | undefined;
}

export const testScram: ScramSettings = { fakeSaltKey: Buffer.alloc(32, 7), iterations: 4096, saltBytes: 16 };

/** Knows alice (password `wonder, land=1`), the disabled carol, and `broken`, on whom it throws. */
export class TestDirectory implements SaslBackend {
  attempts: { login: string; ok: boolean; remoteAddress: string }[] = [];
  readonly #passwords = new Map([
    ['alice@example.test', 'wonder, land=1'],
    ['carol@example.test', 'gone'],
  ]);

  async verifyPassword(login: string, password: string, context: { remoteAddress: string }) {
    return this.#judge(login, this.#passwords.get(login) === password, context.remoteAddress);
  }

  async scramCredentials(login: string) {
    if (login === 'broken@example.test') throw new Error('the directory is away');
    const password = this.#passwords.get(login);
    if (password === undefined) return undefined;
    const salt = Buffer.from('0123456789abcdef');
    return { accountRef: login, salt, iterations: 4096, ...(await deriveScramKeys(password, salt, 4096)) };
  }

  async scramDone(outcome: { login: string; proved: boolean }, context: { remoteAddress: string }) {
    return this.#judge(outcome.login, outcome.proved, context.remoteAddress);
  }

  #judge(login: string, right: boolean, remoteAddress: string) {
    if (login === 'broken@example.test') throw new Error('the directory is away');
    this.attempts.push({ login, ok: right, remoteAddress });
    if (login === 'guessed@example.test') return { ok: false, reason: 'too-many' } as const;
    if (!right) return { ok: false, reason: 'invalid' } as const;
    if (login === 'carol@example.test') return { ok: false, reason: 'disabled' } as const;
    return { ok: true, principal: { accountId: '1', login, name: 'Alice' } } as const;
  }
}

/** Keeps a message; `slow` ones answer every call by a promise. */
class TestSink implements MessageSink {
  readonly #chunks: Buffer[] = [];

  constructor(
    private readonly handler: TestHandler,
    private readonly session: SessionInfo,
    private readonly envelope: Envelope,
  ) {}

  write(chunk: Buffer): void | Promise<void> {
    if (this.envelope.mail.address.startsWith('badwrite@')) return Promise.reject(new Error('the disk is full'));
    this.#chunks.push(chunk);
    return this.envelope.mail.address.startsWith('slow@') ? new Promise((resolve) => setImmediate(resolve)) : undefined;
  }

  async finish(facts: BodyFacts): Promise<Reply | Reply[]> {
    const { mail, recipients } = this.envelope;
    if (mail.address.startsWith('badfinish@')) throw new Error('the store is away');
    if (mail.address.startsWith('slow@')) await new Promise((resolve) => setTimeout(resolve, 20));
    if (mail.address.startsWith('virus@')) return reply(554, '5.7.1', 'We do not like this message');
    this.handler.messages.push({
      from: mail.address,
      recipients: recipients.map((recipient) => recipient.address),
      envelope: this.envelope,
      content: Buffer.concat(this.#chunks),
      facts,
      login: this.session.principal?.login,
      secure: this.session.secure,
      remoteAddress: this.session.remoteAddress,
      forwarded: this.session.forwarded,
    });
    if (this.session.mode !== 'lmtp') return reply(250, '2.0.0', `Accepted ${this.handler.messages.length}`);
    return recipients.map((recipient) =>
      recipient.address.startsWith('full@')
        ? reply(452, '4.2.2', 'Mailbox full')
        : reply(250, '2.1.5', `Kept for ${recipient.address}`),
    );
  }

  abort(reason: string): void {
    this.handler.aborted.push(reason);
  }
}

export class TestHandler implements SmtpHandler {
  messages: ReceivedMessage[] = [];
  aborted: string[] = [];
  resets = 0;
  closedCount = 0;
  authBackend: SaslBackend = new TestDirectory();
  /** Absent unless a test sets it. */
  declare policy?: NonNullable<SmtpHandler['policy']>;
  /** What `greet` waits for. */
  greetGate: Promise<void> | undefined;

  greet(session: SessionInfo): Verdict | Promise<Verdict> {
    session.local = 'greeted';
    return this.greetGate?.then(() => undefined);
  }

  ehlo(_session: SessionInfo, name: string): Verdict {
    return name === 'banned.test' ? reply(550, '5.7.1', 'Not you') : undefined;
  }

  mailFrom(_session: SessionInfo, mail: MailCommand): Verdict | Promise<Verdict> {
    if (mail.address.endsWith('@refused.test')) return reply(550, '5.7.1', 'Sender refused');
    if (mail.address.startsWith('throw@')) throw new Error('policy fell over');
    if (mail.address.startsWith('slow@')) return new Promise((resolve) => setTimeout(resolve, 5));
    // Nobody here may have more than 3.
    if ((mail.parameters.mtPriority ?? 0) > 3) mail.parameters.mtPriority = 3;
    return undefined;
  }

  vrfy(_session: SessionInfo, argument: string): Verdict {
    if (argument === 'bob') return reply(250, '2.1.5', 'Bob <bob@example.test>');
    if (argument === 'jürgen') return reply(250, '2.1.5', 'Jürgen <jürgen@example.test>');
    if (argument === 'nobody') return reply(550, '5.1.1', 'No such user');
    return undefined;
  }

  expn(_session: SessionInfo, argument: string): Verdict {
    return argument === 'staff' ? reply(250, '2.1.5', ['<bob@example.test>', '<carl@example.test>']) : undefined;
  }

  rcptTo(_session: SessionInfo, mail: { address: string }, recipient: { address: string }): Verdict | Promise<Verdict> {
    const { address } = recipient;
    if (address.startsWith('unknown')) return reply(550, '5.1.1', 'No such mailbox');
    if (address.startsWith('later@')) return reply(451, '4.7.1', 'Greylisted');
    if (address.startsWith('reject@')) return Promise.reject(new Error('lookup failed'));
    if (address.startsWith('kick@')) return reply(550, '5.7.1', 'Go away', true);
    return mail.address.startsWith('slow@') ? new Promise((resolve) => setImmediate(resolve)) : undefined;
  }

  data(session: SessionInfo, envelope: Envelope): MessageSink | Reply {
    if (envelope.mail.address.startsWith('nosink@')) return reply(451, '4.3.1', 'No room for messages');
    return new TestSink(this, session, envelope);
  }

  reset(): void {
    this.resets++;
  }

  closed(): void {
    this.closedCount++;
  }
}

export interface TestServerOptions {
  mode?: SmtpMode;
  handler?: SmtpHandler;
  limits?: Partial<SmtpLimits>;
  implicitTls?: boolean;
  /** Default: offered. */
  startTls?: boolean;
  clock?: Clock;
  logger?: Logger;
  listener?: string;
  /** What the handler says of every session. Trusted are peers on this machine only, not the clients that they tell of. */
  policy?: SessionPolicy;
}

export interface TestServer {
  port: number;
  handler: TestHandler;
  sessions: SmtpSession[];
  certificate: TestCertificate;
  close(): Promise<void>;
}

/** Listens on 127.0.0.1 at a free port. */
export async function startTestServer(options: TestServerOptions = {}): Promise<TestServer> {
  const certificate = testCertificate();
  const handler = (options.handler ?? new TestHandler()) as TestHandler;
  const { policy } = options;
  if (policy) {
    handler.policy = ({ remoteAddress }) => ({
      ...policy,
      isTrustedPeer: policy.isTrustedPeer === true && remoteAddress === '127.0.0.1',
    });
  }
  const sessions: SmtpSession[] = [];
  const sockets = new Set<Socket>();
  const onSocket = (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    const session = new SmtpSession(sessionOptions(socket, options, handler, certificate));
    sessions.push(session);
    session.start();
  };
  const server: Server = options.implicitTls
    ? createTlsServer({ ...certificate, allowHalfOpen: true }, onSocket)
    : createServer({ allowHalfOpen: true, noDelay: true }, onSocket);
  if (options.implicitTls) server.on('tlsClientError', () => undefined);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    });
  return { port: (server.address() as AddressInfo).port, handler, sessions, certificate, close };
}

function sessionOptions(
  socket: Socket,
  options: TestServerOptions,
  handler: SmtpHandler,
  certificate: TestCertificate,
): SmtpSessionOptions {
  const secure = options.implicitTls === true;
  const info = (tls: TLSSocket) => ({
    protocol: tls.getProtocol() ?? '',
    cipher: tls.getCipher()?.name ?? '',
    channelBinding: serverChannelBinding(tls),
  });
  const startTls = () =>
    new Promise<{ socket: TLSSocket; tls: { protocol: string; cipher: string } }>((resolve, reject) => {
      const tls = new TLSSocket(socket, { isServer: true, ...certificate });
      tls.once('secure', () => resolve({ socket: tls, tls: info(tls) }));
      tls.once('error', reject);
      tls.once('close', () => reject(new Error('closed in the handshake')));
    });
  return {
    connection: {
      socket,
      remoteAddress: socket.remoteAddress ?? '',
      remotePort: socket.remotePort ?? 0,
      localPort: socket.localPort ?? 0,
      secure,
      ...(secure ? { tls: info(socket as TLSSocket) } : {}),
      ...(options.startTls === false ? {} : { startTls }),
    },
    mode: options.mode ?? 'mx',
    handler,
    hostname: 'mx.example.test',
    logger: options.logger ?? silentLogger,
    scram: testScram,
    ...(options.listener === undefined ? {} : { listener: options.listener }),
    ...(options.limits ? { limits: options.limits } : {}),
    ...(options.clock ? { clock: options.clock } : {}),
  };
}
