/**
 * News for sessions in IDLE, of whom thousands may watch one mailbox: its index is read once for all of them, each is told in one synchronous call, and between
 * slices of them everybody else gets a turn. What can't be told this way (rights to be looked at, a slow client, a store that is away) wakes the session instead.
 */
import type { MailStore } from '../../store/mail/contract.js';
import type { SessionContext } from './context.js';
import type { SelectedMailbox } from './selected.js';

/** Time after which others get a turn, and how many sessions are told between two looks at the clock. */
const sliceMs = 10;
const toldPerLook = 16;

/** A session in IDLE. */
export class IdlePush {
  /** The session has left IDLE. */
  isOver = false;
  /** When it was last told anything; monotonic. */
  lastToldMs: number;
  readonly #context: SessionContext;

  constructor(context: SessionContext) {
    this.#context = context;
    this.lastToldMs = context.services.clock.monotonicMs();
  }

  /** To be called on each notice. */
  readonly notice = (): void => {
    const context = this.#context;
    const { selected } = context;
    // News of other kinds are looked for by the session itself; so is whether somebody else's mailbox may still be read.
    if (!selected || selected.accountId !== context.accountId || context.notifier || context.following) context.wake();
    else queueOf(context.services.mail, selected).add(this);
  };

  /** The session does something else from here on; what it has not been told stays noticed. */
  end(): void {
    this.isOver = true;
  }

  get selected(): SelectedMailbox | undefined {
    return this.#context.selected;
  }

  nowMs(): number {
    return this.#context.services.clock.monotonicMs();
  }

  wake(): void {
    this.#context.wake();
  }

  /** Tells what the index knows, which stands at `modseq` or later. `hasMore`: another notice has come since it was read. */
  tell(modseq: number, hasMore: boolean): void {
    const context = this.#context;
    const { selected, output } = context;
    if (!selected || selected.index.modseq < modseq || context.isDraining || output.isCongested) {
      context.wake();
      return;
    }
    if (!hasMore) context.hasNotice = false;
    if (!context.announce(true)) return;
    this.lastToldMs = this.nowMs();
    output.flush();
  }
}

/** Those who wait for news of one mailbox. */
class PushQueue {
  waiting = new Set<IdlePush>();
  readonly #forget: () => void;
  #isRunning = false;

  constructor(forget: () => void) {
    this.#forget = forget;
  }

  add(push: IdlePush): void {
    this.waiting.add(push);
    if (this.#isRunning) return;
    this.#isRunning = true;
    // Not in the middle of telling everybody of the change.
    queueMicrotask(() => void this.#run());
  }

  async #run(): Promise<void> {
    while (this.waiting.size > 0) {
      const first = this.waiting.values().next().value!;
      const index = first.selected?.index;
      const all = this.waiting;
      // Who comes from here on has a notice that this read may be too early for.
      this.waiting = new Set();
      try {
        await index?.refresh();
      } catch {
        // Each looks for itself what to make of it, as when nobody shares the read.
        for (const push of all) push.wake();
        continue;
      }
      await this.#tellAll(all, index?.modseq ?? 0);
    }
    this.#forget();
  }

  async #tellAll(all: ReadonlySet<IdlePush>, modseq: number): Promise<void> {
    let startMs: number | undefined;
    let count = 0;
    for (const push of all) {
      startMs ??= push.nowMs();
      if (!push.isOver) push.tell(modseq, this.waiting.has(push));
      if (++count % toldPerLook > 0 || push.nowMs() - startMs < sliceMs) continue;
      await new Promise((resolve) => setImmediate(resolve));
      startMs = undefined;
    }
  }
}

/** By store and mailbox, as long as anybody waits. */
const queuesOf = new WeakMap<MailStore, Map<string, PushQueue>>();

function queueOf(mail: MailStore, { accountId, mailbox }: SelectedMailbox): PushQueue {
  let queues = queuesOf.get(mail);
  if (!queues) {
    queues = new Map();
    queuesOf.set(mail, queues);
  }
  const name = `${accountId}/${mailbox.id}`;
  let queue = queues.get(name);
  if (!queue) {
    queue = new PushQueue(() => void queues.delete(name));
    queues.set(name, queue);
  }
  return queue;
}
