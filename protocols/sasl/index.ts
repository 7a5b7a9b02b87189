/** Which mechanisms a connection is offered, and exchanges by mechanism name; the one door to this room. */
import { type Clock, type Random, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { channelBindingTypes } from './channel-binding.js';
import type { ChannelBindingSource, SaslBackend, SaslContext, SaslExchange, SaslMechanismName } from './contract.js';
import { CramMd5Exchange, DigestMd5Exchange } from './md5-mechanisms.js';
import { OAuthExchange } from './oauth.js';
import { LoginExchange, PlainExchange } from './plain.js';
import { type ScramSettings, ScramSha256Exchange } from './scram.js';

export { decodeBase64, maxSaslMessageBytes } from './base64.js';
export { clientChannelBinding, serverChannelBinding } from './channel-binding.js';
export type * from './contract.js';
export { decodeUtf8, maxCredentialBytes, prepareCredential } from './prepare.js';
export type { ScramSettings } from './scram.js';
export { deriveScramKeys } from './scram-formulas.js';

/** In the order in which they are announced: the strongest first, those that need a secret of their own last. */
export const saslMechanisms: readonly SaslMechanismName[] = [
  'SCRAM-SHA-256-PLUS',
  'SCRAM-SHA-256',
  'OAUTHBEARER',
  'XOAUTH2',
  'PLAIN',
  'LOGIN',
  'DIGEST-MD5',
  'CRAM-MD5',
];

export interface OfferConditions {
  backend: SaslBackend;
  /** Without it SCRAM is not available. */
  scram?: ScramSettings | undefined;
  /** Of the TLS connection; without it, or when it has no bytes of any type, there is no -PLUS. */
  channelBinding?: ChannelBindingSource | undefined;
  /** What policy allows, in the order of the announcement; names that are not known are passed over. Absent: all. */
  allowed?: readonly string[] | undefined;
}

/** What a connection is offered now: what the backend can do, settings and policy allow, and the connection makes possible. */
export function offeredMechanisms({ backend, scram, channelBinding, allowed }: OfferConditions): SaslMechanismName[] {
  const inSettings = backend.allowedMechanisms?.();
  const order = allowed ? saslNames(allowed) : saslMechanisms;
  return order.filter((name) => {
    if (inSettings && !inSettings.includes(name)) return false;
    switch (name) {
      case 'SCRAM-SHA-256-PLUS':
        return scram !== undefined && channelBindingTypes.some((type) => channelBinding?.(type) !== undefined);
      case 'SCRAM-SHA-256':
        return scram !== undefined;
      case 'OAUTHBEARER':
      case 'XOAUTH2':
        return backend.verifyToken !== undefined;
      case 'CRAM-MD5':
      case 'DIGEST-MD5':
        return backend.legacySecret !== undefined;
      default:
        return true;
    }
  });
}

function saslNames(names: readonly string[]): SaslMechanismName[] {
  const found = names.map((name) => saslMechanisms.find((known) => known === name.toUpperCase()));
  return [...new Set(found.filter((name) => name !== undefined))];
}

export interface SaslOptions {
  backend: SaslBackend;
  context: SaslContext;
  scram?: ScramSettings | undefined;
  channelBinding?: ChannelBindingSource | undefined;
  /** The names that were announced; others are not started, and with -PLUS among them a downgrade is noticed. Absent: as `offeredMechanisms` has them. */
  offered?: readonly string[];
  /** This server's, for the challenge of CRAM-MD5. */
  serverName?: string;
  random?: Random;
  clock?: Clock;
  /** Told what the backend threw, for the log. */
  onBackendError(error: unknown): void;
}

/** A new exchange; undefined when the mechanism (in any case of letters) is not known or not offered. */
export function startSaslExchange(mechanism: string, options: SaslOptions): SaslExchange | undefined {
  const { backend, context, scram, channelBinding, onBackendError } = options;
  const { random = systemRandom, clock = systemClock, serverName = 'localhost' } = options;
  const offered = options.offered ?? offeredMechanisms({ backend, scram, channelBinding });
  const name = mechanism.toUpperCase() as SaslMechanismName;
  if (!offered.includes(name)) return undefined;
  const legacy = { backend, context, random, clock, serverName, onBackendError };
  switch (name) {
    case 'PLAIN':
      return new PlainExchange(backend, context, onBackendError);
    case 'LOGIN':
      return new LoginExchange(backend, context, onBackendError);
    case 'SCRAM-SHA-256':
    case 'SCRAM-SHA-256-PLUS': {
      const offersPlus = offered.includes('SCRAM-SHA-256-PLUS');
      const channel = { isPlus: name === 'SCRAM-SHA-256-PLUS', offersPlus, source: channelBinding };
      return scram && new ScramSha256Exchange(backend, context, scram, random, onBackendError, channel);
    }
    case 'OAUTHBEARER':
    case 'XOAUTH2':
      return backend.verifyToken && new OAuthExchange(name, backend, context, onBackendError);
    case 'CRAM-MD5':
      return backend.legacySecret && new CramMd5Exchange(legacy);
    case 'DIGEST-MD5':
      return backend.legacySecret && new DigestMd5Exchange(legacy);
    default:
      return undefined;
  }
}
