/** How long a client may take: for a command, for the next octets of a message, for a whole message, for a session. One timer for all. */
import type { Clock, Timer } from '../../../ops/telemetry/index.js';
import type { SmtpLimits } from './limits.js';

/** Whom the session is waiting for: the client has time only while it is its turn. */
export type WaitingFor = 'command' | 'content' | 'us';

export class Deadlines {
  readonly #startedMs: number;
  #idleSinceMs: number;
  #messageSinceMs: number | undefined;
  #timer: Timer | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly limits: SmtpLimits,
    private readonly waitingFor: () => WaitingFor,
    private readonly onExpired: () => void,
  ) {
    this.#startedMs = this.#idleSinceMs = clock.monotonicMs();
    this.#arm(Number.POSITIVE_INFINITY);
  }

  /** A command is complete, content has come, or our own work is done: the client's time begins anew. */
  touch() {
    this.#idleSinceMs = this.clock.monotonicMs();
  }

  messageBegins() {
    this.#messageSinceMs ??= this.clock.monotonicMs();
  }

  messageEnds() {
    this.#messageSinceMs = undefined;
  }

  stop() {
    this.#timer?.cancel();
  }

  #arm(delayMs: number) {
    // Never later than the shortest limit: then a change from commands to content needs no new timer.
    const shortestMs = Math.min(this.limits.commandTimeoutMs, this.limits.dataTimeoutMs);
    this.#timer = this.clock.setTimer(Math.max(1, Math.min(delayMs, shortestMs)), () => this.#check(), { background: true });
  }

  #check() {
    const remainingMs = this.#remainingMs();
    if (remainingMs > 0) this.#arm(remainingMs);
    else this.onExpired();
  }

  #remainingMs(): number {
    const { limits } = this;
    const waiting = this.waitingFor();
    if (waiting === 'us') return limits.dataTimeoutMs;
    let untilMs = this.#idleSinceMs + (waiting === 'content' ? limits.dataTimeoutMs : limits.commandTimeoutMs);
    untilMs = Math.min(untilMs, this.#startedMs + limits.sessionTimeoutMs);
    if (this.#messageSinceMs !== undefined) untilMs = Math.min(untilMs, this.#messageSinceMs + limits.messageTimeoutMs);
    return untilMs - this.clock.monotonicMs();
  }
}
