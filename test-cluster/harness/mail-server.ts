/** What mail servers run beside a test have in common: a certificate, a user, a greeting, a Maildir. */
import { appendFileSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { runCommand } from './processes.js';

/** Makes a certificate of its own for `name`, and its key, in one file. */
export async function makeCertificate(file: string, name: string): Promise<void> {
  const subject = ['-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`];
  const args = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-keyout', file, '-out', `${file}.certificate`];
  const made = await runCommand('openssl', [...args, ...subject]);
  if (made.code !== 0) throw new Error(`openssl: ${made.stderr}`);
  appendFileSync(file, readFileSync(`${file}.certificate`));
}

/** Ids of a user of this machine. */
export async function userIds(name: string): Promise<{ uid: number; gid: number }> {
  const { stdout } = await runCommand('getent', ['passwd', name]);
  const fields = stdout.split(':');
  if (fields.length < 4) throw new Error(`no user ${name} on this machine`);
  return { uid: Number(fields[2]), gid: Number(fields[3]) };
}

/** Whether an SMTP server on loopback greets. */
export function greets(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(port, '127.0.0.1');
    socket.once('data', () => {
      socket.end('QUIT\r\n');
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** New messages of a Maildir, as bytes. */
export function maildirMessages(folder: string): Buffer[] {
  const inbox = join(folder, 'new');
  if (!existsSync(inbox)) return [];
  return readdirSync(inbox).map((name) => readFileSync(join(inbox, name)));
}
