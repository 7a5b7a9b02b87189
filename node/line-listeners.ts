/** From settings to listening sockets with SMTP, LMTP and IMAP sessions behind them. */
import { counter, type Logger, systemClock, systemRandom } from '../ops/telemetry/index.js';
import { ImapSession } from '../protocols/imap/index.js';
import type { SaslBackend } from '../protocols/sasl/contract.js';
import type { ScramSettings } from '../protocols/sasl/index.js';
import { type SmtpHandler, type SmtpMode, SmtpSession } from '../protocols/smtp/server/index.js';
import type { Config, ListenerConfig, NodeRole } from './config/schema.js';
import { type CertificateStore, type ListenerConnection, TcpListener, type TlsInfo, trustedProxies } from './listeners/index.js';
import { OpenSessions } from './sessions.js';
import { imapLimits, live, smtpLimits } from './settings/index.js';
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

const roleOf = { smtp: 'smtp', submission: 'smtp', lmtp: 'smtp', imap: 'imap' } as const satisfies Record<LineProtocol, NodeRole>;

/** RFC 5321 4.2.1 and RFC 9051 7.1.5: what a full listener says before it hangs up. */
const refusals: Record<LineProtocol, (reason: string) => string> = {
  smtp: () => '421 4.7.0 Too many connections, please try again later\r\n',
  submission: () => '421 4.7.0 Too many connections, please try again later\r\n',
  lmtp: () => '421 4.7.0 Too many connections, please try again later\r\n',
  imap: () => '* BYE [UNAVAILABLE] Too many connections\r\n',
};

const facts = (tls: TlsInfo | undefined) => tls && { protocol: tls.protocol, cipher: tls.cipher, serverName: tls.serverName };

/** All listeners of the line protocols, and the sessions behind them. */
export class LineListeners {
  readonly sessions = new OpenSessions();
  readonly #listeners: TcpListener[];

  constructor(readonly dependencies: LineListenerDependencies) {
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
        logger,
      });
    });
  }

  async listen(): Promise<void> {
    for (const listener of this.#listeners) await listener.listen();
  }

  stopAccepting(): void {
    for (const listener of this.#listeners) listener.stopAccepting();
  }

  async close(): Promise<void> {
    await Promise.all(this.#listeners.map((listener) => listener.close()));
  }

  #protocols(): Record<LineProtocol, Serve> {
    const { config, stores, smtpHandler, sasl, scram } = this.dependencies;
    // Each session begins with what holds then.
    const currentSmtpLimits = live(stores.settings, smtpLimits);
    const currentImapLimits = live(stores.settings, imapLimits);
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
            startTls: settings.tls === 'starttls' ? () => connection.startTls() : undefined,
          },
          {
            limits: currentImapLimits(),
            serverName: config.hostname,
            mail: stores.mail,
            blobs: stores.blobs,
            sasl,
            scram,
            accounts,
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
