/** Starts exchanges by mechanism name; the one door to this room. */
import { type Random, systemRandom } from '../../ops/telemetry/index.js';
import type { SaslBackend, SaslContext, SaslExchange, SaslMechanismName } from './contract.js';
import { LoginExchange, PlainExchange } from './plain.js';
import { type ScramSettings, ScramSha256Exchange } from './scram.js';

export { decodeBase64, maxSaslMessageBytes } from './base64.js';
export type * from './contract.js';
export { decodeUtf8, maxCredentialBytes, prepareCredential } from './prepare.js';
export { deriveScramKeys, type ScramSettings } from './scram.js';

/** In the order in which they are announced: the strongest first. */
export const saslMechanisms: readonly SaslMechanismName[] = ['SCRAM-SHA-256', 'PLAIN', 'LOGIN'];

export interface SaslOptions {
  backend: SaslBackend;
  context: SaslContext;
  /** Without it SCRAM is not available. */
  scram?: ScramSettings;
  random?: Random;
  /** Told what the backend threw, for the log. */
  onBackendError(error: unknown): void;
}

/** A new exchange; undefined when the mechanism (in any case of letters) is not known or not available. */
export function startSaslExchange(mechanism: string, options: SaslOptions): SaslExchange | undefined {
  const { backend, context, scram, random = systemRandom, onBackendError } = options;
  switch (mechanism.toUpperCase()) {
    case 'PLAIN':
      return new PlainExchange(backend, context, onBackendError);
    case 'LOGIN':
      return new LoginExchange(backend, context, onBackendError);
    case 'SCRAM-SHA-256':
      return scram ? new ScramSha256Exchange(backend, context, scram, random, onBackendError) : undefined;
    default:
      return undefined;
  }
}
