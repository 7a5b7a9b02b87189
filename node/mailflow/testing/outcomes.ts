/** A node that does not run, whose queue a test works by hand: for what becomes of messages. */
import { type KvStore, openMemoryStore } from '../../../store/kv/index.js';
import { allShards, type ClaimedDestination, createHistory, type NewQueueMessage } from '../../../store/queue/index.js';
import { createDelivery } from '../delivery.js';
import { defaultOutcomeSettings, type OutcomeSettings } from '../outcome-settings.js';
import { createSettle } from '../settle.js';
import { startTestNode, type TestNodeOptions } from './node.js';

export type Bench = Awaited<ReturnType<typeof openBench>>;

export async function openBench(
  options: { kv?: KvStore; outcomes?: Partial<OutcomeSettings>; settings?: TestNodeOptions['settings'] } = {},
) {
  const kv = options.kv ?? openMemoryStore();
  const outcomes = { ...defaultOutcomeSettings, ...options.outcomes };
  const node = await startTestNode({ kv, isRunning: false, settings: { ...options.settings, outcomes } });
  await node.membership.join();
  const history = createHistory({ kv });
  const parts = { ...node, kv };

  /** Claims all that is due now. */
  async function claimDue(): Promise<ClaimedDestination[]> {
    const { entries } = await node.queue.due(allShards, Math.floor(node.clock.nowMs() / 1000), 1_000);
    return node.queue.claim(node.node, entries);
  }

  return {
    ...node,
    settle: createSettle(parts),
    delivery: createDelivery(parts),
    claimDue,
    /** Queues a message and claims its first destination. */
    async claimOne(more: Partial<NewQueueMessage> & { text?: string } = {}): Promise<ClaimedDestination> {
      const { text = 'Subject: x\r\nFrom: <sender@remote.test>\r\n\r\nx\r\n', ...envelope } = more;
      const nowMs = node.clock.nowMs();
      const message: NewQueueMessage = {
        id: node.queue.newId(),
        blob: node.blobs.prepare(Buffer.from(text)),
        relayOffsetBytes: 0,
        from: 'sender@remote.test',
        receivedAtMs: nowMs,
        expiresAtMs: nowMs + 432_000_000,
        isUtf8: false,
        body: '7BIT',
        priority: 0,
        source: { protocol: 'smtp', helo: 'client.remote.test' },
        destinations: [{ domain: 'target.test', isLocal: false, recipients: [{ address: 'bob@target.test' }] }],
        ...envelope,
      };
      const enqueue = () => kv.transact((tx) => node.queue.enqueue(tx, message, { nowSeconds: 1, claimFor: node.node }));
      return (await enqueue())[0]!;
    },
    /** Claims the destination of one message again, whenever it is due. */
    async claimAgain(queueId: string): Promise<ClaimedDestination> {
      const shown = await node.queue.show(queueId);
      const dueMs = (shown?.destinations[0]?.dueAtSeconds ?? 0) * 1000;
      if (dueMs > node.clock.nowMs()) node.clock.shiftMs += dueMs - node.clock.nowMs() + 1;
      const claimed = await claimDue();
      const wanted = claimed.find(({ message }) => message.id === queueId);
      const others = claimed.filter((one) => one !== wanted);
      await node.queue.release(others, Math.floor(node.clock.nowMs() / 1000));
      if (!wanted) throw new Error(`${queueId} is not due`);
      return wanted;
    },
    /** What is queued beside these messages, in the order of its making. */
    async made(...not: string[]) {
      const queued = (await node.queue.list({ limit: 1_000 })).filter(({ message }) => !not.includes(message.id));
      return Promise.all(
        queued.map(async ({ message, destinations }) => ({
          message,
          destinations,
          to: destinations.flatMap(({ recipients }) => recipients.map(({ address }) => address)),
          bytes: await node.blobs.read(message.blobId),
        })),
      );
    },
    async historyOf(queueId: string) {
      return (await kv.read((reads) => history.read(reads, queueId))).map(({ event }) => event);
    },
  };
}
