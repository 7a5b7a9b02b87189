/** What `include` (RFC 6609) asks of a run, beyond what all commands may. */
import type { Flow, MaybePromise, Run } from './contract.js';

export interface IncludingRun extends Run {
  /** Whether a script of this name has been included in this run. */
  wasIncluded(key: string): boolean;
  /**
   * Compiles (once) and runs another script within this run, with variables of its own.
   * @throws SieveRunError when it is none, includes itself, or stands too deep.
   */
  include(key: string, text: string): MaybePromise<Flow>;
  /** From here on these names of the present script mean global variables. @throws SieveRunError for one that has a value here already */
  declareGlobal(names: readonly string[]): void;
}
