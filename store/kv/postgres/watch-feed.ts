/**
 * Watches across nodes. Every commit sends one notice over NOTIFY; a connection of its own listens. Own commits wake own watches
 * directly. Whenever something may have been missed (a gap between notices, a lost connection, a version that the poll sees and no notice
 * tells of) all watches are woken and look for themselves.
 */
import type { Clock, Logger, Timer } from '../../../ops/telemetry/index.js';
import type { KvError } from '../contract.js';
import type { Watch } from '../watches.js';
import type { Entry } from './batch.js';
import { channelName } from './functions.js';
import type { Link } from './link.js';
import { type Links, Reconnector, switched } from './links.js';
import { countFlight, watchSweepsTotal } from './metrics.js';
import { parseNotice } from './notice.js';
import type { Progress } from './progress.js';
import { ChangeHistory, WatchIndex } from './watch-index.js';

/** How often the newest version is compared with what was heard of. */
const pollEveryMs = 1_000;

/** Why all watches are woken. `unknown`: a batch of this node whose outcome nobody told. */
export type SweepCause = 'gap' | 'reconnect' | 'poll' | 'unlisted' | 'unknown';

export class WatchFeed {
  readonly #watches = new WatchIndex();
  readonly #history: ChangeHistory;
  readonly #reconnector: Reconnector;
  readonly #headText: string;
  #link: Link | undefined;
  /** Everything up to this version was heard of. */
  #heard = 0;
  /** What the last poll found above `#heard`. */
  #unheard = 0;
  #pollTimer: Timer | undefined;
  #closed = false;

  constructor(
    /** Tells own notices from others'. */
    readonly node: string,
    readonly links: Links,
    readonly progress: Progress,
    readonly clock: Clock,
    readonly logger: Logger,
    readonly schema: string,
  ) {
    this.#history = new ChangeHistory(0);
    this.#headText = `select max(version) from "${schema}".commits`;
    this.#reconnector = new Reconnector(
      links,
      'listener',
      (link) => this.#use(link, 'reconnect'),
      () => {},
      () => !this.#closed,
    );
    links.onSwitch((preferred) => {
      if (this.#link && this.#link.endpoint !== preferred) this.#link.destroy(new Error(switched));
    });
  }

  /** Watches that wait; for tests and metrics. */
  get size(): number {
    return this.#watches.size;
  }

  async start(link: Link): Promise<void> {
    await this.#use(link, undefined);
  }

  /**
   * Sets watches of a transaction that has read `readVersion`. With an `owner` (a record of a commit that is yet to be made), its own
   * writes don't fire them, and those that have something to tell already are given back instead of fired.
   */
  arm(watches: readonly Watch[], readVersion: number | undefined, owner?: object): Watch[] {
    const changed: Watch[] = [];
    for (const watch of watches) {
      watch.owner = owner;
      if (readVersion === undefined || this.#history.changedSince(watch.key, readVersion)) changed.push(watch);
      else this.#watches.add(watch);
    }
    if (owner) return changed;
    for (const watch of changed) watch.fire();
    return [];
  }

  /** This node's commits at `version`. */
  committed(version: number, entries: readonly Entry[]): void {
    for (const { record, hashes } of entries) {
      const changes = { hashes, ranges: record.ranges };
      this.#history.record(version, changes);
      this.#watches.fire(changes, record);
    }
  }

  /** What was committed up to `version` may never have been told: all watches look for themselves. */
  missed(version: number, cause: SweepCause): void {
    this.#forget(version);
    this.#sweep(cause);
  }

  close(error: KvError): void {
    this.#closed = true;
    this.#pollTimer?.cancel();
    this.#link?.close();
    this.#watches.failAll(error);
  }

  async #use(link: Link, cause: 'reconnect' | undefined): Promise<void> {
    const early: string[] = [];
    link.onNotification = (payload) => early.push(payload);
    countFlight('connect');
    // The version is read when the server listens already: what comes after it is told.
    const [, rows] = await link.flight(() =>
      Promise.all([link.run({ text: `listen "${channelName(this.schema)}"` }), link.run({ text: this.#headText })]),
    );
    if (this.#closed) {
      link.close();
      return;
    }
    this.#heard = Number(rows[0]![0]);
    this.#unheard = 0;
    this.progress.note(this.#heard);
    this.#forget(this.#heard);
    this.#link = link;
    link.onNotification = (payload) => this.#onNotice(payload);
    link.onLost(() => {
      if (this.#link === link) this.#link = undefined;
      this.#pollTimer?.cancel();
      if (!this.#closed) this.#reconnector.start();
    });
    if (cause) this.#sweep(cause);
    for (const payload of early) this.#onNotice(payload);
    this.#schedulePoll(link);
  }

  #onNotice(payload: string): void {
    const notice = parseNotice(payload);
    if (!notice) return;
    // Any role of the database can send on this channel, so a notice wakes watches and is believed in nothing else.
    const { version, previous, node, changes } = notice;
    const missed = version > this.#heard && previous > this.#heard;
    if (version > this.#heard) this.#heard = version;
    if (missed) {
      this.missed(version, 'gap');
    } else if (node !== this.node && changes) {
      this.#history.record(version, changes);
      this.#watches.fire(changes);
    } else if (node !== this.node) {
      this.missed(version, 'unlisted');
    }
  }

  #schedulePoll(link: Link): void {
    this.#pollTimer = this.clock.setTimer(pollEveryMs, () => void this.#poll(link), { background: true });
  }

  async #poll(link: Link): Promise<void> {
    try {
      countFlight('poll');
      const heard = this.#heard;
      const [row] = await link.run({ name: 'head', text: this.#headText });
      const head = Number(row![0]);
      this.progress.note(head);
      // A notice may be a little late; one that is missing a whole interval later will not come.
      // What was heard of and does not exist was forged, and would hide gaps from now on.
      if (this.#unheard > this.#heard || heard > head) {
        this.#heard = head;
        this.missed(head, 'poll');
      }
      this.#unheard = head;
      if (this.#link === link && !this.#closed) this.#schedulePoll(link);
    } catch (error) {
      link.destroy(error as Error);
    }
  }

  /** Own commits may be above what was heard of; they are told once, and must not count as unchanged after that. */
  #forget(version: number): void {
    this.#history.restart(Math.max(version, this.progress.seen));
  }

  #sweep(cause: SweepCause): void {
    watchSweepsTotal.inc({ cause });
    if (cause !== 'unlisted') this.logger.debug({ cause, watches: this.#watches.size }, 'all watches look for themselves');
    this.#watches.fireAll();
  }
}
