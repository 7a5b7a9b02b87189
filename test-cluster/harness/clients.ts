/** Real mail programs, as the tests use them: swaks, mbsync, Python's imaplib, curl. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ImapFlow } from 'imapflow';
import { runCommand } from './processes.js';

export interface SwaksOptions {
  port: number;
  from: string;
  to: string;
  /** The whole message, ending in CRLF. */
  message: Buffer;
  /** STARTTLS and AUTH PLAIN with this login. */
  login?: { user: string; password: string };
}

/** Sends with swaks. Throws with the dialog when the server refuses. */
export async function swaks(options: SwaksOptions): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'starling-swaks-'));
  try {
    const file = join(folder, 'message');
    // swaks is told to send the file as it is, so that it changes nothing: the dots are stuffed here (RFC 5321 4.5.2).
    writeFileSync(file, `${options.message.toString('latin1').replace(/^\./gm, '..')}.\r\n`, 'latin1');
    const args = ['--server', '127.0.0.1', '--port', String(options.port), '--from', options.from, '--to', options.to];
    args.push('--data', `@${file}`, '--no-data-fixup', '--helo', 'client.test');
    if (options.login) {
      args.push('--tls', '--auth', 'PLAIN', '--auth-user', options.login.user, '--auth-password', options.login.password);
    }
    const { code, stdout, stderr } = await runCommand('swaks', args);
    if (code !== 0) throw new Error(`swaks ended with ${code}:\n${stdout}${stderr}`);
    return stdout;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export interface Login {
  port: number;
  user: string;
  password: string;
}

/** Runs `work` with a logged-in imapflow client over TLS (the certificate is the node's own and not checked here). */
export async function withImapflow<T>(login: Login, work: (client: ImapFlow) => Promise<T>): Promise<T> {
  const client = new ImapFlow({
    host: '127.0.0.1',
    port: login.port,
    secure: true,
    auth: { user: login.user, pass: login.password },
    tls: { rejectUnauthorized: false },
    logger: false,
  });
  await client.connect();
  try {
    return await work(client);
  } finally {
    // A connection that is gone says nothing of why `work` failed.
    if (client.usable) await client.logout();
  }
}

/** Every message of a mailbox, as bytes, by UID; with imapflow. */
export function messagesByImapflow(login: Login, mailbox = 'INBOX'): Promise<Buffer[]> {
  return withImapflow(login, async (client) => {
    const lock = await client.getMailboxLock(mailbox);
    try {
      const found: Buffer[] = [];
      for await (const message of client.fetch('1:*', { source: true })) found.push(message.source!);
      return found;
    } finally {
      lock.release();
    }
  });
}

/** The same with Python's imaplib, over TLS. */
export async function messagesByImaplib(login: Login, mailbox = 'INBOX'): Promise<Buffer[]> {
  const script = `
import base64, imaplib, json, ssl, sys
port, user, password, mailbox = json.load(sys.stdin)
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
client = imaplib.IMAP4_SSL('127.0.0.1', port, ssl_context=context)
client.login(user, password)
client.select(mailbox, readonly=True)
uids = client.uid('SEARCH', None, 'ALL')[1][0].split()
found = [client.uid('FETCH', uid, '(BODY.PEEK[])')[1][0][1] for uid in uids]
client.logout()
print(json.dumps([base64.b64encode(message).decode() for message in found]))
`;
  const input = JSON.stringify([login.port, login.user, login.password, mailbox]);
  const { code, stdout, stderr } = await runCommand('python3', ['-c', script], { input });
  if (code !== 0) throw new Error(`imaplib failed: ${stderr}`);
  return (JSON.parse(stdout) as string[]).map((message) => Buffer.from(message, 'base64'));
}

/** The same with mbsync: pulls the mailbox into a Maildir (which keeps LF line ends; they are turned back here). */
export async function messagesByMbsync(login: Login, mailbox = 'INBOX'): Promise<Buffer[]> {
  const folder = mkdtempSync(join(tmpdir(), 'starling-mbsync-'));
  try {
    mkdirSync(join(folder, 'mail'));
    const certificate = join(folder, 'certificate.pem');
    writeFileSync(certificate, await servedCertificate(login.port));
    const settings = [
      'IMAPAccount node',
      'Host 127.0.0.1',
      `Port ${login.port}`,
      `User ${login.user}`,
      `Pass ${login.password}`,
      'SSLType IMAPS',
      `CertificateFile ${certificate}`,
      '',
      'IMAPStore far',
      'Account node',
      '',
      'MaildirStore near',
      `Path ${folder}/mail/`,
      `Inbox ${folder}/mail/INBOX`,
      'SubFolders Verbatim',
      '',
      'Channel all',
      'Far :far:',
      'Near :near:',
      `Patterns ${mailbox}`,
      'Create Near',
      'Sync Pull',
      'SyncState *',
      '',
    ];
    writeFileSync(join(folder, 'mbsyncrc'), settings.join('\n'), { mode: 0o600 });
    const { code, stdout, stderr } = await runCommand('mbsync', ['-c', join(folder, 'mbsyncrc'), 'all'], {
      env: { HOME: folder },
    });
    if (code !== 0) throw new Error(`mbsync ended with ${code}: ${stdout}${stderr}`);
    const files = ['new', 'cur'].flatMap((part) => {
      const path = join(folder, 'mail', mailbox, part);
      return readdirSync(path).map((name) => readFileSync(join(path, name)));
    });
    // mbsync puts a field of its own into what it files.
    const asSent = (text: string) => text.replace(/\r?\n/g, '\r\n').replace(/^X-TUID: [^\r\n]*\r\n/m, '');
    return files.map((bytes) => Buffer.from(asSent(bytes.toString('latin1')), 'latin1'));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The certificate that a TLS port serves, as PEM. */
export async function servedCertificate(port: number): Promise<string> {
  const { stdout } = await runCommand('openssl', ['s_client', '-connect', `127.0.0.1:${port}`, '-showcerts'], { input: '' });
  const found = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/.exec(stdout);
  if (!found) throw new Error('no certificate served');
  return `${found[0]}\n`;
}

export interface SmtplibOptions {
  port: number;
  from: string;
  to: readonly string[];
  /** The whole message, ending in CRLF. */
  message: Buffer;
  /** Parameters of MAIL and of each RCPT, such as `SMTPUTF8`, `NOTIFY=SUCCESS`. */
  mailOptions?: readonly string[];
  recipientOptions?: readonly string[];
  /** STARTTLS first (the certificate is not checked), also implied by `login`. */
  startTls?: boolean;
  login?: { user: string; password: string };
}

/** Sends with Python's smtplib, which can say any parameter. Answers `accepted`, or what the server said when it refused, as `code text`. */
export async function smtplib({ message, ...options }: SmtplibOptions): Promise<string> {
  const script = `
import base64, json, smtplib, ssl, sys
o = json.load(sys.stdin)
client = smtplib.SMTP('127.0.0.1', o['port'], local_hostname='client.test', timeout=60)
def said(code, text):
    print('%d %s' % (code, text.decode('utf-8', 'replace').replace('\\n', ' ')))
    sys.exit(0)
client.ehlo()
if o.get('startTls') or o.get('login'):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client.starttls(context=context)
    client.ehlo()
if o.get('login'):
    client.login(o['login']['user'], o['login']['password'])
utf8 = 'SMTPUTF8' in o.get('mailOptions', [])
if utf8:
    client.command_encoding = 'utf-8'
code, text = client.mail(o['from'], o.get('mailOptions', []))
if code >= 400: said(code, text)
for recipient in o['to']:
    code, text = client.rcpt(recipient, o.get('recipientOptions', []))
    if code >= 400: said(code, text)
code, text = client.data(base64.b64decode(o['message']))
if code >= 400: said(code, text)
client.quit()
print('accepted')
`;
  const input = JSON.stringify({ ...options, message: message.toString('base64') });
  const { code, stdout, stderr } = await runCommand('python3', ['-c', script], { input });
  if (code !== 0) throw new Error(`smtplib failed: ${stderr}`);
  return stdout.trim();
}
