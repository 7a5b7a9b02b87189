/**
 * One connection to a server. Statements are pipelined; answers that don't come in time end the connection, so nobody waits for a
 * server that hangs. Results are arrays of text.
 */
import pg from 'pg';
import type { Clock, Timer } from '../../../ops/telemetry/index.js';
import { KvError } from '../contract.js';
import type { Endpoint } from './endpoints.js';
import { connectionsOpen } from './metrics.js';

export type Row = readonly (string | null)[];
export type Role = 'reader' | 'committer' | 'listener' | 'view';

export interface LinkOptions {
  readonly role: Role;
  readonly connectTimeoutMs: number;
  /** The longest wait for the next answer. */
  readonly answerTimeoutMs: number;
  /** `statement_timeout` at the server, so that it gives up when this node has. 0: none. */
  readonly statementTimeoutMs: number;
}

/** A statement; with a name it is prepared once for each connection. */
export interface Statement {
  readonly text: string;
  readonly name?: string;
  readonly values?: readonly (string | Buffer | null)[];
}

const asText = { getTypeParser: () => (text: string) => text } as unknown as pg.CustomTypesConfig;
/** A server that is gone without a word is noticed by the kernel after this, too. */
const keepAliveMs = 5_000;
/** How often the wait for answers is looked at. */
const watchEveryMs = 500;

export class Link {
  onNotification: ((payload: string) => void) | undefined;
  /** A snapshot that nobody uses any more is still open. */
  isInSnapshot = false;
  readonly #client: pg.Client;
  readonly #onLost: ((error: Error) => void)[] = [];
  #lost: Error | undefined;
  #outstanding = 0;
  #waitingSinceMs = 0;
  #watchdog: Timer | undefined;

  private constructor(
    readonly endpoint: Endpoint,
    readonly options: LinkOptions,
    readonly clock: Clock,
  ) {
    this.#client = new pg.Client({
      connectionString: endpoint.connectionString,
      fallback_application_name: `starling ${options.role}`,
      connectionTimeoutMillis: options.connectTimeoutMs,
      keepAlive: true,
      keepAliveInitialDelayMillis: keepAliveMs,
      pipeline: true,
      types: asText,
    });
    this.#client.on('error', (error) => this.#lose(error));
    this.#client.on('end', () => this.#lose(new Error('the connection has ended')));
    this.#client.on('notification', ({ payload }) => this.onNotification?.(payload ?? ''));
  }

  /** Connects and sets what this folder relies on, whatever the defaults of server, database and role are. Throws what the client throws. */
  static async open(endpoint: Endpoint, options: LinkOptions, clock: Clock): Promise<Link> {
    const link = new Link(endpoint, options, clock);
    try {
      await link.#client.connect();
      connectionsOpen.inc({ role: options.role });
      link.onLost(() => connectionsOpen.dec({ role: options.role }));
      await link.#prepare();
      return link;
    } catch (error) {
      link.destroy(error instanceof Error ? error : new Error(String(error)));
      throw error;
    }
  }

  get isLost(): boolean {
    return this.#lost !== undefined;
  }

  /** Statements without their answer. */
  get outstanding(): number {
    return this.#outstanding;
  }

  onLost(callback: (error: Error) => void): void {
    if (this.#lost) callback(this.#lost);
    else this.#onLost.push(callback);
  }

  /** Rejects with what the server said, or with why the connection was lost. */
  run(statement: Statement): Promise<Row[]> {
    return new Promise((resolve, reject) => {
      if (this.#lost) return reject(this.#lost);
      if (this.#outstanding++ === 0) this.#waitingSinceMs = this.clock.monotonicMs();
      this.#watchdog ??= this.clock.setTimer(watchEveryMs, () => this.#watch(), { background: true });
      const config: pg.QueryArrayConfig = { text: statement.text, rowMode: 'array' };
      if (statement.name) config.name = statement.name;
      if (statement.values) config.values = statement.values as (string | Buffer | null)[];
      this.#client.query<(string | null)[]>(config, (error: Error | null, result) => {
        this.#outstanding--;
        this.#waitingSinceMs = this.clock.monotonicMs();
        if (error) reject(this.#lost ?? error);
        else resolve(result.rows);
      });
    });
  }

  /** Everything that `send` runs goes out in one packet. */
  flight<T>(send: () => T): T {
    const { stream } = (this.#client as unknown as { connection: { stream: { cork(): void; uncork(): void } } }).connection;
    stream.cork();
    try {
      return send();
    } finally {
      stream.uncork();
    }
  }

  /** Says goodbye; what is on its way is still answered. */
  close(): void {
    this.#watchdog?.cancel();
    // A server that hangs never says goodbye itself.
    const impatience = this.clock.setTimer(this.options.answerTimeoutMs, () => this.destroy(new Error('no goodbye')), {
      background: true,
    });
    this.onLost(() => impatience.cancel());
    this.#client.end().catch(() => {});
  }

  /** Cuts the connection. */
  destroy(error: Error): void {
    (this.#client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
    this.#lose(error);
  }

  async #prepare(): Promise<void> {
    const { role, statementTimeoutMs } = this.options;
    // Plans: tables here are read by key only, and statistics of tables that are emptied all the time are worth nothing.
    const settings: Record<string, string> = {
      default_transaction_isolation: 'read committed',
      default_transaction_read_only: 'off',
      statement_timeout: String(statementTimeoutMs),
      idle_in_transaction_session_timeout: role === 'view' ? '0' : String(4 * this.options.answerTimeoutMs),
      lock_timeout: '0',
      // Whoever may create functions in `public` must not be able to put theirs in the place of the system's.
      search_path: 'pg_catalog',
      plan_cache_mode: 'force_generic_plan',
      enable_seqscan: 'off',
      enable_bitmapscan: 'off',
      enable_hashjoin: 'off',
      enable_mergejoin: 'off',
      jit: 'off',
      bytea_output: 'hex',
      client_min_messages: 'warning',
    };
    const text = Object.entries(settings).map(([name, value]) => `set ${name} = '${value}'`);
    // Those that not every version has.
    const newer =
      "select set_config(name, '0', false) from pg_settings where name in ('transaction_timeout', 'idle_session_timeout')";
    const state = "select pg_is_in_recovery(), current_setting('synchronous_commit')";
    const [, , rows] = await this.flight(() =>
      Promise.all([text.join('; '), newer, state].map((statement) => this.run({ text: statement }))),
    );
    const [inRecovery, synchronousCommit] = rows![0]!;
    if (inRecovery === 't') throw new KvError('unavailable', `${this.endpoint.name} is a standby`, 'outage');
    // What is acknowledged must be durable; who wants less than the local disk does not want this store.
    if (role === 'committer' && synchronousCommit === 'off') await this.run({ text: 'set synchronous_commit = on' });
  }

  #watch(): void {
    this.#watchdog = undefined;
    if (this.#lost || this.#outstanding === 0) return;
    const waitedMs = this.clock.monotonicMs() - this.#waitingSinceMs;
    if (waitedMs > this.options.answerTimeoutMs) {
      this.destroy(new Error(`${this.endpoint.name} has not answered for ${Math.round(waitedMs)} ms`));
    } else this.#watchdog = this.clock.setTimer(watchEveryMs, () => this.#watch(), { background: true });
  }

  #lose(error: Error): void {
    if (this.#lost) return;
    this.#lost = error;
    this.#watchdog?.cancel();
    for (const callback of this.#onLost.splice(0)) callback(error);
  }
}
