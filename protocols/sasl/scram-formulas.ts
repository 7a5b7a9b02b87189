/** What both sides of SCRAM-SHA-256 compute (RFC 5802 section 3), and the names in its messages (5.1). */
import { createHash, createHmac, pbkdf2 } from 'node:crypto';
import { prepareCredential } from './prepare.js';

export const hmacSha256 = (key: Buffer, text: string | Buffer) => createHmac('sha256', key).update(text).digest();
export const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest();
/** Octets of all keys, proofs and signatures. */
export const scramKeyBytes = 32;

export interface ScramKeys {
  clientKey: Buffer;
  storedKey: Buffer;
  serverKey: Buffer;
}

/** Everything that is made of a password. It must be prepared; takes milliseconds, off the event loop. */
export async function deriveScramKeys(password: string, salt: Buffer, iterations: number): Promise<ScramKeys> {
  const salted = await new Promise<Buffer>((resolve, reject) => {
    pbkdf2(Buffer.from(password, 'utf8'), salt, iterations, scramKeyBytes, 'sha256', (error, key) =>
      error ? reject(error) : resolve(key),
    );
  });
  const clientKey = hmacSha256(salted, 'Client Key');
  return { clientKey, storedKey: sha256(clientKey), serverKey: hmacSha256(salted, 'Server Key') };
}

/** `one` XOR `other`, both 32 octets. */
export function xorKeys(one: Buffer, other: Buffer): Buffer {
  const mixed = Buffer.allocUnsafe(scramKeyBytes);
  for (let at = 0; at < scramKeyBytes; at++) mixed[at] = one[at]! ^ other[at]!;
  return mixed;
}

/** RFC 5802 5.1: `=2C` is a comma, `=3D` an equals sign, any other `=` is an error. Prepared; undefined when malformed. */
export function decodeSaslName(text: string): string | undefined {
  if (/=(?!2C|3D)/.test(text)) return undefined;
  return prepareCredential(text.replace(/=2C/g, ',').replace(/=3D/g, '='));
}

export function encodeSaslName(text: string): string {
  return text.replace(/=/g, '=3D').replace(/,/g, '=2C');
}
