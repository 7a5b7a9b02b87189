/**
 * Approximate counts of what is queued, by names that callers choose (a sender, a domain, the total): added to in the transaction that enqueues, taken off in
 * the one that finishes. Each is spread over slots, so that no two messages meet at one key as a rule.
 */
import type { Clock } from '../../ops/telemetry/index.js';
import type { KvStore, KvTransaction } from '../kv/contract.js';
import { keyAfter } from '../kv/contract.js';
import type { QueueMessage } from './contract.js';
import * as records from './records.js';
import { hash32 } from './shards.js';

const slots = 16;
const maxAgeMs = 1000;
const maxRemembered = 10_000;
const forgetPage = 500;

/** 1: it has come; -1: it is done. */
export function countUsage(tx: KvTransaction, message: QueueMessage, direction: 1 | -1): void {
  if (!message.countedUnder) return;
  const slot = hash32(message.id) % slots;
  for (const name of message.countedUnder) {
    tx.add(records.usageKey(name, slot, 0), BigInt(direction));
    tx.add(records.usageKey(name, slot, 1), BigInt(direction * message.sizeBytes));
  }
}

export interface Usage {
  messages: number;
  bytes: number;
}

/** Reads counters, and remembers each for a second: a flood of mail must not become a flood of reads. */
export function createUsageReader(kv: KvStore, clock: Clock): (name: string) => Promise<Usage> {
  const known = new Map<string, { atMs: number; usage: Promise<Usage> }>();
  return (name) => {
    const nowMs = clock.monotonicMs();
    const before = known.get(name);
    if (before && nowMs - before.atMs < maxAgeMs) return before.usage;
    const usage = readUsage(kv, name);
    if (known.size >= maxRemembered) known.clear();
    known.set(name, { atMs: nowMs, usage });
    // A failure is told to those who wait, and not remembered.
    usage.catch(() => {
      if (known.get(name)?.usage === usage) known.delete(name);
    });
    return usage;
  };
}

function readUsage(kv: KvStore, name: string): Promise<Usage> {
  const { begin, end } = records.usageRange(name);
  return kv.read(
    async (reads) => {
      const sums = [0n, 0n];
      for (const { key, value } of await reads.getRange(begin, end)) sums[key.at(-1) === 0x14 ? 0 : 1]! += value.readBigInt64LE();
      // While nodes that don't count are at work it may go below.
      return { messages: Math.max(0, Number(sums[0])), bytes: Math.max(0, Number(sums[1])) };
    },
    { label: 'usage' },
  );
}

/** Removes counters that stand at zero; each page asserts. */
export async function forgetZeroUsage(kv: KvStore, assert?: (tx: KvTransaction) => Promise<void>): Promise<void> {
  let { begin, end } = records.allUsageRange();
  for (;;) {
    const page = await kv.read((reads) => reads.getRange(begin, end, { limit: forgetPage }));
    const zeros = page.filter(({ value }) => value.readBigInt64LE() === 0n);
    if (zeros.length > 0) {
      await kv.transact(
        async (tx) => {
          await assert?.(tx);
          const values = await tx.getMany(zeros.map(({ key }) => key));
          for (const [i, { key }] of zeros.entries()) if (values[i]?.readBigInt64LE() === 0n) tx.clear(key);
        },
        { label: 'forget-usage' },
      );
    }
    if (page.length < forgetPage) return;
    begin = keyAfter(page.at(-1)!.key);
  }
}
