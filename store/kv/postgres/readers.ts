/**
 * The connections that read. A transaction joins the snapshot that is about to be taken, never one that was taken before it began:
 * that is what makes reads strictly serialisable. When all connections are in use, one snapshot gathers everybody until one is free.
 */
import type { Clock, Logger, Timer } from '../../../ops/telemetry/index.js';
import type { Snapshot } from '../backend.js';
import { KvError, kvLimits } from '../contract.js';
import { closedError } from './errors.js';
import type { Link } from './link.js';
import { type Links, Reconnector, switched } from './links.js';
import type { Progress } from './progress.js';
import { endLastSnapshot, gone, Passenger, SharedSnapshot, type SnapshotOwner } from './snapshot.js';
import { type ReadStatements, readStatements } from './statements.js';

const sweepMs = 1_000;
/** So long an unused snapshot stays open, for its end to go with the next one's beginning. */
const lingerMs = 10;
/** After the server has refused one more connection. */
const growthPauseMs = 2_000;

export class Readers implements SnapshotOwner {
  readonly statements: ReadStatements;
  readonly #links = new Set<Link>();
  readonly #idle: Link[] = [];
  readonly #open = new Set<SharedSnapshot>();
  readonly #reconnector: Reconnector;
  #gathering: SharedSnapshot | undefined;
  #dispatchScheduled = false;
  #growing = false;
  #growAfterMs = 0;
  #sweeper: Timer | undefined;
  #lingering: Timer | undefined;
  #closed = false;

  constructor(
    readonly links: Links,
    readonly progress: Progress,
    readonly clock: Clock,
    readonly logger: Logger,
    schema: string,
    readonly maxConnections: number,
  ) {
    this.statements = readStatements(schema);
    this.#reconnector = new Reconnector(
      links,
      'reader',
      async (link) => this.#take(link),
      (error) => this.#onConnectFailure(error),
      () => !this.#closed && this.#links.size === 0,
    );
    links.onSwitch((preferred) => {
      // What another host shows may be stale.
      for (const link of [...this.#links]) if (link.endpoint !== preferred) link.destroy(new Error(switched));
    });
  }

  /** Takes the first connection into use. */
  start(link: Link): void {
    this.#take(link);
  }

  /** A place in the next snapshot. Throws `unavailable` when there has been no server for a while. */
  acquire(atLeastVersion: number | undefined): Snapshot {
    if (this.#closed) throw closedError();
    if (this.#links.size === 0 && this.#reconnector.isOut) throw this.#outage();
    this.#gathering ??= new SharedSnapshot(this);
    this.#scheduleDispatch();
    return new Passenger(this.#gathering, atLeastVersion);
  }

  onVersion(version: number): void {
    this.progress.note(version);
  }

  onEnd(snapshot: SharedSnapshot, link: Link | undefined): void {
    this.#open.delete(snapshot);
    if (!link || link.isLost) return;
    if (this.#closed) {
      link.close();
      return;
    }
    this.#idle.push(link);
    this.#lingering ??= this.clock.setTimer(lingerMs, () => this.#endUnused(), { background: true });
    // The next snapshot may have been waiting for this.
    if (this.#gathering) this.#scheduleDispatch();
  }

  close(): void {
    this.#closed = true;
    this.#sweeper?.cancel();
    this.#lingering?.cancel();
    this.#gathering?.fail(closedError());
    for (const snapshot of [...this.#open]) snapshot.fail(closedError());
    for (const link of this.#idle.splice(0)) link.close();
  }

  /** At the end of this turn of the event loop, so that all who begin in it share the snapshot and its flight. */
  #scheduleDispatch(): void {
    if (this.#dispatchScheduled) return;
    this.#dispatchScheduled = true;
    setImmediate(() => {
      this.#dispatchScheduled = false;
      this.#dispatch();
    });
  }

  #dispatch(): void {
    const snapshot = this.#gathering;
    if (!snapshot || this.#closed) return;
    if (snapshot.users === 0) {
      this.#gathering = undefined;
      return;
    }
    const link = this.#idle.pop();
    if (!link) {
      this.#grow();
      return;
    }
    this.#gathering = undefined;
    this.#open.add(snapshot);
    snapshot.begin(link, this.clock.monotonicMs());
    this.#sweeper ??= this.clock.setTimer(sweepMs, () => this.#sweep(), { background: true });
  }

  /** One more connection, if there may be one. */
  #grow(): void {
    if (this.#links.size === 0) {
      this.#reconnector.start();
      return;
    }
    if (this.#growing || this.#links.size >= this.maxConnections || this.clock.monotonicMs() < this.#growAfterMs) return;
    this.#growing = true;
    this.links
      .open('reader')
      .then(
        (link) => this.#take(link),
        (error: unknown) => {
          this.#growAfterMs = this.clock.monotonicMs() + growthPauseMs;
          this.logger.warn({ err: error, connections: this.#links.size }, 'no further connection to the store');
        },
      )
      .finally(() => {
        this.#growing = false;
      });
  }

  #take(link: Link): void {
    if (this.#closed) {
      link.close();
      return;
    }
    this.#links.add(link);
    link.onLost(() => {
      this.#links.delete(link);
      const at = this.#idle.indexOf(link);
      if (at >= 0) this.#idle.splice(at, 1);
      if (!this.#closed && this.#links.size === 0) this.#reconnector.start();
    });
    if (link.isLost) return;
    this.#idle.push(link);
    if (this.#gathering) this.#scheduleDispatch();
  }

  #onConnectFailure(error: KvError): void {
    if (!this.#reconnector.isOut) return;
    const snapshot = this.#gathering;
    this.#gathering = undefined;
    snapshot?.fail(error);
  }

  #outage(): KvError {
    return this.#reconnector.lastError ?? new KvError('unavailable', 'there is no connection to PostgreSQL', 'outage');
  }

  #endUnused(): void {
    this.#lingering = undefined;
    for (const link of this.#idle) endLastSnapshot(link);
  }

  /** Bodies that hang must not hold connections and old row versions. */
  #sweep(): void {
    const oldestMs = this.clock.monotonicMs() - kvLimits.maxTransactionMs;
    for (const snapshot of [...this.#open]) if (snapshot.openedAtMs < oldestMs) snapshot.fail(gone('its time is over'));
    const goesOn = this.#open.size > 0 && !this.#closed;
    this.#sweeper = goesOn ? this.clock.setTimer(sweepMs, () => this.#sweep(), { background: true }) : undefined;
  }
}
