/** Connections to other mail servers that wait a moment for the next message to the same host, and are not used for ever. */
import type { Clock, Timer } from '../../ops/telemetry/index.js';
import type { OutgoingMessage, SendResult, TlsOutcome } from '../../protocols/smtp/client/contract.js';

/** What the pool and the deliveries need of an SMTP client's connection. */
export interface OutgoingConnection {
  /** How it is protected. */
  readonly tls?: TlsOutcome;
  /** False once the peer has closed it, as far as that is known here. */
  readonly usable?: boolean;
  send(message: OutgoingMessage, signal?: AbortSignal): Promise<SendResult>;
  /** Says QUIT and closes. */
  quit(): Promise<void>;
  /** Closes at once. */
  destroy(): void;
}

export interface PooledConnection {
  connection: OutgoingConnection;
  /** Was idle before: the peer may have closed it meanwhile. */
  isReused: boolean;
}

export interface ConnectionPool {
  /** An idle connection of this key if there is one, else a new one from `connect`. The key names everything that connections differ by. */
  acquire(key: string, connect: () => Promise<OutgoingConnection>): Promise<PooledConnection>;
  /** After a message. */
  release(key: string, connection: OutgoingConnection, isReusable: boolean): void;
  /** Closes what is idle, and from now on everything that is released. */
  close(): void;
}

export interface PoolLimits {
  clock: Clock;
  /** So many wait for `idleMs`; what a busy host has beyond waits a second, for the deliveries that begin just now. */
  maxIdlePerHost: number;
  idleMs: number;
  /** All hosts together. Default 1,000. */
  maxIdle?: number;
  /** Asked at each release. Default: without limit. */
  limitsPerConnection?: () => { maxMessages: number; maxMs: number };
}

interface Idle {
  connection: OutgoingConnection;
  timer: Timer;
}

const surplusIdleMs = 1_000;

/** What a connection has done. */
interface Use {
  openedAtMs: number;
  messages: number;
}

export function createConnectionPool(options: PoolLimits): ConnectionPool {
  const { clock, maxIdlePerHost, idleMs, maxIdle = 1_000, limitsPerConnection } = options;
  const idle = new Map<string, Idle[]>();
  const uses = new WeakMap<OutgoingConnection, Use>();
  let idleCount = 0;
  let isClosed = false;

  function remove(key: string, one: Idle): void {
    const list = idle.get(key);
    const at = list?.indexOf(one) ?? -1;
    if (!list || at < 0) return;
    list.splice(at, 1);
    idleCount--;
    if (list.length === 0) idle.delete(key);
  }

  const part = (connection: OutgoingConnection) => void connection.quit().catch(() => connection.destroy());

  /** One more message has gone over it; whether it may take another. */
  function isFresh(connection: OutgoingConnection): boolean {
    const use = uses.get(connection);
    if (!use || !limitsPerConnection) return true;
    const { maxMessages, maxMs } = limitsPerConnection();
    return ++use.messages < maxMessages && clock.monotonicMs() - use.openedAtMs < maxMs;
  }

  return {
    async acquire(key, connect) {
      for (let one = idle.get(key)?.at(-1); one; one = idle.get(key)?.at(-1)) {
        one.timer.cancel();
        remove(key, one);
        if (one.connection.usable !== false) return { connection: one.connection, isReused: true };
        one.connection.destroy();
      }
      const connection = await connect();
      uses.set(connection, { openedAtMs: clock.monotonicMs(), messages: 0 });
      return { connection, isReused: false };
    },

    release(key, connection, isReusable) {
      if (!isReusable) return connection.destroy();
      const list = idle.get(key) ?? [];
      if (!isFresh(connection) || isClosed || idleCount >= maxIdle) return part(connection);
      const timer = clock.setTimer(
        list.length < maxIdlePerHost ? idleMs : Math.min(idleMs, surplusIdleMs),
        () => {
          remove(key, one);
          part(connection);
        },
        { background: true },
      );
      const one: Idle = { connection, timer };
      list.push(one);
      idleCount++;
      idle.set(key, list);
    },

    close() {
      isClosed = true;
      for (const { connection, timer } of [...idle.values()].flat()) {
        timer.cancel();
        part(connection);
      }
      idle.clear();
      idleCount = 0;
    },
  };
}
