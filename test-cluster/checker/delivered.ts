/** The verdict on mail: every acknowledged message is in a mailbox exactly once, and nothing is there that was never sent. */
import type { Ledger } from '../harness/smtp-load.js';

export interface Verdict {
  acknowledged: number;
  lost: string[];
  doubled: string[];
  /** In a mailbox though it was never acknowledged: allowed, once. */
  unacknowledgedDelivered: number;
  unknown: string[];
}

/** Compares tokens found in the mailboxes with the sender's ledger. */
export function judgeDelivery(ledger: Ledger, found: readonly string[]): Verdict {
  const counts = new Map<string, number>();
  for (const token of found) counts.set(token, (counts.get(token) ?? 0) + 1);
  return {
    acknowledged: ledger.acknowledged.size,
    lost: [...ledger.acknowledged].filter((token) => !counts.has(token)),
    doubled: [...counts].filter(([, count]) => count > 1).map(([token]) => token),
    unacknowledgedDelivered: [...counts.keys()].filter((token) => ledger.uncertain.has(token)).length,
    unknown: [...counts.keys()].filter((token) => !ledger.acknowledged.has(token) && !ledger.uncertain.has(token)),
  };
}
