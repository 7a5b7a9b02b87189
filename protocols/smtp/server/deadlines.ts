/** How long a client may take: for a command, for the next octets of a message, for a whole message, for a session. One timer for all. */
import type { Clock, Timer } from '../../../ops/telemetry/index.js';
import type { SmtpLimits } from './limits.js';

/** Whom the session is waiting for: the client has time only while it is its turn. In a `tarpit` only the time of the whole session runs. */
export type WaitingFor = 'command' | 'content' | 'us' | 'tarpit';

/** The session as its clock sees it. Limits may change as it goes on. */
interface Timed {
  readonly clock: Clock;
  readonly limits: SmtpLimits;
}

export class Deadlines {
  readonly #startedMs: number;
  #idleSinceMs: number;
  #messageSinceMs: number | undefined;
  #timer: Timer | undefined;

  constructor(
    private readonly session: Timed,
    private readonly waitingFor: () => WaitingFor,
    private readonly onExpired: () => void,
  ) {
    this.#startedMs = this.#idleSinceMs = session.clock.monotonicMs();
    this.#arm(Number.POSITIVE_INFINITY);
  }

  /** A command is complete, content has come, or our own work is done: the client's time begins anew. */
  touch() {
    this.#idleSinceMs = this.session.clock.monotonicMs();
  }

  messageBegins() {
    this.#messageSinceMs ??= this.session.clock.monotonicMs();
  }

  messageEnds() {
    this.#messageSinceMs = undefined;
  }

  stop() {
    this.#timer?.cancel();
  }

  /** The limits have changed: what is shorter now must hold now. */
  limitsChanged() {
    this.#timer?.cancel();
    this.#arm(Math.max(1, this.#remainingMs()));
  }

  #arm(delayMs: number) {
    // Never later than the shortest limit: then a change from commands to content needs no new timer.
    const { clock, limits } = this.session;
    const shortestMs = Math.min(limits.commandTimeoutMs, limits.dataTimeoutMs);
    this.#timer = clock.setTimer(Math.max(1, Math.min(delayMs, shortestMs)), () => this.#check(), { background: true });
  }

  #check() {
    const remainingMs = this.#remainingMs();
    if (remainingMs > 0) this.#arm(remainingMs);
    else this.onExpired();
  }

  #remainingMs(): number {
    const { limits } = this.session;
    const waiting = this.waitingFor();
    if (waiting === 'us') return limits.dataTimeoutMs;
    let untilMs = this.#startedMs + limits.sessionTimeoutMs;
    if (waiting === 'content') untilMs = Math.min(untilMs, this.#idleSinceMs + limits.dataTimeoutMs);
    else if (waiting === 'command') untilMs = Math.min(untilMs, this.#idleSinceMs + limits.commandTimeoutMs);
    if (this.#messageSinceMs !== undefined) untilMs = Math.min(untilMs, this.#messageSinceMs + limits.messageTimeoutMs);
    return untilMs - this.session.clock.monotonicMs();
  }
}
