/**
 * Who sends heartbeats to whom, so that messages per node don't grow with the cluster: each node and at most four others watch one another. Every node works
 * it out alone, from the sorted ids.
 */

export interface Watching {
  /** Whom this node sends heartbeats, and who sends it theirs. */
  watchers: readonly string[];
  /** By how many hops news of any node comes to any other at most. */
  hops: number;
}

/**
 * On a ring of n nodes each has those d and d + 1 places away on both sides for neighbours, with d about √(n/2): the double loop with the smallest
 * diameter, d (Boesch and Wang 1985). Connected, because the two differ by one. With up to five nodes everybody watches everybody.
 */
export function watching(nodeId: string, sortedIds: readonly string[]): Watching {
  const count = sortedIds.length;
  const at = sortedIds.indexOf(nodeId);
  if (at < 0) return { watchers: [], hops: 1 };
  if (count <= 5) return { watchers: sortedIds.filter((id) => id !== nodeId), hops: 1 };
  const distance = Math.ceil((Math.sqrt(2 * count - 1) - 1) / 2);
  const places = [distance, distance + 1, -distance, -distance - 1].map((by) => (at + by + count) % count);
  return { watchers: [...new Set(places)].sort((a, b) => a - b).map((place) => sortedIds[place]!), hops: distance };
}
