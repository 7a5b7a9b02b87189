/** The client's mechanisms: which one to use with a server, and exchanges by name. */
import type { TLSSocket } from 'node:tls';
import { type Random, systemRandom } from '../../../ops/telemetry/index.js';
import { channelBindingTypes, clientChannelBinding } from '../channel-binding.js';
import { prepareCredential } from '../prepare.js';
import {
  type ClientChannelBinding,
  type ClientMechanismName,
  type ClientSecurity,
  type SaslClient,
  SaslClientError,
  type SaslClientOptions,
  type SaslCredentials,
} from './contract.js';
import { CramMd5Client, DigestMd5Client } from './md5.js';
import { LoginClient, OAuthClient, PlainClient } from './plain.js';
import { ScramClient } from './scram.js';

export * from './contract.js';

interface Traits {
  needs: 'password' | 'token';
  /** The secret can't be read off the wire. */
  isHidden: boolean;
}

/** In the order in which they are preferred. */
const traits: Readonly<Record<ClientMechanismName, Traits>> = {
  OAUTHBEARER: { needs: 'token', isHidden: false },
  XOAUTH2: { needs: 'token', isHidden: false },
  'SCRAM-SHA-256-PLUS': { needs: 'password', isHidden: true },
  'SCRAM-SHA-256': { needs: 'password', isHidden: true },
  // Under TLS the old digests are no better than PLAIN, but they do not show the password to a server that is not the right one.
  'DIGEST-MD5': { needs: 'password', isHidden: true },
  'CRAM-MD5': { needs: 'password', isHidden: true },
  PLAIN: { needs: 'password', isHidden: false },
  LOGIN: { needs: 'password', isHidden: false },
};

/** All names, in the order of preference. */
export const clientMechanisms = Object.keys(traits) as ClientMechanismName[];

/** The best one of those that are `offered` (in any case of letters) for these credentials; undefined when there is none that may be used. */
export function chooseMechanism(
  offered: readonly string[],
  credentials: SaslCredentials,
  { isSecure, channelBinding }: ClientSecurity,
): ClientMechanismName | undefined {
  const names = new Set(offered.map((name) => name.toUpperCase()));
  const has = credentials.accessToken === undefined ? 'password' : 'token';
  return clientMechanisms.find((name) => {
    const { needs, isHidden } = traits[name];
    if (!names.has(name) || needs !== has || (!isSecure && !isHidden)) return false;
    return name !== 'SCRAM-SHA-256-PLUS' || channelBinding !== undefined;
  });
}

/**
 * A new exchange. Logins and passwords are prepared (SASLprep) where the mechanism asks for it, else sent as they are.
 * @throws SaslClientError (`protocol`) when the credentials are not for this mechanism, can't be sent in it, or -PLUS has no channel binding.
 */
export function createSaslClient(
  mechanism: ClientMechanismName,
  credentials: SaslCredentials,
  options: SaslClientOptions,
  random: Random = systemRandom,
): SaslClient {
  const { login, password, accessToken } = credentials;
  // NUL and ^A end fields of these mechanisms.
  if (/[\0\x01\r\n]/.test(login + (password ?? ''))) throw unfit('login or password has control characters');
  if (accessToken !== undefined) {
    if (mechanism !== 'OAUTHBEARER' && mechanism !== 'XOAUTH2') throw unfit(`${mechanism} needs a password`);
    return new OAuthClient(mechanism, login, accessToken, options);
  }
  switch (mechanism) {
    case 'PLAIN':
      return new PlainClient(login, password);
    case 'LOGIN':
      return new LoginClient(login, password);
    case 'CRAM-MD5':
      return new CramMd5Client(login, password);
    case 'DIGEST-MD5':
      return new DigestMd5Client(login, password, options, random);
    case 'SCRAM-SHA-256':
    case 'SCRAM-SHA-256-PLUS': {
      if (mechanism === 'SCRAM-SHA-256-PLUS' && !options.channelBinding) throw unfit(`${mechanism} needs channel binding`);
      const [name, secret] = [prepareCredential(login), prepareCredential(password)];
      if (name === undefined || secret === undefined) throw unfit('login or password has characters that SCRAM does not allow');
      return new ScramClient(mechanism, name, secret, options, random);
    }
    default:
      throw unfit(`${mechanism} needs an access token`);
  }
}

const unfit = (message: string) => new SaslClientError('protocol', message);

/** Of a client's connected TLS socket, the best type that it has. */
export function tlsClientChannelBinding(socket: TLSSocket): ClientChannelBinding | undefined {
  const source = clientChannelBinding(socket);
  for (const type of channelBindingTypes) {
    const bytes = source(type);
    if (bytes) return { type, bytes };
  }
  return undefined;
}
