/**
 * What ends the process from outside, and from inside: signals begin the drain, a second one ends at once; an error that nobody caught is logged and
 * ends the process too, because a crash loses nothing and a process in an unknown state might.
 */
import { type Clock, type Logger, systemClock } from '../../ops/telemetry/index.js';

/**
 * A signal that comes this soon after the first is the same wish: Ctrl-C reaches the node from the terminal and once more from npm, which passes
 * on what it got itself.
 */
const sameWishMs = 1_000;

export interface SignalHandling {
  logger: Logger;
  /** Begins the drain. */
  stop(): void;
  /** Ends the process at once. */
  exit(code: number): void;
  /** Whether SIGHUP means that the terminal that shows the node has gone. */
  isInTerminal: boolean;
  clock?: Clock;
}

/** SIGTERM and SIGINT stop; SIGHUP does where a terminal has gone and is ignored otherwise: there is nothing to load anew. */
export function signalHandler(handling: SignalHandling): (signal: NodeJS.Signals) => void {
  const { logger, clock = systemClock } = handling;
  let firstAtMs: number | undefined;
  return (signal) => {
    if (signal === 'SIGHUP' && !handling.isInTerminal) {
      logger.info({ signal }, 'ignored: settings take effect when they are changed, the local file at the next start');
      return;
    }
    const nowMs = clock.monotonicMs();
    if (firstAtMs === undefined) {
      firstAtMs = nowMs;
      logger.info({ signal }, 'told to stop');
      handling.stop();
    } else if (nowMs - firstAtMs >= sameWishMs) {
      logger.warn({ signal }, 'second signal: ending at once');
      handling.exit(1);
    }
  };
}

/** Logs what nobody caught as fatal and ends the process with code 1. */
export function exitOnUncaught(logger: Logger, exit: (code: number) => void = (code) => process.exit(code)): void {
  const fatal = (what: string) => (error: unknown) => {
    try {
      logger.fatal({ err: error instanceof Error ? error : new Error(String(error)) }, what);
    } finally {
      exit(1);
    }
  };
  process.on('uncaughtException', fatal('an error that nobody caught: ending'));
  process.on('unhandledRejection', fatal('a rejection that nobody handled: ending'));
}
