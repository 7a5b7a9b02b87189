/** The database of a run, which shows every commit to whoever judges it, in the same step in which it becomes visible. */

import type { NodeClock } from '../../cluster/testing/virtual-time.js';
import type { Random } from '../../ops/telemetry/index.js';
import { MemoryDatabase, type MemoryStore, openMemoryStore } from '../../store/kv/index.js';
import { keyParts } from './key-parts.js';

type CommitRequest = Parameters<MemoryDatabase['commit']>[0];

/** One key's new value; undefined when it was cleared. */
export interface Write {
  parts: (string | number)[];
  value: Buffer | undefined;
}

export interface Commit {
  version: number;
  /** Of the store that it came through: a node's name. */
  author: string;
  writes: Write[];
}

/** What becomes of the author's process at this very commit. */
export type CommitFate = 'done' | 'dies-before' | 'dies-after';

export interface CommitObserver {
  /** Before the commit is checked and applied. */
  fateOf(author: string): CommitFate;
  committed(commit: Commit): void;
}

export class ObservedDatabase extends MemoryDatabase {
  author = '';
  observer: CommitObserver | undefined;

  override commit(request: CommitRequest): number {
    const version = super.commit(request);
    const { observer, author } = this;
    if (!observer) return version;
    const writes: Write[] = [];
    for (const [key, write] of request.writes.points) {
      const parts = keyParts(key);
      // Atomic operations are on counters that nothing here watches.
      if (parts && (write === null || Buffer.isBuffer(write))) writes.push({ parts, value: write ?? undefined });
    }
    observer.committed({ version, author, writes });
    return version;
  }

  /** A store of this database whose commits are known by their author, and at whose commits the author may die. */
  storeOf(author: string, clock: NodeClock, random: Random, onDeath: () => void = () => {}): MemoryStore {
    const store = openMemoryStore({ database: this, clock, random });
    const take = store.faults.takeNextCommit.bind(store.faults);
    // Asked right before a commit ('lost') and right after it ('applied'), with nothing awaited in between.
    store.faults.takeNextCommit = (outcome) => {
      const fate = this.observer?.fateOf(author) ?? 'done';
      if (outcome === 'lost') {
        this.author = author;
        if (fate !== 'dies-before') return take(outcome);
      } else if (fate !== 'dies-after') {
        return take(outcome);
      }
      // What is thrown now reaches nobody: the clock of a dead process moves no more, and the store waits on it before it tries again.
      onDeath();
      return true;
    };
    return store;
  }
}
