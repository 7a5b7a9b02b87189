/**
 * The node's facts for SORT and THREAD, by mailbox, within a bound of bytes (S3-FIFO). A mailbox is read once, in batches; what has arrived since is added and
 * what is gone is dropped when it is asked for again. Sessions that ask at one time share the work.
 */
import { gauge, histogram, latencyBucketsSeconds, type Random } from '../../../ops/telemetry/index.js';
import { S3Fifo } from '../../../store/limits/s3-fifo.js';
import type { EmailId, MailStore } from '../../../store/mail/contract.js';
import type { SessionContext } from '../context.js';
import { lowerBound } from '../grammar/sequence-set.js';
import { Turns } from '../search/turns.js';
import type { SelectedMailbox } from '../selected.js';
import { readSummaryHeads } from '../summaries.js';
import { keyedHash, MessageFacts } from './message-facts.js';

const cacheBytes = gauge('starling_imap_sort_facts_bytes', 'Memory of what SORT and THREAD know of messages');
const loadSeconds = histogram(
  'starling_imap_sort_facts_load_seconds',
  'Time to read what SORT and THREAD want to know and did not know yet',
  [],
  latencyBucketsSeconds,
);

/** Messages whose summaries are read at one time. */
const batchSize = 500;
/** So many facts of expunged messages are borne before the rest is copied together. */
const minGarbage = 1_024;

interface Slot {
  facts: MessageFacts;
  bytes: number;
}

class FactsCache {
  readonly #kept: S3Fifo<Slot>;
  readonly #running = new Map<string, Promise<MessageFacts>>();
  readonly #hash: ReturnType<typeof keyedHash>;

  constructor(maxBytes: number, random: Random) {
    this.#kept = new S3Fifo<Slot>(maxBytes, (slot) => slot.bytes);
    this.#hash = keyedHash(random);
  }

  /** Facts of all messages that the selected mailbox's index knows when this is called. To be used before the caller waits again. */
  async of(context: SessionContext, selected: SelectedMailbox): Promise<MessageFacts> {
    const key = keyOf(selected);
    for (;;) {
      const running = this.#running.get(key);
      if (!running) break;
      // Whoever reads for itself may fail for its own reasons (its client is gone).
      const facts = await running.catch(() => undefined);
      if (facts && isComplete(facts, selected)) return facts;
    }
    const reading = this.#update(key, context, selected);
    this.#running.set(key, reading);
    try {
      return await reading;
    } finally {
      this.#running.delete(key);
    }
  }

  /** What is known already, however much that is. */
  known(selected: SelectedMailbox): MessageFacts | undefined {
    const facts = this.#kept.get(keyOf(selected))?.facts;
    return facts && facts.modseq <= selected.index.modseq ? facts : undefined;
  }

  async #update(key: string, context: SessionContext, selected: SelectedMailbox): Promise<MessageFacts> {
    let facts = this.#kept.get(key)?.facts;
    const view = selected.index.view();
    // A store that was put back to an earlier state may give UIDs a second time.
    if (!facts || facts.modseq > view.modseq) facts = new MessageFacts(this.#hash);
    const gone = facts.size - lowerBound(view.uids, facts.lastUid + 1);
    if (gone > minGarbage && gone > facts.size / 8) facts = facts.retained(view.uids);
    facts.modseq = view.modseq;
    try {
      if (!isComplete(facts, selected)) {
        const { clock } = context.services;
        const startedMs = clock.monotonicMs();
        await readMissing(facts, context, selected, view.uids);
        loadSeconds.observe((clock.monotonicMs() - startedMs) / 1000);
      }
      return facts;
    } finally {
      // What was read before a failure is good as well.
      this.#kept.delete(key);
      this.#kept.set(key, { facts, bytes: facts.memoryBytes });
      cacheBytes.set(this.#kept.weight);
    }
  }
}

function keyOf({ accountId, mailbox }: SelectedMailbox): string {
  return `${accountId}/${mailbox.id}`;
}

function isComplete(facts: MessageFacts, selected: SelectedMailbox): boolean {
  const { uids } = selected.index.view();
  return uids.length === 0 || facts.lastUid >= uids[uids.length - 1]!;
}

interface Batch {
  uids: number[];
  receivedAtMs: number[];
  ids: EmailId[];
}

async function readMissing(
  facts: MessageFacts,
  context: SessionContext,
  selected: SelectedMailbox,
  uids: Uint32Array,
): Promise<void> {
  const { lastUid } = facts;
  const missing = lastUid === 0 ? uids : uids.filter((uid) => uid > lastUid);
  const turns = new Turns(context);
  const prepare = async (from: number) => {
    const batch = batchOf(selected, missing.subarray(from, from + batchSize));
    return { batch, summaries: await readSummaryHeads(context, selected.accountId, batch.ids) };
  };
  let next = prepare(0);
  for (let from = 0; from < missing.length; from += batchSize) {
    const { batch, summaries } = await next;
    next = prepare(from + batchSize);
    // Awaited in the next round; a failure must not count as unhandled until then.
    next.catch(() => {});
    for (let i = 0; i < batch.uids.length; i++)
      facts.add({ uid: batch.uids[i]!, receivedAtMs: batch.receivedAtMs[i]!, summary: summaries[i] });
    await turns.give(from, missing.length);
  }
}

/** Those of the UIDs that are still there. */
function batchOf(selected: SelectedMailbox, uids: Uint32Array): Batch {
  const view = selected.index.view();
  const batch: Batch = { uids: [], receivedAtMs: [], ids: [] };
  for (const uid of uids) {
    const at = view.positionOf(uid);
    if (at < 0) continue;
    batch.uids.push(uid);
    batch.receivedAtMs.push(view.receivedAtMsAt(at));
    batch.ids.push(view.emailIdAt(at));
  }
  return batch;
}

/** One per store of this process: sessions of one node share it. */
const caches = new WeakMap<MailStore, FactsCache>();

/** See `FactsCache.of`. Throws KvError, ConnectionClosed. */
export function messageFacts(context: SessionContext, selected: SelectedMailbox): Promise<MessageFacts> {
  const { mail, limits, random } = context.services;
  let cache = caches.get(mail);
  if (!cache) {
    cache = new FactsCache(limits.sortFactsBytes, random);
    caches.set(mail, cache);
  }
  return cache.of(context, selected);
}

/** Facts of as many messages as this node happens to know; nothing is read for it. Messages may be added later, none changes or goes. */
export function knownFacts(context: SessionContext, selected: SelectedMailbox): MessageFacts | undefined {
  return caches.get(context.services.mail)?.known(selected);
}
