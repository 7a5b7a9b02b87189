/**
 * A TCP proxy on 127.0.0.1 for tests that need a bad network: it cuts connections at a byte string (just before or just after the server
 * has it, or when the server answers), goes silent, refuses, and moves to another server. It knows nothing of what it carries.
 */
import { createServer, type Server, Socket } from 'node:net';

export interface TcpProxyTarget {
  host: string;
  port: number;
}

/**
 * What to do with the bytes that a client sent.
 * - `cut-before`: the server never sees them; both sides are cut.
 * - `cut-after`: the server gets them and an orderly end; the client is cut at once.
 * - `cut-on-reply`: the server gets them, its answer is dropped, and the client is cut when it comes: what was asked for has been done.
 * - `swallow`: the server gets them, and nothing that it says from then on reaches the client, which waits in vain until it is cut.
 */
export type ProxyVerdict = 'cut-before' | 'cut-after' | 'cut-on-reply' | 'swallow';

/**
 * Looks at what a client sent. `bytes` begins with up to 4 kB that were passed on before, so that what came in two packets is found;
 * `fresh` is how many of them, at the end, are new. `undefined` passes them on.
 */
export type ProxyJudge = (bytes: Buffer, fresh: number) => ProxyVerdict | undefined;

export interface CutRule {
  /** What to look for in what clients send, e.g. the name of a prepared statement. */
  pattern: string | Uint8Array;
  verdict: ProxyVerdict;
  /** With `cut-on-reply`: waits until this stands in the answer. Default: its first bytes. */
  reply?: string | Uint8Array;
  /** So many matches are passed on first. Default 0. */
  skip?: number;
}

/** A rule that waits for its match. */
export interface ArmedCut {
  /** Resolves when the cut (with `swallow`: the match) has happened. */
  readonly done: Promise<void>;
  /** Whether it has matched. */
  readonly hit: boolean;
  disarm(): void;
}

const keptBytes = 4_096;

export class TcpProxy {
  readonly #links = new Set<Link>();
  readonly #rules = new Set<Rule>();
  #server: Server | undefined;
  #target: TcpProxyTarget;
  #port = 0;
  #paused = false;
  #judge: ProxyJudge | undefined;
  #accepted = 0;

  private constructor(target: TcpProxyTarget) {
    this.#target = target;
  }

  /** Listens on a free port of 127.0.0.1 and forwards every connection to `target`. */
  static async start(target: TcpProxyTarget): Promise<TcpProxy> {
    const proxy = new TcpProxy(target);
    await proxy.accept();
    return proxy;
  }

  get port(): number {
    return this.#port;
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#links.size;
  }

  /** Connections taken since the start. */
  get accepted(): number {
    return this.#accepted;
  }

  /** Sends new connections elsewhere; those that are open stay where they are. */
  retarget(target: TcpProxyTarget): void {
    this.#target = target;
  }

  /** Resets every connection, on both sides. */
  cutAll(): void {
    for (const link of [...this.#links]) link.cut();
  }

  /** A black hole: connections stay and new ones are taken, but nothing moves until `resume`. Nothing is lost. */
  pause(): void {
    this.#paused = true;
    for (const link of this.#links) link.pause();
  }

  resume(): void {
    this.#paused = false;
    for (const link of [...this.#links]) link.resume();
  }

  /** New connections are refused (nobody listens); open ones stay. */
  async refuse(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    // `close` calls back only when the open connections have ended; the port is free at once.
    server?.close();
  }

  /** Takes connections (again), on the same port. */
  async accept(): Promise<void> {
    if (this.#server) return;
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (client) => this.#take(client));
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.#port, '127.0.0.1', () => resolve());
    });
    const address = server.address();
    if (address && typeof address === 'object') this.#port = address.port;
  }

  /** Asks `judge` about everything that clients send; `undefined` ends that. Armed cuts are looked at first. */
  onClientBytes(judge: ProxyJudge | undefined): void {
    this.#judge = judge;
  }

  /** Cuts once, at the next match of the rule on any connection. */
  cutAt(rule: CutRule): ArmedCut {
    const armed = new Rule(rule, () => this.#rules.delete(armed));
    this.#rules.add(armed);
    return armed;
  }

  /** Cuts everything and stops listening. */
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    const closed = new Promise<void>((resolve) => (server ? server.close(() => resolve()) : resolve()));
    this.cutAll();
    await closed;
  }

  #take(client: Socket): void {
    this.#accepted++;
    const link = new Link(client, this.#target, (bytes, fresh) => this.#decide(bytes, fresh));
    this.#links.add(link);
    link.onEnd = () => this.#links.delete(link);
    if (!this.#paused) link.resume();
  }

  #decide(bytes: Buffer, fresh: number): Decision | undefined {
    for (const rule of this.#rules) if (rule.matches(bytes, fresh)) return rule;
    const verdict = this.#judge?.(bytes, fresh);
    return verdict && { verdict, reply: undefined, settle: () => {} };
  }
}

/** A verdict, and whom to tell when it has been carried out. */
interface Decision {
  readonly verdict: ProxyVerdict;
  readonly reply: Buffer | undefined;
  settle(): void;
}

class Rule implements ArmedCut, Decision {
  readonly done: Promise<void>;
  readonly verdict: ProxyVerdict;
  readonly reply: Buffer | undefined;
  readonly #pattern: Buffer;
  readonly #disarm: () => void;
  #resolve!: () => void;
  #left: number;
  #hit = false;

  constructor(rule: CutRule, disarm: () => void) {
    this.verdict = rule.verdict;
    this.#pattern = Buffer.from(rule.pattern as string);
    this.reply = rule.reply === undefined ? undefined : Buffer.from(rule.reply as string);
    this.#left = rule.skip ?? 0;
    this.#disarm = disarm;
    this.done = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    if (this.#pattern.length === 0 || this.#pattern.length > keptBytes)
      throw new RangeError(`a pattern has 1 to ${keptBytes} bytes`);
  }

  get hit(): boolean {
    return this.#hit;
  }

  disarm(): void {
    this.#disarm();
  }

  settle(): void {
    this.#resolve();
  }

  /** Whether a match ends in the fresh bytes, and is the one that is waited for. */
  matches(bytes: Buffer, fresh: number): boolean {
    let from = Math.max(0, bytes.length - fresh - this.#pattern.length + 1);
    for (;;) {
      const at = bytes.indexOf(this.#pattern, from);
      if (at < 0) return false;
      if (this.#left-- === 0) break;
      from = at + this.#pattern.length;
    }
    this.#hit = true;
    this.#disarm();
    return true;
  }
}

/** One connection: the client's socket and the one to the server. */
class Link {
  onEnd: (() => void) | undefined;
  readonly #client: Socket;
  readonly #target: TcpProxyTarget;
  readonly #decide: (bytes: Buffer, fresh: number) => Decision | undefined;
  #upstream: Socket | undefined;
  #sent: Buffer = Buffer.alloc(0);
  /** Since the answer is being dropped: what was answered, as far as a reply is being looked for. */
  #dropping: Decision | undefined;
  #dropped: Buffer = Buffer.alloc(0);
  #over = false;

  constructor(client: Socket, target: TcpProxyTarget, decide: (bytes: Buffer, fresh: number) => Decision | undefined) {
    this.#client = client;
    this.#target = target;
    this.#decide = decide;
    client.setNoDelay(true);
    client.on('error', () => {});
    client.on('close', () => this.#clientGone());
  }

  pause(): void {
    this.#client.pause();
    this.#upstream?.pause();
  }

  resume(): void {
    if (this.#over) return;
    if (!this.#upstream) this.#connect();
    else {
      this.#client.resume();
      this.#upstream.resume();
    }
  }

  cut(): void {
    if (this.#over) return;
    this.#over = true;
    this.#client.resetAndDestroy();
    this.#upstream?.resetAndDestroy();
    this.#dropping?.settle();
    this.onEnd?.();
  }

  #connect(): void {
    // Not `connect()`: the options have to be there before the first packet.
    const upstream = new Socket({ allowHalfOpen: true });
    this.#upstream = upstream;
    upstream.setNoDelay(true);
    upstream.on('error', () => {});
    upstream.on('close', (failed) => this.#serverGone(failed));
    upstream.on('data', (bytes) => this.#fromServer(bytes));
    upstream.on('end', () => {
      if (this.#dropping?.verdict === 'swallow') return;
      if (this.#dropping) this.cut();
      else this.#client.end();
    });
    upstream.on('drain', () => this.#client.resume());
    this.#client.on('drain', () => upstream.resume());
    this.#client.on('data', (bytes) => this.#fromClient(bytes));
    this.#client.on('end', () => upstream.end());
    upstream.connect(this.#target.port, this.#target.host);
    this.#client.resume();
  }

  #fromClient(chunk: Buffer): void {
    if (this.#over) return;
    const bytes = this.#sent.length > 0 ? Buffer.concat([this.#sent, chunk]) : chunk;
    const decision = this.#decide(bytes, chunk.length);
    // A copy: what is kept must not hold the whole chunk.
    this.#sent = Buffer.from(bytes.subarray(Math.max(0, bytes.length - keptBytes)));
    if (decision?.verdict === 'cut-before') {
      this.cut();
      decision.settle();
      return;
    }
    if (decision && !this.#dropping) this.#dropping = decision;
    if (!this.#upstream!.write(chunk)) this.#client.pause();
    if (decision?.verdict === 'cut-after') {
      // The client's end makes the server see an orderly one, after these bytes: a reset could overtake them.
      this.#client.resetAndDestroy();
      decision.settle();
    } else if (decision?.verdict === 'swallow') decision.settle();
  }

  #fromServer(chunk: Buffer): void {
    const dropping = this.#dropping;
    if (!dropping) {
      if (!this.#client.write(chunk)) this.#upstream!.pause();
      return;
    }
    if (dropping.verdict !== 'cut-on-reply') return;
    if (dropping.reply) {
      this.#dropped = Buffer.concat([this.#dropped.subarray(-keptBytes), chunk]);
      if (!this.#dropped.includes(dropping.reply)) return;
    }
    this.cut();
  }

  /** What the server said before an orderly end still reaches the client. */
  #serverGone(failed: boolean): void {
    if (failed || !this.#upstream!.readableEnded || this.#dropping) {
      this.cut();
      return;
    }
    this.#over = true;
    this.#client.destroySoon();
    this.onEnd?.();
  }

  /** The client went away: the server gets what was sent, and then the end. */
  #clientGone(): void {
    if (this.#over) return;
    const upstream = this.#upstream;
    if (!upstream) {
      this.cut();
      return;
    }
    upstream.resume();
    upstream.end();
  }
}
