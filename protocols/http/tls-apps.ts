/**
 * The TLS side of the HTTP engine: one acceptor owns the port for good, and hands each connection to the current *generation*, an
 * app that holds one set of certificates. A changed certificate makes a new generation; connections of the old one live on.
 *
 * Why not replace a name in place: the engine's `removeServerName` frees that name's router while keep-alive connections still
 * point to it, and their next request is answered by whatever stands there then, even another host's router (seen).
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isNamed, type VerifiedCertificate } from './tls-certificate.js';
import type { Uws, UwsApp, UwsCertificateFiles, UwsRequest, UwsResponse } from './uws.js';

/** The engine looks at no more labels of a server name than this. */
const maxNameLabels = 10;

export interface TlsAppsHandlers {
  /** `isOurHost` tells whether a Host header fits the certificate that this connection was shown. */
  request(res: UwsResponse, req: UwsRequest, isOurHost: (host: string) => boolean): void;
  connection(res: UwsResponse, change: 1 | -1): void;
  /** A certificate for a name that no generation knows (yet). Called during the handshake, so it must be quick. */
  missing?(serverName: string): VerifiedCertificate | undefined;
}

interface Generation {
  app: UwsApp;
  names: Set<string>;
  connections: number;
}

export class TlsApps {
  readonly acceptor: UwsApp;
  #current: Generation;
  /** Older generations that still have connections, and the current one. */
  readonly #generations = new Set<Generation>();
  #certificates: readonly VerifiedCertificate[];

  /** @param certificates the first is the main one: shown to clients that send no name, or an unknown one. */
  constructor(
    private readonly uws: Uws,
    certificates: readonly VerifiedCertificate[],
    private readonly handlers: TlsAppsHandlers,
  ) {
    this.#certificates = certificates;
    // The acceptor never shakes hands itself, but the engine makes no TLS app without a certificate.
    this.acceptor = withFiles(mainOf(certificates), (files) => uws.SSLApp(files));
    this.#current = this.#generation(certificates);
    this.acceptor.addChildAppDescriptor(this.#current.app.getDescriptor());
  }

  /** Serves exactly these from the next handshake on. Does nothing when nothing has changed; a merely new name is added in place. */
  replace(certificates: readonly VerifiedCertificate[]): void {
    const before = this.#certificates;
    mainOf(certificates);
    this.#certificates = certificates;
    const kept = before.every((certificate, index) => same(certificate, certificates[index]));
    if (kept) {
      if (certificates.length > 1) for (const certificate of certificates) this.#addNames(this.#current, certificate);
      return;
    }
    const previous = this.#current;
    this.#current = this.#generation(certificates);
    // In this order the acceptor always has a child; in one turn of the event loop, so that no connection goes to the old one.
    this.acceptor.addChildAppDescriptor(this.#current.app.getDescriptor());
    this.acceptor.removeChildAppDescriptor(previous.app.getDescriptor());
    if (previous.connections === 0) this.#generations.delete(previous);
  }

  /** Cuts every connection of every generation. */
  close(): void {
    for (const generation of [...this.#generations]) generation.app.close();
    this.acceptor.close();
  }

  #generation(certificates: readonly VerifiedCertificate[]): Generation {
    const main = mainOf(certificates);
    const app = withFiles(main, (files) => this.uws.SSLApp(files));
    const generation: Generation = { app, names: new Set(), connections: 0 };
    this.#generations.add(generation);
    const onConnection = (res: UwsResponse, change: 1 | -1) => {
      generation.connections += change;
      // A connection may still arrive at a generation that has just been replaced.
      if (generation !== this.#current && generation.connections === 0) this.#generations.delete(generation);
      else this.#generations.add(generation);
      this.handlers.connection(res, change);
    };
    app.filter(onConnection);
    // Must come before the first `domain`: there is no way back to the default router.
    this.#register(app, (host) => isNamed(main.names, host) || isAddressOrLocal(host));
    // A certificate that is alone is the default for all names: naming it would only make the engine chatter on standard output.
    if (certificates.length > 1) for (const certificate of certificates) this.#addNames(generation, certificate);
    app.missingServerName((serverName) => {
      if (isNamed(main.names, serverName.toLowerCase())) return;
      const found = this.handlers.missing?.(serverName);
      if (!found) return;
      // From now on there are others beside the main one, whose names must not fall to a wildcard of theirs.
      this.#addNames(generation, main);
      this.#addNames(generation, found);
    });
    return generation;
  }

  #addNames({ app, names }: Generation, certificate: VerifiedCertificate): void {
    // A name that is already there would be ignored by the engine, and `domain` would overwrite the first one's routes.
    const added = certificate.names.filter((name) => isServable(name) && !names.has(name));
    if (added.length === 0) return;
    withFiles(certificate, (files) => {
      for (const name of added) {
        names.add(name);
        app.addServerName(name, files);
        // Each name has its own empty router, which hangs up on every request until it has routes of its own.
        this.#register(app.domain(name), (host) => isNamed(certificate.names, host));
      }
    });
  }

  /** One route for everything: paths, methods and HEAD are judged by our own router. */
  #register(app: UwsApp, isOurHost: (host: string) => boolean): void {
    app.any('/*', (res, req) => this.handlers.request(res, req, isOurHost));
  }
}

function mainOf(certificates: readonly VerifiedCertificate[]): VerifiedCertificate {
  const [main] = certificates;
  if (!main) throw new Error('An HTTPS server needs a certificate');
  return main;
}

function same(a: VerifiedCertificate, b: VerifiedCertificate | undefined): boolean {
  return (
    b !== undefined &&
    a.certificateChainPem === b.certificateChainPem &&
    a.privateKeyPem === b.privateKeyPem &&
    a.names.length === b.names.length &&
    a.names.every((name, index) => name === b.names[index])
  );
}

/** Addresses are never sent as a server name (RFC 6066 3). */
function isServable(name: string): boolean {
  return /^(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*$/.test(name) && !/^[\d.]+$/.test(name) && name.split('.').length <= maxNameLabels;
}

function isAddressOrLocal(host: string): boolean {
  return host === 'localhost' || host.includes(':') || /^\d+\.\d+\.\d+\.\d+$/.test(host);
}

/** The engine reads certificates from files only: they exist, for the owner alone, while `use` runs. */
function withFiles<T>(certificate: VerifiedCertificate, use: (files: UwsCertificateFiles) => T): T {
  const directory = mkdtempSync(join(tmpdir(), 'starling-tls-'));
  try {
    const files = { cert_file_name: join(directory, 'chain.pem'), key_file_name: join(directory, 'key.pem') };
    writeFileSync(files.cert_file_name, certificate.certificateChainPem, { mode: 0o600, flag: 'wx' });
    writeFileSync(files.key_file_name, certificate.privateKeyPem, { mode: 0o600, flag: 'wx' });
    return use(files);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
