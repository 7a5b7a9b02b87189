/**
 * Structured logs. One `Logger` is made at start and handed down with child bindings (`room`, `session`, `queueId`). A message is
 * followed from accept to mailbox by its `queueId`. No secret, no password and no message text is ever logged.
 */
import { destination, type Logger as PinoLogger, pino, stdTimeFunctions } from 'pino';

export type Logger = PinoLogger;

/** Logs JSON lines to a file descriptor (default stderr: uWebSockets.js prints to stdout on its own). */
export function createLogger(options: { level?: string; fd?: number; name?: string } = {}): Logger {
  return pino(
    { level: options.level ?? 'info', name: options.name ?? 'starling', timestamp: stdTimeFunctions.isoTime },
    destination({ fd: options.fd ?? 2, sync: true }),
  );
}

/** Swallows everything; for tests. */
export const silentLogger: Logger = pino({ level: 'silent' });
