/** The sessions that are open on this node, so that a drain can end each of them politely. */
export interface DrainableSession {
  /** Ends as soon as the protocol allows; resolves when the session is over. */
  drain(): Promise<void>;
  /** Ends now, whatever is running, with a last word where the protocol has one. */
  stop?(): void;
}

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

  /** Ends those that are still open; resolves when they are. */
  async stop(): Promise<void> {
    const left = [...this.#open];
    for (const session of left) session.stop?.();
    await Promise.allSettled(left.map((session) => session.drain()));
  }
}
