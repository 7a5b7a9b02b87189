/** Connections to other mail servers that wait a moment for the next message to the same host. */
import type { Clock, Timer } from '../../ops/telemetry/index.js';
import type { OutgoingMessage, SendResult } from '../../protocols/smtp/client/contract.js';

/** What the pool and the deliveries need of an SMTP client's connection. */
export interface OutgoingConnection {
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
  /** An idle connection of this host if there is one, else a new one from `connect`. */
  acquire(host: string, connect: () => Promise<OutgoingConnection>): Promise<PooledConnection>;
  /** Without an idle one, always makes a new connection. */
  release(host: string, connection: OutgoingConnection, isReusable: boolean): void;
  /** Closes what is idle, and from now on everything that is released. */
  close(): void;
}

interface Idle {
  connection: OutgoingConnection;
  timer: Timer;
}

export function createConnectionPool(options: { clock: Clock; maxIdlePerHost: number; idleMs: number }): ConnectionPool {
  const { clock, maxIdlePerHost, idleMs } = options;
  const idle = new Map<string, Idle[]>();
  let isClosed = false;

  function remove(host: string, one: Idle): void {
    const list = idle.get(host);
    const at = list?.indexOf(one) ?? -1;
    if (!list || at < 0) return;
    list.splice(at, 1);
    if (list.length === 0) idle.delete(host);
  }

  return {
    async acquire(host, connect) {
      const one = idle.get(host)?.at(-1);
      if (!one) return { connection: await connect(), isReused: false };
      one.timer.cancel();
      remove(host, one);
      return { connection: one.connection, isReused: true };
    },

    release(host, connection, isReusable) {
      const list = idle.get(host) ?? [];
      if (!isReusable || isClosed || list.length >= maxIdlePerHost) {
        if (isReusable) void connection.quit().catch(() => connection.destroy());
        else connection.destroy();
        return;
      }
      const timer = clock.setTimer(
        idleMs,
        () => {
          remove(host, one);
          void connection.quit().catch(() => connection.destroy());
        },
        { background: true },
      );
      const one: Idle = { connection, timer };
      list.push(one);
      idle.set(host, list);
    },

    close() {
      isClosed = true;
      for (const { connection, timer } of [...idle.values()].flat()) {
        timer.cancel();
        void connection.quit().catch(() => connection.destroy());
      }
      idle.clear();
    },
  };
}
