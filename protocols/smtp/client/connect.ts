/**
 * From nothing to a connection that can take a message: TCP, greeting, EHLO (or HELO, LHLO), STARTTLS by policy, EHLO again, AUTH.
 * RFC 5321 3.1 and 3.2, RFC 3207, RFC 4954.
 */
import { type Clock, systemClock } from '../../../ops/telemetry/index.js';
import { parseCapabilities } from '../grammar/command.js';
import type { ParsedReply } from '../grammar/reply.js';
import { type ClientStage, type ClientTimeouts, type ConnectOptions, SmtpConnectError, type TlsOutcome } from './contract.js';
import { logIn } from './login.js';
import { type ReadyConnection, refused } from './ready.js';
import { ClientWire, ConnectionLost } from './wire.js';

/** RFC 5321 4.5.3.2, where it says something. */
export const defaultClientTimeouts: ClientTimeouts = {
  connectMs: 30_000,
  greetingMs: 300_000,
  commandMs: 300_000,
  tlsHandshakeMs: 60_000,
  mailMs: 300_000,
  rcptMs: 300_000,
  dataInitiationMs: 120_000,
  dataBlockMs: 180_000,
  dataTerminationMs: 600_000,
  quitMs: 5_000,
};

class Opening {
  #stage: ClientStage = 'connect';
  readonly #clock: Clock;

  constructor(
    private readonly options: ConnectOptions,
    private readonly timeouts: ClientTimeouts,
  ) {
    this.#clock = options.clock ?? systemClock;
  }

  /** One attempt; `plainBecause` makes it one without TLS. */
  async attempt(plainBecause: string | undefined): Promise<ReadyConnection> {
    let wire: ClientWire | undefined;
    this.#stage = 'connect';
    try {
      wire = await ClientWire.open(this.options, this.#clock, this.timeouts.connectMs);
      return await this.#converse(wire, plainBecause);
    } catch (error) {
      wire?.destroy();
      if (error instanceof ConnectionLost && error.code !== 'tls') {
        // RFC 3463: 4.4.1 no answer from host, 4.4.2 bad connection.
        const enhanced = this.#stage === 'connect' ? '4.4.1' : error.code === 'injected' ? '4.7.0' : '4.4.2';
        throw new SmtpConnectError(this.#stage, 'temporary', 0, enhanced, error.message, undefined, error.systemCode);
      }
      throw error;
    }
  }

  async #converse(wire: ClientWire, plainBecause: string | undefined): Promise<ReadyConnection> {
    const { tls: policy, auth } = this.options;
    let tls: TlsOutcome = { mode: policy.mode, used: false };
    if (plainBecause !== undefined) tls = { ...tls, problem: plainBecause, isHandshakeBroken: true };
    else if (policy.mode === 'none' && policy.plainBecause !== undefined) tls.problem = policy.plainBecause;
    if (policy.mode === 'implicit') tls = await this.#secure(wire, 'connect');
    this.#stage = 'greeting';
    const greeting = await wire.read(this.timeouts.greetingMs);
    if (greeting.code !== 220) throw refused('greeting', greeting, tls);
    let capabilities = await this.#hello(wire);
    const wanted = (policy.mode === 'opportunistic' || policy.mode === 'required') && plainBecause === undefined;
    if (wanted) {
      tls = await this.#startTls(wire, capabilities);
      if (tls.used) capabilities = await this.#hello(wire);
    }
    const connection = {
      wire,
      capabilities,
      tls,
      greeting: greeting.lines.join(' '),
      timeouts: this.timeouts,
      clock: this.#clock,
      recipientDomains: new Set<string>(),
    };
    if (auth) {
      this.#stage = 'auth';
      await logIn(connection, this.options);
    }
    return connection;
  }

  async #command(wire: ClientWire, line: string): Promise<ParsedReply> {
    await wire.write(`${line}\r\n`, this.timeouts.commandMs);
    return wire.read(this.timeouts.commandMs);
  }

  async #hello(wire: ClientWire): Promise<Map<string, string>> {
    this.#stage = 'ehlo';
    const { heloName, protocol = 'smtp' } = this.options;
    const extended = await this.#command(wire, `${protocol === 'lmtp' ? 'LHLO' : 'EHLO'} ${heloName}`);
    if (extended.code === 250) return parseCapabilities(extended.lines);
    // RFC 5321 3.2: a server that does not know EHLO gets HELO.
    if (extended.code < 500 || protocol === 'lmtp') throw refused('ehlo', extended);
    const plain = await this.#command(wire, `HELO ${heloName}`);
    if (plain.code !== 250) throw refused('ehlo', plain);
    return new Map();
  }

  async #startTls(wire: ClientWire, capabilities: ReadonlyMap<string, string>): Promise<TlsOutcome> {
    this.#stage = 'starttls';
    const { mode } = this.options.tls;
    const without = (problem: string, code = 0, enhanced = '4.7.0'): TlsOutcome => {
      const tls: TlsOutcome = { mode, used: false, problem };
      if (mode === 'required') throw new SmtpConnectError('starttls', 'temporary', code, enhanced, problem, tls);
      return tls;
    };
    if (!capabilities.has('STARTTLS')) return without('The peer does not offer STARTTLS');
    const reply = await this.#command(wire, 'STARTTLS');
    if (reply.code === 421) throw refused('starttls', reply);
    if (reply.code !== 220) return without(`The peer refused STARTTLS: ${reply.code} ${reply.lines.join(' ')}`, reply.code);
    return this.#secure(wire, 'starttls');
  }

  async #secure(wire: ClientWire, stage: ClientStage): Promise<TlsOutcome> {
    const { tls: policy, hostname, address } = this.options;
    const { verdict, ...tls } = await wire.secure(policy, hostname ?? address, this.timeouts.tlsHandshakeMs);
    if (!verdict.ok && policy.mode !== 'opportunistic') {
      const text = `The certificate is not acceptable: ${verdict.reason}`;
      throw new SmtpConnectError(stage, 'temporary', 0, '4.7.5', text, tls);
    }
    return tls;
  }
}

/**
 * Opens a connection. With `opportunistic` TLS a failed handshake leads to a second connection without TLS, and `tls.problem` tells
 * why. Rejects with `SmtpConnectError`.
 */
export async function openConnection(options: ConnectOptions): Promise<ReadyConnection> {
  const timeouts = { ...defaultClientTimeouts, ...options.timeouts };
  const opening = new Opening(options, timeouts);
  try {
    return await opening.attempt(undefined);
  } catch (error) {
    if (!(error instanceof ConnectionLost)) throw error;
    const { mode } = options.tls;
    const tls: TlsOutcome = { mode, used: false, problem: error.message };
    if (mode !== 'opportunistic') {
      const stage = mode === 'implicit' ? 'connect' : 'starttls';
      throw new SmtpConnectError(stage, 'temporary', 0, '4.7.5', `TLS handshake failed: ${error.message}`, tls);
    }
    return opening.attempt(`TLS handshake failed: ${error.message}`);
  }
}
