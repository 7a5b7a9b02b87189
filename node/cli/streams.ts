/**
 * Standard output and error of a process that outlives whoever reads them: a closed pipe, a vanished terminal or a full disk behind the log ends
 * neither the node nor a session.
 */
import { symbols } from 'pino';
import type { Logger } from '../../ops/telemetry/index.js';

/** Log text that waits for a log that takes nothing; what comes on top is lost. */
const maxWaitingLogBytes = 1_048_576;

interface LogStream {
  maxLength?: number;
  on?(event: 'error', listener: (error: Error) => void): unknown;
}

/**
 * For an operation's output: whoever closes the pipe has seen enough (`starling queue list | head`); what can't be written otherwise
 * (a full disk) makes exit code 1.
 */
export function tolerateClosedOutput(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') process.exitCode = 1;
    });
  }
}

/** From here on a log line that can't be written is dropped; without it the line's author would be thrown the error. */
export function tolerateLostLog(logger: Logger): void {
  const stream = (logger as unknown as Record<symbol, LogStream | undefined>)[symbols.streamSym];
  stream?.on?.('error', () => undefined);
  if (stream) stream.maxLength = maxWaitingLogBytes;
}
