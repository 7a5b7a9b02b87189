/**
 * News for sessions in IDLE, of whom thousands may watch one mailbox: its index is read once for all of them, each is told in one synchronous call, and between
 * slices of them everybody else gets a turn. What can't be told this way (rights to be looked at, a slow client, a store that is away) wakes the session instead.
 */
import type { Clock } from '../../ops/telemetry/index.js';
import type { MailStore } from '../../store/mail/contract.js';
import type { SessionContext } from './context.js';
import { type KeepAlives, keepAliveDueMs, keepAlivesOf, type Silent } from './keep-alives.js';
import { SharedBytes } from './output.js';
import type { SelectedMailbox } from './selected.js';
import { inTurns } from './turns.js';

/** A session in IDLE. */
export class IdlePush implements Silent {
  /** The session has left IDLE. */
  isOver = false;
  /** It is in its queue, and will be told what is committed by now. */
  isWaiting = false;
  /** When it was last told anything; monotonic. */
  lastToldMs: number;
  readonly keepAliveMs: number;
  readonly #context: SessionContext;
  readonly #keepAlives: KeepAlives;
  /** Of the selected mailbox, which stays the same during IDLE; joined with the first notice. */
  #queue: PushQueue | undefined;

  constructor(context: SessionContext) {
    const { clock, limits } = context.services;
    this.#context = context;
    this.lastToldMs = clock.monotonicMs();
    this.keepAliveMs = limits.keepAliveMs;
    this.#keepAlives = keepAlivesOf(clock);
    this.#keepAlives.add(this);
  }

  /** To be called on each notice. */
  readonly notice = (): void => {
    const context = this.#context;
    const { selected } = context;
    // News of other kinds are looked for by the session itself; so is whether somebody else's mailbox may still be read.
    if (!selected || selected.accountId !== context.accountId || context.notifier || context.following) context.wake();
    else {
      this.#queue ??= joinQueue(context.services.mail, selected);
      this.#queue.add(this);
    }
  };

  /** Also the moment to find what no notice told (TRAPS 18). */
  breakSilence(): void {
    this.notice();
  }

  /** The session does something else from here on; what it has not been told stays noticed. */
  end(): void {
    this.isOver = true;
    this.#keepAlives.delete(this);
    this.#queue?.leave();
  }

  get selected(): SelectedMailbox | undefined {
    return this.#context.selected;
  }

  get clock(): Clock {
    return this.#context.services.clock;
  }

  /** When the next sign of life is due. */
  get dueMs(): number {
    return keepAliveDueMs(this.lastToldMs, this.keepAliveMs);
  }

  wake(): void {
    this.#context.wake();
  }

  /** Tells what the index knows, which stands at `modseq` or later, and that the server is still there if that is due. */
  tell(modseq: number, shared: SharedBytes): void {
    const context = this.#context;
    const { selected, output } = context;
    if (!selected || selected.index.modseq < modseq || context.isDraining || output.isCongested) {
      context.wake();
      return;
    }
    // Waiting again: another notice has come since the index was read.
    if (!this.isWaiting) context.hasNotice = false;
    const nowMs = this.clock.monotonicMs();
    const isSilent = nowMs >= this.dueMs;
    if (isSilent) context.untagged('OK Still here');
    if (!context.announce(true) && !isSilent) return;
    this.lastToldMs = nowMs;
    output.flush(shared);
  }
}

/** Those who wait for news of one mailbox. */
class PushQueue {
  members = 0;
  #waiting: IdlePush[] = [];
  readonly #forget: () => void;
  #isRunning = false;

  constructor(forget: () => void) {
    this.#forget = forget;
  }

  add(push: IdlePush): void {
    if (push.isWaiting) return;
    push.isWaiting = true;
    this.#waiting.push(push);
    if (this.#isRunning) return;
    this.#isRunning = true;
    // Not in the middle of telling everybody of the change.
    queueMicrotask(() => void this.#run());
  }

  leave(): void {
    if (--this.members === 0) this.#forget();
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0) {
      const all = this.#waiting.filter((push) => !push.isOver);
      this.#waiting = [];
      // Who comes from here on has a notice that this read may be too early for.
      for (const push of all) push.isWaiting = false;
      // Of those who are still in IDLE: others may have selected something else.
      const index = all[0]?.selected?.index;
      try {
        await index?.refresh();
      } catch {
        // Each looks for itself what to make of it, as when nobody shares the read.
        for (const push of all) push.wake();
        continue;
      }
      const modseq = index?.modseq ?? 0;
      const shared = new SharedBytes();
      const clock = all[0]?.clock;
      if (clock)
        await inTurns(all, clock, (push) => {
          try {
            if (!push.isOver) push.tell(modseq, shared);
          } catch {
            // It finds the reason itself; the others are told nevertheless.
            push.wake();
          }
        });
    }
    this.#isRunning = false;
  }
}

/** By store and mailbox, as long as anybody waits. */
const queuesOf = new WeakMap<MailStore, Map<string, PushQueue>>();

/** To be left again. */
function joinQueue(mail: MailStore, { accountId, mailbox }: SelectedMailbox): PushQueue {
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
  queue.members++;
  return queue;
}
