/** Who shares the work, worked out from verdicts: the dead get nothing, who is isolated keeps what it had and gets nothing new. */
import type { Share, Verdict } from './contract.js';
import type { Hearing } from './verdict.js';

/** A node that is ready, as this one sees it. */
export interface Candidate {
  nodeId: string;
  roles: readonly string[];
  verdict: Verdict;
  gossip: Hearing;
}

interface Sharer {
  nodeId: string;
  roles: readonly string[];
  /** The others, and itself, when it became isolated. */
  keptAmong?: readonly Pick<Sharer, 'nodeId' | 'roles'>[];
}

export class Shares {
  #sharers: readonly Sharer[] = [];
  #members: readonly string[] = [];
  #text = '';

  /** Sorted. */
  get members(): readonly string[] {
    return this.#members;
  }

  membersOf(role: string): string[] {
    return this.#sharers.filter(({ roles }) => roles.includes(role)).map(({ nodeId }) => nodeId);
  }

  of(role?: string): Share[] {
    const has = ({ roles }: Pick<Sharer, 'roles'>) => role === undefined || roles.includes(role);
    return this.#sharers.filter(has).map(({ nodeId, keptAmong }) => {
      if (!keptAmong) return { nodeId };
      return { nodeId, keptAmong: keptAmong.filter(has).map((one) => one.nodeId) };
    });
  }

  /** `self`: undefined while this node takes no part. Answers whether anything has changed. */
  update(others: readonly Candidate[], self: Pick<Candidate, 'nodeId' | 'roles'> | undefined, ownId: string): boolean {
    const before = new Map(this.#sharers.map((sharer) => [sharer.nodeId, sharer]));
    const isCutOff = hearsTheSmallerPart(others, ownId);
    const living: (Sharer & { isIsolated: boolean })[] = others
      .filter(({ verdict }) => verdict !== 'dead')
      .map(({ nodeId, roles, verdict }) => {
        const hasBeenIsolated = verdict === 'suspect' && before.get(nodeId)?.keptAmong !== undefined;
        return { nodeId, roles, isIsolated: verdict === 'isolated' || hasBeenIsolated };
      });
    if (self) living.push({ nodeId: self.nodeId, roles: self.roles, isIsolated: isCutOff });
    living.sort((a, b) => (a.nodeId < b.nodeId ? -1 : 1));
    // Among those that shared before it was cut off; a node that nobody shared with yet has nothing to keep.
    const last = this.#sharers.length > 0 ? this.#sharers : living;
    const among = last.map(({ nodeId, roles }) => ({ nodeId, roles }));
    this.#sharers = living.map(({ nodeId, roles, isIsolated }) => {
      if (!isIsolated) return { nodeId, roles };
      return { nodeId, roles, keptAmong: before.get(nodeId)?.keptAmong ?? among };
    });
    this.#members = this.#sharers.map(({ nodeId }) => nodeId);
    const text = JSON.stringify(this.of().map(({ nodeId, keptAmong }) => [nodeId, keptAmong]));
    const isChanged = text !== this.#text;
    this.#text = text;
    return isChanged;
  }
}

/**
 * Whether this node hears less than half of those that gossip, itself included; of two equal halves the one without the smallest id is the smaller. So halves
 * of a cluster that can't hear one another don't both reach for the other's shares.
 */
function hearsTheSmallerPart(others: readonly Candidate[], ownId: string): boolean {
  const gossiping = others.filter(({ gossip, verdict }) => gossip !== 'unknown' && verdict !== 'dead');
  const heard = gossiping.filter(({ gossip }) => gossip === 'yes').length + 1;
  const all = gossiping.length + 1;
  if (heard * 2 !== all) return heard * 2 < all;
  const smallest = gossiping.reduce((least, one) => (one.nodeId < least.nodeId ? one : least), {
    nodeId: ownId,
    gossip: 'yes' as Hearing,
  });
  return smallest.gossip === 'no';
}
