/** A connection to an SMTP or LMTP server that takes messages one after another. */

import { openConnection } from './connect.js';
import type { ConnectOptions, OutgoingMessage, PeerLimits, SendResult, TlsOutcome } from './contract.js';
import { limitsOf } from './peer-limits.js';
import type { ReadyConnection } from './ready.js';
import { Transaction } from './transaction.js';

export class SmtpClient {
  readonly #connection: ReadyConnection;
  readonly #lmtp: boolean;
  #busy = false;
  #needsReset = false;
  #broken = false;
  #messages = 0;
  readonly #limits: PeerLimits;

  private constructor(connection: ReadyConnection, lmtp: boolean) {
    this.#connection = connection;
    this.#lmtp = lmtp;
    this.#limits = limitsOf(connection.capabilities);
  }

  /** Connects up to where a message can be sent. Rejects with `SmtpConnectError`, whatever the stage. */
  static async connect(options: ConnectOptions): Promise<SmtpClient> {
    const connection = await openConnection(options);
    connection.wire.forgetSignal();
    return new SmtpClient(connection, options.protocol === 'lmtp');
  }

  /** How the connection is protected. */
  get tls(): TlsOutcome {
    return this.#connection.tls;
  }

  /** The peer's extensions, upper case, with their parameters. */
  get capabilities(): ReadonlyMap<string, string> {
    return this.#connection.capabilities;
  }

  /** What the peer said of itself (RFC 9422). */
  get limits(): PeerLimits {
    return this.#limits;
  }

  /** The text of the 220. */
  get greeting(): string {
    return this.#connection.greeting;
  }

  /** False once the connection is lost, after a 421, or when an idle peer has said something: that can only be its farewell. */
  get usable(): boolean {
    const { wire } = this.#connection;
    return !this.#broken && !wire.lost && (this.#busy || !wire.hasUnread);
  }

  /**
   * Sends one message; one at a time. Never rejects for what the peer or the network does: that is in the result. An aborted `signal`
   * closes the connection, and the result tells how far it had come.
   */
  async send(message: OutgoingMessage, signal?: AbortSignal): Promise<SendResult> {
    if (this.#busy) throw new Error('SmtpClient.send: another message is being sent');
    if (message.recipients.length === 0) return { recipients: [], dsnPassedOn: false, reusable: this.usable };
    this.#busy = true;
    const onAbort = () => this.destroy();
    if (signal?.aborted) this.destroy();
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      const transaction = new Transaction(this.#connection, message, { lmtp: this.#lmtp, resetFirst: this.#needsReset });
      const result = await transaction.run();
      this.#needsReset = transaction.needsReset;
      if (!result.reusable) this.#broken = true;
      const isLast = ++this.#messages >= (this.#limits.maxMessages ?? Number.POSITIVE_INFINITY);
      return isLast ? { ...result, reusable: false } : result;
    } finally {
      signal?.removeEventListener('abort', onAbort);
      this.#busy = false;
    }
  }

  /** Asks whether the connection still lives (NOOP). */
  async probe(): Promise<boolean> {
    const { wire, timeouts } = this.#connection;
    if (!this.usable || this.#busy) return false;
    try {
      await wire.write('NOOP\r\n', timeouts.commandMs);
      const { code } = await wire.read(timeouts.commandMs);
      if (code === 250) return true;
    } catch {
      // A connection that does not answer is not alive: the caller hears false.
    }
    this.destroy();
    return false;
  }

  /** Says QUIT, waits shortly for the answer, closes. Never rejects. */
  async quit(): Promise<void> {
    const { wire, timeouts } = this.#connection;
    try {
      if (this.usable && !this.#busy) {
        await wire.write('QUIT\r\n', timeouts.quitMs);
        await wire.read(timeouts.quitMs);
      }
    } catch {
      // The peer was told, or is gone; either way there is nothing left to do.
    }
    this.destroy();
  }

  destroy(): void {
    this.#broken = true;
    this.#connection.wire.destroy();
  }
}
