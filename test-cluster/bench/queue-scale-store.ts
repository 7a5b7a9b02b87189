/**
 * One store of the benchmark `queue-scale`, in a process of its own so that its memory is its own: filled, measured and told apart by what its parent orders.
 * Filled by the same enqueue that is measured, only with more messages in a transaction.
 */
import { readFileSync } from 'node:fs';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import { createBlobStore } from '../../store/blobs/index.js';
import { nodeKeys } from '../../store/keyspace.js';
import { type KvStore, openEmbeddedStore, openMemoryStore } from '../../store/kv/index.js';
import {
  allShards,
  createDestinations,
  createHistory,
  createQueue,
  type NewQueueMessage,
  type Queue,
} from '../../store/queue/index.js';
import { residentBytes } from './figures.js';

export type ToStore =
  | { do: 'open'; store: 'embedded' | 'memory'; directory: string }
  | { do: 'fill'; messages: number }
  | { do: 'measure'; enqueues: number; claims: number }
  | { do: 'memory' }
  | { do: 'stop' };

export type FromStore =
  | { did: 'open' }
  | { did: 'fill'; perSecond: number }
  | { did: 'measure'; enqueue: Cost; claim: Cost; claimMs: number[] }
  | { did: 'memory'; residentBytes: number; ownBytes: number; heapBytes: number }
  | { did: 'stop' };

/** Of so many. */
export interface Cost {
  count: number;
  seconds: number;
  /** Of all threads of the process. */
  cpuSeconds: number;
}

const messageBytes = 600;
/** As many as the mail flow lets share a transaction under load. */
const perTransaction = { measured: 64, fill: 500 };
const transactionsAtOnce = 4;
const claimsPerLook = 50;
/** Domains whose mail waits in lines: they are paused, so that a node leaves it there. */
const pausedDomains = Array.from({ length: 20 }, (_, n) => `down${n}.test`);
const dayMs = 86_400_000;

class MeasuredStore {
  readonly #queue: Queue;
  readonly #blobs;
  readonly #history;
  readonly #node = { nodeId: 'b'.repeat(32), incarnation: 1 };
  /** So that several stores hold the same number of different contents, and no two measurements the same. */
  #count = 0;

  constructor(readonly kv: KvStore) {
    const parts = { kv, clock: systemClock, random: systemRandom, logger: silentLogger };
    this.#blobs = createBlobStore(parts);
    this.#queue = createQueue({ ...parts, blobs: this.#blobs });
    this.#history = createHistory({ kv });
    this.#queue.admitBy({
      lineFor: (domain) => (domain.startsWith('down') ? domain : undefined),
      deadlineSecondsOf: () => Number.POSITIVE_INFINITY,
    });
  }

  async start(): Promise<void> {
    await this.kv.transact(async (tx) => tx.set(nodeKeys.fence(this.#node.nodeId), Buffer.alloc(0)));
    const parts = { kv: this.kv, clock: systemClock, random: systemRandom, logger: silentLogger };
    const destinations = createDestinations({ ...parts, nodeId: this.#node.nodeId });
    for (const domain of pausedDomains) await destinations.pause(domain, 'benchmark', '');
    await destinations.stop();
  }

  #message(domain: string, notBeforeSeconds?: number): NewQueueMessage {
    const nowMs = systemClock.nowMs();
    const text = `Subject: ${this.#count++} ${process.pid}\r\n\r\n`;
    return {
      id: this.#queue.newId(),
      blob: this.#blobs.prepare(Buffer.from(text.padEnd(messageBytes, 'x')), { isUnique: true }),
      relayOffsetBytes: 0,
      from: `sender${this.#count % 100}@example.test`,
      receivedAtMs: nowMs,
      expiresAtMs: nowMs + 5 * dayMs,
      isUtf8: false,
      body: '7BIT',
      priority: 0,
      source: { protocol: 'local' },
      destinations: [{ domain, isLocal: false, recipients: [{ address: `x@${domain}` }] }],
      notBeforeSeconds,
    };
  }

  async #enqueue(count: number, together: number, make: (n: number) => NewQueueMessage): Promise<Cost> {
    let next = 0;
    const work = async () => {
      while (next < count) {
        const from = next;
        next = Math.min(count, next + together);
        const batch = Array.from({ length: next - from }, (_, at) => make(from + at));
        await this.kv.transact(async (tx) => this.#enqueueAll(tx, batch), { label: 'enqueue' });
      }
    };
    return cost(count, () => Promise.all(Array.from({ length: transactionsAtOnce }, work)));
  }

  async #enqueueAll(tx: Parameters<Queue['enqueue']>[0], batch: readonly NewQueueMessage[]): Promise<void> {
    const nowSeconds = Math.floor(systemClock.nowMs() / 1000);
    await Promise.all(batch.map((message) => this.#queue.enqueue(tx, message, { nowSeconds })));
    for (const { id, from, destinations, receivedAtMs } of batch) {
      const recipients = destinations.flatMap((one) => one.recipients.map(({ address }) => address));
      this.#history.append(tx, id, {
        atMs: receivedAtMs,
        nodeId: this.#node.nodeId,
        event: {
          kind: 'accepted',
          from,
          recipients,
          recipientCount: recipients.length,
          sizeBytes: messageBytes,
          protocol: 'submission',
          checks: {},
        },
      });
    }
  }

  /** Half of it waits for its next attempt, half in lines; nothing of it can be worked for a day. Answers how many a second. */
  async fill(count: number): Promise<number> {
    const laterSeconds = Math.ceil((systemClock.nowMs() + dayMs) / 1000);
    const { seconds } = await this.#enqueue(count, perTransaction.fill, (n) =>
      n % 2 === 0
        ? this.#message(pausedDomains[(n / 2) % pausedDomains.length]!)
        : this.#message(`d${n % 5000}.test`, laterSeconds),
    );
    // What it has left behind must not be swept up in what is measured.
    globalThis.gc?.();
    return count / seconds;
  }

  async measure(enqueues: number, claims: number): Promise<Extract<FromStore, { did: 'measure' }>> {
    const enqueue = await this.#enqueue(enqueues, perTransaction.measured, (n) => this.#message(`due${n % 500}.test`));
    const claimMs: number[] = [];
    const claim = await cost(claims, async () => {
      for (let claimed = 0; claimed < claims; ) {
        const startMs = performance.now();
        const won = await this.#claim(claimsPerLook);
        claimMs.push(performance.now() - startMs);
        if (won === 0) throw new Error('nothing could be claimed');
        claimed += won;
      }
    });
    await this.#finish();
    return { did: 'measure', enqueue, claim, claimMs };
  }

  /** A look at what is due, and the claim of what it found. */
  async #claim(limit: number): Promise<number> {
    const { entries } = await this.#queue.due(allShards, Math.ceil(systemClock.nowMs() / 1000), limit);
    return (await this.#queue.claim(this.#node, entries)).length;
  }

  /** What was enqueued to be measured, so that the next measurement begins as this one did. */
  async #finish(): Promise<void> {
    const together = perTransaction.measured * transactionsAtOnce;
    for (;;) {
      await this.#claim(together);
      const held = await this.#queue.claimsOf(this.#node, together);
      if (held.length === 0) return;
      const finish = (one: number) =>
        this.kv.transact(async (tx) => {
          for (const claimed of held.filter((_held, at) => at % transactionsAtOnce === one)) {
            const results = claimed.destination.recipients.map(({ address }) => ({ address, status: 'relayed' as const }));
            await this.#queue.save(tx, claimed, { results });
          }
        });
      await Promise.all(Array.from({ length: transactionsAtOnce }, (_, one) => finish(one)));
    }
  }
}

async function cost(count: number, work: () => Promise<unknown>): Promise<Cost> {
  const before = process.cpuUsage();
  const startMs = performance.now();
  await work();
  const { user, system } = process.cpuUsage(before);
  return { count, seconds: (performance.now() - startMs) / 1000, cpuSeconds: (user + system) / 1e6 };
}

function memory(): Extract<FromStore, { did: 'memory' }> {
  globalThis.gc?.();
  const status = readFileSync('/proc/self/status', 'utf8');
  const heapBytes = process.memoryUsage().heapUsed;
  return { did: 'memory', residentBytes: residentBytes(status, 'VmRSS'), ownBytes: residentBytes(status, 'RssAnon'), heapBytes };
}

let measured: MeasuredStore;

async function obey(order: ToStore): Promise<FromStore> {
  switch (order.do) {
    case 'open':
      measured = new MeasuredStore(
        order.store === 'memory' ? openMemoryStore() : await openEmbeddedStore({ directory: order.directory }),
      );
      await measured.start();
      return { did: 'open' };
    case 'fill':
      return { did: 'fill', perSecond: await measured.fill(order.messages) };
    case 'measure':
      return measured.measure(order.enqueues, order.claims);
    case 'memory':
      return memory();
    case 'stop':
      await measured?.kv.close();
      return { did: 'stop' };
  }
}

process.on('message', (order: ToStore) => {
  obey(order).then(
    (answer) => process.send!(answer, () => order.do === 'stop' && process.exit(0)),
    (error: unknown) => {
      process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
      process.exit(1);
    },
  );
});
process.once('disconnect', () => process.exit(1));
