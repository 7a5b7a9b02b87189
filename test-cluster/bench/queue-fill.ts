/** Long queues for benchmarks: messages that are put into the store itself, all due at the same moment. */
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { createBlobStore } from '../../store/blobs/index.js';
import type { KvStore } from '../../store/kv/index.js';
import { createQueue } from '../../store/queue/index.js';
import { tokenMessage } from '../harness/smtp-load.js';

const messagesPerTransaction = 50;
const transactionsAtOnce = 4;

export const storeParts = { clock: systemClock, random: systemRandom, logger: silentLogger };

export interface FillOptions {
  /** Opened for this, and closed at the end. */
  open(parts: typeof storeParts): Promise<KvStore>;
  /** Domain of each message's one recipient, and so how many messages. Their tokens are `PREFIX` and the place in it. */
  domains: readonly string[];
  tokenPrefix: string;
  dueAtSeconds: number;
  messageBytes?: number;
}

/** Puts a message for each of `domains` into the queue that becomes due at `dueAtSeconds`. */
export async function fillQueue({ open, domains, tokenPrefix, dueAtSeconds, messageBytes = 600 }: FillOptions): Promise<void> {
  const kv = await open(storeParts);
  try {
    const blobs = createBlobStore({ kv, ...storeParts });
    const queue = createQueue({ kv, blobs, ...storeParts });
    const nowMs = systemClock.nowMs();
    const message = (index: number) => ({
      id: queue.newId(),
      blob: blobs.prepare(tokenMessage(`${tokenPrefix}${index}`, messageBytes), { isUnique: true }),
      relayOffsetBytes: 0,
      from: 'alice@example.test',
      receivedAtMs: nowMs,
      expiresAtMs: nowMs + 86_400_000,
      isUtf8: false,
      body: '7BIT' as const,
      priority: 0,
      source: { protocol: 'local' as const },
      destinations: [{ domain: domains[index]!, isLocal: false, recipients: [{ address: `x@${domains[index]}` }] }],
    });
    let next = 0;
    const work = async () => {
      while (next < domains.length) {
        const from = next;
        next += messagesPerTransaction;
        const count = Math.min(messagesPerTransaction, domains.length - from);
        const batch = Array.from({ length: count }, (_, at) => message(from + at));
        await kv.transact(async (tx) => {
          for (const one of batch) await queue.enqueue(tx, one, { nowSeconds: dueAtSeconds });
        });
      }
    };
    await Promise.all(Array.from({ length: transactionsAtOnce }, work));
  } finally {
    await kv.close();
  }
}
