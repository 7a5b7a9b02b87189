/** From settings to listening sockets with SMTP, LMTP, IMAP and POP3 sessions behind them. */
import { counter, type Logger, systemClock, systemRandom } from '../ops/telemetry/index.js';
import { ImapSession } from '../protocols/imap/index.js';
import { Pop3Session } from '../protocols/pop3/index.js';
import type { SaslBackend } from '../protocols/sasl/contract.js';
import type { ScramSettings } from '../protocols/sasl/index.js';
import { type SmtpHandler, type SmtpMode, SmtpSession } from '../protocols/smtp/server/index.js';
import { createMaildropLocks, type MaildropLocks } from '../store/mail/index.js';
import type { Config, ListenerConfig, NodeRole } from './config/schema.js';
import { imapSharing } from './imap-sharing.js';
import { type CertificateStore, type ListenerConnection, TcpListener, type TlsInfo, trustedProxies } from './listeners/index.js';
import { OpenSessions } from './sessions.js';
import { imapLimits, live, pop3Limits, smtpLimits } from './settings/index.js';
import type { Stores } from './stores.js';
import { turnAway, unavailableLine } from './turn-away.js';

const turnedAwayTotal = counter(
  'starling_connections_turned_away_total',
  'Connections that were told at once that this node takes on nothing now.',
  ['listener'],
);

export interface LineListenerDependencies {
  config: Config;
  stores: Stores;
  certificates: CertificateStore;
  smtpHandler: SmtpHandler;
  sasl: SaslBackend;
  scram: ScramSettings;
  logger: Logger;
  /** While it gives a reason, new connections are told to come back later. Sessions that are open go on. Default: never. */
  reasonToRefuse?: () => string | undefined;
}

type LineProtocol = Exclude<ListenerConfig['protocol'], 'http'>;
type Serve = (connection: ListenerConnection, settings: ListenerConfig, logger: Logger) => void;

const smtpModes = { smtp: 'mx', submission: 'submission', lmtp: 'lmtp' } as const satisfies Record<string, SmtpMode>;

const roleOf = {
  smtp: 'smtp',
  submission: 'smtp',
  lmtp: 'smtp',
  imap: 'imap',
  pop3: 'imap',
} as const satisfies Record<LineProtocol, NodeRole>;

/** RFC 5321 4.2.1, RFC 9051 7.1.5, RFC 3206: what a full listener says before it hangs up. */
const refusals: Record<LineProtocol, (reason: string) => string> = {
  smtp: () => '421 4.7.0 Too many connections, please try again later\r\n',
  submission: () => '421 4.7.0 Too many connections, please try again later\r\n',
  lmtp: () => '421 4.7.0 Too many connections, please try again later\r\n',
  imap: (reason) =>
    reason === 'address_limit'
      ? '* BYE [LIMIT] Too many connections from your address\r\n'
      : '* BYE [UNAVAILABLE] Too many connections\r\n',
  pop3: () => '-ERR [SYS/TEMP] Too many connections\r\n',
};

const facts = (tls: TlsInfo | undefined) => tls && { ...tls };

/** All listeners of the line protocols, and the sessions behind them. */
export class LineListeners {
  readonly sessions = new OpenSessions();
  readonly #listeners: TcpListener[];
  readonly #maildropLocks: MaildropLocks;

  constructor(readonly dependencies: LineListenerDependencies) {
    const { stores, logger } = dependencies;
    this.#maildropLocks = createMaildropLocks({ ...stores, logger, nodeId: () => stores.nodeId });
    const serve = this.#protocols();
    const { listeners, roles } = dependencies.config;
    const lines = listeners.filter(({ protocol }) => protocol !== 'http' && roles.includes(roleOf[protocol]));
    this.#listeners = lines.map((settings) => {
      const protocol = settings.protocol as LineProtocol;
      const logger = dependencies.logger.child({ listener: settings.name });
      return new TcpListener({
        name: settings.name,
        host: settings.host,
        port: settings.port,
        tls: settings.tls === 'implicit' ? 'implicit' : 'none',
        certificates: dependencies.certificates,
        maxConnections: settings.maxConnections,
        maxConnectionsPerAddress: settings.maxConnectionsPerAddress,
        onConnection: (connection) => {
          if (dependencies.reasonToRefuse?.() === undefined) return serve[protocol](connection, settings, logger);
          turnedAwayTotal.inc({ listener: settings.name });
          turnAway(connection, unavailableLine(protocol, dependencies.config.hostname));
        },
        ...(settings.proxyProtocol ? { proxyProtocol: trustedProxies(settings.proxyProtocol) } : {}),
        refusal: refusals[protocol],
        isBanned: (address) => dependencies.stores.bans.find(address) !== undefined,
        logger,
      });
    });
  }

  /** To be called when a ban begins to hold. */
  cutBanned(): void {
    for (const listener of this.#listeners) listener.cutBanned();
  }

  async listen(): Promise<void> {
    for (const listener of this.#listeners) await listener.listen();
  }

  stopAccepting(): void {
    for (const listener of this.#listeners) listener.stopAccepting();
  }

  async close(): Promise<void> {
    await Promise.all(this.#listeners.map((listener) => listener.close()));
    this.#maildropLocks.stop();
  }

  #protocols(): Record<LineProtocol, Serve> {
    const { config, stores, smtpHandler, sasl, scram } = this.dependencies;
    // Each session begins with what holds then.
    const currentSmtpLimits = live(stores.settings, smtpLimits);
    const currentImapLimits = live(stores.settings, imapLimits);
    const currentPop3Limits = live(stores.settings, pop3Limits);
    const smtp: Serve = (connection, settings, logger) => {
      const mode = smtpModes[settings.protocol as keyof typeof smtpModes];
      const session = new SmtpSession({
        connection: {
          ...addresses(connection),
          secure: connection.tls !== undefined,
          tls: facts(connection.tls),
          startTls:
            settings.tls === 'starttls'
              ? async () => ({ socket: await connection.startTls(), tls: facts(connection.tls)! })
              : undefined,
        },
        mode,
        handler: smtpHandler,
        hostname: config.hostname,
        serverName: 'Starling',
        // The session makes a logger of its own when it first has something to say.
        logger,
        listener: settings.name,
        limits: currentSmtpLimits(),
        clock: systemClock,
        random: systemRandom,
        scram,
      });
      this.sessions.add(session, session.closed());
      session.start();
    };
    const accounts = {
      quotaLimitBytes: async (accountId: string) => (await stores.directory.principalById(accountId))?.quotaLimitBytes,
    };
    return {
      smtp,
      submission: smtp,
      lmtp: smtp,
      imap: (connection, settings, logger) => {
        const session = new ImapSession(
          {
            ...addresses(connection),
            secure: connection.tls !== undefined,
            channelBinding: (type) => connection.tls?.channelBinding?.(type),
            startTls: settings.tls === 'starttls' ? () => connection.startTls() : undefined,
          },
          {
            limits: currentImapLimits(),
            serverName: config.hostname,
            mail: stores.mail,
            blobs: stores.blobs,
            ...imapSharing(stores),
            search: stores.search,
            sasl,
            scram,
            accounts,
            admitConnection: (accountId) =>
              stores.limits.concurrency.acquire('imap.user', accountId, stores.settings.current.imap.maxConnectionsPerUser),
            clock: systemClock,
            random: systemRandom,
            logger: logger.child({ connectionId: connection.connectionId }),
          },
        );
        this.sessions.add(session, session.run());
      },
      pop3: (connection, settings, logger) => {
        const session = new Pop3Session(
          {
            ...addresses(connection),
            secure: connection.tls !== undefined,
            channelBinding: (type) => connection.tls?.channelBinding?.(type),
            startTls: settings.tls === 'starttls' ? () => connection.startTls() : undefined,
          },
          {
            limits: currentPop3Limits(),
            serverName: config.hostname,
            mail: stores.mail,
            blobs: stores.blobs,
            locks: this.#maildropLocks,
            sasl,
            scram,
            clock: systemClock,
            random: systemRandom,
            logger: logger.child({ connectionId: connection.connectionId }),
          },
        );
        this.sessions.add(session, session.run());
      },
    };
  }
}

function addresses(connection: ListenerConnection) {
  const { socket, remoteAddress, remotePort, localAddress, localPort } = connection;
  return { socket, remoteAddress, remotePort, localAddress, localPort };
}
