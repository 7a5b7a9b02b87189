/**
 * A mail server outside of the cluster, for runs that count: it writes down every copy that it was given, by which node and when, and is a bad neighbour now
 * and then: it takes its time, hangs up after the final dot without a word, or says "later". No message is treated badly more than twice.
 */
import { createServer, type Server, type Socket } from 'node:net';

/** One message that was received up to its final dot and not refused, for one recipient. */
export interface SinkCopy {
  token: string;
  recipient: string;
  /** The name by which the sender greeted. */
  from: string;
  /** When the final dot was here. */
  dotMs: number;
  /** When it was told so; undefined when the connection was gone before. */
  answeredMs?: number;
  /** Hung up instead of answering, on purpose. */
  isDropped?: boolean;
}

/** What happens to a message. Shares of 1; what is left is answered after up to `holdMs`. */
export interface SinkManners {
  dropped: number;
  deferredAfterDot: number;
  deferredRecipient: number;
  slow: number;
  /** Answered late, by up to `startMs`, before the message is offered. */
  slowStart: number;
  startMs: number;
  holdMs: number;
  slowMs: number;
}

const usualManners: SinkManners = {
  dropped: 0.03,
  deferredAfterDot: 0.03,
  deferredRecipient: 0.03,
  slow: 0.25,
  slowStart: 0.3,
  startMs: 600,
  holdMs: 300,
  slowMs: 1_500,
};
const maxBadTurns = 2;
const maxLineBytes = 1_000_000;

export interface SinkOptions {
  host: string;
  /** Default: one that is free. */
  port?: number;
  /** From 0 up to 1. */
  random(): number;
  nowMs(): number;
  manners?: Partial<SinkManners>;
}

export class Sink {
  readonly copies: SinkCopy[] = [];
  /** Tokens that were told "later", or dropped, at least once: what they wait for is not the cluster's doing. */
  readonly disturbed = new Set<string>();
  readonly #badTurns = new Map<string, number>();
  readonly #sockets = new Set<Socket>();
  readonly #manners: SinkManners;
  #server: Server | undefined;

  private constructor(private readonly options: SinkOptions) {
    this.#manners = { ...usualManners, ...options.manners };
  }

  static async start(options: SinkOptions): Promise<Sink> {
    const sink = new Sink(options);
    const server = createServer((socket) => void sink.#serve(socket).catch(() => socket.destroy()));
    sink.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(options.port ?? 0, options.host, resolve);
    });
    return sink;
  }

  get port(): number {
    const address = this.#server?.address();
    if (!address || typeof address === 'string') throw new Error('the sink does not listen');
    return address.port;
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => (this.#server ? this.#server.close(resolve) : resolve(undefined)));
  }

  async #serve(socket: Socket): Promise<void> {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('error', () => undefined); // what was received counts
    socket.once('close', () => this.#sockets.delete(socket));
    await new SinkSession(socket, this).run();
  }

  /** Decides on a message whose final dot has come. */
  async receive(token: string, recipients: readonly string[], from: string, socket: Socket): Promise<string | undefined> {
    const { random, nowMs } = this.options;
    const { dropped, deferredAfterDot, slow, holdMs, slowMs } = this.#manners;
    const dotMs = nowMs();
    const turn = random();
    if (turn < deferredAfterDot && this.#mayBeBad(token)) return '451 4.3.0 Later, please';
    const copies = recipients.map((recipient): SinkCopy => ({ token, recipient, from, dotMs }));
    this.copies.push(...copies);
    if (turn > 1 - dropped && this.#mayBeBad(token)) {
      for (const copy of copies) copy.isDropped = true;
      socket.destroy();
      return undefined;
    }
    const waitMs = random() < slow ? slowMs * (0.5 + random() / 2) : holdMs * random();
    await new Promise((resolve) => setTimeout(resolve, waitMs));
    if (socket.destroyed) return undefined;
    for (const copy of copies) copy.answeredMs = nowMs();
    return '250 2.0.0 Taken';
  }

  /** Whether RCPT is put off: decided before the message, and so its token, is known. */
  putsOffRecipient(recipient: string): boolean {
    return this.options.random() < this.#manners.deferredRecipient && this.#mayBeBad(recipient);
  }

  /** Before MAIL is answered. */
  async think(): Promise<void> {
    const { slowStart, startMs } = this.#manners;
    const { random } = this.options;
    if (random() < slowStart) await new Promise((resolve) => setTimeout(resolve, startMs * random()));
  }

  #mayBeBad(name: string): boolean {
    const turns = this.#badTurns.get(name) ?? 0;
    if (turns >= maxBadTurns) return false;
    this.#badTurns.set(name, turns + 1);
    this.disturbed.add(name);
    return true;
  }
}

/** One connection: commands in order, each answered before the next is looked at. */
class SinkSession {
  #bytes = Buffer.alloc(0);
  #arrived: (() => void) | undefined;
  #greeting = '';
  #recipients: string[] = [];

  constructor(
    private readonly socket: Socket,
    private readonly sink: Sink,
  ) {
    const wake = () => this.#arrived?.();
    socket.on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      if (this.#bytes.length > maxLineBytes) socket.destroy();
      wake();
    });
    socket.once('close', wake);
  }

  /** Up to and with `end`; undefined when the connection is gone. */
  async #until(end: string): Promise<string | undefined> {
    for (;;) {
      const at = this.#bytes.indexOf(end);
      if (at >= 0) {
        const text = this.#bytes.toString('latin1', 0, at);
        this.#bytes = this.#bytes.subarray(at + end.length);
        return text;
      }
      if (this.socket.destroyed) return undefined;
      await new Promise<void>((resolve) => {
        this.#arrived = resolve;
      });
    }
  }

  async run(): Promise<void> {
    const { socket } = this;
    socket.write('220 sink.outside.test\r\n');
    for (let line = await this.#until('\r\n'); line !== undefined; line = await this.#until('\r\n')) {
      const reply = await this.#obey(line);
      if (reply === undefined) return;
      socket.write(`${reply}\r\n`);
      if (reply.startsWith('221')) return void socket.end();
    }
  }

  async #obey(line: string): Promise<string | undefined> {
    const verb = line.slice(0, 4).toUpperCase();
    if (verb === 'EHLO' || verb === 'HELO') {
      this.#greeting = line.slice(5).trim();
      return verb === 'HELO' ? '250 sink' : '250-sink.outside.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 1000000';
    }
    if (verb === 'MAIL' || verb === 'RSET') this.#recipients = [];
    if (verb === 'MAIL') await this.sink.think();
    if (verb === 'RCPT') {
      const recipient = /<([^>]*)>/.exec(line)?.[1] ?? '';
      if (this.sink.putsOffRecipient(recipient)) return '450 4.2.1 Not now';
      this.#recipients.push(recipient);
    }
    if (verb === 'DATA') return this.#message();
    if (verb === 'QUIT') return '221 2.0.0 Bye';
    return ['MAIL', 'RCPT', 'RSET', 'NOOP'].includes(verb) ? '250 2.0.0 Ok' : '502 5.5.1 What?';
  }

  async #message(): Promise<string | undefined> {
    if (this.#recipients.length === 0) return '503 5.5.1 No recipients';
    this.socket.write('354 Go on\r\n');
    const text = await this.#until('\r\n.\r\n');
    if (text === undefined) return undefined;
    const token = /^Subject: token (\S+)/m.exec(text)?.[1] ?? '(no token)';
    const recipients = this.#recipients;
    this.#recipients = [];
    return this.sink.receive(token, recipients, this.#greeting, this.socket);
  }
}
