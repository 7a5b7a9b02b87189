/**
 * The node's TLS certificates: verified when they come in, found by server name at each handshake, replaced while listeners run.
 * SMTP, IMAP and POP3 ask this store at every handshake; the HTTPS server is told through `onChange`.
 */
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls';
import { type Clock, gauge, type Logger, systemClock } from '../../ops/telemetry/index.js';
import { type TlsCertificate, type VerifiedCertificate, verifyCertificate } from '../../protocols/http/index.js';

const dayMs = 86_400_000;
/** From here on a certificate that nobody has renewed is worth a warning. */
const warnBeforeMs = 14 * dayMs;

let expiry: { mainMs: number; soonestMs: number; clock: Clock } | undefined;
/** `main` = the certificate for clients that send no name; `soonest` = whichever ends first. Negative once it has expired. */
gauge('starling_certificate_days_until_expiry', 'Days until a TLS certificate of this node expires.', ['certificate'], (self) => {
  if (!expiry) return;
  const daysUntil = (ms: number) => (ms - expiry!.clock.nowMs()) / dayMs;
  self.set({ certificate: 'main' }, daysUntil(expiry.mainMs));
  self.set({ certificate: 'soonest' }, daysUntil(expiry.soonestMs));
});

/** RFC 8996: nothing below TLS 1.2. The ciphers are Node's own defaults: forward secret ones first. */
const tlsDefaults: SecureContextOptions = { minVersion: 'TLSv1.2', honorCipherOrder: true };

export interface CertificateStoreOptions {
  logger: Logger;
  clock?: Clock;
}

export class CertificateStore {
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #listeners = new Set<(certificates: readonly VerifiedCertificate[]) => void>();
  #certificates: readonly VerifiedCertificate[] = [];
  #main: SecureContext | undefined;
  /** By name; wildcards as `*.rest`. */
  #byName = new Map<string, SecureContext>();

  constructor(options: CertificateStoreOptions) {
    this.#logger = options.logger;
    this.#clock = options.clock ?? systemClock;
  }

  /** The main one first. */
  get certificates(): readonly VerifiedCertificate[] {
    return this.#certificates;
  }

  /**
   * Serves these, and only these, from the next handshake on. The first is the main one; where two hold a name, the earlier wins.
   * @throws Error when there is none, or one does not work; then nothing has changed.
   */
  replace(certificates: readonly TlsCertificate[]): void {
    const verified = certificates.map(verifyCertificate);
    const [main] = verified;
    if (!main) throw new Error('At least one TLS certificate is needed');
    const byName = new Map<string, SecureContext>();
    const contexts = verified.map(({ certificateChainPem, privateKeyPem, names }) => {
      const context = createSecureContext({ ...tlsDefaults, cert: certificateChainPem, key: privateKeyPem });
      for (const name of names) if (!byName.has(name)) byName.set(name, context);
      return context;
    });
    this.#certificates = verified;
    this.#main = contexts[0];
    this.#byName = byName;
    expiry = {
      mainMs: main.notAfterMs,
      soonestMs: Math.min(...verified.map(({ notAfterMs }) => notAfterMs)),
      clock: this.#clock,
    };
    this.#warn();
    for (const listener of this.#listeners) listener(verified);
  }

  /**
   * The context for a server name: its own certificate, a wildcard's, else the main one (a client that asks for a name we do not
   * have may not check names at all, as most of SMTP does not).
   * @throws Error when the store is still empty.
   */
  secureContext(serverName?: string): SecureContext {
    if (!this.#main) throw new Error('No TLS certificate has been loaded');
    if (!serverName) return this.#main;
    const name = serverName.toLowerCase().replace(/\.$/, '');
    const dot = name.indexOf('.');
    return this.#byName.get(name) ?? (dot > 0 ? this.#byName.get(`*${name.slice(dot)}`) : undefined) ?? this.#main;
  }

  /** Calls `listener` after every `replace`; returns what ends that. */
  onChange(listener: (certificates: readonly VerifiedCertificate[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #warn(): void {
    const now = this.#clock.nowMs();
    for (const { names, notAfterMs, notBeforeMs } of this.#certificates) {
      const bindings = { names, notAfter: new Date(notAfterMs).toISOString() };
      if (notAfterMs <= now) this.#logger.warn(bindings, 'TLS certificate has expired');
      else if (notAfterMs - now < warnBeforeMs) this.#logger.warn(bindings, 'TLS certificate expires soon');
      if (notBeforeMs > now) this.#logger.warn(bindings, 'TLS certificate is not valid yet');
    }
  }
}
