/** Tells the history of a message what the queue itself does with it. */
import type { KvTransaction } from '../kv/contract.js';
import type { HistoryEvent } from './history-contract.js';

/** In the transaction in which it happens. `atMs`: chosen before it, where a body that runs again finds the same to tell once more. Default: now. */
export type Tell = (tx: KvTransaction, queueId: string, event: HistoryEvent, atMs?: number) => void;
