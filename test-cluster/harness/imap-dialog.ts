/** A bare IMAP connection over TLS for benchmarks and hostile tests: what a client library would hide is what is measured. */
import { connect, type TLSSocket } from 'node:tls';

/** Longer than any tagged line, that of a login with all capabilities included. */
const tailBytes = 4_000;

export class ImapDialog {
  private chunks: Buffer[] = [];
  private waiting:
    | { isEnd: (tail: string) => boolean; resolve: (bytes: Buffer) => void; reject: (error: Error) => void }
    | undefined;
  private failure: Error | undefined;
  private tag = 0;

  private constructor(private readonly socket: TLSSocket) {
    socket.on('data', (chunk: Buffer) => {
      this.chunks.push(chunk);
      this.check();
    });
    const fail = (error: Error) => {
      this.failure ??= error;
      this.waiting?.reject(this.failure);
      this.waiting = undefined;
    };
    socket.on('error', fail);
    socket.on('close', () => {
      const [, reason] = /^\* BYE ([^\r\n]*)/m.exec(this.lastWords.slice(-tailBytes)) ?? [];
      fail(new Error(reason === undefined ? 'connection closed' : `connection closed after BYE ${reason}`));
    });
  }

  /** Connects and logs in. */
  static async connect(port: number, user: string, password: string, host = '127.0.0.1'): Promise<ImapDialog> {
    const dialog = new ImapDialog(connect({ host, port, rejectUnauthorized: false }));
    await dialog.until((tail) => tail.endsWith('\r\n'));
    await dialog.command(`LOGIN ${user} "${password}"`);
    return dialog;
  }

  private check(): void {
    if (!this.waiting) return;
    let tail = '';
    for (let index = this.chunks.length - 1; index >= 0 && tail.length < tailBytes; index--) {
      const chunk = this.chunks[index]!;
      tail = chunk.toString('latin1', Math.max(0, chunk.length - tailBytes)) + tail;
    }
    if (!this.waiting.isEnd(tail)) return;
    const { resolve } = this.waiting;
    this.waiting = undefined;
    const bytes = Buffer.concat(this.chunks);
    this.chunks = [];
    resolve(bytes);
  }

  /** All bytes up to now, once their end satisfies `isEnd`. */
  until(isEnd: (tail: string) => boolean): Promise<Buffer> {
    if (this.failure) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => {
      this.waiting = { isEnd, resolve, reject };
      this.check();
    });
  }

  /** What was heard and not yet answered to anybody, e.g. before the connection was closed. */
  get lastWords(): string {
    return Buffer.concat(this.chunks).toString('latin1');
  }

  write(text: string | Buffer): void {
    this.socket.write(text);
  }

  /** Runs a command and answers everything up to its tagged line; throws unless that says OK. */
  async command(text: string): Promise<Buffer> {
    const tag = `a${++this.tag}`;
    this.write(`${tag} ${text}\r\n`);
    const end = new RegExp(`(?:^|\\r\\n)${tag} (OK|NO|BAD)[^\\r\\n]*\\r\\n$`);
    const bytes = await this.until((tail) => end.test(tail));
    const verdict = end.exec(bytes.toString('latin1', Math.max(0, bytes.length - tailBytes)))!;
    if (verdict[1] !== 'OK') throw new Error(verdict[0].trim());
    return bytes;
  }

  close(): void {
    this.socket.destroy();
  }
}
