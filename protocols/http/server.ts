/**
 * An HTTP or HTTPS server on the native engine: listens on a port of its own, admits connections, runs each request as an
 * `Exchange`, and stops gracefully. Everything that is peculiar about the engine stays behind this class.
 */
import ipaddr from 'ipaddr.js';
import { type Clock, counter, gauge, type Logger, systemClock } from '../../ops/telemetry/index.js';
import { HttpError } from './errors.js';
import { Exchange, type ExchangeHost } from './exchange.js';
import { loadUws } from './loader.js';
import type { HttpHandler } from './messages.js';
import { type RouteOptions, type RouteRegistry, Router } from './router.js';
import { TlsApps } from './tls-apps.js';
import { type TlsCertificate, type VerifiedCertificate, verifyCertificate } from './tls-certificate.js';
import type { Uws, UwsApp, UwsListenSocket, UwsRequest, UwsResponse } from './uws.js';

const connectionsOpen = gauge('starling_http_connections', 'Open HTTP connections.', ['listener']);
/** `limit` = too many connections; `address` = the caller's `admit` said no; `not_proxied` = past the proxies; `forged` = a stranger's PROXY header. */
const connectionsRefused = counter('starling_http_connections_refused_total', 'HTTP connections closed at accept.', [
  'listener',
  'reason',
]);

export interface HttpServerOptions {
  /** For logs and metrics: `http`, `https`. */
  name: string;
  host: string;
  /** 0 = a free one; see `address()`. */
  port: number;
  logger: Logger;
  /** Shared by several servers that answer alike; by default the server has its own. */
  router?: Router;
  /** With it the server speaks TLS. The first certificate is the main one, for clients that send no or an unknown name. */
  tls?: {
    certificates: readonly TlsCertificate[];
    /** Asked, during a handshake, for a name that none of the certificates has. Its answer is kept until the next `setCertificates`. */
    missingCertificate?(serverName: string): TlsCertificate | undefined;
  };
  /** Connections beyond it are closed at accept. Default 10 000. */
  maxConnections?: number;
  /** Asked at accept with the peer's address (bans); of a trusted proxy's clients, at each request. False closes the connection. */
  admit?(remoteAddress: string): boolean;
  /**
   * Whose PROXY header, version 2, tells the client's address. Default: nobody's. Not with `tls`: the engine looks for one within
   * TLS, where only the client could have put it.
   */
  proxyProtocol?: HttpTrustedProxies;
  /** Until a response must have begun; default 60 000 ms. A route may have its own. */
  requestTimeoutMs?: number;
  /** Default limit of a request body; default 1 MiB. A route may have its own. */
  maxBodyBytes?: number;
  clock?: Clock;
}

/** The peers must speak HTTP themselves (README). */
export interface HttpTrustedProxies {
  isTrusted(remoteAddress: string): boolean;
  /** Connections from anywhere else are refused. */
  readonly isRequired: boolean;
}

type RefusalReason = 'limit' | 'address' | 'not_proxied' | 'forged';

/** How long sent responses may take to leave the engine's buffers after the last request of a draining server. */
const flushMs = 100;

export class HttpServer implements RouteRegistry {
  readonly router: Router;
  readonly #options: HttpServerOptions;
  readonly #uws: Uws;
  readonly #clock: Clock;
  readonly #plain: UwsApp | undefined;
  readonly #tls: TlsApps | undefined;
  readonly #exchanges = new Set<Exchange>();
  readonly #drain = new AbortController();
  readonly #host: ExchangeHost;
  readonly #maxConnections: number;
  #listenSocket: UwsListenSocket | undefined;
  #port = 0;
  #connections = 0;
  #stopping: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;

  /** @throws Error when the engine is not installed, a certificate does not work, or PROXY headers are to be believed within TLS. */
  constructor(options: HttpServerOptions) {
    if (options.tls && options.proxyProtocol) throw new Error(`${options.name}: an HTTPS server takes no PROXY header`);
    this.#options = options;
    this.router = options.router ?? new Router();
    this.#uws = loadUws();
    this.#clock = options.clock ?? systemClock;
    this.#maxConnections = options.maxConnections ?? 10_000;
    this.#host = {
      name: options.name,
      secure: options.tls !== undefined,
      router: this.router,
      clock: this.#clock,
      logger: options.logger,
      requestTimeoutMs: options.requestTimeoutMs ?? 60_000,
      maxBodyBytes: options.maxBodyBytes ?? 1024 * 1024,
      draining: this.#drain.signal,
      clientAddress: (res) => this.#clientAddress(res),
      finished: (exchange) => this.#finished(exchange),
    };
    if (options.tls) {
      this.#tls = new TlsApps(this.#uws, options.tls.certificates.map(verifyCertificate), {
        request: (res, req, isOurHost) => this.#request(res, req, isOurHost),
        connection: (res, change) => this.#connection(res, change),
        missing: (serverName) => this.#missing(serverName),
      });
    } else {
      this.#plain = this.#uws.App();
      this.#plain.filter((res, change) => this.#connection(res, change));
      this.#plain.any('/*', (res, req) => this.#request(res, req, anyName));
    }
  }

  route(method: string, pattern: string, handler: HttpHandler, options?: RouteOptions): void {
    this.router.route(method, pattern, handler, options);
  }

  /** @throws Error when the address is in use (by anyone: the port is never shared) or may not be bound. */
  listen(): Promise<void> {
    const { host, port, name } = this.#options;
    const app = this.#tls?.acceptor ?? this.#plain!;
    return new Promise((resolve, reject) => {
      app.listen(host, port, this.#uws.LIBUS_LISTEN_EXCLUSIVE_PORT, (socket) => {
        if (!socket) {
          reject(new Error(`${name} cannot listen on ${host}:${port}: the address is in use, or this user may not bind it`));
          return;
        }
        this.#listenSocket = socket;
        this.#port = this.#uws.us_socket_local_port(socket);
        resolve();
      });
    });
  }

  address(): { host: string; port: number } {
    return { host: this.#options.host, port: this.#port };
  }

  /** Requests that are being worked on. */
  get requestsInFlight(): number {
    return this.#exchanges.size;
  }

  get connections(): number {
    return this.#connections;
  }

  /**
   * Serves these certificates, and only these, from the next handshake on; open connections keep theirs. The first is the main one.
   * @throws Error when one does not work; then nothing has changed.
   */
  setCertificates(certificates: readonly TlsCertificate[]): void {
    if (!this.#tls) throw new Error(`${this.#options.name} is not an HTTPS server`);
    this.#tls.replace(certificates.map(verifyCertificate));
  }

  /** No new connections; requests on open ones are still answered, and told that the connection closes. */
  stopAccepting(): void {
    if (this.#listenSocket) this.#uws.us_listen_socket_close(this.#listenSocket);
    this.#listenSocket = undefined;
    if (!this.#drain.signal.aborted) this.#drain.abort(new HttpError(503, 'The server is going down.'));
  }

  /** Stops accepting, lets running requests finish for at most `deadlineMs`, then cuts what is left. A second call joins the first. */
  stop(deadlineMs = 10_000): Promise<void> {
    this.#stopping ??= this.#stop(deadlineMs);
    return this.#stopping;
  }

  async #stop(deadlineMs: number): Promise<void> {
    this.stopAccepting();
    if (this.#exchanges.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = this.#clock.setTimer(deadlineMs, resolve, { background: true });
        this.#onIdle = () => {
          timer.cancel();
          resolve();
        };
      });
    }
    for (const exchange of [...this.#exchanges]) exchange.destroy(new HttpError(503, 'The server is going down.'));
    if (this.#connections > 0) await this.#clock.sleep(flushMs);
    this.#tls?.close();
    this.#plain?.close();
  }

  #request(res: UwsResponse, req: UwsRequest, isOurHost: (host: string) => boolean): void {
    const refused = this.#options.proxyProtocol && this.#proxyRefusal(res, this.#options.proxyProtocol);
    if (refused) {
      connectionsRefused.inc({ listener: this.#options.name, reason: refused });
      res.close();
      return;
    }
    const exchange = new Exchange(this.#host, res, req);
    this.#exchanges.add(exchange);
    exchange.start(req, isOurHost);
  }

  #finished(exchange: Exchange): void {
    this.#exchanges.delete(exchange);
    if (this.#exchanges.size === 0) this.#onIdle?.();
  }

  #connection(res: UwsResponse, change: 1 | -1): void {
    this.#connections += change;
    connectionsOpen.inc({ listener: this.#options.name }, change);
    if (change < 0) return;
    const refused = this.#refusalReason(res);
    if (!refused) return;
    connectionsRefused.inc({ listener: this.#options.name, reason: refused });
    res.close();
  }

  #refusalReason(res: UwsResponse): RefusalReason | undefined {
    const { admit, proxyProtocol } = this.#options;
    if (this.#connections > this.#maxConnections) return 'limit';
    if (!admit && !proxyProtocol) return undefined;
    const peer = addressText(res.getRemoteAddressAsText());
    // Its clients are judged, not the proxy: their addresses are not known before the first request.
    if (proxyProtocol?.isTrusted(peer)) return undefined;
    if (proxyProtocol?.isRequired) return 'not_proxied';
    return admit && !admit(peer) ? 'address' : undefined;
  }

  /** The engine takes a header from anybody; who may not send one and does, is up to something. */
  #proxyRefusal(res: UwsResponse, { isTrusted }: HttpTrustedProxies): RefusalReason | undefined {
    const proxied = res.getProxiedRemoteAddressAsText();
    if (proxied.byteLength === 0) return undefined;
    if (!isTrusted(addressText(res.getRemoteAddressAsText()))) return 'forged';
    const { admit } = this.#options;
    return admit && !admit(addressText(proxied)) ? 'address' : undefined;
  }

  #missing(serverName: string): VerifiedCertificate | undefined {
    try {
      const found = this.#options.tls?.missingCertificate?.(serverName.toLowerCase());
      return found && verifyCertificate(found);
    } catch (error) {
      this.#options.logger.error({ err: error }, 'no certificate for a server name');
      return undefined;
    }
  }

  #clientAddress(res: UwsResponse): string {
    const peer = addressText(res.getRemoteAddressAsText());
    if (!this.#options.proxyProtocol?.isTrusted(peer)) return peer;
    const proxied = res.getProxiedRemoteAddressAsText();
    return proxied.byteLength > 0 ? addressText(proxied) : peer;
  }
}

/** Behind plain HTTP there is no certificate that a Host could contradict. */
function anyName(): boolean {
  return true;
}

/** The engine writes IPv6 in full; the usual short form, and IPv4-mapped addresses as IPv4. */
function addressText(text: ArrayBuffer): string {
  const address = Buffer.from(text).toString('latin1');
  return address.includes(':') ? ipaddr.process(address).toString() : address;
}
