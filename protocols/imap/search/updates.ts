/**
 * Searches that a client follows (RFC 5267 4.3, CONTEXT=SEARCH): after RETURN (UPDATE) it hears of messages that come to match or no longer do. Each keeps the
 * UIDs that it has told; what has changed is searched again, and the difference told.
 */
import type { SearchFollowing, SessionContext } from '../context.js';
import { formatString } from '../grammar/format.js';
import type { SearchKey } from '../grammar/search-keys.js';
import { formatNumbers } from '../grammar/sequence-set.js';
import type { SelectedMailbox } from '../selected.js';
import type { ResolvedSets } from './program.js';
import { type Found, matching } from './run.js';

/** Searches that one session may follow; RFC 5267 4.3.1 asks for one at least. */
const maxFollowed = 8;

interface Followed {
  key: SearchKey;
  /** As they were when the command came: sequence numbers of the program do not move with the mailbox (RFC 5267 4.3). */
  sets: ResolvedSets;
  byUid: boolean;
  /** UIDs that the client believes to match. */
  told: Set<number>;
}

class FollowedSearches implements SearchFollowing {
  readonly #context: SessionContext;
  readonly selected: SelectedMailbox;
  readonly #followed = new Map<string, Followed>();
  /** Entries changed up to this modseq have been looked at. */
  #modseq: number;

  constructor(context: SessionContext, selected: SelectedMailbox) {
    this.#context = context;
    this.selected = selected;
    this.#modseq = selected.index.modseq;
  }

  has(tag: string): boolean {
    return this.#followed.has(tag);
  }

  get isFull(): boolean {
    return this.#followed.size >= maxFollowed;
  }

  add(tag: string, followed: Followed): void {
    this.#followed.set(tag, followed);
  }

  cancel(tag: string): boolean {
    return this.#followed.delete(tag);
  }

  /** RFC 5267 4.3.4: in front of EXPUNGE, while the numbers still mean what they did. */
  beforeExpunges(): boolean {
    const { selected } = this;
    const view = selected.index.view();
    let hasTold = false;
    for (const [tag, followed] of this.#followed) {
      const gone: number[] = [];
      for (const uid of followed.told) if (!selected.index.exists || view.positionOf(uid) < 0) gone.push(uid);
      if (gone.length === 0) continue;
      for (const uid of gone) followed.told.delete(uid);
      this.#tell(tag, followed, 'REMOVEFROM', gone);
      hasTold = true;
    }
    return hasTold;
  }

  /** After FETCH and EXISTS: looks at what has changed. Throws KvError; the next call makes up for it. */
  async tellChanges(): Promise<boolean> {
    const { selected } = this;
    const upTo = selected.index.modseq;
    if (this.#followed.size === 0 || !selected.index.exists) return false;
    const since = this.#modseq;
    if (upTo === since) return false;
    const changed: number[] = [];
    for (const { uid } of selected.index.changedAfter(since)) if (selected.sequenceOf(uid) > 0) changed.push(uid);
    let hasTold = false;
    if (changed.length > 0) {
      const uids = Uint32Array.from(changed);
      for (const [tag, followed] of this.#followed) {
        const found = await matching(this.#context, selected, followed.key, followed.sets, uids);
        if (this.#tellDifference(tag, followed, found)) hasTold = true;
      }
    }
    this.#modseq = upTo;
    return hasTold;
  }

  #tellDifference(tag: string, followed: Followed, { announced, positions }: Found): boolean {
    const matches = new Set<number>(positions.map((position) => announced[position]!));
    const added: number[] = [];
    const removed: number[] = [];
    for (const uid of announced) {
      if (matches.has(uid) === followed.told.has(uid)) continue;
      if (matches.has(uid)) {
        added.push(uid);
        followed.told.add(uid);
      } else if (this.selected.index.get(uid)) {
        // One that was expunged meanwhile is taken away in front of its EXPUNGE.
        removed.push(uid);
        followed.told.delete(uid);
      }
    }
    if (removed.length > 0) this.#tell(tag, followed, 'REMOVEFROM', removed);
    if (added.length > 0) this.#tell(tag, followed, 'ADDTO', added);
    return removed.length + added.length > 0;
  }

  #tell(tag: string, { byUid }: Followed, item: 'ADDTO' | 'REMOVEFROM', uids: readonly number[]): void {
    const numbers = Uint32Array.from(byUid ? uids : uids.map((uid) => this.selected.sequenceOf(uid))).sort();
    // Position 0: the client keeps its list in the mailbox's order itself.
    this.#context.untagged(`ESEARCH (TAG ${formatString(tag)})${byUid ? ' UID' : ''} ${item} (0 ${formatNumbers(numbers)})`);
  }
}

function followingOf(context: SessionContext): FollowedSearches | undefined {
  return context.following instanceof FollowedSearches && context.following.selected === context.selected
    ? context.following
    : undefined;
}

/** Whether the tag stands for a search that is followed already: it must not be used again (RFC 5267 4.3). */
export function isFollowed(context: SessionContext, tag: string): boolean {
  return followingOf(context)?.has(tag) ?? false;
}

/** From now on changes of this result are told. RFC 5267 4.3.1: what is too much is refused, and the search answered all the same. */
export function follow(
  context: SessionContext,
  tag: string,
  search: { key: SearchKey; sets: ResolvedSets; byUid: boolean; found: Found },
): void {
  const selected = context.requireSelected();
  const following = followingOf(context) ?? new FollowedSearches(context, selected);
  if (following.isFull) {
    refuseToFollow(context, tag);
    return;
  }
  context.following = following;
  const { key, sets, byUid, found } = search;
  const told = new Set<number>(found.positions.map((position) => found.announced[position]!));
  following.add(tag, { key, sets, byUid, told });
}

/** Tells that a search will not be followed. */
export function refuseToFollow(context: SessionContext, tag: string): void {
  context.untagged(`NO [NOUPDATE ${formatString(tag)}] Changes of this result will not be told`);
}

/** False where a tag stands for nothing that is followed. */
export function cancel(context: SessionContext, tag: string): boolean {
  return followingOf(context)?.cancel(tag) ?? false;
}
