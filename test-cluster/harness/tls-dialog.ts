/** A bare connection over TLS for line protocols, and the logins that client libraries do not offer, or not with every password. */
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';
import { connect, type TLSSocket } from 'node:tls';

/** Longer than anything takes: a server that says nothing is told apart from a test that hangs. */
const silenceMs = 90_000;

export class TlsDialog {
  private heard = '';
  private over: string | undefined;
  private wake: (() => void) | undefined;

  private constructor(private readonly socket: TLSSocket) {
    socket.on('data', (chunk: Buffer) => {
      this.heard += chunk.toString('latin1');
      this.wake?.();
    });
    socket.on('error', (error) => this.end(error.message));
    socket.on('close', () => this.end('connection closed'));
  }

  /** Connects and waits for the greeting. */
  static async connect(port: number): Promise<TlsDialog> {
    const dialog = new TlsDialog(connect({ host: '127.0.0.1', port, rejectUnauthorized: false }));
    await dialog.until(/\r\n$/);
    return dialog;
  }

  private end(reason: string): void {
    this.over ??= reason;
    this.wake?.();
  }

  /** What was heard since the last call, once it matches. */
  async until(end: RegExp): Promise<string> {
    const timer = setTimeout(() => this.end(`silence for ${silenceMs} ms`), silenceMs);
    try {
      while (!end.test(this.heard)) {
        if (this.over !== undefined) throw new Error(`${this.over} (heard: ${this.heard})`);
        await new Promise<void>((resolve) => {
          this.wake = resolve;
        });
      }
    } finally {
      clearTimeout(timer);
    }
    const found = this.heard;
    this.heard = '';
    return found;
  }

  /** Sends one line (UTF-8) and answers what comes until `end` matches. */
  exchange(line: string, end: RegExp): Promise<string> {
    this.socket.write(`${line}\r\n`);
    return this.until(end);
  }

  close(): void {
    this.socket.destroy();
  }
}

/** A final SMTP reply line, or an IMAP tagged response or continuation. */
const smtpReply = /^\d{3} [^\r\n]*\r\n$/m;
const imapReply = /^(?:a |\+ ?)[^\r\n]*\r\n$/m;

/** SMTP AUTH PLAIN with any password; answers the reply. */
export async function smtpAuthPlain(port: number, user: string, password: string): Promise<string> {
  const smtp = await TlsDialog.connect(port);
  try {
    await smtp.exchange('EHLO client.test', smtpReply);
    const response = Buffer.from(`\0${user}\0${password}`, 'utf8').toString('base64');
    return (await smtp.exchange(`AUTH PLAIN ${response}`, smtpReply)).trim();
  } finally {
    smtp.close();
  }
}

/** IMAP LOGIN with the password as a literal, which takes any octets; answers the tagged response. */
export async function imapLogin(port: number, user: string, password: string): Promise<string> {
  const imap = await TlsDialog.connect(port);
  try {
    const text = await imap.exchange(`a LOGIN ${user} {${Buffer.byteLength(password)}+}\r\n${password}`, /^a [^\r\n]*\r\n$/m);
    return text.slice(text.indexOf('a ')).trim();
  } finally {
    imap.close();
  }
}

/**
 * IMAP AUTHENTICATE SCRAM-SHA-256 (RFC 5802, 7677) as a client that prepares its password as SASLprep does (here: NFKC is enough). Checks the server's own
 * proof; answers the tagged response.
 */
export async function imapScram(port: number, user: string, password: string): Promise<string> {
  const imap = await TlsDialog.connect(port);
  const base64 = (text: string) => Buffer.from(text, 'utf8').toString('base64');
  const hmac = (key: Buffer, text: string) => createHmac('sha256', key).update(text).digest();
  const challenge = (answer: string) => Buffer.from(/\+ (\S*)\r\n/.exec(answer)?.[1] ?? '', 'base64').toString('utf8');
  try {
    const bare = `n=${user.replace(/=/g, '=3D').replace(/,/g, '=2C')},r=${randomBytes(18).toString('base64')}`;
    const first = await imap.exchange(`a AUTHENTICATE SCRAM-SHA-256 ${base64(`n,,${bare}`)}`, imapReply);
    const serverFirst = challenge(first);
    const [, nonce, salt, iterations] = /^r=([^,]+),s=([^,]+),i=(\d+)$/.exec(serverFirst) ?? [];
    if (!nonce || !salt || !iterations) throw new Error(`no SCRAM challenge: ${first}`);
    const salted = pbkdf2Sync(password.normalize('NFKC'), Buffer.from(salt, 'base64'), Number(iterations), 32, 'sha256');
    const clientKey = hmac(salted, 'Client Key');
    const unproved = `c=${base64('n,,')},r=${nonce}`;
    const authMessage = `${bare},${serverFirst},${unproved}`;
    const signature = hmac(createHash('sha256').update(clientKey).digest(), authMessage);
    const proof = Buffer.from(clientKey.map((octet, index) => octet ^ signature[index]!)).toString('base64');
    const final = await imap.exchange(base64(`${unproved},p=${proof}`), imapReply);
    if (!final.startsWith('+')) return final.slice(final.indexOf('a ')).trim();
    const expected = `v=${hmac(hmac(salted, 'Server Key'), authMessage).toString('base64')}`;
    if (challenge(final) !== expected) throw new Error('the server does not know the password');
    const done = await imap.exchange('', imapReply);
    return done.slice(done.indexOf('a ')).trim();
  } finally {
    imap.close();
  }
}
