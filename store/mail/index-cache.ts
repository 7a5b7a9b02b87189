/**
 * The node's mailbox indexes: one per mailbox, shared by its sessions, within a bound of memory. Those in use stay and count; of the others those go that the
 * queues of S3-FIFO (Yang et al., SOSP 2023) let go: what was opened once goes before what is opened again and again.
 */
import { counter, gauge } from '../../ops/telemetry/index.js';
import type { MailContext } from './context.js';
import { type AccountId, type AsOf, type MailboxId, type MailboxIndex, MailError } from './contract.js';
import { type SnapshotSettings, SnapshotWriter } from './index-snapshots.js';
import { type IndexContext, IndexHandle, SharedIndex } from './mailbox-index.js';

const openIndexes = gauge('starling_mail_indexes', 'Mailbox indexes in memory: used by a session, or kept for the next', [
  'state',
]);
const indexBytes = gauge('starling_mail_index_bytes', 'Memory of the mailbox indexes: used by a session, or kept for the next', [
  'state',
]);
const opens = counter('starling_mail_index_opens_total', 'Mailboxes opened: their index was in memory (hit) or not (miss)', [
  'outcome',
]);

/** Part of the memory for indexes that were opened once. */
const smallShare = 0.1;
const maxHits = 3;
const maxGhosts = 10_000;

type State = 'used' | 'kept';
type Queue = 'small' | 'main';

interface Slot {
  name: string;
  shared: SharedIndex;
  holders: number;
  /** As it was last looked at. */
  bytes: number;
  /** Opened since it came in or was last spared; at most 3. */
  hits: number;
  /** Where it waits while nobody holds it. */
  queue: Queue;
  ready: Promise<void>;
  isReady: boolean;
}

export interface IndexCacheOptions {
  maxBytes: () => number;
  snapshots: SnapshotSettings;
}

export class IndexCache {
  private readonly slots = new Map<string, Slot>();
  /** Those that nobody holds. A Map keeps the order of insertion: its first key is the head of the queue. */
  private readonly queues: Record<Queue, Map<string, Slot>> = { small: new Map(), main: new Map() };
  private readonly ghosts = new Set<string>();
  private readonly bytes: Record<State, number> = { used: 0, kept: 0 };
  private smallBytes = 0;
  private usedIndexes = 0;
  private readonly snapshots: SnapshotWriter;
  private readonly indexContext: IndexContext;

  constructor(
    context: Pick<MailContext, 'kv' | 'keysOf' | 'clock' | 'random' | 'logger'>,
    private readonly options: IndexCacheOptions,
  ) {
    this.snapshots = new SnapshotWriter(context);
    const { kv, keysOf, clock } = context;
    const offerSnapshot = (index: SharedIndex) => this.snapshots.offer(index);
    this.indexContext = { kv, keysOf, clock, snapshots: options.snapshots, offerSnapshot };
  }

  /** Changes of a mailbox that may be worth a snapshot. */
  get minSnapshotChanges(): number {
    return this.options.snapshots.minChanges;
  }

  /** With all that is committed by now, or by the time of `asOf`. Throws `no-mailbox`. */
  async open(accountId: AccountId, mailboxId: MailboxId, asOf?: AsOf): Promise<MailboxIndex> {
    const name = `${accountId}/${mailboxId}`;
    const known = this.slots.get(name);
    opens.inc({ outcome: known ? 'hit' : 'miss' });
    if (known && known.hits < maxHits) known.hits++;
    const slot = known ?? this.addSlot(name, accountId, mailboxId);
    this.hold(slot);
    try {
      await slot.ready;
      // What was read for this call is up to date; what others had read, or had begun to read, may be older.
      if (known && !slot.shared.isAsOf(asOf?.state)) await slot.shared.refresh();
      if (!slot.shared.exists) throw new MailError('no-mailbox', 'there is no such mailbox');
    } catch (error) {
      this.release(slot, true);
      throw error;
    }
    this.measure(slot);
    this.evict();
    return new IndexHandle(slot.shared, () => this.release(slot, false));
  }

  /** The index of a mailbox if it is in memory, perhaps not up to date; good for as long as the caller keeps it. */
  loaded(accountId: AccountId, mailboxId: MailboxId): SharedIndex | undefined {
    const slot = this.slots.get(`${accountId}/${mailboxId}`);
    return slot?.isReady ? slot.shared : undefined;
  }

  /** Waits for the snapshots that are being written. */
  idle(): Promise<void> {
    return this.snapshots.idle();
  }

  close(): Promise<void> {
    return this.snapshots.close();
  }

  private addSlot(name: string, accountId: AccountId, mailboxId: MailboxId): Slot {
    const shared = new SharedIndex(this.indexContext, accountId, mailboxId);
    const queue: Queue = this.ghosts.delete(name) ? 'main' : 'small';
    const slot: Slot = { name, shared, holders: 0, bytes: 0, hits: 0, queue, ready: shared.load(), isReady: false };
    // Whoever opens it hears of the failure; the next one starts anew.
    slot.ready.then(
      () => {
        slot.isReady = true;
      },
      () => this.forget(slot),
    );
    this.slots.set(name, slot);
    return slot;
  }

  private hold(slot: Slot): void {
    if (slot.holders++ > 0) return;
    this.usedIndexes++;
    this.leaveQueue(slot);
    this.bytes.used += slot.bytes;
    this.show();
  }

  private release(slot: Slot, failed: boolean): void {
    this.measure(slot);
    if (--slot.holders > 0) return;
    this.usedIndexes--;
    this.bytes.used -= slot.bytes;
    if (this.slots.get(slot.name) === slot) {
      if (failed || !slot.shared.exists) this.slots.delete(slot.name);
      else {
        this.enterQueue(slot, slot.queue);
        this.evict();
      }
    }
    this.show();
  }

  private enterQueue(slot: Slot, queue: Queue): void {
    slot.queue = queue;
    this.queues[queue].set(slot.name, slot);
    this.bytes.kept += slot.bytes;
    if (queue === 'small') this.smallBytes += slot.bytes;
  }

  private leaveQueue(slot: Slot): void {
    if (this.queues[slot.queue].get(slot.name) !== slot) return;
    this.queues[slot.queue].delete(slot.name);
    this.bytes.kept -= slot.bytes;
    if (slot.queue === 'small') this.smallBytes -= slot.bytes;
  }

  /** An index that is held grows and shrinks with its mailbox; it is looked at whenever somebody opens or leaves it. */
  private measure(slot: Slot): void {
    const more = slot.shared.memoryBytes - slot.bytes;
    slot.bytes += more;
    this.bytes.used += more;
  }

  /** Who holds it goes on with it, and the next one who opens it gets another. */
  private forget(slot: Slot): void {
    this.leaveQueue(slot);
    if (this.slots.get(slot.name) === slot) this.slots.delete(slot.name);
  }

  private evict(): void {
    const maxBytes = this.options.maxBytes();
    const { small, main } = this.queues;
    while (this.bytes.used + this.bytes.kept > maxBytes && small.size + main.size > 0) {
      if (small.size > 0 && (main.size === 0 || this.smallBytes >= maxBytes * smallShare)) this.evictSmall();
      else this.evictMain();
    }
  }

  private evictSmall(): void {
    const slot = this.queues.small.values().next().value!;
    if (slot.hits > 0) {
      slot.hits = 0;
      this.leaveQueue(slot);
      this.enterQueue(slot, 'main');
      return;
    }
    this.forget(slot);
    this.ghosts.add(slot.name);
    if (this.ghosts.size > maxGhosts) this.ghosts.delete(this.ghosts.keys().next().value!);
  }

  private evictMain(): void {
    const slot = this.queues.main.values().next().value!;
    this.leaveQueue(slot);
    if (slot.hits === 0) {
      this.forget(slot);
      return;
    }
    slot.hits--;
    this.enterQueue(slot, 'main');
  }

  private show(): void {
    openIndexes.set({ state: 'used' }, this.usedIndexes);
    openIndexes.set({ state: 'kept' }, Math.max(0, this.slots.size - this.usedIndexes));
    indexBytes.set({ state: 'used' }, this.bytes.used);
    indexBytes.set({ state: 'kept' }, this.bytes.kept);
  }
}
