/** Mail programs that people read their mail with, run without people: OfflineIMAP in both directions, NeoMutt by its keys, imaplib for what others have no words for. */
import { createHash, X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Login, servedCertificate } from './clients.js';
import { runCommand } from './processes.js';

/** A tree of Maildirs that OfflineIMAP keeps equal with an account. */
export class OfflineImap {
  private readonly folder = mkdtempSync(join(tmpdir(), 'starling-offlineimap-'));

  constructor(private readonly login: Login) {
    mkdirSync(join(this.folder, 'mail'));
  }

  /** One run in both directions. Throws what it says when it fails. */
  async sync(): Promise<void> {
    const { port, user, password } = this.login;
    const certificate = new X509Certificate(await servedCertificate(port));
    const settings = [
      '[general]',
      'accounts = account',
      `metadata = ${this.folder}/state`,
      'ui = quiet',
      '[Account account]',
      'localrepository = near',
      'remoterepository = far',
      '[Repository near]',
      'type = Maildir',
      `localfolders = ${this.folder}/mail`,
      'sep = /',
      '[Repository far]',
      'type = IMAP',
      'remotehost = 127.0.0.1',
      `remoteport = ${port}`,
      `remoteuser = ${user}`,
      `remotepass = ${password}`,
      'ssl = yes',
      `cert_fingerprint = ${createHash('sha1').update(certificate.raw).digest('hex')}`,
      'usecompression = yes',
      '',
    ];
    const file = join(this.folder, 'offlineimaprc');
    writeFileSync(file, settings.join('\n'), { mode: 0o600 });
    const { code, stdout, stderr } = await runCommand('offlineimap', ['-o', '-c', file], { env: { HOME: this.folder } });
    if (code !== 0) throw new Error(`offlineimap ended with ${code}: ${stdout}${stderr}`);
  }

  /** The folder with `cur`, `new` and `tmp` of a mailbox. */
  maildir(mailbox: string): string {
    return join(this.folder, 'mail', mailbox);
  }

  /** Subject to the letters of its flags, for each message of a mailbox. */
  contents(mailbox: string): Map<string, string> {
    const found = new Map<string, string>();
    for (const part of ['cur', 'new']) {
      const folder = join(this.maildir(mailbox), part);
      if (!existsSync(folder)) continue;
      for (const name of readdirSync(folder)) {
        found.set(subjectIn(join(folder, name)), /:2,([A-Z]*)/i.exec(name)?.[1] ?? '');
      }
    }
    return found;
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The subject of a message in a file; throws where there is none. */
export function subjectIn(path: string): string {
  const subject = /^Subject: (.*)$/im.exec(readFileSync(path, 'latin1'))?.[1]?.trim();
  if (subject === undefined) throw new Error(`no subject in ${path}`);
  return subject;
}

/** Opens a mailbox with NeoMutt on a terminal of its own, and presses keys, given as its functions and texts (`<flag-message>`). It must end by them. */
export async function neomutt({ port, user, password }: Login, mailbox: string, keys: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'starling-neomutt-'));
  try {
    writeFileSync(join(folder, 'certificate.pem'), await servedCertificate(port));
    const settings = [
      `set imap_user = "${user}"`,
      `set imap_pass = "${password}"`,
      `set folder = "imaps://127.0.0.1:${port}/"`,
      `set certificate_file = "${folder}/certificate.pem"`,
      `set ssl_ca_certificates_file = "${folder}/certificate.pem"`,
      'set ssl_verify_host = no',
      'set sort = mailbox-order',
      'set resolve = no',
      'set confirm_append = no',
      'set confirm_create = no',
      'set delete = yes',
      'set quit = yes',
      'set mark_old = no',
      'set wait_key = no',
      'set net_inc = 0',
      'set imap_condstore = yes',
      'set imap_qresync = yes',
      `set header_cache = "${folder}/cache"`,
      `push "${keys}"`,
      '',
    ];
    const file = join(folder, 'neomuttrc');
    writeFileSync(file, settings.join('\n'), { mode: 0o600 });
    const command = `neomutt -n -F ${file} -f imaps://127.0.0.1:${port}/${mailbox}`;
    const env = { HOME: folder, TERM: 'xterm', LC_ALL: 'C.UTF-8' };
    const { code, stdout } = await runCommand('script', ['-qec', command, join(folder, 'typescript')], {
      env,
      timeoutMs: 120_000,
    });
    if (code !== 0) throw new Error(`neomutt ended with ${code}: ${stdout.slice(-2_000)}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Runs Python lines with `client`, an imaplib connection that has logged in, and answers what they leave in `result` (JSON). */
export async function imaplib<T>({ port, user, password }: Login, lines: readonly string[]): Promise<T> {
  const script = `
import imaplib, json, ssl, sys
port, user, password = json.load(sys.stdin)
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
client = imaplib.IMAP4_SSL('127.0.0.1', port, ssl_context=context)
client.login(user, password)
def text(answer):
    kind, data = answer
    def one(item):
        if isinstance(item, (tuple, list)): return [one(part) for part in item]
        return item.decode('utf-8', 'replace') if isinstance(item, bytes) else item
    return [kind, [one(item) for item in data]]
${lines.join('\n')}
client.logout()
print(json.dumps(result))
`;
  const input = JSON.stringify([port, user, password]);
  const { code, stdout, stderr } = await runCommand('python3', ['-c', script], { input });
  if (code !== 0) throw new Error(`imaplib failed: ${stderr}`);
  return JSON.parse(stdout) as T;
}
