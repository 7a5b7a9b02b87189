/** A plain SMTP sender over one connection: one message at a time, each with a token of its own, and an exact account of what was acknowledged. */
import { createConnection, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';

/** A reply ended the dialog, or the connection went away. */
export class SendFailed extends Error {
  override readonly name = 'SendFailed';
}

export interface SmtpDialogOptions {
  /** Default 127.0.0.1. */
  host?: string;
  /** TLS from the first byte; the certificate is not looked at. */
  isTls?: boolean;
  login?: { user: string; password: string };
  /** How long to wait for each reply, and for the connection. Default: as long as it takes. */
  replyTimeoutMs?: number;
}

/** Speaks SMTP line by line. */
export class SmtpDialog {
  private received = '';
  private waiting: { resolve: (reply: string) => void; reject: (error: Error) => void } | undefined;
  private failure: Error | undefined;

  private constructor(
    private readonly socket: Socket,
    private readonly timeoutMs: number | undefined,
  ) {
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => {
      this.received += chunk.toString('latin1');
      this.deliver();
    });
    const fail = (error: Error) => {
      this.failure ??= error;
      this.waiting?.reject(this.failure);
      this.waiting = undefined;
    };
    socket.on('error', fail);
    socket.on('close', () => fail(new SendFailed('connection closed')));
  }

  static async connect(port: number, options: SmtpDialogOptions = {}): Promise<SmtpDialog> {
    const { host = '127.0.0.1', isTls = false, login, replyTimeoutMs } = options;
    const socket = isTls ? connectTls({ host, port, rejectUnauthorized: false }) : createConnection(port, host);
    const dialog = new SmtpDialog(socket, replyTimeoutMs);
    try {
      await dialog.expect(220);
      await dialog.command('EHLO client.test', 250);
      const secret = login && Buffer.from(`\0${login.user}\0${login.password}`).toString('base64');
      if (secret) await dialog.command(`AUTH PLAIN ${secret}`, 235);
      return dialog;
    } catch (error) {
      dialog.close();
      throw error;
    }
  }

  private deliver(): void {
    const match = /^(?:\d{3}-.*\r\n)*\d{3} .*\r\n/.exec(this.received);
    if (!match || !this.waiting) return;
    this.received = this.received.slice(match[0].length);
    const { resolve } = this.waiting;
    this.waiting = undefined;
    resolve(match[0]);
  }

  private async expect(code: number): Promise<string> {
    if (this.failure) throw this.failure;
    const late = () => this.socket.destroy(new SendFailed(`no reply within ${this.timeoutMs} ms`));
    const timer = this.timeoutMs === undefined ? undefined : setTimeout(late, this.timeoutMs);
    const reply = await new Promise<string>((resolve, reject) => {
      this.waiting = { resolve, reject };
      this.deliver();
    }).finally(() => clearTimeout(timer));
    if (!reply.startsWith(String(code))) throw new SendFailed(`wanted ${code}, got: ${reply.trim()}`);
    return reply;
  }

  command(line: string | Buffer, code: number): Promise<string> {
    this.socket.write(typeof line === 'string' ? `${line}\r\n` : line);
    return this.expect(code);
  }

  /** Sends one message whose body has no line that begins with a dot. Resolves once it is acknowledged. */
  async send(from: string, recipients: readonly string[], message: Buffer): Promise<void> {
    await this.command(`MAIL FROM:<${from}>`, 250);
    for (const recipient of recipients) await this.command(`RCPT TO:<${recipient}>`, 250);
    await this.command('DATA', 354);
    await this.command(Buffer.concat([message, Buffer.from('.\r\n')]), 250);
  }

  close(): void {
    this.socket.destroy();
  }
}

/** A message of about `bytes` bytes that carries a token in its subject. */
export function tokenMessage(token: string, bytes = 2_000): Buffer {
  const head = `From: <sender@client.test>\r\nTo: <alice@example.test>\r\nSubject: token ${token}\r\nMessage-ID: <${token}@client.test>\r\nDate: Sun, 22 Nov 2026 05:00:00 +0000\r\n\r\n`;
  const line = `${'Starlings over the marsh at dusk, '.repeat(2)}\r\n`;
  return Buffer.from(head + line.repeat(Math.max(1, Math.ceil((bytes - head.length) / line.length))), 'latin1');
}

/** One message in one mailbox, as ledgers and verdicts name it. */
export const copyOf = (token: string, recipient: string): string => `${token} ${recipient.split('@')[0]}`;

/** Without one acknowledgement on a connection and its successors for this long, nothing is waited for any more. */
const comesBackWithinMs = 180_000;

/** Copies (`copyOf`) of what was sent. */
export interface Ledger {
  acknowledged: Set<string>;
  /** Sent, at least in part, but never acknowledged: may or may not be there. */
  uncertain: Set<string>;
}

/**
 * Sends from `connections` connections at once until `count` messages are acknowledged, reconnecting whenever the server goes away. A message without its
 * 250 is never sent again: the next one has a new token, so that a double is always the server's doing.
 */
export async function sendUntilAcknowledged(options: {
  /** With several, connections are spread over them, and one that breaks is made anew to the next. */
  port: number | readonly number[];
  /** Each message goes to the next of these: one recipient, or several at once. */
  recipients: readonly (string | readonly string[])[];
  count: number;
  connections: number;
  /** Before a connection is made anew. Default 20. */
  retryPauseMs?: number;
  /** Begins every token, so that several loads go into the same mailboxes. Default: nothing. */
  tokenPrefix?: string;
  /** Told after each acknowledgement. */
  onAcknowledged?: (total: number) => void;
}): Promise<Ledger> {
  const ledger: Ledger = { acknowledged: new Set(), uncertain: new Set() };
  const ports = [options.port].flat();
  const { retryPauseMs = 20, tokenPrefix = '' } = options;
  let started = 0;
  let acknowledged = 0;
  const worker = async (workerIndex: number) => {
    let dialog: SmtpDialog | undefined;
    let failures = 0;
    let lastSuccessMs = performance.now();
    while (acknowledged < options.count && started < options.count * 3) {
      try {
        dialog ??= await SmtpDialog.connect(ports[(workerIndex + failures) % ports.length]!);
        const token = `${tokenPrefix}t${workerIndex}x${started++}`;
        const to = [options.recipients[started % options.recipients.length]!].flat();
        const copies = to.map((recipient) => copyOf(token, recipient));
        for (const copy of copies) ledger.uncertain.add(copy);
        await dialog.send('sender@client.test', to, tokenMessage(token));
        for (const copy of copies) {
          ledger.uncertain.delete(copy);
          ledger.acknowledged.add(copy);
        }
        acknowledged++;
        lastSuccessMs = performance.now();
        options.onAcknowledged?.(acknowledged);
      } catch {
        // The node was killed, or is not up again: that is what is being tried.
        dialog?.close();
        dialog = undefined;
        failures++;
        if (performance.now() - lastSuccessMs > comesBackWithinMs) throw new SendFailed('the server does not come back');
        await new Promise((resolve) => setTimeout(resolve, retryPauseMs));
      }
    }
    dialog?.close();
  };
  await Promise.all(Array.from({ length: options.connections }, (_, index) => worker(index)));
  return ledger;
}
