/**
 * Structured logs. One `Logger` is made at start and handed down with child bindings (`room`, `session`, `queueId`). A message is
 * followed from accept to mailbox by its `queueId`. No secret, no password and no message text is ever logged.
 */
import { destination, type Logger as PinoLogger, pino, stdTimeFunctions } from 'pino';

export type Logger = PinoLogger;

/** Log text that waits for a log that takes nothing; what comes on top is lost. */
const maxWaitingLogBytes = 1_048_576;

/** Logs JSON lines to a file descriptor (default stderr: uWebSockets.js prints to stdout on its own). */
export function createLogger(options: { level?: string; fd?: number; name?: string } = {}): Logger {
  const stream = destination({ fd: options.fd ?? 2, sync: true, maxLength: maxWaitingLogBytes });
  // A closed pipe, a vanished terminal or a full disk behind the log ends neither the node nor a session: the line is dropped.
  stream.on('error', () => undefined);
  return pino({ level: options.level ?? 'info', name: options.name ?? 'starling', timestamp: stdTimeFunctions.isoTime }, stream);
}

/** Swallows everything; for tests. */
export const silentLogger: Logger = pino({ level: 'silent' });
