/** What an operation is: its arguments, what it may use, how it refuses. */
import type { CheckProgress } from '../../store/transfer/index.js';
import type { Stores } from '../stores.js';

/** An operation that is refused or fails for a reason that its user can understand; exit code 1. */
export class OperationRefused extends Error {
  override readonly name = 'OperationRefused';
}

/** What the running node tells of itself; absent when the command line opened the store by itself. */
export interface NodeFace {
  describe(): Promise<Record<string, unknown>>;
  /** Every node that the store knows, as this one sees it; this one first. */
  nodes(): Promise<Record<string, unknown>[]>;
  /** Begins the drain; the process ends when it is done. */
  drain(): void;
  /** Wishes the drain of another node. Answers false when there is no such node (any more). */
  requestDrain(nodeId: string): Promise<boolean>;
  certificates(): Record<string, unknown>[];
}

export interface OperationContext {
  stores: Pick<
    Stores,
    | 'clock'
    | 'kv'
    | 'settings'
    | 'sealer'
    | 'blobs'
    | 'mail'
    | 'search'
    | 'directory'
    | 'queue'
    | 'history'
    | 'destinations'
    | 'bans'
    | 'lookups'
  >;
  node?: NodeFace;
  /** Hears how far a long operation is; only where it runs in the command line's own process. */
  onProgress?: (progress: CheckProgress) => void;
  /** Breaks a long operation off. */
  signal?: AbortSignal;
}

export interface OperationArguments {
  positionals: string[];
  flags: Record<string, string | boolean | string[] | undefined>;
}

export interface Operation {
  /** Positional arguments in capitals, in brackets when they may be left out; flags in brackets. */
  usage: string;
  summary: string;
  /** Only the running node can do it. */
  needsNode?: boolean;
  /** It needs neither a node nor a store. */
  isOffline?: boolean;
  run(context: OperationContext, args: OperationArguments): Promise<unknown>;
}
