/**
 * The client's end of a connection: octets out with back-pressure, replies in, every wait with its time limit. Once it has failed, every
 * later call fails in the same way.
 */
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls, TLSSocket } from 'node:tls';
import type { Clock, Timer } from '../../../ops/telemetry/index.js';
import { type ParsedReply, ReplyReader } from '../grammar/reply.js';
import type { CertificateVerdict, ClientTls, ConnectOptions, TlsOutcome } from './contract.js';

/** The connection is of no more use. `code` is one word for logs. */
export class ConnectionLost extends Error {
  override name = 'ConnectionLost';
  constructor(
    /** `injected`: somebody tries to put words into the peer's mouth; nothing is tried again without TLS then. */
    readonly code: 'timeout' | 'closed' | 'error' | 'syntax' | 'aborted' | 'tls' | 'injected',
    message: string,
    /** Such as `ECONNREFUSED`. */
    readonly systemCode?: string,
  ) {
    super(message);
  }
}

/** Replies that came without anybody asking; beyond, reading pauses. */
const maxWaitingReplies = 1_000;

export class ClientWire {
  readonly #clock: Clock;
  #socket: Socket;
  #reader = new ReplyReader();
  #replies: ParsedReply[] = [];
  #wake: (() => void) | undefined;
  #lost: ConnectionLost | undefined;
  #paused = false;
  /** Of the wait that is going on, monotonic milliseconds. */
  #lateAtMs = Number.POSITIVE_INFINITY;
  #timer: Timer | undefined;
  #timerAtMs = 0;
  #detach: () => void = () => undefined;
  #forgetSignal: () => void = () => undefined;

  private constructor(socket: Socket, clock: Clock) {
    this.#socket = socket;
    this.#clock = clock;
    this.#attach(socket);
  }

  /** Opens a TCP connection, with TLS when `implicit`. Rejects with `ConnectionLost`. */
  static async open(options: ConnectOptions, clock: Clock, timeoutMs: number): Promise<ClientWire> {
    const { address, port, localAddress, signal } = options;
    if (signal?.aborted) throw new ConnectionLost('aborted', 'The connection was called off');
    const socket = connectTcp({ host: address, port, noDelay: true, ...(localAddress ? { localAddress } : {}) });
    const wire = new ClientWire(socket, clock);
    const onAbort = () => wire.#fail(new ConnectionLost('aborted', 'The connection was called off'));
    signal?.addEventListener('abort', onAbort, { once: true });
    wire.#forgetSignal = () => signal?.removeEventListener('abort', onAbort);
    await wire.#until(timeoutMs, `no connection to ${address} port ${port}`, () => !socket.connecting);
    return wire;
  }

  /** What `ConnectOptions.signal` says concerns only the way up to here: the connection outlives it. */
  forgetSignal(): void {
    this.#forgetSignal();
  }

  /** Set once the connection can't be used any more. */
  get lost(): ConnectionLost | undefined {
    return this.#lost;
  }

  #attach(socket: Socket): void {
    const fail = (code: 'closed' | 'error', message: string, systemCode?: string) =>
      this.#fail(new ConnectionLost(code, message, systemCode));
    const onData = (chunk: Buffer) => this.#onData(chunk);
    const onEnd = () => fail('closed', 'The peer closed the connection');
    const onError = (error: NodeJS.ErrnoException) => fail('error', error.message, error.code);
    const onProgress = () => this.#wake?.();
    socket
      .on('data', onData)
      .on('end', onEnd)
      .on('close', onEnd)
      .on('error', onError)
      .on('connect', onProgress)
      .on('drain', onProgress);
    this.#detach = () => {
      socket
        .off('data', onData)
        .off('end', onEnd)
        .off('close', onEnd)
        .off('error', onError)
        .off('connect', onProgress)
        .off('drain', onProgress);
    };
  }

  #onData(chunk: Buffer) {
    if (this.#lost) return;
    try {
      this.#replies.push(...this.#reader.push(chunk));
    } catch (error) {
      return this.#fail(new ConnectionLost('syntax', (error as Error).message));
    }
    if (this.#replies.length > maxWaitingReplies && !this.#paused) {
      this.#paused = true;
      this.#socket.pause();
    }
    this.#wake?.();
  }

  #fail(lost: ConnectionLost): void {
    if (this.#lost) return;
    this.#lost = lost;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#forgetSignal();
    this.#socket.destroy();
    this.#wake?.();
  }

  /** Waits until `ready`, at most `timeoutMs`; a lost connection ends it unless it is ready nevertheless. */
  async #until(timeoutMs: number, what: string, ready: () => boolean): Promise<void> {
    if (ready() && !this.#lost) return;
    const lateAtMs = this.#watch(timeoutMs);
    try {
      while (!ready() || this.#lost) {
        if (this.#lost) throw this.#lost;
        if (this.#clock.monotonicMs() >= lateAtMs) {
          this.#fail(new ConnectionLost('timeout', `Timeout: ${what} within ${Math.ceil(timeoutMs / 1000)} s`));
          continue;
        }
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      this.#lateAtMs = Number.POSITIVE_INFINITY;
      this.#wake = undefined;
    }
  }

  /**
   * Has the wait that begins now woken when its time is over, and answers when that is (monotonic, ms). One timer serves all waits of a connection: their limits
   * are minutes, their lengths milliseconds, and a timer for each would cost more than the reply that ends it.
   */
  #watch(timeoutMs: number): number {
    const lateAtMs = this.#clock.monotonicMs() + timeoutMs;
    this.#lateAtMs = lateAtMs;
    if (!this.#timer || this.#timerAtMs > lateAtMs) this.#setTimer(lateAtMs, timeoutMs);
    return lateAtMs;
  }

  #setTimer(atMs: number, delayMs: number): void {
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    this.#timer = this.#clock.setTimer(delayMs, () => this.#onTimer(), { background: true });
  }

  /** It was set for an earlier wait as a rule. */
  #onTimer(): void {
    this.#timer = undefined;
    if (this.#lost || this.#lateAtMs === Number.POSITIVE_INFINITY) return;
    const leftMs = this.#lateAtMs - this.#clock.monotonicMs();
    if (leftMs > 0) this.#setTimer(this.#lateAtMs, leftMs);
    else this.#wake?.();
  }

  /** The next reply. What had arrived before the connection broke is still told. Rejects with `ConnectionLost`. */
  async read(timeoutMs: number): Promise<ParsedReply> {
    if (this.#replies.length === 0) await this.#untilReply(timeoutMs);
    const reply = this.#replies.shift()!;
    if (this.#paused && this.#replies.length === 0) {
      this.#paused = false;
      this.#socket.resume();
    }
    return reply;
  }

  async #untilReply(timeoutMs: number): Promise<void> {
    try {
      await this.#until(timeoutMs, 'no reply', () => this.#replies.length > 0);
    } catch (error) {
      if (this.#replies.length === 0) throw error;
    }
  }

  /** A reply is here, or part of one, that nobody has read. */
  get hasUnread(): boolean {
    return this.#replies.length > 0 || this.#reader.partial;
  }

  /** Set once the connection is under TLS. */
  get tlsSocket(): TLSSocket | undefined {
    return this.#socket instanceof TLSSocket ? this.#socket : undefined;
  }

  /** A reply that has arrived already. */
  tryRead(): ParsedReply | undefined {
    return this.#replies.shift();
  }

  /** Writes, and waits while the peer does not take it. Rejects with `ConnectionLost`. */
  async write(octets: string | Buffer, timeoutMs: number): Promise<void> {
    if (!this.writeNow(octets)) await this.drained(timeoutMs);
  }

  /** Resolves when the peer has taken what was written. Rejects with `ConnectionLost`. */
  async drained(timeoutMs: number): Promise<void> {
    await this.#until(timeoutMs, 'the peer takes no data', () => !this.#socket.writableNeedDrain);
  }

  /** Writes without waiting; false when the peer should be waited for. Throws `ConnectionLost`. */
  writeNow(octets: string | Buffer): boolean {
    if (this.#lost) throw this.#lost;
    return this.#socket.write(octets);
  }

  /** Gathers what is written until `uncork` into few packets. */
  cork(): void {
    this.#socket.cork();
  }

  uncork(): void {
    this.#socket.uncork();
  }

  destroy(): void {
    this.#fail(new ConnectionLost('closed', 'The connection was closed by us'));
  }

  /** The TLS handshake, after STARTTLS or at once. Rejects with `ConnectionLost('tls')`; `ok: false` verdicts are the caller's to act on. */
  async secure(tls: ClientTls, hostname: string, timeoutMs: number): Promise<TlsOutcome & { verdict: CertificateVerdict }> {
    if (this.#replies.length > 0 || this.#reader.partial) {
      // What came in the clear after the 220 could pass for an answer to what we say under TLS.
      this.#fail(new ConnectionLost('injected', 'The peer sent plain text after its answer to STARTTLS'));
      throw this.#lost;
    }
    const plain = this.#socket;
    this.#detach();
    const serverName = tls.serverName ?? hostname;
    const isAddress = /^[0-9.]+$|:/.test(serverName);
    const socket = connectTls({
      socket: plain,
      host: serverName,
      ...(isAddress ? {} : { servername: serverName }),
      rejectUnauthorized: false,
      ...(tls.ca ? { ca: tls.ca } : {}),
      ...(tls.minVersion ? { minVersion: tls.minVersion } : {}),
    });
    let secured = false;
    socket.once('secureConnect', () => {
      secured = true;
      this.#wake?.();
    });
    plain.on('error', (error: Error) => this.#fail(new ConnectionLost('tls', error.message)));
    this.#socket = socket;
    this.#reader = new ReplyReader();
    this.#attach(socket);
    try {
      await this.#until(timeoutMs, 'no TLS handshake', () => secured);
    } catch (error) {
      const { code, message } = error as ConnectionLost;
      throw code === 'aborted' ? error : new ConnectionLost('tls', message);
    }
    return judge(socket, tls, serverName);
  }
}

function judge(socket: TLSSocket, tls: ClientTls, serverName: string): TlsOutcome & { verdict: CertificateVerdict } {
  const raw = socket.authorizationError as Error | string | undefined;
  const authorizationError =
    raw === undefined || raw === null
      ? undefined
      : typeof raw === 'string'
        ? raw
        : ((raw as { code?: string }).code ?? raw.message);
  const { authorized } = socket;
  let verdict: CertificateVerdict = authorized ? { ok: true } : { ok: false, reason: authorizationError ?? 'not authorized' };
  if (tls.verify)
    verdict = tls.verify({ authorized, authorizationError, certificate: socket.getPeerCertificate(true), serverName });
  return {
    mode: tls.mode,
    used: true,
    protocol: socket.getProtocol() ?? '',
    cipher: socket.getCipher()?.name ?? '',
    authorized,
    ...(verdict.ok ? {} : { problem: verdict.reason }),
    verdict,
  };
}
