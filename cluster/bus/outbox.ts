/** What waits to be told to the others: the highest modseq of each account and the generations raised, in few messages of bounded size. */
import { type Clock, counter, type Timer } from '../../ops/telemetry/index.js';
import { type AccountChange, busLimits } from './contract.js';
import { type BusMessage, changeBytes } from './message.js';

const published = counter('starling_cluster_bus_published_total', 'Messages of changes that this node has sent to the others.');
const overflows = counter(
  'starling_cluster_bus_overflows_total',
  'Times that more accounts changed at once than this node could tell: the others were told to look at the store.',
);

export interface OutboxOptions {
  clock: Clock;
  /** Sends one message. */
  publish(message: BusMessage): void;
  /** How many nodes are connected with this one; the more, the longer changes wait for company. */
  connectedCount(): number;
}

export class Outbox {
  readonly #o: OutboxOptions;
  readonly #changes = new Map<string, AccountChange>();
  readonly #raised = new Set<string>();
  #isOverflow = false;
  #sentAtMs = Number.NEGATIVE_INFINITY;
  #isDue = false;
  #timer: Timer | undefined;
  #trailing: Timer | undefined;
  /** When something was told last, and how many empty messages have followed. */
  #toldAtMs = 0;
  #trailed = 0;
  #isOver = false;

  constructor(options: OutboxOptions) {
    this.#o = options;
  }

  change(change: AccountChange): void {
    if (this.#isOver) return;
    const known = this.#changes.get(change.accountId);
    if (known) {
      if (change.modseq > known.modseq) this.#changes.set(change.accountId, change);
      return;
    }
    const isTooLong = Buffer.byteLength(change.accountId) > busLimits.maxAccountIdBytes;
    if (isTooLong || this.#changes.size >= busLimits.maxPendingAccounts) this.#isOverflow = true;
    else this.#changes.set(change.accountId, change);
    this.#want();
  }

  raise(name: string): void {
    if (this.#isOver) return;
    this.#raised.add(name);
    this.#want();
  }

  /** Sends what waits now. */
  flush(): void {
    this.#isDue = false;
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#changes.size === 0 && this.#raised.size === 0 && !this.#isOverflow) return;
    // Whoever connects later looks at the store then.
    if (this.#o.connectedCount() > 0) {
      this.#sendAll();
      this.#trail();
    }
    this.#changes.clear();
    this.#raised.clear();
    this.#isOverflow = false;
  }

  #sendAll(): void {
    if (this.#isOverflow) overflows.inc();
    let raised = [...this.#raised];
    let changes: AccountChange[] = [];
    let bytes = 0;
    const send = () => {
      this.#send({ changes, raised, isOverflow: this.#isOverflow });
      [changes, raised, bytes] = [[], [], 0];
      this.#isOverflow = false;
    };
    for (const change of this.#changes.values()) {
      const size = changeBytes(change);
      if (bytes + size > busLimits.maxBodyBytes) send();
      changes.push(change);
      bytes += size;
    }
    send();
  }

  /** Sends what waits, and nothing after that. */
  close(): void {
    this.flush();
    this.#isOver = true;
    this.#trailing?.cancel();
  }

  #send(message: BusMessage): void {
    this.#sentAtMs = this.#o.clock.monotonicMs();
    published.inc();
    this.#o.publish(message);
  }

  /** At the end of this turn after a silence, so that what one commit changed goes together; otherwise when the window is over. */
  #want(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    const windowMs = Math.max(busLimits.coalesceMs, this.#o.connectedCount());
    const waitMs = this.#sentAtMs + windowMs - this.#o.clock.monotonicMs();
    if (waitMs <= 0) queueMicrotask(() => this.#isDue && this.flush());
    else this.#timer = this.#o.clock.setTimer(waitMs, () => this.flush(), { background: true });
  }

  /** Whoever lost the last message of a burst would not know before the next one. */
  #trail(): void {
    this.#toldAtMs = this.#o.clock.monotonicMs();
    this.#trailed = 0;
    if (!this.#trailing) this.#armTrail();
  }

  #armTrail(): void {
    const { clock } = this.#o;
    const afterMs = this.#trailed === 0 ? busLimits.trailingMs : busLimits.trailingAgainMs;
    this.#trailing = clock.setTimer(
      Math.max(1, this.#toldAtMs + afterMs - clock.monotonicMs()),
      () => {
        this.#trailing = undefined;
        // More was told in the meantime: not yet.
        const dueMs = this.#toldAtMs + (this.#trailed === 0 ? busLimits.trailingMs : afterMs);
        if (dueMs - clock.monotonicMs() <= 1) {
          this.#send({ changes: [], raised: [], isOverflow: false });
          if (++this.#trailed === 2) return;
        }
        this.#armTrail();
      },
      { background: true },
    );
  }
}
