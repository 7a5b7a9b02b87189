/** Whatever goes wrong in a run becomes a SieveRunError. */
import { type Position, SieveError, SieveRunError } from './contract.js';

/** The same error where it is one with a place. */
export function toRunError(error: unknown, at?: Position): SieveRunError {
  if (error instanceof SieveRunError) {
    return error.at !== undefined || at === undefined ? error : new SieveRunError(error.message, at, { cause: error.cause });
  }
  const message = error instanceof Error ? error.message : String(error);
  return new SieveRunError(error instanceof SieveError ? message : `the run has failed: ${message}`, at, { cause: error });
}
