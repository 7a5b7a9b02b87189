/** What a part of the node takes from the cluster's settings, made anew only when they have changed: cheap enough to ask for every session and message. */
import type { ClusterSettings, NodeSettings } from './sections.js';

/** `derive` of the settings that hold at the time of the call. */
export function live<T>(settings: Pick<NodeSettings, 'current'>, derive: (current: ClusterSettings) => T): () => T {
  let from: ClusterSettings | undefined;
  let derived: T;
  return () => {
    const { current } = settings;
    if (current !== from) {
      derived = derive(current);
      from = current;
    }
    return derived;
  };
}
