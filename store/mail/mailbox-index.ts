/**
 * One mailbox's index: loaded once in pages, then kept up to date from the account's change log. Pages are read in several transactions; the
 * log from the modseq noted before the first of them makes one consistent view of them.
 */
import { counter } from '../../ops/telemetry/index.js';
import type { MailContext } from './context.js';
import { type AccountId, type ChangeSet, type MailboxEntry, type MailboxId, type MailboxIndex, MailError } from './contract.js';
import { IndexColumns, RecentUids } from './index-columns.js';
import type { AccountKeys } from './keys.js';
import { readLog } from './log.js';
import { decodeEntry, decodeLogFloor, decodeState } from './records.js';

const loads = counter('starling_mail_index_loads_total', 'Mailbox indexes read whole: first use, or a log that was truncated', [
  'reason',
]);
const entriesPerPage = 5_000;
const setsPerRead = 1_000;

interface View {
  columns: IndexColumns;
  changed: RecentUids;
  removed: RecentUids;
  /** All up to this modseq is in. */
  modseq: number;
}

export class SharedIndex {
  exists = true;
  private view: View;
  private running: Promise<void> | undefined;
  private next: Promise<void> | undefined;
  private readonly keys: AccountKeys;

  constructor(
    private readonly context: Pick<MailContext, 'kv' | 'keysOf'>,
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
  get memoryBytes(): number {
    return this.view.columns.memoryBytes;
  }
  get(uid: number): MailboxEntry | undefined {
    return this.view.columns.get(uid);
  }
  uids(): readonly number[] {
    return this.view.columns.uids();
  }

  changedAfter(modseq: number): MailboxEntry[] {
    const { columns, changed } = this.view;
    const uids = changed.after(modseq);
    if (!uids) return columns.scanChangedAfter(modseq);
    return uids.map((uid) => columns.get(uid)).filter((entry) => entry !== undefined && entry.modseq > modseq) as MailboxEntry[];
  }

  removedAfter(modseq: number): number[] | undefined {
    return this.view.removed.after(modseq);
  }

  /** The first read. Throws `no-mailbox`. */
  async load(): Promise<void> {
    loads.inc({ reason: 'open' });
    await this.rebuild();
    if (!this.exists) throw new MailError('no-mailbox', 'there is no such mailbox');
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

  private start(): Promise<void> {
    this.running = this.update().finally(() => {
      this.running = undefined;
    });
    return this.running;
  }

  private async update(): Promise<void> {
    if (!this.exists) return;
    const outcome = await this.catchUp(this.view);
    if (outcome === 'gone') this.leave();
    if (outcome === 'truncated') {
      loads.inc({ reason: 'truncated' });
      await this.rebuild();
    }
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

  /** `isOneView`: all of it was read at once, so that the log has nothing to add. */
  private async readWhole(): Promise<{ view: View; isOneView: boolean } | undefined> {
    const { kv } = this.context;
    const heads = [this.keys.state, this.keys.counts(this.mailboxId)];
    const first = this.keys.entryRange(this.mailboxId, 0);
    let [[state, counts], rows] = await kv.read((reads) =>
      Promise.all([reads.getMany(heads), reads.getRange(first.begin, first.end, { limit: entriesPerPage })]),
    );
    if (!state || !counts) return undefined;
    const view = emptyView(decodeState(state).modseq);
    for (let isOneView = true; ; isOneView = false) {
      let fromUid = 0;
      for (const row of rows) {
        const uid = this.keys.uidOf(this.mailboxId, row.key);
        view.columns.put(decodeEntry(uid, row.value));
        fromUid = uid + 1;
      }
      if (rows.length < entriesPerPage) return { view, isOneView };
      const { begin, end } = this.keys.entryRange(this.mailboxId, fromUid);
      rows = await kv.read((reads) => reads.getRange(begin, end, { limit: entriesPerPage }));
    }
  }

  /** Applies the log from the view's modseq to its end. */
  private async catchUp(view: View): Promise<'current' | 'gone' | 'truncated'> {
    for (;;) {
      const { heads, log } = await this.context.kv.read(async (reads) => {
        const [heads, log] = await Promise.all([
          reads.getMany([this.keys.state, this.keys.counts(this.mailboxId), this.keys.logFloor]),
          readLog(reads, this.keys, view.modseq, setsPerRead),
        ]);
        return { heads, log };
      });
      const [stateValue, counts, floor] = heads;
      if (!stateValue || !counts) return 'gone';
      const state = decodeState(stateValue);
      // A store put back to an earlier state (a restored backup) has to be read anew as well.
      if (decodeLogFloor(floor).modseq > view.modseq || state.modseq < view.modseq) return 'truncated';
      applySets(view, this.mailboxId, log.sets);
      if (log.hasMore) view.modseq = log.sets.at(-1)!.modseq;
      else view.modseq = state.modseq;
      if (!log.hasMore) return 'current';
    }
  }
}

function emptyView(modseq: number): View {
  return { columns: new IndexColumns(), changed: new RecentUids(modseq), removed: new RecentUids(modseq), modseq };
}

/** All at once, without waiting, so that nobody sees half of a change. */
function applySets(view: View, mailboxId: MailboxId, sets: readonly ChangeSet[]): void {
  const latest = new Map<number, MailboxEntry | undefined>();
  for (const { modseq, changes } of sets) {
    for (const change of changes) {
      if (!('mailboxId' in change) || change.mailboxId !== mailboxId) continue;
      if (change.kind === 'entry-added' || change.kind === 'entry-changed') {
        latest.set(change.entry.uid, change.entry);
        view.changed.push(modseq, change.entry.uid);
      } else if (change.kind === 'entry-removed') {
        latest.set(change.uid, undefined);
        view.removed.push(modseq, change.uid);
      }
    }
  }
  if (latest.size === 0) return;
  const uids = [...latest.keys()].sort((a, b) => a - b);
  view.columns.remove(uids.filter((uid) => latest.get(uid) === undefined));
  for (const uid of uids) {
    const entry = latest.get(uid);
    if (entry) view.columns.put(entry);
  }
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
  uids(): readonly number[] {
    return this.shared.uids();
  }
  changedAfter(modseq: number): MailboxEntry[] {
    return this.shared.changedAfter(modseq);
  }
  removedAfter(modseq: number): number[] | undefined {
    return this.shared.removedAfter(modseq);
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
