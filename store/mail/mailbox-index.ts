/**
 * One mailbox's index: loaded once, from a snapshot or row by row in pages, then kept up to date from the account's change log. What is read in several
 * transactions becomes one consistent view by the log from the modseq noted before the first of them.
 */
import { type Clock, counter } from '../../ops/telemetry/index.js';
import type { KvReads } from '../kv/contract.js';
import type { MailContext } from './context.js';
import {
  type AccountId,
  type ChangeSet,
  type IndexView,
  type MailboxEntry,
  type MailboxId,
  type MailboxIndex,
  MailError,
  type UidList,
} from './contract.js';
import { decodeFlagRanges } from './flag-ranges.js';
import { IndexColumns } from './index-columns.js';
import {
  decodeHead,
  type FrozenIndex,
  fitCounts,
  historyOf,
  readChunks,
  refuse,
  type SnapshotHead,
  type SnapshotSettings,
} from './index-snapshots.js';
import type { AccountKeys } from './keys.js';
import { readLog } from './log.js';
import { comparableModseq } from './lost-history.js';
import { RecentUids } from './recent-uids.js';
import { decodeLogFloor, decodeState, type LogFloor } from './records.js';

const loads = counter(
  'starling_mail_index_loads_total',
  'Mailbox indexes read from the store: at first use (row by row, or from a snapshot), or again because the log was truncated',
  ['reason'],
);
const entriesPerPage = 5_000;
const setsPerRead = 1_000;

interface View {
  columns: IndexColumns;
  changed: RecentUids;
  removed: RecentUids;
  /** All up to this modseq is in. */
  modseq: number;
  /** The mailbox's counts row at `modseq`; undefined while more is to be read. */
  counts: Buffer | undefined;
  /** The account's state as it was stored at `modseq`; undefined while more is to be read. */
  state: Buffer | undefined;
}

/** What indexes share. */
export interface IndexContext extends Pick<MailContext, 'kv' | 'keysOf'> {
  clock: Pick<Clock, 'monotonicMs'>;
  snapshots: SnapshotSettings;
  /** Has a snapshot of this index written in the background. */
  offerSnapshot(index: SharedIndex): void;
}

type Outcome = 'current' | 'gone' | 'truncated';

export class SharedIndex {
  exists = true;
  private view: View;
  private running: Promise<void> | undefined;
  private next: Promise<void> | undefined;
  private readonly keys: AccountKeys;
  /** Entries changed since the snapshot that is in the store; infinite without one. */
  private changesSinceSnapshot = Number.POSITIVE_INFINITY;
  private snapshot: { modseq: number; counts: Buffer | undefined } | undefined;
  private badGeneration: number | undefined;
  private offeredAtMs = Number.NEGATIVE_INFINITY;
  private offeredSize = 0;
  private lost: LogFloor['lost'];

  constructor(
    private readonly context: IndexContext,
    accountId: AccountId,
    readonly mailboxId: MailboxId,
  ) {
    this.keys = context.keysOf(accountId);
    this.view = emptyView(0);
  }

  get modseq(): number {
    return this.view.modseq;
  }
  get size(): number {
    return this.view.columns.size;
  }
  /** The mailbox's counts row at `modseq`. */
  get counts(): Buffer | undefined {
    return this.view.counts;
  }
  get memoryBytes(): number {
    const { columns, changed, removed } = this.view;
    return columns.memoryBytes + changed.memoryBytes + removed.memoryBytes + 1_000;
  }
  get(uid: number): MailboxEntry | undefined {
    return this.view.columns.get(uid);
  }
  uids(): UidList {
    return this.view.columns.uids();
  }
  columns(): IndexView {
    return this.view.columns.view(this.view.modseq);
  }

  changedAfter(modseq: number): MailboxEntry[] {
    const { columns } = this.view;
    return this.changedPlacesAfter(modseq).map((at) => columns.entryAt(at));
  }

  /** Positions in the view, ascending. */
  changedPlacesAfter(modseq: number): number[] {
    const { columns, changed } = this.view;
    const uids = changed.after(modseq);
    if (!uids) return columns.placesChangedAfter(modseq);
    return uids.map((uid) => columns.positionOf(uid)).filter((at) => at >= 0 && columns.modseqAt(at) > modseq);
  }

  removedAfter(modseq: number): number[] | undefined {
    return this.view.removed.after(modseq);
  }

  comparableModseq(modseq: number): number {
    return comparableModseq(modseq, this.lost);
  }

  /** The first read. Throws `no-mailbox`. */
  async load(): Promise<void> {
    if (await this.loadSnapshot()) loads.inc({ reason: 'snapshot' });
    else {
      loads.inc({ reason: 'open' });
      await this.rebuild();
    }
    if (!this.exists) throw new MailError('no-mailbox', 'there is no such mailbox');
    this.offerSnapshot();
  }

  /**
   * Brings the view up to what is committed when this is called: a read that runs already may be older than that, so who comes while it runs
   * shares the one after it.
   */
  refresh(): Promise<void> {
    if (this.next) return this.next;
    if (!this.running) return this.start();
    const begin = () => {
      this.next = undefined;
      return this.start();
    };
    this.next = this.running.then(begin, begin);
    return this.next;
  }

  /** The present state for a snapshot; undefined where there is nothing to be kept. */
  freeze(): FrozenIndex | undefined {
    const { keys, mailboxId } = this;
    const { modseq, counts, columns } = this.view;
    // Counts that are wrong in the store are for `store check`; no snapshot would ever be taken for true.
    if (!this.exists || !counts || !fitCounts(columns, counts)) return undefined;
    return { keys, mailboxId, modseq, counts, badGeneration: this.badGeneration, columns: columns.slice(0, columns.size) };
  }

  snapshotIs(modseq: number, counts: Buffer | undefined): void {
    this.snapshot = { modseq, counts };
    this.changesSinceSnapshot = 0;
    this.badGeneration = undefined;
  }

  private offerSnapshot(): void {
    const { minMessages, minChanges, minIntervalMs } = this.context.snapshots;
    const { size } = this.view.columns;
    if (!this.exists || size < minMessages || this.changesSinceSnapshot < Math.max(minChanges, size >>> 3)) return;
    const nowMs = this.context.clock.monotonicMs();
    // Growth alone can't make more snapshots than its bytes are worth: each time there is an eighth more.
    const hasGrown = size - this.offeredSize >= Math.max(minChanges, size >>> 3);
    if (nowMs - this.offeredAtMs < minIntervalMs && !hasGrown) return;
    this.offeredAtMs = nowMs;
    this.offeredSize = size;
    this.context.offerSnapshot(this);
  }

  private start(): Promise<void> {
    this.running = this.update().finally(() => {
      this.running = undefined;
    });
    return this.running;
  }

  /** Whether the view is that of an account state as it was read, so that nothing committed before that is missing. */
  isAsOf(state: Uint8Array | undefined): boolean {
    return this.exists && state !== undefined && this.view.state?.equals(state) === true;
  }

  /** Mostly nothing has changed. Where reads cost no round trip, that is asked first. */
  private async isUnchanged(): Promise<boolean> {
    const { kv } = this.context;
    if (!this.view.state || (kv.backend !== 'embedded' && kv.backend !== 'memory')) return false;
    return this.isAsOf(await kv.read((reads) => reads.get(this.keys.state)));
  }

  private async update(): Promise<void> {
    if (!this.exists || (await this.isUnchanged())) return;
    const outcome = await this.catchUp(this.view);
    if (outcome === 'gone') this.leave();
    if (outcome === 'truncated') {
      loads.inc({ reason: 'truncated' });
      await this.rebuild();
    }
    this.offerSnapshot();
  }

  private leave(): void {
    this.exists = false;
    this.view = emptyView(this.view.modseq);
  }

  /** Reads the whole mailbox; the view is changed only at the end. */
  private async rebuild(): Promise<void> {
    for (;;) {
      const read = await this.readWhole();
      const outcome = !read ? 'gone' : read.isOneView ? 'current' : await this.catchUp(read.view);
      if (outcome === 'truncated') continue;
      if (outcome === 'gone') this.leave();
      else this.view = read!.view;
      return;
    }
  }

  /** False where there is no snapshot, or none that can be trusted: then the mailbox is read whole. */
  private async loadSnapshot(): Promise<boolean> {
    const { kv } = this.context;
    for (let attempt = 0; attempt < 2; attempt++) {
      const found = await kv.read((reads) => this.findSnapshot(reads));
      if (!found) return false;
      const columns = await readChunks(kv, this.keys, this.mailboxId, found.head);
      // Perhaps another node has just put a newer one in its place: looked up once more.
      if (!columns) {
        this.badGeneration = found.head.generation;
        continue;
      }
      const view: View = { ...emptyView(found.modseq), columns };
      this.snapshotIs(found.head.modseq, found.head.counts);
      const outcome = await this.catchUp(view);
      // Its own counts were compared with it already.
      if (outcome === 'current' && (view.counts!.equals(found.head.counts) || fitCounts(columns, view.counts!))) {
        this.view = view;
        return true;
      }
      this.badGeneration = found.head.generation;
      this.changesSinceSnapshot = Number.POSITIVE_INFINITY;
      if (outcome === 'current') refuse('other-counts');
      return false;
    }
    return false;
  }

  /** The snapshot's head, if it is of this store's history, and the modseq at which it is true. */
  private async findSnapshot(reads: KvReads): Promise<{ head: SnapshotHead; modseq: number } | undefined> {
    const { keys } = this;
    const [headValue, stateValue, counts, floor] = await reads.getMany([
      keys.indexHead(this.mailboxId),
      keys.state,
      keys.counts(this.mailboxId),
      keys.logFloor,
    ]);
    const head = decodeHead(headValue);
    if (!head || !stateValue || !counts) return undefined;
    const { modseq } = decodeState(stateValue);
    const history = head.modseq > modseq ? 'another' : await historyOf(reads, keys, head);
    // As it was: whatever the log can tell no more has happened in other mailboxes.
    if (history !== 'another' && counts.equals(head.counts)) return { head, modseq };
    if (history === 'this' && decodeLogFloor(floor).modseq <= head.modseq) return { head, modseq: head.modseq };
    this.badGeneration = head.generation;
    return refuse('outdated');
  }

  /** `isOneView`: all of it was read at once, so that the log has nothing to add. */
  private async readWhole(): Promise<{ view: View; isOneView: boolean } | undefined> {
    const { kv } = this.context;
    const rangesKey = this.keys.flagRanges(this.mailboxId);
    const heads = [this.keys.state, this.keys.counts(this.mailboxId), rangesKey, this.keys.logFloor];
    const first = this.keys.entryRange(this.mailboxId, 0);
    let [[state, counts, rangesRow, floor], rows] = await kv.read((reads) =>
      Promise.all([reads.getMany(heads), reads.getRange(first.begin, first.end, { limit: entriesPerPage })]),
    );
    if (!state || !counts) return undefined;
    this.lost = decodeLogFloor(floor).lost;
    const view = emptyView(decodeState(state).modseq);
    this.changesSinceSnapshot = Number.POSITIVE_INFINITY;
    for (let isOneView = true; ; isOneView = false) {
      let fromUid = 0;
      const from = view.columns.size;
      for (const row of rows) {
        const uid = this.keys.uidOf(this.mailboxId, row.key);
        view.columns.putRow(uid, row.value);
        fromUid = uid + 1;
      }
      for (const range of decodeFlagRanges(rangesRow)) view.columns.applyRange(range, from);
      if (rows.length < entriesPerPage) {
        if (isOneView) {
          view.counts = counts;
          view.state = state;
        }
        return { view, isOneView };
      }
      const { begin, end } = this.keys.entryRange(this.mailboxId, fromUid);
      [rangesRow, rows] = await kv.read((reads) =>
        Promise.all([reads.get(rangesKey), reads.getRange(begin, end, { limit: entriesPerPage })]),
      );
    }
  }

  /** A snapshot of a changed mailbox is of no use any more once the log does not reach back to it. */
  private noteFloor(floorModseq: number, counts: Buffer): void {
    const snapshot = this.snapshot;
    if (!snapshot || floorModseq <= snapshot.modseq || snapshot.counts?.equals(counts)) return;
    this.snapshot = undefined;
    this.changesSinceSnapshot = Number.POSITIVE_INFINITY;
  }

  /** Applies the log from the view's modseq to its end. */
  private async catchUp(view: View): Promise<Outcome> {
    for (;;) {
      const { heads, log } = await this.context.kv.read(async (reads) => {
        const [heads, log] = await Promise.all([
          reads.getMany([this.keys.state, this.keys.counts(this.mailboxId), this.keys.logFloor]),
          readLog(reads, this.keys, view.modseq, setsPerRead),
        ]);
        return { heads, log };
      });
      const [stateValue, counts, floorValue] = heads;
      if (!stateValue || !counts) return 'gone';
      const floor = decodeLogFloor(floorValue);
      this.lost = floor.lost;
      const state = decodeState(stateValue);
      // A store put back to an earlier state (a restored backup) has to be read anew as well.
      if (floor.modseq > view.modseq || state.modseq < view.modseq) return 'truncated';
      this.changesSinceSnapshot += applySets(view, this.mailboxId, log.sets);
      this.noteFloor(floor.modseq, counts);
      view.counts = log.hasMore ? undefined : counts;
      view.state = log.hasMore ? undefined : stateValue;
      if (log.hasMore) view.modseq = log.sets.at(-1)!.modseq;
      else view.modseq = state.modseq;
      if (!log.hasMore) return 'current';
    }
  }
}

function emptyView(modseq: number): View {
  return {
    columns: new IndexColumns(),
    changed: new RecentUids(modseq),
    removed: new RecentUids(modseq),
    modseq,
    counts: undefined,
    state: undefined,
  };
}

/** All at once, without waiting, so that nobody sees half of a change. Answers how many entries changed. */
function applySets(view: View, mailboxId: MailboxId, sets: readonly ChangeSet[]): number {
  let latest = new Map<number, MailboxEntry | undefined>();
  let changed = 0;
  for (const { modseq, changes } of sets) {
    for (const change of changes) {
      if (!('mailboxId' in change) || change.mailboxId !== mailboxId) continue;
      if (change.kind === 'entry-added' || change.kind === 'entry-changed') {
        latest.set(change.entry.uid, change.entry);
        view.changed.push(modseq, change.entry.uid);
      } else if (change.kind === 'entry-removed') {
        latest.set(change.uid, undefined);
        view.removed.push(modseq, change.uid);
      } else if (change.kind === 'flags-changed') {
        // It says what becomes of flags, so what was before must be there first.
        changed += applyLatest(view, latest);
        latest = new Map();
        changed += view.columns.applyRange(change.range);
        view.changed.pushRange(modseq, change.range.uids);
      }
    }
  }
  return changed + applyLatest(view, latest);
}

function applyLatest(view: View, latest: ReadonlyMap<number, MailboxEntry | undefined>): number {
  if (latest.size === 0) return 0;
  const uids = [...latest.keys()].sort((a, b) => a - b);
  view.columns.remove(uids.filter((uid) => latest.get(uid) === undefined));
  for (const uid of uids) {
    const entry = latest.get(uid);
    if (entry) view.columns.put(entry);
  }
  return latest.size;
}

/** One session's hold on a shared index. */
export class IndexHandle implements MailboxIndex {
  private released = false;

  constructor(
    private readonly shared: SharedIndex,
    private readonly onRelease: () => void,
  ) {}

  get mailboxId(): MailboxId {
    return this.shared.mailboxId;
  }
  get modseq(): number {
    return this.shared.modseq;
  }
  get size(): number {
    return this.shared.size;
  }
  get exists(): boolean {
    return this.shared.exists;
  }
  get(uid: number): MailboxEntry | undefined {
    return this.shared.get(uid);
  }
  uids(): UidList {
    return this.shared.uids();
  }
  view(): IndexView {
    return this.shared.columns();
  }
  changedAfter(modseq: number): MailboxEntry[] {
    return this.shared.changedAfter(modseq);
  }
  changedPositionsAfter(modseq: number): number[] {
    return this.shared.changedPlacesAfter(modseq);
  }
  removedAfter(modseq: number): number[] | undefined {
    return this.shared.removedAfter(modseq);
  }
  comparableModseq(modseq: number): number {
    return this.shared.comparableModseq(modseq);
  }
  refresh(): Promise<void> {
    return this.shared.refresh();
  }
  release(): void {
    if (this.released) return;
    this.released = true;
    this.onRelease();
  }
}
