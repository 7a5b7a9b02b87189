/**
 * A mail server outside that stops at a chosen step of the next conversation and says so, so that a test can pull the plug exactly there. It counts what it
 * has received whole.
 */
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';

/** What the peer has just read (or, with `answered`, written) when it stops. */
export const peerSteps = ['connected', 'ehlo', 'mail', 'rcpt', 'data', 'half', 'whole', 'answered'] as const;
export type PeerStep = (typeof peerSteps)[number];

const half = 20_000;

export class StepPeer {
  /** Bodies received whole, by their `Subject: token …`. */
  readonly whole: string[] = [];
  #stop: { at: PeerStep; reached: () => void } | undefined;
  readonly #sockets = new Set<Socket>();

  private constructor(
    private readonly server: Server,
    private readonly offersChunking: boolean,
  ) {}

  static async start({ chunking = false } = {}): Promise<StepPeer> {
    const server = createServer();
    const peer = new StepPeer(server, chunking);
    server.on('connection', (socket) => void peer.#serve(socket));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return peer;
  }

  get port(): number {
    const address = this.server.address();
    if (!address || typeof address === 'string') throw new Error('the peer does not listen');
    return address.port;
  }

  /** Resolves when the next conversation has come to this step; it goes no further. Later ones are not stopped. */
  stopsAt(step: PeerStep): Promise<void> {
    return new Promise((reached) => {
      this.#stop = { at: step, reached };
    });
  }

  /** Closes all connections, also those that wait for another message. */
  hangUp(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    this.hangUp();
    this.server.close();
    await once(this.server, 'close');
  }

  /** Whether the conversation ends here. */
  #isEndAt(step: PeerStep): boolean {
    if (this.#stop?.at !== step) return false;
    const { reached } = this.#stop;
    this.#stop = undefined;
    reached();
    return true;
  }

  async #serve(socket: Socket): Promise<void> {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('error', () => undefined); // the other side is killed
    socket.once('close', () => this.#sockets.delete(socket));
    let bytes = Buffer.alloc(0);
    let wake = () => {};
    socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      wake();
    });
    socket.once('close', () => wake());
    const need = async (isThere: () => boolean): Promise<boolean> => {
      while (!isThere()) {
        if (socket.destroyed) return false;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      return true;
    };
    const take = (count: number): Buffer => {
      const taken = bytes.subarray(0, count);
      bytes = bytes.subarray(count);
      return taken;
    };
    const say = (text: string) => socket.write(`${text}\r\n`);
    /** Whether the message is answered: it has come whole, and nobody stops here. */
    const received = (content: Buffer): boolean => {
      this.whole.push(/^Subject: token (\S+)/m.exec(content.toString('latin1'))?.[1] ?? '(no token)');
      if (this.#isEndAt('whole')) return false;
      say('250 2.0.0 Taken');
      return !this.#isEndAt('answered');
    };
    if (this.#isEndAt('connected')) return;
    say('220 steps.outside.test ESMTP');
    let chunks: Buffer[] = [];
    while (await need(() => bytes.includes('\r\n'))) {
      const line = take(bytes.indexOf('\r\n') + 2)
        .toString('latin1')
        .trim();
      const verb = line.slice(0, 4).toUpperCase();
      if (verb === 'EHLO') {
        if (this.#isEndAt('ehlo')) return;
        say(`250-steps.outside.test\r\n250-PIPELINING\r\n${this.offersChunking ? '250-CHUNKING\r\n' : ''}250 8BITMIME`);
      } else if (verb === 'MAIL' || verb === 'RCPT') {
        if (this.#isEndAt(verb === 'MAIL' ? 'mail' : 'rcpt')) return;
        say('250 2.1.0 Fine');
      } else if (verb === 'DATA') {
        if (this.#isEndAt('data')) return;
        say('354 Go on');
        if (!(await need(() => bytes.length >= half))) return;
        if (this.#isEndAt('half')) return;
        if (!(await need(() => bytes.includes('\r\n.\r\n')))) return;
        if (!received(take(bytes.indexOf('\r\n.\r\n') + 5))) return;
      } else if (verb === 'BDAT') {
        if (this.#isEndAt('data')) return;
        const [, size, last] = /^BDAT (\d+)( LAST)?/i.exec(line) ?? [];
        if (!(await need(() => bytes.length >= Math.min(half, Number(size))))) return;
        if (this.#isEndAt('half')) return;
        if (!(await need(() => bytes.length >= Number(size)))) return;
        chunks.push(take(Number(size)));
        if (last === undefined) say('250 2.0.0 More');
        else {
          const content = Buffer.concat(chunks);
          chunks = [];
          if (!received(content)) return;
        }
      } else if (verb === 'QUIT') {
        say('221 2.0.0 Bye');
        return void socket.end();
      } else {
        say(verb === 'RSET' || verb === 'NOOP' ? '250 2.0.0 Fine' : '502 5.5.1 What?');
      }
    }
  }
}
