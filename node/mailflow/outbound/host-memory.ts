/** What this node has lately learnt of hosts and networks the hard way, so that not every message learns it again. Bounded; nothing here is ever relied upon. */
import type { Clock } from '../../../ops/telemetry/index.js';

const maxEntries = 10_000;

export interface HostMemory {
  /** `what` holds for so long; `why` is a sentence. */
  remember(what: string, why: string, seconds: number): void;
  /** The sentence, while it holds. */
  recall(what: string): string | undefined;
  /** True the first time within `seconds`: for log lines that would repeat with each message. */
  isNews(what: string, seconds: number): boolean;
}

export function createHostMemory(clock: Clock): HostMemory {
  const entries = new Map<string, { why: string; untilMs: number }>();

  function recall(what: string): string | undefined {
    const entry = entries.get(what);
    if (!entry) return undefined;
    if (entry.untilMs > clock.monotonicMs()) return entry.why;
    entries.delete(what);
    return undefined;
  }

  function remember(what: string, why: string, seconds: number): void {
    entries.delete(what);
    entries.set(what, { why, untilMs: clock.monotonicMs() + seconds * 1000 });
    if (entries.size > maxEntries) entries.delete(entries.keys().next().value!);
  }

  return {
    remember,
    recall,
    isNews(what, seconds) {
      if (recall(what) !== undefined) return false;
      remember(what, 'told', seconds);
      return true;
    },
  };
}
