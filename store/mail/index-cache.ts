/** The node's open mailbox indexes: one per mailbox, shared by its sessions; those released lately are kept within a bound of memory. */
import { gauge } from '../../ops/telemetry/index.js';
import type { MailContext } from './context.js';
import { type AccountId, type MailboxId, type MailboxIndex, MailError } from './contract.js';
import { IndexHandle, SharedIndex } from './mailbox-index.js';

const openIndexes = gauge('starling_mail_indexes', 'Mailbox indexes in memory: used by a session, or kept for the next', [
  'state',
]);

interface Slot {
  shared: SharedIndex;
  holders: number;
  ready: Promise<void>;
}

export class IndexCache {
  private readonly slots = new Map<string, Slot>();
  /** Least recently released first. */
  private readonly released = new Map<string, Slot>();

  constructor(
    private readonly context: Pick<MailContext, 'kv' | 'keysOf'>,
    private readonly maxReleasedBytes: number,
  ) {}

  /** Throws `no-mailbox`. */
  async open(accountId: AccountId, mailboxId: MailboxId): Promise<MailboxIndex> {
    const name = `${accountId}/${mailboxId}`;
    const known = this.slots.get(name);
    const slot = known ?? this.addSlot(name, accountId, mailboxId);
    this.released.delete(name);
    slot.holders++;
    this.showSizes();
    try {
      await slot.ready;
      // What was read for this call is up to date; what others had read, or had begun to read, may be older.
      if (known) await slot.shared.refresh();
      if (!slot.shared.exists) throw new MailError('no-mailbox', 'there is no such mailbox');
    } catch (error) {
      this.release(name, slot, true);
      throw error;
    }
    return new IndexHandle(slot.shared, () => this.release(name, slot, false));
  }

  private addSlot(name: string, accountId: AccountId, mailboxId: MailboxId): Slot {
    const shared = new SharedIndex(this.context, accountId, mailboxId);
    const slot: Slot = { shared, holders: 0, ready: shared.load() };
    // Whoever opens it hears of the failure; the next one starts anew.
    slot.ready.catch(() => this.forget(name, slot));
    this.slots.set(name, slot);
    return slot;
  }

  private forget(name: string, slot: Slot): void {
    if (this.slots.get(name) === slot) this.slots.delete(name);
    if (this.released.get(name) === slot) this.released.delete(name);
  }

  private release(name: string, slot: Slot, failed: boolean): void {
    slot.holders--;
    if (slot.holders === 0 && (failed || !slot.shared.exists)) this.forget(name, slot);
    if (slot.holders === 0 && this.slots.get(name) === slot) {
      this.released.set(name, slot);
      this.evict();
    }
    this.showSizes();
  }

  private evict(): void {
    let bytes = 0;
    for (const { shared } of this.released.values()) bytes += shared.memoryBytes;
    for (const [name, slot] of this.released) {
      if (bytes <= this.maxReleasedBytes) return;
      bytes -= slot.shared.memoryBytes;
      this.forget(name, slot);
    }
  }

  private showSizes(): void {
    openIndexes.set({ state: 'used' }, this.slots.size - this.released.size);
    openIndexes.set({ state: 'kept' }, this.released.size);
  }
}
