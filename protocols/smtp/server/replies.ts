/**
 * The replies of a session on their way to its channel, and the tarpit: a refusal, and all that is said after it, may have to wait. They
 * never overtake each other.
 */
import type { Clock, Timer } from '../../../ops/telemetry/index.js';
import { formatReply, type Reply } from '../grammar/reply.js';
import type { Channel } from './channel.js';
import type { SessionPolicy, SmtpMode } from './handler.js';
import type { SmtpLimits } from './limits.js';
import { tarpitTotal } from './metrics.js';

interface Refuser {
  readonly mode: SmtpMode;
  readonly clock: Clock;
  readonly limits: SmtpLimits;
  readonly policy: SessionPolicy | undefined;
}

export class Replies {
  /** What waits for the end of the tarpit; undefined outside of one. */
  #held: Reply[] | undefined;
  #tarpit: Timer | undefined;

  /** `onLast` hears of a reply that ends the session, once it is queued. */
  constructor(
    private readonly session: Refuser,
    private readonly channel: Channel,
    private readonly onLast: () => void,
  ) {}

  get areHeld(): boolean {
    return this.#held !== undefined;
  }

  send(answer: Reply) {
    if (this.#held) {
      this.#held.push(answer);
      return;
    }
    if (this.channel.closing || this.channel.closed) return;
    this.channel.queue(formatReply(answer));
    if (answer.code === 421 || answer.close) this.onLast();
  }

  /** A refusal follows. Where policy wants it to wait, `onOver` runs when it has waited long enough. */
  hold(onOver: () => void) {
    const { mode, clock, limits, policy } = this.session;
    const delayMs = Math.min(policy?.tarpitMs ?? 0, limits.maxTarpitMs);
    if (!(delayMs > 0) || this.#held || this.channel.closing || this.channel.closed) return;
    tarpitTotal.inc({ mode });
    this.#held = [];
    this.#tarpit = clock.setTimer(delayMs, onOver, { background: true });
  }

  /** Ends the tarpit, if there is one. */
  sendHeld() {
    const held = this.#held;
    if (!held) return;
    this.drop();
    for (const answer of held) this.send(answer);
  }

  /** Ends the tarpit without a word: nobody listens any more. */
  drop() {
    this.#tarpit?.cancel();
    this.#tarpit = undefined;
    this.#held = undefined;
  }
}
