/**
 * What an account keeps besides when it is switched to CRAM-MD5 and DIGEST-MD5: nothing that shows the password, but each value is as good as the password for its
 * mechanism. So both lie under the cluster's seal, bound to the account.
 */
import { createHash } from 'node:crypto';
import type { Sealer, SealPlace } from '../settings/seal.js';
import { hmacMd5State, hmacMd5StateBytes } from './hmac-md5-state.js';

/** The realm of all DIGEST-MD5 logins: it is part of what is kept, so it never changes. */
export const digestRealm = 'starling';

const ha1Bytes = 16;
const md5 = (bytes: Uint8Array) => createHash('md5').update(bytes).digest();

export interface LegacyKeys {
  hmacMd5State: Buffer;
  digestHa1: Buffer;
}

/** RFC 2831 2.1.2.1: text that ISO 8859-1 can hold is hashed in it, any other in UTF-8. */
export function digestText(text: string): Buffer {
  return Buffer.from(text, /^[\x00-\xff]*$/.test(text) ? 'latin1' : 'utf8');
}

/** H(login ":" realm ":" password), RFC 2831 2.1.2.1. */
export function digestHa1(login: string, realm: string, password: string): Buffer {
  const colon = Buffer.from(':');
  return md5(Buffer.concat([digestText(login), colon, digestText(realm), colon, digestText(password)]));
}

/** Of a prepared password. `login`: the account's primary address as the directory spells it. */
export function legacyKeys(login: string, password: string): LegacyKeys {
  return { hmacMd5State: hmacMd5State(Buffer.from(password)), digestHa1: digestHa1(login, digestRealm, password) };
}

/** Where an account's legacy secret belongs. */
export function legacyPlace(accountId: string): SealPlace {
  return { purpose: 'directory-legacy-secret', context: accountId };
}

export function sealLegacyKeys(sealer: Sealer, accountId: string, keys: LegacyKeys): Buffer {
  return sealer.seal(Buffer.concat([keys.hmacMd5State, keys.digestHa1]), legacyPlace(accountId));
}

/** Throws `SealError` when the cluster key is another one, or the bytes are damaged. */
export function openLegacyKeys(sealer: Sealer, accountId: string, sealed: Buffer): LegacyKeys {
  const plain = sealer.open(sealed, legacyPlace(accountId));
  return {
    hmacMd5State: plain.subarray(0, hmacMd5StateBytes),
    digestHa1: plain.subarray(hmacMd5StateBytes, hmacMd5StateBytes + ha1Bytes),
  };
}
