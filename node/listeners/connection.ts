/** One accepted connection as a protocol session gets it: who is there, under which TLS, and the way up from plain text to TLS. */

import type { Socket } from 'node:net';
import type { SecureContext, TLSSocket } from 'node:tls';
import { TLSSocket as ServerTlsSocket } from 'node:tls';
import type { Clock } from '../../ops/telemetry/index.js';
import { type ChannelBindingSource, serverChannelBinding } from '../../protocols/sasl/index.js';
import type { CertificateStore } from './certificates.js';

export interface TlsInfo {
  /** `TLSv1.3` */
  protocol: string;
  /** The IANA name, for Received lines and logs. */
  cipher: string;
  /** The name that the client asked for. */
  serverName: string | undefined;
  /** What ties a login to this connection (RFC 9266, RFC 5929). */
  channelBinding?: ChannelBindingSource;
}

export interface ListenerConnection {
  /** The present socket: `startTls` replaces it. */
  readonly socket: Socket | TLSSocket;
  /** Short and random; in every log line of the session. */
  readonly connectionId: string;
  /** The client's, where a trusted proxy tells it. IPv4-mapped addresses are given as IPv4. */
  readonly remoteAddress: string;
  readonly remotePort: number;
  /** This machine's side of the connection, behind a proxy as well. */
  readonly localAddress: string;
  readonly localPort: number;
  /** Undefined while the connection is plain text. */
  readonly tls: TlsInfo | undefined;
  /**
   * Sends `goAhead` in plain text (`220 Ready` and the like) and shakes hands as the server; resolves with the new socket, which
   * is also `socket` from then on. Listeners for data on the plain socket are taken off first. What the session has read before
   * must be dropped by the session (RFC 3207 4.2, RFC 9051 6.2.1); what the peer sends before the handshake makes that fail.
   * @throws Error when the handshake fails or takes too long; the connection is closed then.
   */
  startTls(goAhead?: string | Buffer): Promise<TLSSocket>;
}

export interface HandshakeOptions {
  certificates: CertificateStore;
  timeoutMs: number;
  clock: Clock;
  onFailure(error: Error): void;
}

/** Server side of a TLS handshake on a connected socket, with the certificates of this very moment. */
export function shakeHands(plain: Socket, options: HandshakeOptions): Promise<TLSSocket> {
  const { certificates, clock, timeoutMs } = options;
  return new Promise<TLSSocket>((resolve, reject) => {
    const socket = new ServerTlsSocket(plain, {
      isServer: true,
      secureContext: certificates.secureContext(),
      SNICallback(serverName: string, done: (error: Error | null, context?: SecureContext) => void) {
        done(null, certificates.secureContext(serverName));
      },
    });
    let reason: Error | undefined;
    let isOver = false;
    const settle = (error?: Error) => {
      if (isOver) return;
      isOver = true;
      timer.cancel();
      if (!error) return resolve(socket);
      options.onFailure(error);
      socket.destroy();
      plain.destroy();
      reject(error);
    };
    const timer = clock.setTimer(timeoutMs, () => settle(new Error(`No TLS handshake within ${timeoutMs} ms`)), {
      background: true,
    });
    // Without a tls.Server around it, a failing handshake tells its reason in this event and then just closes.
    socket.on('_tlsError', (error: Error) => (reason = error));
    socket.on('error', (error) => settle(error));
    // Sockets are half open: without this a peer that only wanted to see whether the port answers would be waited for.
    socket.once('end', () => settle(new Error('The peer hung up during the TLS handshake')));
    socket.once('close', () => settle(reason ?? new Error('The connection closed during the TLS handshake')));
    socket.once('secure', () => settle());
  });
}

/** What was agreed on in a finished handshake. */
export function tlsInfo(socket: TLSSocket): TlsInfo {
  const serverName = (socket as TLSSocket & { servername?: string | false }).servername;
  return {
    protocol: socket.getProtocol() ?? 'unknown',
    cipher: socket.getCipher().standardName,
    serverName: serverName || undefined,
    channelBinding: serverChannelBinding(socket),
  };
}
