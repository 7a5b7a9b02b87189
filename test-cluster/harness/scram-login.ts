/**
 * AUTHENTICATE SCRAM-SHA-256 (RFC 5802, 7677) over a socket that has been greeted. Cheap for the server, which a hash of a plain password is not by design: for
 * whoever opens thousands of connections. The salted password is computed once for each salt.
 */
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';

const saltedPasswords = new Map<string, Buffer>();

function salted(password: string, salt: string, iterations: number): Buffer {
  const name = `${salt} ${iterations} ${password}`;
  let key = saltedPasswords.get(name);
  if (!key) {
    key = pbkdf2Sync(password, Buffer.from(salt, 'base64'), iterations, 32, 'sha256');
    saltedPasswords.set(name, key);
  }
  return key;
}

const hmac = (key: Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest();
const encoded = (text: string): string => Buffer.from(text).toString('base64');

/** The last line of what the server says next. */
async function answer(socket: Duplex): Promise<string> {
  let text = '';
  while (!text.endsWith('\r\n')) text += ((await once(socket, 'data')) as [Buffer])[0].toString('latin1');
  return text.trimEnd().split('\r\n').at(-1)!;
}

/** What follows `+ `, decoded. Throws for any other answer. */
async function challenge(socket: Duplex): Promise<string> {
  const line = await answer(socket);
  if (!line.startsWith('+ ')) throw new Error(`SCRAM was not gone on with: ${line}`);
  return Buffer.from(line.slice(2), 'base64').toString();
}

/** Logs in. Throws when the server refuses, or does not know the password itself. */
export async function authenticateScram(socket: Duplex, user: string, password: string): Promise<void> {
  const nonce = randomBytes(18).toString('base64');
  const first = `n=${user.replaceAll('=', '=3D').replaceAll(',', '=2C')},r=${nonce}`;
  socket.write(`s AUTHENTICATE SCRAM-SHA-256 ${encoded(`n,,${first}`)}\r\n`);
  const told = await challenge(socket);
  const { r, s, i } = Object.fromEntries(told.split(',').map((field) => [field[0], field.slice(2)])) as Record<string, string>;
  if (!r?.startsWith(nonce) || !s) throw new Error(`not a SCRAM challenge: ${told}`);
  const key = salted(password, s, Number(i));
  const clientKey = hmac(key, 'Client Key');
  const last = `c=biws,r=${r}`;
  const all = `${first},${told},${last}`;
  const signature = hmac(createHash('sha256').update(clientKey).digest(), all);
  const proof = Buffer.from(clientKey.map((byte, at) => byte ^ signature[at]!));
  socket.write(`${encoded(`${last},p=${proof.toString('base64')}`)}\r\n`);
  const verdict = await challenge(socket);
  if (verdict !== `v=${hmac(hmac(key, 'Server Key'), all).toString('base64')}`) throw new Error(`SCRAM failed: ${verdict}`);
  socket.write('\r\n');
  const end = await answer(socket);
  if (!end.startsWith('s OK')) throw new Error(`login was refused: ${end}`);
}
