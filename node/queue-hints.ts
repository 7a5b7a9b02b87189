/**
 * Work that has become due on one node and is another's to do: a word over gossip, so that nobody waits for the next look at the store. Says nothing of what
 * is due; whoever hears it looks.
 */
import type { Gossip } from '../cluster/gossip/contract.js';
import type { Clock, Timer } from '../ops/telemetry/index.js';
import { counter } from '../ops/telemetry/index.js';
import type { Queue } from '../store/queue/index.js';

/** `direction`: sent, heard. */
const hintsTotal = counter('starling_queue_hints_total', 'Words over gossip that something in the queue has become due.', [
  'direction',
]);

const kind = 'queue-due';
/** Between two words of one node; and between two looks for them. */
const minSendGapMs = 250;
/** Longer among many: each hears them all, and whoever speaks first makes everybody look. So a node hears at most 20 a second, however many speak. */
const sendGapPerPeerMs = 50;
const minLookGapMs = 100;

export interface QueueHintsOptions {
  gossip: Pick<Gossip, 'publish' | 'subscribe' | 'connected'>;
  queue: Pick<Queue, 'onDue'>;
  clock: Clock;
  /** Looks at the queue now. */
  onHint: () => void;
}

/** Answers the way to stop. */
export function shareQueueHints({ gossip, queue, clock, onHint }: QueueHintsOptions): () => void {
  const sendGapMs = () => Math.max(minSendGapMs, gossip.connected().length * sendGapPerPeerMs);
  const send = seldom(clock, sendGapMs, () => {
    hintsTotal.inc({ direction: 'sent' });
    gossip.publish('control', { kind });
  });
  const look = seldom(clock, () => minLookGapMs, onHint);
  const unsubscribe = [
    queue.onDue(send.ask),
    gossip.subscribe('control', ({ body }) => {
      if ((body as { kind?: unknown } | null)?.kind !== kind) return;
      hintsTotal.inc({ direction: 'heard' });
      look.ask();
    }),
  ];
  return () => {
    for (const stop of unsubscribe) stop();
    send.stop();
    look.stop();
  };
}

/** Runs `work` at once, and once more after the gap for all who asked meanwhile. */
function seldom(clock: Clock, gapMs: () => number, work: () => void): { ask(): void; stop(): void } {
  let timer: Timer | undefined;
  let isAsked = false;
  const run = () => {
    isAsked = false;
    timer = clock.setTimer(
      gapMs(),
      () => {
        timer = undefined;
        if (isAsked) run();
      },
      { background: true },
    );
    work();
  };
  return {
    ask() {
      if (timer) isAsked = true;
      else run();
    },
    stop: () => timer?.cancel(),
  };
}
