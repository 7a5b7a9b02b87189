/** The sessions that are open on this node, so that each of them can be ended politely: in a drain, or while the node can serve nobody. */
export interface DrainableSession {
  /** Ends as soon as the protocol allows; resolves when the session is over. */
  drain(): Promise<void>;
  /** Ends now, whatever is running, with a last word where the protocol has one. */
  stop?(): void;
  /** Ends as soon as the protocol allows, since the node can serve nobody now; absent where the protocol's own replies say so. */
  turnAway?(): void;
}

/** Sessions that are turned away before others get a turn. */
const turnedAwayAtOnce = 200;

export class OpenSessions {
  readonly #open = new Set<DrainableSession>();

  get size(): number {
    return this.#open.size;
  }

  /** Keeps `session` until `over` settles. */
  add(session: DrainableSession, over: Promise<void>): void {
    this.#open.add(session);
    const forget = () => void this.#open.delete(session);
    over.then(forget, forget);
  }

  /** Asks all sessions to end; resolves when they have. */
  async drain(): Promise<void> {
    await Promise.allSettled([...this.#open].map((session) => session.drain()));
  }

  /** Asks those to end that must look for another node, as long as `isStill` says so. */
  async turnAway(isStill: () => boolean): Promise<void> {
    let count = 0;
    for (const session of [...this.#open]) {
      if (!isStill()) return;
      session.turnAway?.();
      if (++count % turnedAwayAtOnce === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Cuts off those of them that have not ended. */
  cutTurnedAway(): void {
    for (const session of [...this.#open]) if (session.turnAway) session.stop?.();
  }

  /** Ends those that are still open; resolves when they are. */
  async stop(): Promise<void> {
    const left = [...this.#open];
    for (const session of left) session.stop?.();
    await Promise.allSettled(left.map((session) => session.drain()));
  }
}
