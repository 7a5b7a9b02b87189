/**
 * A TCP listener for the line protocols (SMTP, LMTP, IMAP, POP3, ManageSieve): accepts, learns from a trusted proxy who the client
 * is, counts, refuses politely what is too much, shakes TLS hands where that comes first, and hands the connection to a session.
 */
import { createServer, type Server, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import ipaddr from 'ipaddr.js';
import { type Clock, counter, gauge, type Logger, type Random, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import type { CertificateStore } from './certificates.js';
import { type ListenerConnection, shakeHands, type TlsInfo, tlsInfo } from './connection.js';
import type { ProxyEndpoint } from './proxy-header.js';
import { type ProxyReception, receiveProxyHeader, type TrustedProxies } from './proxy-reception.js';

const connectionsOpen = gauge('starling_connections', 'Open connections.', ['listener']);
const connectionsTotal = counter('starling_connections_total', 'Connections accepted, the refused ones included.', ['listener']);
const bannedTotal = counter(
  'starling_connections_banned_total',
  'Connections cut because their address is banned: at accept, or open when the ban came.',
  ['listener'],
);
/** `limit` = the listener is full; `address_limit` = too many from one address; `not_admitted` = banned; `not_proxied` = past the proxies. */
const refusedTotal = counter('starling_connections_refused_total', 'Connections refused at accept.', ['listener', 'reason']);
const handshakeFailuresTotal = counter('starling_tls_handshake_failures_total', 'TLS handshakes that failed.', ['listener']);
/** `proxied` = a client's address was named; `local` = none was (health checks); `closed`, `timeout`, `malformed` = cut without one. */
const proxyHeadersTotal = counter('starling_proxy_headers_total', 'Connections from trusted proxies, by their PROXY header.', [
  'listener',
  'result',
]);

type RefusalReason = 'limit' | 'address_limit' | 'not_admitted' | 'not_proxied';

/** How long a refused peer may take to read why. */
const refusalLingerMs = 2_000;
/** Refused peers that may do so at once. More are just cut: beyond the limits of a listener a flood would hold descriptors without one. */
const maxLingering = 256;
/** RFC 3501 sessions are silent for half an hour; a NAT forgets after minutes. */
const keepAliveDelayMs = 60_000;
/** A proxy that is set up wrongly does the same wrong at every connection: said this often, not each time. */
const proxyWarningEveryMs = 60_000;

export interface TcpListenerOptions {
  /** For logs and metrics: `smtp`, `submission`, `imaps`. */
  name: string;
  host: string;
  /** 0 = a free one; see `address()`. */
  port: number;
  /** `implicit`: TLS from the first byte. `none`: plain, with `startTls` at the session's word. */
  tls: 'none' | 'implicit';
  certificates: CertificateStore;
  /** Open connections, those that still shake hands included. */
  maxConnections: number;
  /** Of these from one IPv4 address, or one IPv6 /64. */
  maxConnectionsPerAddress: number;
  /** A new session. What it throws closes the connection and is logged. */
  onConnection(connection: ListenerConnection): void | Promise<void>;
  logger: Logger;
  /** The line that tells a refused peer why (`421 …`, `* BYE …`), with CRLF. Without it, or under implicit TLS, it is just cut. */
  refusal?(reason: 'limit' | 'address_limit'): string;
  /** Asked before anything else is done for a client: true cuts the connection without a word, before TLS. Never asked about a trusted proxy. */
  isBanned?(remoteAddress: string): boolean;
  /** Whose PROXY headers (before TLS) tell the client's address. Default: nobody's. */
  proxyProtocol?: TrustedProxies;
  /** Within which such a header must be there. Default 5 000. */
  proxyHeaderTimeoutMs?: number;
  /** Default 10 000. */
  handshakeTimeoutMs?: number;
  /** After the peer's FIN the session may still answer what was sent before, for this long. Default 30 000. */
  halfOpenTimeoutMs?: number;
  clock?: Clock;
  random?: Random;
}

export class TcpListener {
  readonly name: string;
  readonly #options: TcpListenerOptions;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #server: Server;
  /** With the client's address, as soon as it is known. */
  readonly #open = new Map<Socket, string | undefined>();
  readonly #perAddress = new Map<string, number>();
  #stopped: Promise<void> | undefined;
  #lingering = 0;
  #proxyWarnedAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: TcpListenerOptions) {
    this.name = options.name;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? systemRandom;
    this.#server = createServer(
      // Half open: clients that pipe a whole dialogue in and send FIN still get their answers.
      { noDelay: true, keepAlive: true, keepAliveInitialDelay: keepAliveDelayMs, allowHalfOpen: true, pauseOnConnect: false },
      (socket) => this.#accept(socket),
    );
  }

  /** @throws Error when the address is in use or may not be bound. */
  listen(): Promise<void> {
    const { host, port, name, logger } = this.#options;
    return new Promise((resolve, reject) => {
      this.#server.once('error', (cause) =>
        reject(new Error(`${name} cannot listen on ${host}:${port}: ${cause.message}`, { cause })),
      );
      this.#server.listen({ host, port, backlog: 511 }, () => {
        this.#server.removeAllListeners('error');
        // From here an error is about one accept (no file descriptors left), not about the listener.
        this.#server.on('error', (error) => logger.error({ err: error, listener: name }, 'accept failed'));
        resolve();
      });
    });
  }

  /** Where it listens. @throws Error before `listen`. */
  address(): { host: string; port: number } {
    const address = this.#server.address();
    if (!address || typeof address === 'string') throw new Error(`${this.name} does not listen`);
    return { host: address.address, port: address.port };
  }

  get connections(): number {
    return this.#open.size;
  }

  /** No new connections; the open ones go on. Harmless to call again. */
  stopAccepting(): void {
    this.#stopped ??= new Promise((resolve) => this.#server.close(() => resolve()));
  }

  /**
   * Cuts what is open from addresses that are banned by now, whatever it is doing: to be called when a ban begins to hold. Mail that was not answered with
   * 250 stays with its sender. Answers how many there were.
   */
  cutBanned(): number {
    const { isBanned, name, logger } = this.#options;
    let count = 0;
    for (const [socket, address] of isBanned ? this.#open : []) {
      if (address === undefined || !isBanned!(address)) continue;
      socket.destroy();
      count++;
    }
    if (count > 0) {
      bannedTotal.inc({ listener: name }, count);
      logger.info({ listener: name, connections: count }, 'connections of banned addresses were cut');
    }
    return count;
  }

  /** Stops accepting and cuts what is still open (sessions that were asked to end have had their time). */
  async close(): Promise<void> {
    this.stopAccepting();
    for (const socket of this.#open.keys()) socket.destroy();
    await this.#stopped;
  }

  #accept(plain: Socket): void {
    const { name, logger, proxyProtocol } = this.#options;
    connectionsTotal.inc({ listener: name });
    plain.on('error', (error) => logger.debug({ err: error, listener: name }, 'connection error'));
    // A peer that has gone already has no address any more.
    if (plain.remoteAddress === undefined || plain.localAddress === undefined) {
      plain.destroy();
      return;
    }
    const peer = { address: ipaddr.process(plain.remoteAddress.replace(/%.*$/, '')).toString(), port: plain.remotePort! };
    if (proxyProtocol?.isTrusted(peer.address)) {
      this.#acceptProxied(plain, peer);
      return;
    }
    const refused = proxyProtocol?.isRequired ? 'not_proxied' : this.#refusalReason(peer.address);
    if (refused) {
      this.#refuse(plain, refused);
      return;
    }
    this.#count(plain);
    this.#countAddress(plain, peer.address);
    this.#serve(plain, peer, false);
  }

  /** Of a proxy only the total is limited: bans and the limit per address are about the client that its header names. */
  #acceptProxied(plain: Socket, proxy: ProxyEndpoint): void {
    if (this.#isFull) {
      this.#refuse(plain, 'limit');
      return;
    }
    this.#count(plain);
    const timeoutMs = this.#options.proxyHeaderTimeoutMs ?? 5_000;
    receiveProxyHeader(plain, { clock: this.#clock, timeoutMs }, (reception) => {
      if (reception.kind !== 'received') {
        this.#proxyFailed(plain, proxy, reception);
        return;
      }
      const { source: client, command } = reception.header;
      proxyHeadersTotal.inc({ listener: this.name, result: client ? 'proxied' : 'local' });
      const refused = client && this.#clientRefusal(client.address);
      if (refused) {
        this.#refuse(plain, refused);
        return;
      }
      if (client) this.#countAddress(plain, client.address);
      this.#serve(plain, client ?? proxy, command === 'LOCAL');
    });
  }

  #proxyFailed(plain: Socket, { address }: ProxyEndpoint, { kind, reason }: Exclude<ProxyReception, { kind: 'received' }>): void {
    plain.destroy();
    proxyHeadersTotal.inc({ listener: this.name, result: kind });
    const nowMs = this.#clock.monotonicMs();
    // Connecting and hanging up is how a balancer sees whether a port is open.
    const isNews = kind !== 'closed' && !(nowMs - this.#proxyWarnedAtMs < proxyWarningEveryMs);
    if (isNews) this.#proxyWarnedAtMs = nowMs;
    const facts = { listener: this.name, proxyAddress: address, reason };
    this.#options.logger[isNews ? 'warn' : 'debug'](facts, 'a trusted proxy has sent no usable PROXY header');
  }

  /** @param isHealthCheck a connection of the proxy's own: breaking it off is not worth a line in the log. */
  #serve(plain: Socket, client: ProxyEndpoint, isHealthCheck: boolean): void {
    const connection = new Connection(plain, client, this.#random.bytes(6).toString('base64url'), (socket) =>
      shakeHands(socket, {
        certificates: this.#options.certificates,
        timeoutMs: this.#options.handshakeTimeoutMs ?? 10_000,
        clock: this.#clock,
        onFailure: (error) => this.#handshakeFailed(error, connection, isHealthCheck),
      }),
    );
    this.#boundHalfOpen(plain, connection);
    if (this.#options.tls === 'none') this.#begin(connection);
    else
      connection.startTls().then(
        () => this.#begin(connection),
        () => {},
      );
  }

  #begin(connection: Connection): void {
    const failed = (error: unknown) => {
      this.#options.logger.error({ err: error, listener: this.name, connectionId: connection.connectionId }, 'session failed');
      connection.socket.destroy();
    };
    try {
      this.#options.onConnection(connection)?.catch(failed);
    } catch (error) {
      failed(error);
    }
  }

  get #isFull(): boolean {
    return this.#open.size >= this.#options.maxConnections;
  }

  #refusalReason(remoteAddress: string): RefusalReason | undefined {
    const refused = this.#clientRefusal(remoteAddress);
    return refused !== 'not_admitted' && this.#isFull ? 'limit' : refused;
  }

  #clientRefusal(address: string): 'not_admitted' | 'address_limit' | undefined {
    const { isBanned, maxConnectionsPerAddress } = this.#options;
    if (isBanned?.(address)) return 'not_admitted';
    return (this.#perAddress.get(addressGroup(address)) ?? 0) >= maxConnectionsPerAddress ? 'address_limit' : undefined;
  }

  #refuse(plain: Socket, reason: RefusalReason): void {
    const { name, refusal, tls } = this.#options;
    refusedTotal.inc({ listener: name, reason });
    if (reason === 'not_admitted') bannedTotal.inc({ listener: name });
    const isSilent = reason === 'not_admitted' || reason === 'not_proxied' || !refusal || tls === 'implicit';
    // A handshake only to say no would be the dearest answer of all.
    if (isSilent || this.#lingering >= maxLingering) {
      plain.destroy();
      return;
    }
    this.#lingering++;
    plain.resume();
    plain.end(refusal(reason));
    const timer = this.#clock.setTimer(refusalLingerMs, () => plain.destroy(), { background: true });
    plain.once('end', () => plain.destroySoon());
    plain.once('close', () => {
      this.#lingering--;
      timer.cancel();
    });
  }

  #count(plain: Socket): void {
    this.#open.set(plain, undefined);
    connectionsOpen.inc({ listener: this.name });
    plain.once('close', () => {
      this.#open.delete(plain);
      connectionsOpen.dec({ listener: this.name });
    });
  }

  #countAddress(plain: Socket, address: string): void {
    this.#open.set(plain, address);
    const group = addressGroup(address);
    this.#perAddress.set(group, (this.#perAddress.get(group) ?? 0) + 1);
    plain.once('close', () => {
      const left = this.#perAddress.get(group)! - 1;
      if (left > 0) this.#perAddress.set(group, left);
      else this.#perAddress.delete(group);
    });
  }

  /** A session that misses the end of input must not hold its connection for ever. */
  #boundHalfOpen(plain: Socket, connection: Connection): void {
    const delayMs = this.#options.halfOpenTimeoutMs ?? 30_000;
    const watch = (socket: Socket) =>
      socket.once('end', () => {
        if (socket !== connection.socket) return;
        const timer = this.#clock.setTimer(delayMs, () => socket.destroy(), { background: true });
        socket.once('close', () => timer.cancel());
      });
    watch(plain);
    connection.onUpgrade = watch;
  }

  #handshakeFailed(error: Error, { connectionId, remoteAddress }: Connection, isHealthCheck: boolean): void {
    if (!isHealthCheck) handshakeFailuresTotal.inc({ listener: this.name });
    const facts = { err: error, listener: this.name, connectionId, remoteAddress };
    this.#options.logger[isHealthCheck ? 'debug' : 'info'](facts, 'TLS handshake failed');
  }
}

class Connection implements ListenerConnection {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
  onUpgrade: (socket: TLSSocket) => void = () => {};
  #socket: Socket | TLSSocket;
  #tls: TlsInfo | undefined;
  #upgrading = false;

  constructor(
    plain: Socket,
    client: ProxyEndpoint,
    readonly connectionId: string,
    private readonly handshake: (plain: Socket) => Promise<TLSSocket>,
  ) {
    this.#socket = plain;
    this.remoteAddress = client.address;
    this.remotePort = client.port;
    this.localAddress = ipaddr.process(plain.localAddress!.replace(/%.*$/, '')).toString();
    this.localPort = plain.localPort!;
  }

  get socket(): Socket | TLSSocket {
    return this.#socket;
  }

  get tls(): TlsInfo | undefined {
    return this.#tls;
  }

  async startTls(goAhead?: string | Buffer): Promise<TLSSocket> {
    if (this.#upgrading) throw new Error('TLS has already been started on this connection');
    this.#upgrading = true;
    const plain = this.#socket;
    for (const event of ['data', 'readable']) plain.removeAllListeners(event);
    plain.pause();
    if (goAhead !== undefined) plain.write(goAhead);
    const socket = await this.handshake(plain);
    this.#socket = socket;
    this.#tls = tlsInfo(socket);
    this.onUpgrade(socket);
    return socket;
  }
}

/** What the limit per address counts together: a household's or a host's whole IPv6 /64. */
function addressGroup(address: string): string {
  const parsed = ipaddr.parse(address);
  if (parsed.kind() === 'ipv4') return address;
  return (parsed as ipaddr.IPv6).parts
    .slice(0, 4)
    .map((part) => part.toString(16))
    .join(':');
}
