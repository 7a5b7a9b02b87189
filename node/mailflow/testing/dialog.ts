/** An SMTP session with the receiver of a test node, over a real socket, as if from any address; line by line. */
import { connect, createServer, type Socket } from 'node:net';
import { type Clock, type Logger, silentLogger } from '../../../ops/telemetry/index.js';
import type { SmtpHandler, SmtpMode } from '../../../protocols/smtp/server/handler.js';
import { SmtpSession, type SmtpSessionOptions } from '../../../protocols/smtp/server/session.js';

export interface DialogOptions {
  handler: SmtpHandler;
  /** Default: 198.51.100.7. */
  remoteAddress?: string;
  mode?: SmtpMode;
  listener?: string;
  limits?: SmtpSessionOptions['limits'];
  clock?: Clock;
  logger?: Logger;
  /** As if the connection were protected by TLS. */
  isSecure?: boolean;
}

export interface Dialog {
  /** The greeting. */
  readonly greeting: string;
  /** Sends a line, answers the whole reply, lines joined by a line feed. '' when the connection was closed instead. */
  say(line: string): Promise<string>;
  /** MAIL, RCPT and DATA in one; answers the reply that ended it. */
  send(from: string, to: string | string[], text?: string): Promise<string>;
  close(): Promise<void>;
}

const lineEnd = '\r\n';

/** Reads replies of one or several lines. */
class ReplyLines {
  #text = '';
  #isOver = false;
  #wake: (() => void) | undefined;

  constructor(socket: Socket) {
    socket.setEncoding('utf8');
    socket.on('data', (chunk) => {
      this.#text += chunk;
      this.#wake?.();
    });
    socket.on('close', () => {
      this.#isOver = true;
      this.#wake?.();
    });
    socket.on('error', () => undefined);
  }

  async next(): Promise<string> {
    for (;;) {
      const last = /^\d{3}(?: .*)?\r\n/m.exec(this.#text);
      if (last) {
        const end = last.index + last[0].length;
        const reply = this.#text.slice(0, end);
        this.#text = this.#text.slice(end);
        return reply.trimEnd().replaceAll(lineEnd, '\n');
      }
      if (this.#isOver) return '';
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

/** Connects, and reads the greeting. */
export async function startDialog({
  handler,
  remoteAddress = '198.51.100.7',
  mode = 'mx',
  isSecure,
  ...more
}: DialogOptions): Promise<Dialog> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    const session = new SmtpSession({
      connection: {
        socket,
        remoteAddress,
        remotePort: 40_000,
        localAddress: '192.0.2.25',
        localPort: 25,
        secure: isSecure === true,
        ...(isSecure ? { tls: { protocol: 'TLSv1.3', cipher: 'TLS_AES_128_GCM_SHA256' } } : {}),
      },
      mode,
      handler,
      hostname: 'mx.example.test',
      logger: more.logger ?? silentLogger,
      ...(more.limits && { limits: more.limits }),
      ...(more.clock && { clock: more.clock }),
      ...(more.listener !== undefined && { listener: more.listener }),
    });
    session.start();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const socket = connect({ port: (server.address() as { port: number }).port, host: '127.0.0.1', noDelay: true });
  const lines = new ReplyLines(socket);
  const say = (line: string) => {
    socket.write(line + lineEnd);
    return lines.next();
  };
  return {
    greeting: await lines.next(),
    say,
    async send(from, to, text = 'Subject: hello\r\n\r\nHello.') {
      for (const line of [`MAIL FROM:<${from}>`, ...[to].flat().map((each) => `RCPT TO:<${each}>`)]) {
        const answer = await say(line);
        if (!answer.startsWith('250')) return answer;
      }
      const goAhead = await say('DATA');
      return goAhead.startsWith('354') ? say(`${text}${lineEnd}.`) : goAhead;
    },
    async close() {
      const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
      if (!socket.destroyed) socket.destroy();
      else return void server.close();
      await closed;
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
