/** What PostgreSQL and its connections say, as the contract's errors. */
import { KvError, type UnavailableReason } from '../contract.js';

/** SQLSTATE of an error that the server sent, or Node's code. */
export function errorCode(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | undefined)?.code;
  return typeof code === 'string' ? code : undefined;
}

/**
 * Whether the server said, on a connection that goes on, that the statement failed: then it has had no effect. The word for the severity is
 * in the server's language, so the code tells: 57P, 25P and 08 end connections, and only those may come after a commit was made.
 */
export function isStatementError(error: unknown): boolean {
  const severity = (error as { severity?: unknown } | undefined)?.severity;
  return typeof severity === 'string' && severity !== 'FATAL' && !/^(57P|25P|08)/.test(errorCode(error) ?? '');
}

/** A host that takes no writes any more: a standby, or one that was demoted. */
export function isReadOnly(error: unknown): boolean {
  return errorCode(error) === '25006';
}

/** A statement that was cancelled, by its time limit or by an operator. */
export function isCancelled(error: unknown): boolean {
  return errorCode(error) === '57014';
}

/** Waiting does not help: the operator must change something. */
export function isConfigurationError(error: unknown): boolean {
  return /^(28|3D|42501)/.test(errorCode(error) ?? '');
}

/** `unavailable`, with the reason that the code tells. `what` begins the sentence. */
export function unavailable(error: unknown, what: string): KvError {
  if (error instanceof KvError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new KvError('unavailable', `${what}: ${message}`, reasonOf(errorCode(error)), { cause: error });
}

export function closedError(): KvError {
  return new KvError('unavailable', 'the store is closed', 'closed');
}

function reasonOf(code: string | undefined): UnavailableReason {
  // Disk full.
  if (code === '53100') return 'no-space';
  // Data corrupted, I/O errors, internal errors.
  if (code !== undefined && /^(58|XX)/.test(code)) return 'io';
  return 'outage';
}
